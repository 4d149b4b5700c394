"""Several bundles on several sets, clean and under shift: their reports, and the comparison of all.

Loads one encoder at a time; torch is imported only here, once the sets have been read. Shows nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from training.comparison import Comparison
from training.errors import EvaluationError
from training.evaluate_progress import RunProgress
from training.labelled import ZeroShotTask
from training.pairs import PairSet
from training.presets import held_out_of
from training.report import Condition, RetrievalReport, bundle_names
from training.shift import changes_text, held_out_note

if TYPE_CHECKING:
    from encoders.bundle import Bundle
    from encoders.encoder import Encoder


@dataclass(frozen=True)
class MeasureSettings:
    """batch: pictures at a time; baseline: a bundle, measured too where it is not among those given."""

    batch: int = 32
    cache: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    conditions: tuple[Condition, ...] = ()
    input_sizes: tuple[tuple[int, int], ...] = ()
    baseline: Path | None = None
    in_domain: str | None = None


def measure_bundles(
    bundles: Sequence[Path],
    test_sets: Sequence[PairSet],
    *,
    train_sets: Sequence[PairSet],
    zero_shot: ZeroShotTask,
    settings: MeasureSettings,
    progress: RunProgress,
) -> tuple[list[RetrievalReport], Comparison | None]:
    """Reports in the order of the bundles, a baseline that is none of them last; None: nothing to compare.

    Every bundle is opened before the first is measured: a bad one says so at once, not after an hour.
    """
    from encoders.encoder import Encoder, check_precision
    from training.compare import compare
    from training.evaluate import EvaluationOptions, leaks_into, measure
    from training.zero_shot_run import with_classification

    opened, baseline_at = _open(bundles, settings.baseline)
    _check_in_domain(settings.in_domain, test_sets)
    precision = check_precision(settings.precision)
    leaks = leaks_into(test_sets, train_sets, on_progress=progress.at("")) if train_sets else None
    _plan(progress, test_sets, zero_shot, settings=settings, bundles=len(opened))
    options = EvaluationOptions(batch=settings.batch, cache=settings.cache)
    reports, hits = [], []
    for bundle in opened:
        encoder = Encoder.load(bundle, device=settings.device, precision=precision, max_batch=settings.batch)
        on_progress = progress.at(f"{bundle.name}, " if len(opened) > 1 else "")
        sized, refused = _at_sizes(encoder, settings.input_sizes)
        progress.plan(images=-len(refused) * sum(len(pairs.images) for pairs in test_sets), captions=0)
        measured = measure(
            encoder,
            test_sets,
            conditions=settings.conditions,
            sized=sized,
            options=options,
            leaks=leaks,
            on_progress=on_progress,
        )
        note = held_out_note(settings.conditions, _held_out(bundle))
        report = measured.report.model_copy(update={"notes": (*filter(None, (note,)), *refused)})
        reports.append(
            with_classification(report, encoder, zero_shot, options=options, on_progress=on_progress)
        )
        hits.append(measured.hits)
    if not test_sets:
        return reports, None
    names = bundle_names(reports)
    baseline = None if baseline_at is None else names[baseline_at]
    comparison = compare(
        dict(zip(names, hits, strict=True)),
        baseline=baseline,
        in_domain=settings.in_domain,
        held_out={
            name: kinds
            for name, each in zip(names, opened, strict=True)
            if (kinds := _held_out(each)) is not None
        },
    )
    return reports, comparison if _says_something(comparison) else None


def _open(bundles: Sequence[Path], baseline: Path | None) -> "tuple[list[Bundle], int | None]":
    """(the bundles with the baseline among them, its place). Raises EvaluationError for one given twice."""
    from encoders.bundle import Bundle

    opened = [Bundle.open(path) for path in bundles]
    essences = [(bundle.name, bundle.fingerprint) for bundle in opened]
    if twice := next(
        (path for path, each in zip(bundles, essences, strict=True) if essences.count(each) > 1), None
    ):
        raise EvaluationError(f"the bundle {twice} is given twice")
    if baseline is None:
        return opened, None
    reference = Bundle.open(baseline)
    essence = (reference.name, reference.fingerprint)
    if essence in essences:
        return opened, essences.index(essence)
    return [*opened, reference], len(opened)


def _held_out(bundle: "Bundle") -> tuple[str, ...] | None:
    """The corruptions that its recipe kept out; None where it comes without a recipe."""
    provenance = bundle.config.provenance
    return held_out_of(provenance) if "recipe" in provenance else None


def _check_in_domain(name: str | None, test_sets: Sequence[PairSet]) -> None:
    """Before anything is measured."""
    names = [pairs.name for pairs in test_sets]
    if name is not None and name not in names:
        raise EvaluationError(
            f"--in-domain {name!r} is none of the sets: {', '.join(names) or 'there are none'}"
        )


def _at_sizes(
    encoder: "Encoder", sizes: Sequence[tuple[int, int]]
) -> "tuple[dict[tuple[int, int], Encoder], list[str]]":
    """(the encoder at the sizes it takes, why not at the others)."""
    from training.input_sizes import SizeRefused, encoder_at_size

    sized, refused = {}, []
    own = (encoder.preprocessing.height, encoder.preprocessing.width)
    for size in sizes:
        if size == own:
            refused.append(f"input size {size[0]}×{size[1]} is the bundle's own: see the clean figures")
            continue
        try:
            sized[size] = encoder_at_size(encoder, size)
        except SizeRefused as error:
            refused.append(f"not measured: {error}")
    return sized, refused


def _plan(
    progress: RunProgress,
    test_sets: Sequence[PairSet],
    zero_shot: ZeroShotTask,
    *,
    settings: MeasureSettings,
    bundles: int,
) -> None:
    texts = sum(map(changes_text, settings.conditions))
    views = 1 + len(settings.conditions) - texts + len(settings.input_sizes)
    images = sum(len(pairs.images) for pairs in test_sets) * views
    classified = sum(len(each.images) for each in zero_shot.sets)
    captions = sum(pairs.caption_count for pairs in test_sets) * (1 + texts)
    progress.plan(images=bundles * (images + classified), captions=bundles * captions)


def _says_something(comparison: Comparison) -> bool:
    return bool(comparison.shifts or comparison.differences or comparison.gaps)
