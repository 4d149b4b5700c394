"""The section on calibration: stated relevance against what fits, and how true "nothing matches" is.

Shows the figures of a bundle's calibration.json, which were measured when it was fitted.
"""

from collections.abc import Mapping, Sequence

from encoders.calibration import Calibration, Figures, Search
from training.page.inputs import PageInputs
from training.page.markup import Content, Markup, element, joined
from training.page.parts import NOTHING, card, note, section
from training.page.svg import reliability
from training.page.tables import table

SEARCH_NAMES: Mapping[Search, str] = {
    "words_to_image": "words → image",
    "sentence_to_image": "sentence → image",
    "image_to_text": "image → text",
}
HEADS = (
    "", "decision", "of absent queries told %", "right when told %", "told over a right hit in five %",
    "right first hits called a match %", "unsure %",
)  # fmt: skip


def calibration_section(inputs: PageInputs) -> Markup:
    parts = [part for bundle, each in inputs.calibrations.items() for part in _of_bundle(bundle, each)]
    said = note(
        "Does a stated relevance hold? Of the hits stated at 70%, 70% should fit: dots on the dashed line, "
        "each of as many hits. Measured when the calibration was fitted."
    )
    return section("Calibration", said, *parts) if parts else NOTHING


def _of_bundle(bundle: str, calibration: Calibration) -> list[Markup]:
    measured = {
        SEARCH_NAMES[search]: each.figures
        for search, each in calibration.searches.items()
        if each.figures is not None
    }
    if not measured:
        return []
    charts = [card(name, _curve(each, label=f"{bundle}, {name}")) for name, each in measured.items()]
    return [element("h3", bundle), element("div", *charts, class_="pair"), _verdicts(measured)]


def _curve(figures: Figures, *, label: str) -> Markup:
    bins = [(each.predicted, each.observed) for each in figures.reliability]
    error = figures.calibration_error
    told = (
        f"Expected calibration error {100 * error.value:.1f} points "
        f"({100 * error.low:.1f}–{100 * error.high:.1f}), {figures.measured_on}."
    )
    return joined(reliability(bins, label=f"{label}: reliability") if bins else None, note(told))


def _verdicts(measured: Mapping[str, Figures]) -> Markup:
    """ "Nothing here matches": by calibrated relevance, beside a flat cosine cutoff."""
    rows: list[Sequence[Content]] = []
    for name, each in measured.items():
        ours = (each.nothing_of_absent, each.nothing_precision, each.false_nothing)
        flat = (each.flat_nothing_of_absent, each.flat_nothing_precision, each.flat_false_nothing)
        rows.append([name, "calibrated", *map(_percent, (*ours, each.match_of_right, each.unsure))])
        rows.append([name, f"cosine above {each.flat_cutoff:.3f}", *map(_percent, (*flat, None, None))])
    return table(HEADS, rows, words=(0, 1))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
