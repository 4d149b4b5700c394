"""Images of reports, several bundles side by side: recall by set, curves over severity, heat maps.

Draws what reports say, through Matplotlib's Agg canvas: no display, no global state. Measures nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from training.evaluation.metrics import Estimate
from training.evaluation.ranks import DIRECTIONS, Direction
from training.evaluation.report import (
    DIRECTION_NAMES,
    DatasetReport,
    RetrievalReport,
    bundle_names,
    recall_depths,
)
from training.evaluation.shifts import (
    Shifts,
    corruptions_of,
    highest_recall,
    in_words,
    recall_at,
    severities_of,
)
from training.files import replacing

DOTS_PER_INCH = 160
WIDTH_INCHES = 9.0
ROW_INCHES = 2.1
HEAD_INCHES = 0.75
BROADEST_BAR, NARROW_BAR = 0.45, 0.3
COLOURS = ("#2f6db3", "#e08a1e", "#3a9a6b", "#b5485d", "#7a67b8", "#6b6b6b")
INK, FAINT = "#222222", "#d9d9d9"
CURVES_ACROSS = 4
CURVE_INCHES = 1.75
HEAT_ROW_INCHES = 0.36
LOSS_COLOURS = LinearSegmentedColormap.from_list("loss", ["#f0712c", "#f6b48c", "#f5f6f7"])
"""What is kept, from nothing to all."""


def draw_recall(reports: Sequence[RetrievalReport], path: Path) -> None:
    """A PNG: one row of panels a set, one column a direction; bars are recall, whiskers 95% intervals."""
    sets = list(dict.fromkeys(dataset.name for report in reports for dataset in report.clean))
    names, ks = bundle_names(reports), recall_depths(reports)
    figure = _figure(HEAD_INCHES + ROW_INCHES * len(sets))
    grid = figure.subplots(len(sets), len(DIRECTION_NAMES), sharey=True, squeeze=False)
    for row, name in enumerate(sets):
        shown = [Shifts.of(report, name).clean for report in reports]
        for column, direction in enumerate(DIRECTION_NAMES):
            _draw_panel(grid[row][column], shown, names=names, ks=ks, direction=direction)
        grid[row][0].set_ylabel(_set_title(name, shown), fontsize=9, color=INK, parse_math=False)
    for column, direction in enumerate(DIRECTION_NAMES):
        grid[0][column].set_title(DIRECTION_NAMES[direction], fontsize=11, color=INK, pad=10)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=min(len(names), 4), frameon=False, fontsize=10
    )
    figure.supxlabel("recall; whiskers: 95% intervals, by bootstrap over images", fontsize=8, color=INK)
    _save(figure, path)


def draw_curves(reports: Sequence[RetrievalReport], name: str, path: Path) -> None:
    """A PNG of one set: a panel a corruption, the deepest recall over severity, the clean set at 0.

    A colour a bundle; solid is text → image, dashed image → text; whiskers 95% intervals. Raises ValueError
    where the set was measured under no corruption.
    """
    views = [Shifts.of(report, name) for report in reports]
    corruptions, k = _corruptions(reports, name), recall_depths(reports)[-1]
    across = min(CURVES_ACROSS, len(corruptions))
    down = -(-len(corruptions) // across)
    figure = _figure(HEAD_INCHES + 0.35 + CURVE_INCHES * down)
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for panel, corruption in zip(grid.flat, corruptions, strict=False):
        for place, view in enumerate(views):
            for direction in DIRECTIONS:
                points = view.over_severity(corruption, direction, k=k)
                _draw_curve(panel, points, place=place, direction=direction)
        panel.set_title(in_words(corruption), fontsize=9.5, color=INK)
        _dress_curves(panel, severities=severities_of(reports), top=highest_recall(views, k=k))
    for panel in grid.flat[len(corruptions) :]:
        panel.set_visible(False)
    figure.suptitle(f"{name}: R@{k} over severity", fontsize=12, color=INK, parse_math=False)
    handles = [Line2D([], [], color=_colour(place), linewidth=3) for place in range(len(reports))]
    handles += [Line2D([], [], **_stroke(direction, INK)) for direction in DIRECTIONS]
    names = [*bundle_names(reports), *DIRECTION_NAMES.values()]
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9.5)
    _save(figure, path)


def draw_heat_map(reports: Sequence[RetrievalReport], name: str, path: Path) -> None:
    """A PNG of one set: corruption × severity, a row of panels a bundle, a column a direction.

    The colour and the number are the part of the clean recall that is kept, the recall itself stands below.
    Raises ValueError where the set was measured under no corruption.
    """
    k, severities, corruptions = recall_depths(reports)[-1], severities_of(reports), _corruptions(reports, name)
    names = bundle_names(reports)
    views = [(bundle, Shifts.of(report, name)) for bundle, report in zip(names, reports, strict=True)]
    views = [(bundle, view) for bundle, view in views if view.corrupted]
    figure = _figure(HEAD_INCHES + (0.5 + HEAT_ROW_INCHES * len(corruptions)) * len(views))
    grid = figure.subplots(len(views), len(DIRECTIONS), sharey=True, squeeze=False)
    for panels, (bundle, view) in zip(grid, views, strict=True):
        for panel, direction in zip(panels, DIRECTIONS, strict=True):
            cells = [
                [_cell(view, view.corrupted.get(c, {}).get(s), direction, k=k) for s in severities]
                for c in corruptions
            ]
            _draw_cells(panel, cells)
            panel.set_xticks(range(len(severities)), [str(s) for s in severities])
            panel.set_yticks(range(len(corruptions)), [in_words(c) for c in corruptions])
            clean = recall_at(view.clean, direction, k) if view.clean else None
            of = f", clean {100 * clean.value:.1f}%" if clean else ""
            panel.set_title(f"{DIRECTION_NAMES[direction]}{of}", fontsize=10, color=INK)
        if len(views) > 1:
            panels[0].set_ylabel(bundle, fontsize=10, color=INK, parse_math=False)
    title = f"{name}: how much of the clean R@{k} is kept (below it, R@{k} in %)"
    figure.suptitle(title, fontsize=12, color=INK, parse_math=False)
    figure.supxlabel("severity", fontsize=9, color=INK)
    _save(figure, path)


def _figure(height_inches: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03)
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    for legend in figure.legends:
        for text in legend.get_texts():
            text.set_parse_math(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def _corruptions(reports: Sequence[RetrievalReport], name: str) -> list[str]:
    if corruptions := corruptions_of(reports, name):
        return corruptions
    raise ValueError(f"{name} was measured under no corruption: there is nothing to draw")


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _stroke(direction: Direction, colour: str) -> dict[str, Any]:
    solid = direction == DIRECTIONS[0]
    return {
        "color": colour, "linewidth": 1.5, "linestyle": "-" if solid else (0, (4, 2)), "marker": "o",
        "markersize": 3.5, "markerfacecolor": colour if solid else "white", "markeredgewidth": 1.0,
    }  # fmt: skip


def _draw_curve(
    axes: Axes, points: Sequence[tuple[float, Estimate]], *, place: int, direction: Direction
) -> None:
    severities, heights = [s for s, _ in points], [100 * estimate.value for _, estimate in points]
    axes.plot(severities, heights, zorder=3, clip_on=False, **_stroke(direction, _colour(place)))
    low, high = ([100 * e.low for _, e in points], [100 * e.high for _, e in points])
    axes.vlines(severities, low, high, color=_colour(place), linewidth=0.9, alpha=0.45, zorder=2)


def _dress_curves(axes: Axes, *, severities: Sequence[int], top: float) -> None:
    axes.set_xlim(-0.35, severities[-1] + 0.35)
    axes.set_xticks([0, *severities], ["clean", *map(str, severities)])
    axes.set_ylim(0, 100 * top)
    axes.set_yticks([25 * top * step for step in range(5)])
    axes.yaxis.set_major_formatter("{x:.4g}%")
    _dress(axes)


def _dress(axes: Axes) -> None:
    axes.grid(axis="y", color=FAINT, linewidth=0.7, zorder=0)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)


def _cell(
    view: Shifts, dataset: DatasetReport | None, direction: Direction, *, k: int
) -> tuple[float, str, str]:
    """(share of the clean recall kept, that and the recall in words); NaN where it was not measured."""
    estimate = recall_at(dataset, direction, k) if dataset else None
    if dataset is None or estimate is None:
        return float("nan"), "–", ""
    recall = f"{100 * estimate.value:.1f}"
    kept = view.kept(dataset, k=k, directions=(direction,))
    return (float("nan"), "–", recall) if kept is None else (kept, f"{100 * kept:.0f}%", recall)


def _draw_cells(axes: Axes, cells: Sequence[Sequence[tuple[float, str, str]]]) -> None:
    shares = np.array([[share for share, _, _ in row] for row in cells])
    axes.imshow(shares, cmap=LOSS_COLOURS, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(shares.shape):
        _, kept, recall = cells[row][column]
        for text, above, size, side in ((kept, 0.5, 9, "baseline"), (recall, -1.5, 6.5, "top")):
            shown = axes.annotate(text, (column, row), xytext=(0, above), textcoords="offset points")
            shown.set(ha="center", va=side, fontsize=size, color=INK)
    edges = [np.arange(count + 1) - 0.5 for count in shares.shape]
    axes.hlines(edges[0], -0.5, shares.shape[1] - 0.5, color="white", linewidth=1.5)
    axes.vlines(edges[1], -0.5, shares.shape[0] - 0.5, color="white", linewidth=1.5)
    axes.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes.spines[:].set_visible(False)


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
            colour=_colour(place),
            label=name,
        )
    axes.set_xlim(-0.5, len(ks) - 0.5)
    axes.set_xticks(range(len(ks)), [f"R@{k}" for k in ks])
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 25), [f"{tick}%" for tick in range(0, 101, 25)])
    _dress(axes)


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
