"""`python -m training fit`: what a person types, and what they are told. The work is `fit`'s."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from safetensors import SafetensorError

from encoders.bundle import Bundle
from encoders.encoder import Encoder, choose_device
from encoders.errors import TwinlensError
from training.calibrate.run import calibrate_encoder, store_calibration
from training.console import errors_shown
from training.data.pairs import read_pairs
from training.fit.checkpoint import alone_in
from training.fit.fit import CHECKPOINT, CHECKPOINT_SECONDS, Run
from training.fit.prepare import check_out, prepare
from training.fit.processes import join_processes, leave_processes
from training.fit.progress import Reporter
from training.fit.recipe import Recipe, Validation


def fit_command(
    recipe: Annotated[Path, typer.Argument(help="TOML file: see docs/training.md and training/recipes/.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that the bundle is written to.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Checkpoints and logs. [default: runs/<name>]")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Activations of frozen stems.")] = Path(
        "runs/activations"
    ),
    until: Annotated[
        str | None, typer.Option("--until", help="Stop after the phase of this name, and write the bundle.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: one a core.")] = 0,
    checkpoint_seconds: Annotated[
        float, typer.Option("--checkpoint-seconds", min=0, help="At most this much work is lost to a kill.")
    ] = CHECKPOINT_SECONDS,
) -> None:
    """Train a bundle by a recipe. Killed at any moment, the same command goes on from the last checkpoint."""
    try:
        with errors_shown(SafetensorError):
            if threads:
                torch.set_num_threads(threads)
            read = Recipe.read(recipe)
            work = folder or Path("runs") / read.name
            _fit(read, _Options(out, work, cache, device, checkpoint_seconds, until), Console())
    finally:
        leave_processes()


@dataclass(frozen=True)
class _Options:
    out: Path
    folder: Path
    cache: Path
    device: str
    every_seconds: float
    until: str | None


def _fit(recipe: Recipe, options: _Options, console: Console) -> None:
    chosen = choose_device(options.device)
    processes = join_processes(chosen)
    check_out(options.out)
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    speaker = console if processes.first else Console(quiet=True)
    with alone_in(folder, processes):
        with Reporter(speaker, None) as reporter:
            prepared = prepare(
                recipe,
                folder=folder,
                cache=options.cache,
                device=chosen,
                processes=processes,
                reporter=reporter,
            )
        training = Run(prepared, folder, checkpoint_seconds=options.every_seconds)
        training.resume()
        if training.steps_done:
            speaker.print(f"resumed from {folder / CHECKPOINT} at step {training.steps_done}", markup=False)
        log = folder if processes.first else None
        with Reporter(speaker, log, steps_done=training.steps_done, validated=training.validated) as reporter:
            bundle = training.train(options.out, reporter=reporter, until=options.until)
    speaker.print(f"bundle {bundle.name} {bundle.fingerprint[:12]} written to {options.out}", markup=False)
    if processes.first and recipe.validation is not None:
        speaker.print(_calibrated(bundle, recipe.validation, options.device), markup=False, highlight=False)


def _calibrated(bundle: Bundle, validation: Validation, device: str) -> str:
    """Fit a calibration on the validation sets into the bundle; what came of it, which is no reason to fail."""
    try:
        sets = [read_pairs(spec) for spec in validation.pairs]
        calibration = calibrate_encoder(Encoder.load(bundle, device=device), sets)
        store_calibration(bundle, calibration)
    except TwinlensError as error:
        return f"no calibration: {error}"
    told = ", ".join(
        f"{name.replace('_', ' ')} {each.figures.decision.balanced_accuracy:.1%}"
        for name, each in calibration.directions.items()
        if each.figures is not None
    )
    return f"calibrated on {calibration.fitted_on}; nothing matches, balanced accuracy: {told}"
