"""A recipe to a bundle, as a process of its own does it: join the others, prepare, resume, train, calibrate.

Composition only.
"""

from collections.abc import Sequence
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
from training.data.pairs import PairSet, read_pairs
from training.evaluation.embedding import OnProgress
from training.fit.banks import renew_bank
from training.fit.checkpoint import alone_in
from training.fit.fit import CHECKPOINT, Run
from training.fit.prepare import Prepared, check_out, prepare
from training.fit.processes import join_processes, leave_processes
from training.fit.progress import Reporter
from training.fit.recipe import Recipe
from training.heirlooms import left_behind
from training.query_expansion.store import carried
from training.seen.record import Seen, inherited, source_of, store_seen


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
    if processes.first:
        with stages_on(speaker) as on_progress:
            told = _finished(bundle, prepared, device=options.device, on_progress=on_progress)
        for line in told:
            speaker.print(line, markup=False, highlight=False)


def _finished(bundle: Bundle, prepared: Prepared, *, device: str, on_progress: OnProgress) -> list[str]:
    """Give the bundle what belongs to its embeddings, bank and calibration; what came of it, a line each."""
    recipe = prepared.recipe
    told = [f"bundle {bundle.name} {bundle.fingerprint[:12]} written to {bundle.path}"]
    held_out = [read_pairs(spec) for spec in recipe.validation.pairs] if recipe.validation else []
    parent = Bundle.open(recipe.start.bundle, verify=False) if recipe.start.bundle else None
    bundle = store_seen(bundle, _seen(prepared, parent, held_out))
    if parent is not None:
        bundle, renewed = renew_bank(
            bundle, parent, prepared.sets, held_out, device=device, seed=recipe.seed, on_progress=on_progress
        )
        told += [renewed] if renewed else []
        bundle, lost_queries = carried(parent, bundle)
        told += lost_queries
    if held_out:
        bundle, said = _calibrated(bundle, held_out, device=device, on_progress=on_progress)
        told.append(said)
    if parent is not None and (lost := left_behind([parent], bundle)):
        told.append(lost)
    return told


def _seen(prepared: Prepared, parent: Bundle | None, held_out: Sequence[PairSet]) -> Seen:
    """All that the run learned from and chose by, and what its start and its teacher have seen."""
    before = [bundle for bundle in (parent, prepared.teacher) if bundle is not None]
    trained = [source_of(pairs) for pairs in prepared.sets]
    return inherited(before, [*trained, *(source_of(pairs, role="chosen by") for pairs in held_out)])


def _calibrated(
    bundle: Bundle, held_out: Sequence[PairSet], *, device: str, on_progress: OnProgress
) -> tuple[Bundle, str]:
    """Fit a calibration on the validation sets into the bundle; what came of it, which is no reason to fail."""
    try:
        fitted = calibrate_encoder(Encoder.load(bundle, device=device), held_out, on_progress=on_progress)
        calibration, losers = without_losers(fitted)
        if calibration is None:
            return bundle, f"no calibration: {'; '.join(losers)}"
        stored = store_calibration(bundle, calibration)
    except TwinlensError as error:
        return bundle, f"no calibration: {error}"
    told = ", ".join(
        f"{search.replace('_', ' ')} {each.figures.balanced_accuracy:.1%}"
        for search, each in calibration.searches.items()
        if each.figures is not None
    )
    left_out = "".join(f"; {reason}" for reason in losers)
    return (
        stored,
        f"calibrated on {calibration.fitted_on}; present against absent, balanced accuracy: {told}{left_out}",
    )
