"""Pictures of reports: recall with its intervals, per set and direction, several bundles side by side.

Draws what a report says, through Matplotlib's Agg canvas: no display, no global state. Measures nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from training.evaluate.metrics import Estimate
from training.evaluate.ranks import Direction
from training.evaluate.report import (
    DIRECTION_TITLES,
    DatasetReport,
    RetrievalReport,
    bundle_names,
    dataset_names,
    recall_depths,
)
from training.files import replacing

DOTS_PER_INCH = 160
WIDTH_INCHES = 9.0
ROW_INCHES = 2.1
HEAD_INCHES = 0.75
BROADEST_BAR, NARROW_BAR = 0.45, 0.3
COLOURS = ("#2f6db3", "#e08a1e", "#3a9a6b", "#b5485d", "#7a67b8", "#6b6b6b")
INK, FAINT = "#222222", "#d9d9d9"
DIRECTION_NAMES: dict[Direction, str] = {
    "text_to_image": "text → image",
    "image_to_text": "image → text",
}


def draw_recall(reports: Sequence[RetrievalReport], path: Path) -> None:
    """A PNG: one row of panels a set, one column a direction; bars are recall, whiskers 95% intervals."""
    sets, names, ks = dataset_names(reports), bundle_names(reports), recall_depths(reports)
    height_inches = HEAD_INCHES + ROW_INCHES * len(sets)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03)
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(sets), len(DIRECTION_TITLES), sharey=True, squeeze=False)
    for row, name in enumerate(sets):
        shown = [next((d for d in report.datasets if d.name == name), None) for report in reports]
        for column, direction in enumerate(DIRECTION_TITLES):
            _draw_panel(grid[row][column], shown, names=names, ks=ks, direction=direction)
        grid[row][0].set_ylabel(_set_title(name, shown), fontsize=9, color=INK)
    for column, direction in enumerate(DIRECTION_TITLES):
        grid[0][column].set_title(DIRECTION_NAMES[direction], fontsize=11, color=INK, pad=10)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(len(names), 4), frameon=False, fontsize=10
    )
    figure.supxlabel("recall; whiskers: 95% intervals, by bootstrap over images", fontsize=8, color=INK)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def _draw_panel(
    axes: Axes,
    shown: Sequence[DatasetReport | None],
    *,
    names: Sequence[str],
    ks: Sequence[int],
    direction: Direction,
) -> None:
    width = min(BROADEST_BAR, 0.8 / len(shown))
    for place, (dataset, name) in enumerate(zip(shown, names, strict=True)):
        recall = dataset.recall[direction] if dataset else {}
        offset = (place - (len(shown) - 1) / 2) * width
        _draw_bars(
            axes,
            [(group + offset, recall[k]) for group, k in enumerate(ks) if k in recall],
            width=width * 0.92,
            colour=COLOURS[place % len(COLOURS)],
            label=name,
        )
    axes.set_xlim(-0.5, len(ks) - 0.5)
    axes.set_xticks(range(len(ks)), [f"R@{k}" for k in ks])
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 25), [f"{tick}%" for tick in range(0, 101, 25)])
    axes.grid(axis="y", color=FAINT, linewidth=0.7, zorder=0)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _draw_bars(
    axes: Axes, bars: Sequence[tuple[float, Estimate]], *, width: float, colour: str, label: str
) -> None:
    """Bars at their centres in percent, with whiskers and the figure above; the label also without a bar."""
    centres = [centre for centre, _ in bars]
    heights = [100 * estimate.value for _, estimate in bars]
    below = [100 * max(0.0, estimate.value - estimate.low) for _, estimate in bars]
    above = [100 * max(0.0, estimate.high - estimate.value) for _, estimate in bars]
    axes.bar(centres, heights, width, color=colour, label=label, zorder=2)
    axes.errorbar(
        centres, heights, yerr=[below, above], fmt="none", ecolor=INK, elinewidth=0.9, capsize=2.5, zorder=3
    )
    digits = 1 if width > NARROW_BAR else 0
    for centre, height, reach in zip(centres, heights, above, strict=True):
        text = axes.annotate(
            f"{height:.{digits}f}", (centre, height + reach), xytext=(0, 2.5), textcoords="offset points"
        )
        text.set(ha="center", fontsize=8, color=INK, zorder=4)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _set_title(name: str, shown: Sequence[DatasetReport | None]) -> str:
    dataset = next(each for each in shown if each is not None)
    return f"{name}\n{dataset.images:,} images, {dataset.captions:,} captions"
