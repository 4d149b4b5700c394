"""The section on calibration: stated relevance against what fits, and the decision that nothing matches.

Shows the figures of a bundle's calibration.json, which were measured when it was fitted. Computes nothing.
"""

from collections.abc import Mapping, Sequence

from encoders.calibration import Calibration, Decision, Figures
from training.evaluate.ranks import DIRECTIONS
from training.evaluate.report import DIRECTION_NAMES
from training.page.inputs import PageInputs
from training.page.markup import Content, Markup, element, joined
from training.page.parts import NOTHING, card, note, section
from training.page.svg import reliability
from training.page.tables import table


def calibration_section(inputs: PageInputs) -> Markup:
    parts = [part for bundle, each in inputs.calibrations.items() for part in _of_bundle(bundle, each)]
    said = note(
        "Does a stated relevance hold? Of the hits stated at 70%, 70% should fit: dots on the dashed line. "
        "The larger a dot, the more hits it stands for. Measured when the calibration was fitted."
    )
    return section("Calibration", said, *parts) if parts else NOTHING


def _of_bundle(bundle: str, calibration: Calibration) -> list[Markup]:
    figures = {d: calibration.directions[d].figures for d in DIRECTIONS if d in calibration.directions}
    measured = {DIRECTION_NAMES[d]: each for d, each in figures.items() if each is not None}
    if not measured:
        return []
    charts = [card(name, _curve(each, label=f"{bundle}, {name}")) for name, each in measured.items()]
    return [element("h3", bundle), element("div", *charts, class_="pair"), _decisions(measured)]


def _curve(figures: Figures, *, label: str) -> Markup:
    bins = [(each.predicted, each.observed, each.share) for each in figures.reliability if each.share > 0]
    error = f"Expected calibration error {100 * figures.expected_calibration_error:.1f} points"
    chart = reliability(bins, label=f"{label}: reliability") if bins else None
    return joined(chart, note(f"{error}, {figures.measured_on}."))


def _decisions(measured: Mapping[str, Figures]) -> Markup:
    """ "Nothing here matches": the calibrated decision beside a flat cosine cutoff."""
    rows: list[Sequence[Content]] = []
    for name, figures in measured.items():
        rows.append([name, "calibrated", *_shares(figures.decision)])
        rows.append([name, f"cosine above {figures.flat_cutoff:.3f}", *_shares(figures.flat_decision)])
    heads = ["", "decision", "balanced accuracy %", "finds what is there %", "sees what is absent %"]
    return table(heads, rows, words=(0, 1))


def _shares(decision: Decision) -> list[str]:
    shares = (decision.balanced_accuracy, decision.recall_present, decision.recall_absent)
    return [f"{100 * share:.1f}" for share in shares]
