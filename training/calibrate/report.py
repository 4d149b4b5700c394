"""What was measured of relevance and verdicts: JSON, a Markdown table, lines for a terminal, and a plot."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from encoders.calibration import Calibration, Figures, Search
from training.calibrate.measure import MeasuredSearch, RelevanceReport
from training.files import replacing
from training.markdown import markdown_table

DOTS_PER_INCH = 160
MOST_COLUMNS = 4
BLUE, GREY, FAINT, INK = "#2f6db3", "#8a8a8a", "#d9d9d9", "#222222"
TITLES: dict[Search, str] = {
    "words_to_image": "words → image",
    "sentence_to_image": "sentence → image",
    "image_to_text": "image → text",
}
HEADS = (
    "set", "search", "queries", "gallery", "present, absent", "P@1", "hit@5", "mAP", "false nothing",
    "nothing right", "nothing of absent", "match of right", "unsure", "ECE", "hits", "order faults",
    "flat: nothing right", "of absent", "false",
)  # fmt: skip


def write_calibration_report(calibration: Calibration, folder: Path) -> None:
    """calibration.json, and reliability.png of its own fit."""
    with replacing(folder / "calibration.json") as file:
        file.write(calibration.to_bytes())
    draw_reliability(fitted_figures(calibration), folder / "reliability.png")


def write_relevance_report(reports: Sequence[RelevanceReport], folder: Path) -> None:
    """relevance.json (a list), relevance.md and reliability.png."""
    with replacing(folder / "relevance.json") as file:
        content = ",\n".join(report.model_dump_json(indent=1) for report in reports)
        file.write(f"[{content}]\n".encode())
    with replacing(folder / "relevance.md") as file:
        file.write(relevance_markdown(reports).encode())
    whole = {
        f"{report.set}, {TITLES[each.search]}, {each.gallery_items:,}": each.figures
        for report in reports
        for each in report.measured
        if each.search != "words_to_image" or each.queries == "all"
    }
    draw_reliability(whole, folder / "reliability.png")


def fitted_figures(calibration: Calibration) -> dict[str, Figures]:
    return {
        TITLES[search]: each.figures
        for search, each in calibration.searches.items()
        if each.figures is not None
    }


def relevance_markdown(reports: Sequence[RelevanceReport]) -> str:
    """A row a set, kind of search, kind of query and size of gallery; shares in percent."""
    rows = [_row(report.set, each) for report in reports for each in report.measured]
    lines = [*markdown_table(HEADS, rows, texts=3), ""]
    lines += [
        "Shares in percent, present and absent queries at even odds. *False nothing*: of the queries with a "
        "right hit among the first five, how many are told that nothing matches. *Nothing right*: how often "
        "that is so. *ECE*: expected calibration error over 15 bins of equal count, with its 95% interval over "
        "queries. *Flat*: a cutoff of the cosine, chosen on the same data by the same rule.",
        "",
    ]
    lines += [
        f"Bundle {one.bundle} `{one.fingerprint[:12]}`, fitted on {one.fitted_on}." for one in reports[:1]
    ]
    return "\n".join(lines) + "\n"


def figure_lines(figures: Figures) -> Iterator[str]:
    """What a person reads of one fit or measurement."""
    yield (
        f"{figures.measured_on}, galleries of up to {figures.gallery_items:,}: {figures.present_queries:,} "
        f"queries with an answer, {figures.absent_queries:,} without"
    )
    error = figures.calibration_error
    yield (
        f"  relevance: expected calibration error {error.value:.3f} ({error.low:.3f}–{error.high:.3f}) over "
        f"{figures.judged_hits:,} hits; order faults {figures.order_faults}"
    )
    yield (
        f"  nothing matches: said of {figures.nothing_of_absent:.1%} of absent queries, right in "
        f"{_percent(figures.nothing_precision)}% at even odds, said over a right hit in five in "
        f"{figures.false_nothing:.1%}"
    )
    yield (
        f"  match: said of {figures.match_of_right:.1%} of right first hits, right in "
        f"{_percent(figures.match_precision)}%; unsure {figures.unsure:.1%}"
    )
    yield (
        f"  present against absent: {figures.balanced_accuracy:.1%} balanced accuracy, a flat cutoff "
        f"{figures.flat_balanced_accuracy:.1%}"
    )


def draw_reliability(figures: Mapping[str, Figures], path: Path) -> None:
    """A PNG: a panel a search, what is said against what is so, a dot a bin of equally many hits."""
    columns = max(1, min(MOST_COLUMNS, len(figures)))
    rows = max(1, -(-len(figures) // columns))
    figure = Figure(figsize=(3.9 * columns, 4.1 * rows), facecolor="white", layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, each) in zip(panels, figures.items(), strict=False):
        _draw_panel(axes, each, name)
    for axes in panels[len(figures) :]:
        axes.set_visible(False)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)


def _row(name: str, measured: MeasuredSearch) -> list[str]:
    figures, quality = measured.figures, measured.quality
    shown = (quality.precision_at_1, quality.hit_at_5, quality.mean_average_precision) if quality else ()
    error = figures.calibration_error
    return [
        name,
        TITLES[measured.search],
        measured.queries,
        f"{measured.gallery_items:,}" + (f" × {measured.galleries}" if measured.galleries > 1 else ""),
        f"{figures.present_queries:,}, {figures.absent_queries:,}",
        *([_percent(each.value) for each in shown] or ["–"] * 3),
        *(_percent(each) for each in (figures.false_nothing, figures.nothing_precision)),
        *(_percent(each) for each in (figures.nothing_of_absent, figures.match_of_right, figures.unsure)),
        f"{error.value:.3f} ({error.low:.3f}–{error.high:.3f})",
        f"{figures.judged_hits:,}",
        str(figures.order_faults),
        *(_percent(each) for each in (figures.flat_nothing_precision, figures.flat_nothing_of_absent)),
        _percent(figures.flat_false_nothing),
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def _draw_panel(axes: Axes, figures: Figures, title: str) -> None:
    said = [one.predicted for one in figures.reliability]
    so = [one.observed for one in figures.reliability]
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=1)
    axes.plot(said, so, color=BLUE, linewidth=1.5, marker="o", markersize=4, zorder=2)
    error = figures.calibration_error
    axes.set_title(f"{title}\nECE {error.value:.3f} ({error.low:.3f}–{error.high:.3f})", fontsize=8, color=INK)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.set_xlabel("relevance said", fontsize=8, color=INK)
    axes.set_ylabel("share that fits", fontsize=8, color=INK)
    axes.grid(color=FAINT, linewidth=0.7, zorder=0)
    axes.tick_params(length=0, labelsize=7, labelcolor=INK)
    axes.spines[:].set_visible(False)
