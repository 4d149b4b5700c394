"""The sections on conditions: curves over severity, heat maps, other input sizes. Reads reports."""

from collections.abc import Sequence

from training.evaluation.ranks import DIRECTIONS
from training.evaluation.report import DIRECTION_NAMES, bundle_names, dataset_names, recall_depths
from training.evaluation.shifts import Shifts, corruptions_of, highest_recall, in_words, severities_of
from training.page.inputs import PageInputs
from training.page.markup import Markup, element, joined
from training.page.parts import NOTHING, card, note, section
from training.page.svg import Line, curves, legend
from training.page.tables import heat_map, held_out_mark, sizes_table


def curves_section(inputs: PageInputs) -> Markup:
    """One small chart a corruption: recall at the largest k over severity, every bundle, both directions."""
    severities = severities_of(inputs.reports)
    if not severities:
        return NOTHING
    k, bundles = recall_depths(inputs.reports)[-1], bundle_names(inputs.reports)
    held_out = set.intersection(*(set(inputs.held_out.get(bundle, ())) for bundle in bundles))
    parts = [legend(bundles, directions=True)]
    xs = [(0.0, "clean"), *((float(s), str(s)) for s in severities)]
    for name in dataset_names(inputs.reports):
        views = [Shifts.of(report, name) for report in inputs.reports]
        charts = []
        for corruption in corruptions_of(inputs.reports, name):
            lines = [
                Line(
                    f"{bundle}, {DIRECTION_NAMES[d]}",
                    place,
                    d != DIRECTIONS[0],
                    view.over_severity(corruption, d, k=k),
                )
                for place, (view, bundle) in enumerate(zip(views, bundles, strict=True))
                for d in DIRECTIONS
            ]
            mark = held_out_mark(corruption, held_out)
            label = f"{name}, {in_words(corruption)}: R@{k} over severity"
            chart = curves(lines, xs=xs, label=label, top=highest_recall(views, k=k))
            charts.append(card(joined(in_words(corruption), mark), chart))
        if charts:
            parts += [element("h3", name), element("div", *charts, class_="grid")]
    said = note(
        f"R@{k} from the clean set (left) to severity {severities[-1]} (right).", _held_out_words(inputs)
    )
    return section("Over severity", said, *parts)


def heat_section(inputs: PageInputs) -> Markup:
    """Corruption × severity by set, bundle and direction; then other input sizes."""
    severities, bundles = severities_of(inputs.reports), bundle_names(inputs.reports)
    parts = []
    for name in dataset_names(inputs.reports):
        k = recall_depths(inputs.reports)[-1]
        views = [(b, Shifts.of(r, name)) for r, b in zip(inputs.reports, bundles, strict=True)]
        rows = [
            element("div", *_heat_maps(inputs, bundle, shifts, k=k, severities=severities), class_="pair")
            for bundle, shifts in views
            if shifts.corrupted
        ]
        if any(shifts.resized for _, shifts in views):
            rows.append(card("at other input sizes", sizes_table(views, k=k)))
        if rows:
            parts.append(joined(element("h3", name), element("div", *rows, class_="rows")))
    scale = element("span", class_="scale")
    said = note(
        "A row is a corruption, a column its severity, the number recall in percent. "
        "The colour is what is lost of the clean recall: nothing ",
        scale,
        " all.",
    )
    return section("What breaks it", said, *parts) if parts else NOTHING


def _heat_maps(
    inputs: PageInputs, bundle: str, shifts: Shifts, *, k: int, severities: Sequence[int]
) -> list[Markup]:
    head = f"{bundle}, " if len(inputs.reports) > 1 else ""
    return [
        card(
            f"{head}{DIRECTION_NAMES[direction]}, R@{k}",
            heat_map(
                shifts,
                direction,
                k=k,
                severities=severities,
                held_out=inputs.held_out.get(bundle, ()),
            ),
        )
        for direction in DIRECTIONS
    ]


def _held_out_words(inputs: PageInputs) -> Markup | None:
    if not inputs.held_out:
        return None
    return joined(
        " ",
        element("span", "held out", class_="held"),
        " was kept out of training by the recipe; of the others, and in part where kinds much like it were "
        "not, what is kept may be memory.",
    )
