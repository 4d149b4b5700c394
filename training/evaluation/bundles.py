"""Several bundles on several sets, clean and under shift: their reports, and the comparison of all.

Loads one encoder at a time; torch is imported only here, once the sets have been read. Shows nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from training.augmentation.presets import held_out_of
from training.data.labelled import ZeroShotTask
from training.data.pairs import PairSet
from training.errors import EvaluationError
from training.evaluation.compare import compare
from training.evaluation.comparison import Comparison
from training.evaluation.hits import Hits
from training.evaluation.progress import RunProgress
from training.evaluation.report import RetrievalReport, bundle_names
from training.shift.condition import Condition
from training.shift.conditions import changes_text, held_out_note

if TYPE_CHECKING:
    from encoders.bundle import Bundle
    from encoders.encoder import Encoder
    from training.evaluation.embedding import OnProgress
    from training.evaluation.evaluate import Leaks, OnRanked
    from training.seen.exposure import Exposure


@dataclass(frozen=True)
class MeasureSettings:
    """batch: images at a time; baseline: a bundle, measured too where it is not among those given.

    bank: whether bundles rank with their query banks.
    """

    batch: int = 32
    cache: Path | None = None
    device: str = "auto"
    precision: str = "fp32"
    conditions: tuple[Condition, ...] = ()
    input_sizes: tuple[tuple[int, int], ...] = ()
    baseline: Path | None = None
    in_domain: str | None = None
    bank: bool = True


def measure_bundles(
    bundles: Sequence[Path],
    test_sets: Sequence[PairSet],
    *,
    train_sets: Sequence[PairSet],
    zero_shot: ZeroShotTask,
    settings: MeasureSettings,
    progress: RunProgress,
    listener: "Callable[[Bundle], OnRanked] | None" = None,
) -> tuple[list[RetrievalReport], Comparison | None]:
    """Reports in the order of the bundles, a baseline that is none of them last; None: nothing to compare.

    `listener` is asked, in the same order, for what hears of a bundle's ranked sets (`evaluate.measure`).
    Every bundle is opened before the first is measured: a bad one says so at once, not after an hour.
    """
    from encoders.choices import check_precision
    from training.evaluation.evaluate import leaks_into, unheard

    opened, baseline_at = _open(bundles, settings.baseline)
    _check_in_domain(settings.in_domain, test_sets)
    check_precision(settings.precision)
    leaks = leaks_into(test_sets, train_sets, on_progress=progress.at("")) if train_sets else None
    _plan(progress, test_sets, zero_shot, settings=settings, bundles=len(opened))
    measure = partial(_measure, test_sets=test_sets, leaks=leaks, zero_shot=zero_shot, settings=settings)
    reports, hits = [], []
    for bundle in opened:
        report, found = measure(
            bundle,
            progress=progress,
            prefix=f"{bundle.name}, " if len(opened) > 1 else "",
            on_ranked=listener(bundle) if listener else unheard,
        )
        reports.append(report)
        hits.append(found)
    names = bundle_names(reports)
    baseline = None if baseline_at is None else names[baseline_at]
    compared = _compared(
        dict(zip(names, hits, strict=True)),
        opened,
        baseline,
        settings.in_domain,
        exposures={
            name: {dataset.name: dataset.exposure for dataset in report.clean}
            for name, report in zip(names, reports, strict=True)
        },
    )
    return reports, compared


def _measure(
    bundle: "Bundle",
    *,
    test_sets: Sequence[PairSet],
    leaks: "Mapping[str, Leaks] | None",
    zero_shot: ZeroShotTask,
    settings: MeasureSettings,
    progress: RunProgress,
    prefix: str,
    on_ranked: "OnRanked",
) -> tuple[RetrievalReport, tuple[Hits, ...]]:
    from encoders.choices import check_precision
    from encoders.encoder import Encoder
    from training.evaluation.evaluate import EvaluationOptions, measure
    from training.evaluation.zero_shot_run import with_classification

    options = EvaluationOptions(batch=settings.batch, cache=settings.cache, bank=settings.bank)
    encoder = Encoder.load(
        bundle,
        device=settings.device,
        precision=check_precision(settings.precision),
        max_batch=settings.batch,
    )
    exposures = _exposures(bundle, test_sets, on_progress=progress.at(prefix))
    sized, refused = _at_sizes(encoder, settings.input_sizes)
    progress.plan(images=-len(refused) * sum(len(pairs.images) for pairs in test_sets), captions=0)
    on_progress = progress.at(prefix)
    measured = measure(
        encoder,
        test_sets,
        conditions=settings.conditions,
        sized=sized,
        options=options,
        leaks=leaks,
        exposures=exposures,
        on_ranked=on_ranked,
        on_progress=on_progress,
    )
    note = held_out_note(settings.conditions, _held_out(bundle))
    report = measured.report.model_copy(update={"notes": (*filter(None, (note,)), *refused)})
    whole = with_classification(report, encoder, zero_shot, options=options, on_progress=on_progress)
    return whole, measured.hits


def _exposures(
    bundle: "Bundle", test_sets: Sequence[PairSet], *, on_progress: "OnProgress"
) -> "dict[str, Exposure]":
    """What the bundle has seen of each set, by its own record."""
    from training.seen.exposure import exposure_of
    from training.seen.record import read_seen

    seen, found = read_seen(bundle), dict[str, "Exposure"]()
    for done, pairs in enumerate(test_sets, 1):
        found[pairs.name] = exposure_of(seen, pairs)
        on_progress("sets compared with what the bundle has seen", done, len(test_sets))
    return found


def _compared(
    hits: Mapping[str, tuple[Hits, ...]],
    bundles: "Sequence[Bundle]",
    baseline: str | None,
    in_domain: str | None,
    *,
    exposures: "Mapping[str, Mapping[str, Exposure | None]]",
) -> Comparison | None:
    """None where one bundle was measured on one clean set, or none on any."""
    if not any(hits.values()):
        return None
    kept_out = {name: _held_out(bundle) for name, bundle in zip(hits, bundles, strict=True)}
    comparison = compare(
        hits,
        baseline=baseline,
        in_domain=in_domain,
        held_out={name: kinds for name, kinds in kept_out.items() if kinds is not None},
        exposures=exposures,
    )
    return comparison if comparison.shifts or comparison.differences or comparison.gaps else None


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
    from training.shift.input_sizes import SizeRefused, encoder_at_size

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
