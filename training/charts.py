"""Pictures of reports: recall with its intervals, per set and direction, several bundles side by side.

Draws what a report says, through Matplotlib's Agg canvas: no display, no global state. Measures nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from training.files import replacing
from training.ranks import Direction
from training.report import (
    DIRECTION_TITLES,
    DatasetReport,
    RetrievalReport,
    bundle_names,
    dataset_names,
    recall_depths,
)

DOTS_PER_INCH = 160
WIDTH_INCHES = 9.0
ROW_INCHES = 2.3
COLOURS = ("#2f6db3", "#e08a1e", "#3a9a6b", "#b5485d", "#7a67b8", "#6b6b6b")
INK, FAINT = "#222222", "#d9d9d9"
DIRECTION_NAMES: dict[Direction, str] = {
    "text_to_image": "text → image",
    "image_to_text": "image → text",
}


def draw_recall(reports: Sequence[RetrievalReport], path: Path) -> None:
    """A PNG: one row of panels a set, one column a direction; bars are recall, whiskers 95% intervals."""
    sets, names, ks = dataset_names(reports), bundle_names(reports), recall_depths(reports)
    head_inches = 0.75 if len(reports) > 1 else 0.5
    height_inches = head_inches + ROW_INCHES * len(sets)
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(sets), len(DIRECTION_TITLES), sharey=True, squeeze=False)
    for row, name in enumerate(sets):
        shown = [next((d for d in report.datasets if d.name == name), None) for report in reports]
        for column, direction in enumerate(DIRECTION_TITLES):
            _draw_panel(grid[row][column], shown, names=names, ks=ks, direction=direction)
        grid[row][0].set_ylabel(_set_title(name, shown), fontsize=10, color=INK)
    for column, direction in enumerate(DIRECTION_TITLES):
        grid[0][column].set_title(DIRECTION_NAMES[direction], fontsize=11, color=INK, pad=10)
    _draw_head(figure, names=names, bars=grid[0][0])
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
    width = 0.8 / len(shown)
    for place, (dataset, name) in enumerate(zip(shown, names, strict=True)):
        recall = dataset.recall[direction] if dataset else {}
        known = [(group, recall[k]) for group, k in enumerate(ks) if k in recall]
        centres = np.array([group for group, _ in known]) + (place - (len(shown) - 1) / 2) * width
        values = np.array([100 * e.value for _, e in known])
        reach = np.array([[100 * (e.value - e.low), 100 * (e.high - e.value)] for _, e in known]).reshape(-1, 2)
        colour = COLOURS[place % len(COLOURS)]
        axes.bar(centres, values, width * 0.92, color=colour, label=name, zorder=2)
        axes.errorbar(centres, values, yerr=np.maximum(reach.T, 0), fmt="none", ecolor=INK, elinewidth=0.9,
                      capsize=2.5, capthick=0.9, zorder=3)  # fmt: skip
        for centre, value, (_, above) in zip(centres, values, reach, strict=True):
            axes.annotate(f"{value:.0f}" if len(shown) > 2 else f"{value:.1f}", (centre, value + max(above, 0)),
                          xytext=(0, 2), textcoords="offset points", ha="center", fontsize=8, color=INK)  # fmt: skip
    axes.set_xticks(range(len(ks)), [f"R@{k}" for k in ks])
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 25), [f"{tick}%" for tick in range(0, 101, 25)])
    axes.grid(axis="y", color=FAINT, linewidth=0.7, zorder=0)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _draw_head(figure: Figure, *, names: Sequence[str], bars: Axes) -> None:
    title = "Recall, with 95% intervals by bootstrap over images"
    figure.suptitle(title if len(names) > 1 else f"{names[0]}: {title.lower()}", fontsize=11, color=INK)
    if len(names) > 1:
        handles, labels = bars.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(names), 4), frameon=False,
                      fontsize=9)  # fmt: skip


def _set_title(name: str, shown: Sequence[DatasetReport | None]) -> str:
    dataset = next(each for each in shown if each is not None)
    return f"{name}\n{dataset.images:,} images, {dataset.captions:,} captions"
