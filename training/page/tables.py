"""Tables of the page: recall with intervals, heat maps of corruption × severity, differences, classes.

Reads reports; says figures and nothing about them.
"""

from collections.abc import Collection, Sequence

from training.evaluation.comparison import CorruptionScore, Difference
from training.evaluation.ranks import DIRECTIONS, Direction
from training.evaluation.report import DIRECTION_TITLES, DatasetReport, RetrievalReport, bundle_names, percent
from training.evaluation.shifts import Shifts, in_words, recall_at
from training.evaluation.zero_shot import ZeroShotReport
from training.page.markup import Content, Markup, element, joined
from training.page.summary import signed
from training.shift.conditions import near_kinds


def recall_table(reports: Sequence[RetrievalReport], name: str, *, ks: Sequence[int]) -> Markup:
    """One set: a row a bundle and direction, recall@k with intervals."""
    rows = []
    for report, bundle in zip(reports, bundle_names(reports), strict=True):
        for dataset in (each for each in report.clean if each.name == name):
            for direction, title in DIRECTION_TITLES.items():
                figures = dataset.figures[direction]
                cells = [percent(figures.recall.get(k)) for k in ks]
                cells += [percent(figures.mean_average_precision), f"{figures.median_rank:g}"]
                rows.append([bundle, title, *cells, f"{figures.tied_queries:,}"])
    return table(["bundle", "", *(f"R@{k}" for k in ks), "mAP@R", "median rank", "tied"], rows, words=(0, 1))


def heat_map(
    shifts: Shifts, direction: Direction, *, k: int, severities: Sequence[int], held_out: Sequence[str]
) -> Markup:
    """Corruption × severity: the number is recall@k in percent, the colour the part of the clean one lost."""
    clean = recall_at(shifts.clean, direction, k) if shifts.clean else None
    head = element("tr", element("th", f"clean {percent(clean)}"), *(element("th", s) for s in severities))
    body = [
        element(
            "tr",
            element("th", in_words(corruption), held_out_mark(corruption, held_out), scope="row"),
            *(_heat(shifts, by_severity.get(s), direction, k=k) for s in severities),
        )
        for corruption, by_severity in shifts.corrupted.items()
    ]
    return element("table", element("thead", head), element("tbody", *body), class_="heat")


def held_out_mark(corruption: str, held_out: Collection[str]) -> Markup | None:
    """Of a kind that the recipes kept out of training, and whether they kept out those much like it."""
    if corruption not in held_out:
        return None
    if near := near_kinds(corruption, tuple(held_out)):
        told = f"kept out of training by the recipe, but not {' and '.join(map(in_words, near))}, much like it"
        return element("span", "held out, near kinds not", class_="held", title=told)
    return element("span", "held out", class_="held", title="kept out of training by the recipe")


def sizes_table(views: Sequence[tuple[str, Shifts]], *, k: int) -> Markup:
    """Recall@k of each bundle at other input sizes, with what part of its own size's recall that is."""
    rows = []
    for bundle, shifts in views:
        for (height, width), dataset in shifts.resized.items():
            cells = [percent(recall_at(dataset, direction, k)) for direction in DIRECTIONS]
            kept = shifts.kept(dataset, k=k)
            rows.append([bundle, f"{height} × {width}", *cells, "–" if kept is None else f"{100 * kept:.0f}%"])
    heads = ["bundle", "input", *(f"{DIRECTION_TITLES[d]} R@{k}" for d in DIRECTIONS), "keeps"]
    return table(heads, rows, words=(0, 1))


def differences_table(differences: Sequence[Difference]) -> Markup:
    rows = []
    for each in differences:
        severity = f" {each.severity}" if each.severity else ""
        interval = f"{signed(each.recall.low)} to {signed(each.recall.high)}"
        rows.append(
            [
                each.dataset,
                f"{in_words(each.subject)}{severity}",
                f"{DIRECTION_TITLES[each.direction]} R@{each.k}",
                f"{each.bundle} − {each.against}",
                signed(each.recall.value),
                interval,
                each.verdict,
            ]
        )
    heads = ["set", "under", "", "difference", "points", "95% interval", "so"]
    return table(heads, rows, words=(0, 1, 2, 3, 6))


def scores_table(scores: Sequence[CorruptionScore]) -> Markup:
    """Errors under corruption against the baseline's: below 100 is better than it."""
    rows: list[list[Content]] = []
    for each in scores:
        measure = f"{DIRECTION_TITLES[each.direction]} R@{each.k}"
        figures = [percent(each.score), percent(each.relative)]
        rows.append(
            [each.dataset, f"{each.bundle} against {each.baseline}", measure, each.corruptions, *figures]
        )
    return table(["set", "bundle", "", "corruptions", "errors %", "errors added %"], rows, words=(0, 1, 2))


def classes_table(measured: ZeroShotReport) -> Markup:
    """Every class, the worst first."""
    worst_first = sorted(measured.per_class, key=lambda each: each.top1)
    rows = [
        [each.name, f"{each.images:,}", f"{100 * each.top1:.1f}", f"{each.guessed:,.3g}"]
        for each in worst_first
    ]
    return table(["class", "images", "top-1 %", "given to"], rows)


def confusions_table(measured: ZeroShotReport) -> Markup:
    rows = [
        [each.name, each.taken_for, f"{each.images:,.3g}", f"{100 * each.share:.0f}%"]
        for each in measured.confused
    ]
    return table(["is", "taken for", "images", "of its class"], rows, words=(0, 1))


def table(heads: Sequence[str], rows: Sequence[Sequence[Content]], *, words: Collection[int] = (0,)) -> Markup:
    """A table that scrolls sideways where it must; the columns `words` are words, the rest figures."""
    kinds = [None if column in words else "figure" for column in range(len(heads))]
    head = element("tr", *(element("th", each, class_=kind) for each, kind in zip(heads, kinds, strict=True)))
    body = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return element(
        "div", element("table", element("thead", head), element("tbody", *body)), class_="scroll", tabindex=0
    )


def _heat(shifts: Shifts, dataset: DatasetReport | None, direction: Direction, *, k: int) -> Markup:
    estimate = recall_at(dataset, direction, k) if dataset else None
    if dataset is None or estimate is None:
        return element("td", "–", class_="none")
    kept = shifts.kept(dataset, k=k, directions=(direction,))
    loss = 0.0 if kept is None else min(max(1 - kept, 0.0), 1.0)
    said = percent(estimate) if kept is None else f"{percent(estimate)}: keeps {100 * kept:.0f}%"
    return element(
        "td",
        joined(f"{100 * estimate.value:.1f}"),
        style=f"--loss:{100 * loss:.0f}%",
        title=said,
    )
