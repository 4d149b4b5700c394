"""The page's sections on figures and on how they came; "" where there is nothing to show. Reads reports."""

from collections.abc import Sequence

from training.evaluation.metrics import Estimate
from training.evaluation.ranks import DIRECTIONS, Direction
from training.evaluation.report import (
    DIRECTION_NAMES,
    DatasetReport,
    RetrievalReport,
    bundle_names,
    dataset_names,
    recall_depths,
    report_notes,
)
from training.evaluation.shifts import recall_at
from training.evaluation.zero_shot_tables import zero_shot_cautions
from training.page.inputs import PageInputs
from training.page.markup import Markup, element, joined
from training.page.parts import NOTHING, card, note, section
from training.page.summary import summary_sentences
from training.page.svg import bars, legend
from training.page.tables import differences_table, recall_table, scores_table, table


def summary_section(inputs: PageInputs) -> Markup:
    parts = [
        joined(element("h3", heading), element("ul", *(element("li", sentence) for sentence in sentences)))
        for heading, sentences in summary_sentences(inputs)
    ]
    return section("In short", element("div", *parts, class_="summary"))


def recall_section(inputs: PageInputs) -> Markup:
    """Bars by set and direction, and the same as a table."""
    ks, bundles = recall_depths(inputs.reports), bundle_names(inputs.reports)
    parts = []
    for name in dataset_names(inputs.reports):
        shown = [clean_set(report, name) for report in inputs.reports]
        if not any(shown):
            continue
        first = next(dataset for dataset in shown if dataset)
        kind = _kind_of(shown, in_domain=name == inputs.in_domain)
        size = f"{first.images:,} images, {first.captions:,} captions{kind}"
        charts = [
            card(DIRECTION_NAMES[d], bars(_groups(shown, d, ks), label=f"{name}, {DIRECTION_NAMES[d]}: recall"))
            for d in DIRECTIONS
        ]
        figures = element("summary", "The figures")
        parts += [
            element("h3", name, element("small", size)),
            element("div", *charts, class_="pair"),
            element("details", figures, recall_table(inputs.reports, name, ks=ks)),
        ]
    said = note("Recall@k: how often a right answer is among the first k. Lines on the bars are 95% intervals.")
    return section("Recall by set", said, legend(bundles, directions=False), *parts) if parts else NOTHING


def differences_section(inputs: PageInputs) -> Markup:
    """Clean differences at the largest k, the rest folded away; scores against a baseline."""
    comparison = inputs.comparison
    if comparison is None or not comparison.differences:
        return NOTHING
    k = max(each.k for each in comparison.differences)
    first = [each for each in comparison.differences if each.k == k and each.subject == "clean"]
    rest = [each for each in comparison.differences if each not in first]
    parts = [differences_table(first)]
    if rest:
        parts.append(
            element("details", element("summary", "Under every shift, at every k"), differences_table(rest))
        )
    if comparison.scores:
        said = "Errors under corruption (1 − recall) in percent of the baseline's; below 100 is better. "
        parts += [note(said, "Errors added: only what corruption adds."), scores_table(comparison.scores)]
    said = note("Paired by image: bundles answer the same queries, and images are drawn for both at once.")
    return section("Which is better", said, *parts)


def notes_section(inputs: PageInputs) -> Markup:
    """Leaks first, then warnings, then what else is to know."""
    notes = [*report_notes(inputs.reports), *zero_shot_cautions(inputs.reports)]
    order = sorted(notes, key=lambda n: 0 if _tells_leak(n) else 1 if "WARNING" in n else 2)
    items = [
        element("li", each, class_="alarm" if _tells_leak(each) or "WARNING" in each else None)
        for each in order
    ]
    body = element("ul", *items) if items else note("None.")
    return section("Leaks and warnings", body)


def _tells_leak(note: str) -> bool:
    return "LEAK" in note or "SEEN:" in note


def reproduce_section(inputs: PageInputs) -> Markup:
    rows = [
        [r.bundle, r.fingerprint[:12], f"{r.device}, {r.precision}", f"{r.created:%Y-%m-%d %H:%M} UTC"]
        for r in inputs.reports
    ]
    command = element("pre", inputs.command) if inputs.command else NOTHING
    samples = max(r.bootstrap_samples for r in inputs.reports)
    said = note(
        f"Intervals: 95%, {samples:,} bootstrap draws of images. Ties take their expected rank. "
        "All figures stand in the JSON beside this page."
    )
    return section(
        "How to reproduce",
        command,
        table(["bundle", "fingerprint", "on", "measured"], rows, words=range(4)),
        table(["set", "spec", "digest"], _sets(inputs.reports), words=range(3)),
        said,
    )


def _kind_of(shown: Sequence[DatasetReport | None], *, in_domain: bool) -> str:
    """Whether the bundles have seen the set, by their own records, where all say the same."""
    statuses = {dataset.exposure.status for dataset in shown if dataset and dataset.exposure}
    kinds = ["in domain"] if in_domain else []
    kinds += statuses if len(statuses) == 1 else ["not seen alike by all bundles"] if statuses else []
    return "".join(f", {kind}" for kind in kinds)


def clean_set(report: RetrievalReport, name: str) -> DatasetReport | None:
    return next((dataset for dataset in report.clean if dataset.name == name), None)


def _groups(
    shown: Sequence[DatasetReport | None], direction: Direction, ks: Sequence[int]
) -> list[tuple[str, list[Estimate | None]]]:
    """(R@k, the recall of every bundle)."""
    return [(f"R@{k}", [recall_at(d, direction, k) if d else None for d in shown]) for k in ks]


def _sets(reports: Sequence[RetrievalReport]) -> list[list[str]]:
    """(name, spec, digest) of every set, each once."""
    rows = [(d.name, d.spec, d.digest[:12]) for report in reports for d in report.clean]
    rows += [(z.name, z.spec, z.digest[:12]) for report in reports for z in report.classification]
    return [list(row) for row in dict.fromkeys(rows)]
