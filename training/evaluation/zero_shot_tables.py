"""Zero-shot figures of reports as a table for a terminal and as Markdown. Knows figures, not how they came."""

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from training.evaluation.report import RetrievalReport, bundle_names, percent
from training.evaluation.zero_shot import ZeroShotReport
from training.markdown import markdown_table

CONFUSIONS_SHOWN = 3


def zero_shot_table(reports: Sequence[RetrievalReport]) -> Table:
    """One row a set and bundle; percentages with 95% intervals by bootstrap over images."""
    tops = _tops(reports)
    table = Table(title="Zero-shot classification (%, with 95% intervals)", title_justify="left")
    table.add_column("set")
    table.add_column("bundle")
    for heading in (*(f"top-{k}" for k in tops), "mean per class", "chance", "tied"):
        table.add_column(heading, justify="right", no_wrap=True)
    for bundle, measured in _rows(reports):
        table.add_row(
            escape(_size(measured)), escape(bundle), *_cells(measured, tops), str(measured.tied_images)
        )
    return table


def zero_shot_markdown(reports: Sequence[RetrievalReport]) -> str:
    """The same table for a card, and the most frequent mistakes; "" where nothing was classified."""
    rows, tops = list(_rows(reports)), _tops(reports)
    if not rows:
        return ""
    heads = ["set", "bundle", *(f"top-{k}" for k in tops), "mean per class", "chance"]
    cells = [[_size(each), bundle, *_cells(each, tops)] for bundle, each in rows]
    lines = markdown_table(heads, cells, texts=2)
    lines += ["", "Zero-shot classification, percentages with 95% intervals by bootstrap over images."]
    return "\n".join([*lines, *(f"- {note}" for note in zero_shot_notes(reports))]) + "\n"


def zero_shot_notes(reports: Sequence[RetrievalReport]) -> list[str]:
    """Most frequent mistakes, then the cautions."""
    notes = []
    for bundle, measured in _rows(reports):
        mistakes = ", ".join(
            f"{each.name} taken for {each.taken_for} ({each.images:.3g}, {each.share:.0%} of its images)"
            for each in measured.confused[:CONFUSIONS_SHOWN]
        )
        if mistakes:
            notes.append(f"{measured.name}, {bundle}: most confused: {mistakes}")
    return [*notes, *zero_shot_cautions(reports)]


def zero_shot_cautions(reports: Sequence[RetrievalReport]) -> list[str]:
    """Images left out, and warnings."""
    notes = []
    for bundle, measured in _rows(reports):
        head = f"{measured.name}, {bundle}"
        for left_out, why in ((measured.missing, "have no file or class"), (measured.broken, "do not decode")):
            if left_out:
                first = left_out[0]
                notes.append(f"{head}: {len(left_out)} images {why}, as {first.image_id} ({first.reason})")
        notes += [f"{head}: WARNING: {warning}" for warning in measured.warnings]
    return notes


def _rows(reports: Sequence[RetrievalReport]) -> Iterator[tuple[str, ZeroShotReport]]:
    names = dict.fromkeys(each.name for report in reports for each in report.classification)
    for name in names:
        for report, bundle in zip(reports, bundle_names(reports), strict=True):
            yield from ((bundle, each) for each in report.classification if each.name == name)


def _tops(reports: Sequence[RetrievalReport]) -> list[int]:
    return sorted({k for _, each in _rows(reports) for k in each.top})


def _size(measured: ZeroShotReport) -> str:
    return f"{measured.name} ({measured.images:,}, {measured.classes:,} classes)"


def _cells(measured: ZeroShotReport, tops: list[int]) -> list[str]:
    shares = (f"{100 * measured.mean_per_class:.1f}", f"{100 * measured.chance:.1f}")
    return [*(percent(measured.top.get(k)) for k in tops), *shares]
