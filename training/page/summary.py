"""The sentences on top of the page: what holds, what breaks, which bundle is better, each with its numbers.

Pure: reports and a comparison in, sentences out. "Better" is said only where the interval says so.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean

from training.evaluation.comparison import Difference, UnseenGap
from training.evaluation.ranks import DIRECTIONS
from training.evaluation.report import (
    DatasetReport,
    RetrievalReport,
    bundle_names,
    dataset_names,
    recall_depths,
)
from training.evaluation.shifts import Loss, Shifts, both_ways, in_words, losses, usual_severity
from training.evaluation.zero_shot import ZeroShotReport
from training.page.inputs import PageInputs
from training.page.markup import Markup, element, joined

QUERIES = {"text_to_image": "for captions", "image_to_text": "for images"}


def summary_sentences(inputs: PageInputs) -> list[tuple[str, list[Markup]]]:
    """(heading, sentences): one part a set, then classes, then what to beware of."""
    ks, bundles = recall_depths(inputs.reports), bundle_names(inputs.reports)
    parts = [
        (name, list(_of_set(inputs, name, bundles=bundles, k=ks[-1]))) for name in dataset_names(inputs.reports)
    ]
    classes = [
        (measured.name, _classification(measured, bundle=bundle))
        for report, bundle in zip(inputs.reports, bundles, strict=True)
        for measured in report.classification
    ]
    for name in dict.fromkeys(name for name, _ in classes):
        parts.append((f"{name}, by class names alone", [said for other, said in classes if other == name]))
    parts.append(("Beware", list(_cautions(inputs.reports))))
    return [(heading, sentences) for heading, sentences in parts if sentences]


def _of_set(inputs: PageInputs, name: str, *, bundles: Sequence[str], k: int) -> Iterator[Markup]:
    named = list(zip(inputs.reports, bundles, strict=True))
    for report, bundle in named:
        for dataset in (each for each in report.clean if each.name == name):
            yield _retrieval(dataset, bundle=bundle, k=k)
    comparison = inputs.comparison
    for each in comparison.differences if comparison else ():
        if each.dataset == name and each.subject == "clean" and each.k == k:
            yield _difference(each)
    for bundle in bundles:
        gaps = [
            g
            for g in (comparison.gaps if comparison else ())
            if (g.bundle, g.dataset, g.k) == (bundle, name, k)
        ]
        if gaps:
            yield _unseen_gap(gaps)
    severity = usual_severity(inputs.reports)
    for report, bundle in named if severity else ():
        yield from _shift_losses(Shifts.of(report, name), bundle=bundle, k=k, severity=severity or 0)


def _retrieval(dataset: DatasetReport, *, bundle: str, k: int) -> Markup:
    there, back = (dataset.recall[direction][k] for direction in DIRECTIONS)
    return joined(
        f"{bundle} finds the right image among the first {k} for ",
        _strong(f"{100 * there.value:.1f}%"),
        f" of the captions ({100 * there.low:.1f}–{100 * there.high:.1f}), and a right caption for ",
        _strong(f"{100 * back.value:.1f}%"),
        f" of the images ({100 * back.low:.1f}–{100 * back.high:.1f}).",
    )


def _difference(difference: Difference) -> Markup:
    recall = difference.recall
    gap = f"{100 * abs(recall.value):.1f} points {'above' if recall.value >= 0 else 'below'}"
    head = (
        f"R@{difference.k} {QUERIES[difference.direction]}: {difference.bundle} is {gap} {difference.against} "
    )
    interval = f"(interval {signed(recall.low)} to {signed(recall.high)}): "
    return joined(head, interval, _strong(difference.verdict), ".")


def _unseen_gap(gaps: Sequence[UnseenGap]) -> Markup:
    """In-domain minus other recall, a direction each."""
    said = " and ".join(
        f"{signed(-each.gap.value)} points {QUERIES[each.direction]} "
        f"({signed(-each.gap.high)} to {signed(-each.gap.low)})"
        for each in gaps
    )
    return joined(
        f"R@{gaps[0].k} of {gaps[0].bundle} differs from that on {gaps[0].in_domain} by {said}; the set is "
        f"{gaps[0].status or 'not looked for among its training images'}."
    )


def _shift_losses(shifts: Shifts, *, bundle: str, k: int, severity: int) -> Iterator[Markup]:
    ranked = losses(shifts, k=k, severity=severity)
    if ranked and shifts.clean:
        clean, worst = 100 * both_ways(shifts.clean, k), ranked[0]
        if worst.kept >= 1:
            yield joined(
                f"At severity {severity} no shift costs {bundle} any of its R@{k}, both ways on average."
            )
            return
        yield joined(
            f"With {in_words(worst.condition)}, {bundle} loses ",
            _strong(f"{100 * (1 - worst.kept):.0f}% of R@{k}"),
            f" ({clean:.1f} → {100 * both_ways(worst.dataset, k):.1f}, both ways on average)",
            *_beside(ranked),
        )


def _change(loss: Loss) -> str:
    return "loses" if loss.kept <= 1 else "gains"


def _beside(ranked: Sequence[Loss]) -> tuple[str | Markup, ...]:
    """How the costliest of several corruptions stands among them."""
    if len(ranked) == 1:
        return (".",)
    least = ranked[-1]
    return (
        f", most of any shift; with {in_words(least.condition.corruption)} it {_change(least)} "
        f"{100 * abs(1 - least.kept):.0f}%, the least. Over all {len(ranked)} at that severity it keeps ",
        _strong(f"{100 * fmean(loss.kept for loss in ranked):.0f}%"),
        " on average.",
    )


def _classification(measured: ZeroShotReport, *, bundle: str) -> Markup:
    first = measured.top[1]
    mistakes = [f"; {each.name} is taken for {each.taken_for} most often" for each in measured.confused[:1]]
    return joined(
        f"{bundle} gives ",
        _strong(f"{100 * first.value:.1f}%"),
        f" of {measured.images:,} images their class, of {measured.classes:,} "
        f"({100 * first.low:.1f}–{100 * first.high:.1f}; guessing gets {100 * measured.chance:.1f}%)",
        *mistakes,
        ".",
    )


def _cautions(reports: Sequence[RetrievalReport]) -> Iterator[Markup]:
    # The same test images stand in the training set whichever bundle is measured: say it once.
    seen: set[tuple[str, str]] = set()
    for dataset in (each for report in reports for each in report.clean):
        for train, leaks in (dataset.leaks or {}).items():
            if leaks and (dataset.name, train) not in seen:
                seen.add((dataset.name, train))
                leaked = f"{dataset.leaked_images(train):,} of {dataset.name}'s {dataset.images:,} images"
                yield joined(_strong(f"{leaked} stand in {train}"), ": its figures are too good.")
    for report in reports:
        for dataset in report.clean:
            if dataset.exposure is not None and dataset.exposure.counts:
                told = f"{report.bundle} has seen {dataset.exposure.seen:,} of {dataset.name}'s"
                yield joined(
                    _strong(f"{told} {dataset.exposure.images:,} images"), ": its figures are memory in part."
                )
    count = sum(len(dataset.warnings) for report in reports for dataset in report.clean)
    count += sum(len(measured.warnings) for report in reports for measured in report.classification)
    if count:
        words = "1 warning stands" if count == 1 else f"{count:,} warnings stand"
        yield joined(f"{words} near the end of this page.")


def signed(share: float) -> str:
    """Points with their sign: 0.012 is "+1.2", −0.004 is "−0.4"."""
    return f"{100 * share:+.1f}".replace("-", "−")


def _strong(text: str) -> Markup:
    return element("strong", text)
