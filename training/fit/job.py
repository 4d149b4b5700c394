"""A recipe to a bundle, as a process of its own does it: join the others, prepare, resume, train, calibrate.

Composition only. It does not know the command line.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from encoders.bundle import Bundle
from encoders.choices import choose_device
from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from training.calibrate.calibrate import without_losers
from training.calibrate.run import calibrate_encoder, store_calibration
from training.console import stages_on
from training.data.pairs import read_pairs
from training.evaluate.embedding import OnProgress
from training.fit.checkpoint import alone_in
from training.fit.fit import CHECKPOINT, Run
from training.fit.prepare import check_out, prepare
from training.fit.processes import join_processes, leave_processes
from training.fit.progress import Reporter
from training.fit.recipe import Recipe, Validation


@dataclass(frozen=True)
class JobOptions:
    """folder: of checkpoints and logs, runs/<recipe's name> for None; threads: 0 is one a core."""

    out: Path
    folder: Path | None
    cache: Path
    device: str
    threads: int
    checkpoint_seconds: float
    until: str | None


def run_job(recipe: Recipe, options: JobOptions, console: Console) -> None:
    """Train, and tell of it on the console of the first process.

    Raises TwinlensError, OSError, and SafetensorError for files of a run that cannot be read back.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        _fit(recipe, options, console)
    finally:
        leave_processes()


def _fit(recipe: Recipe, options: JobOptions, console: Console) -> None:
    chosen = choose_device(options.device)
    processes = join_processes(chosen)
    check_out(options.out)
    folder = options.folder or Path("runs") / recipe.name
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
        training = Run(prepared, folder, checkpoint_seconds=options.checkpoint_seconds)
        training.resume()
        if training.steps_done:
            speaker.print(f"resumed from {folder / CHECKPOINT} at step {training.steps_done}", markup=False)
        log = folder if processes.first else None
        with Reporter(speaker, log, steps_done=training.steps_done, validated=training.validated) as reporter:
            bundle = training.train(options.out, reporter=reporter, until=options.until)
    speaker.print(f"bundle {bundle.name} {bundle.fingerprint[:12]} written to {options.out}", markup=False)
    if processes.first and recipe.validation is not None:
        with stages_on(speaker) as on_progress:
            told = _calibrated(bundle, recipe.validation, device=options.device, on_progress=on_progress)
        speaker.print(told, markup=False, highlight=False)


def _calibrated(bundle: Bundle, validation: Validation, *, device: str, on_progress: OnProgress) -> str:
    """Fit a calibration on the validation sets into the bundle; what came of it, which is no reason to fail."""
    try:
        sets = [read_pairs(spec) for spec in validation.pairs]
        fitted = calibrate_encoder(Encoder.load(bundle, device=device), sets, on_progress=on_progress)
        calibration, losers = without_losers(fitted)
        if calibration is None:
            return f"no calibration: {'; '.join(losers)}"
        store_calibration(bundle, calibration)
    except TwinlensError as error:
        return f"no calibration: {error}"
    told = ", ".join(
        f"{search.replace('_', ' ')} {each.figures.balanced_accuracy:.1%}"
        for search, each in calibration.searches.items()
        if each.figures is not None
    )
    left_out = "".join(f"; {reason}" for reason in losers)
    return f"calibrated on {calibration.fitted_on}; present against absent, balanced accuracy: {told}{left_out}"
