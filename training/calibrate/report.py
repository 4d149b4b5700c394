"""What a calibration does on a set it was not fitted on: figures, JSON, a picture.

Measures through `training.calibrate.calibrate`; draws reliability beside the diagonal. Knows no commands.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from encoders.calibration import Calibration, Decision, Direction, DirectionCalibration, Figures
from training.calibrate.absent import content_words
from training.calibrate.calibrate import Asked, measure
from training.calibrate.draws import Answers, Queries, draw_answers
from training.calibrate.figures import decide, reliability
from training.evaluate.embedding import EmbeddedPairs
from training.files import replacing

DOTS_PER_INCH = 160
BLUE, GREY, FAINT, INK = "#2f6db3", "#8a8a8a", "#d9d9d9", "#222222"
TITLES: dict[Direction, str] = {"text_to_image": "text → image", "image_to_text": "image → text"}


class TakenOut(BaseModel):
    """Captions whose own photo was taken out, against the same captions with it.

    `ceiling`: the balanced accuracy of a judge who is always right, since of `still_described` of the captions
    another photo has a caption at least as like it in its words as the own photo's other captions are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Decision
    flat_decision: Decision
    still_described: float
    ceiling: float


class CalibrationReport(BaseModel):
    """Figures of one calibration on one set, by direction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: str
    fingerprint: str
    fitted_on: str
    measured_on: str
    directions: dict[Direction, Figures]
    taken_out: TakenOut | None = None


def measured_figures(direction: DirectionCalibration, asked: Asked, *, measured_on: str) -> Figures:
    """Every query once, in the whole set as gallery; the flat cutoff is the one fitted with the calibration."""
    present, absent = (_whole(direction, queries, asked.items) for queries in (asked.present, asked.absent))
    said = measure(direction, present, absent)
    bins, error = reliability(said.fits, said.others)
    cutoff = _cutoff(direction)
    return Figures(
        measured_on=measured_on,
        gallery_items=len(asked.items),
        reliability=bins,
        expected_calibration_error=error,
        decision=decide(said.present, said.absent, threshold=direction.threshold),
        flat_cutoff=cutoff,
        flat_decision=decide(present.best, absent.best, threshold=cutoff),
    )


def measure_taken_out(direction: DirectionCalibration, asked: Asked, embedded: EmbeddedPairs) -> TakenOut:
    """Each caption in the gallery without its own photo: a hard case, as other photos may show the same."""
    queries = asked.present
    without = np.ones((len(queries.own), len(asked.items)), dtype=np.bool_)
    without[np.arange(len(queries.own)), embedded.caption_image] = False
    nothing = np.array([], dtype=np.int64)
    alone = Queries(queries.vectors, [nothing] * len(queries.own), queries.group, without)
    present, absent = (_whole(direction, each, asked.items) for each in (queries, alone))
    said = measure(direction, present, absent)
    cutoff = _cutoff(direction)
    described = described_elsewhere(embedded.captions, embedded.caption_image)
    return TakenOut(
        decision=decide(said.present, said.absent, threshold=direction.threshold),
        flat_decision=decide(present.best, absent.best, threshold=cutoff),
        still_described=described,
        ceiling=1.0 - described / 2,
    )


def described_elsewhere(captions: Sequence[str], image_of: NDArray[np.int64]) -> float:
    """Share of captions that another image's caption is as like in rare words as the own image's other ones.

    Likeness is the cosine of content words weighted by ln(captions / captions with the word); by words alone,
    so it owes nothing to the encoder that is judged.
    """
    vocabulary: dict[str, int] = {}
    words = [[vocabulary.setdefault(w, len(vocabulary)) for w in sorted(content_words(c))] for c in captions]
    rows = np.zeros((len(captions), max(1, len(vocabulary))), dtype=np.float32)
    for row, numbers in enumerate(words):
        rows[row, numbers] = 1.0
    rows *= np.log(len(captions) / np.maximum(rows.sum(axis=0), 1.0))
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    found = 0
    for start in range(0, len(rows), 512):
        likeness = rows[start : start + 512] @ rows.T
        own = image_of[start : start + 512, None] == image_of[None, :]
        itself = np.arange(start, start + len(likeness))
        elsewhere = np.where(own, -1.0, likeness).max(axis=1)
        likeness[np.arange(len(likeness)), itself] = -1.0
        found += int((elsewhere >= np.maximum(np.where(own, likeness, -1.0).max(axis=1), 1e-6)).sum())
    return found / len(rows)


def write_calibration_report(calibration: Calibration, report: CalibrationReport | None, folder: Path) -> None:
    """calibration.json, reliability.png; report.json of the set it was measured on, if any."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "calibration.json") as file:
        file.write(calibration.to_bytes())
    if report is not None:
        with replacing(folder / "report.json") as file:
            file.write((report.model_dump_json(indent=1) + "\n").encode())
    fitted = {name: each.figures for name, each in calibration.directions.items() if each.figures is not None}
    draw_reliability(report.directions if report is not None else fitted, folder / "reliability.png")


def draw_reliability(figures: dict[Direction, Figures], path: Path) -> None:
    """A PNG: a panel a direction, what is said against what is so, the area of a dot its share of hits."""
    columns = max(1, len(figures))
    figure = Figure(figsize=(4.6 * columns, 4.9), facecolor="white", layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for axes, (name, each) in zip(panels, figures.items(), strict=False):
        _draw_panel(axes, each, TITLES[name])
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def _draw_panel(axes: Axes, figures: Figures, title: str) -> None:
    said = [one.predicted for one in figures.reliability]
    so = [one.observed for one in figures.reliability]
    areas = [20 + 600 * one.share for one in figures.reliability]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    axes.plot(said, so, color=BLUE, linewidth=1.5, zorder=2)
    axes.scatter(said, so, s=areas, color=BLUE, alpha=0.75, zorder=3, linewidths=0)
    right, flat = figures.decision.balanced_accuracy, figures.flat_decision.balanced_accuracy
    axes.set_title(
        f"{title}: calibration error {figures.expected_calibration_error:.3f}\n"
        f"“nothing matches”: {right:.1%} balanced accuracy, flat cutoff {flat:.1%}",
        fontsize=9,
        color=INK,
    )
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.set_xlabel("relevance said", fontsize=9, color=INK)
    axes.set_ylabel("share that fits", fontsize=9, color=INK)
    axes.grid(color=FAINT, linewidth=0.7, zorder=0)
    axes.tick_params(length=0, labelsize=8, labelcolor=INK)
    axes.spines[:].set_visible(False)


def _whole(direction: DirectionCalibration, queries: Queries, items: NDArray[np.float32]) -> Answers:
    prior = (direction.prior_mean, direction.prior_spread)
    return draw_answers(queries, items, size=len(items), prior=prior, rng=np.random.default_rng(0))


def _cutoff(direction: DirectionCalibration) -> float:
    return direction.figures.flat_cutoff if direction.figures is not None else 1.0
