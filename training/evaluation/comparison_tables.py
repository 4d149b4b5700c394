"""Tables of a Comparison, for a terminal and as Markdown: what is kept, which bundle is better, the gaps.

Absolute recall stands beside every relative figure: a relative one flatters a model near chance. Shows the
deepest k that was measured (R@10); all of them are in the JSON. Measures nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from training.evaluation.comparison import Comparison, CorruptionScore, Difference, Shift
from training.evaluation.metrics import Estimate
from training.evaluation.report import DIRECTION_TITLES, percent
from training.markdown import markdown_table
from training.shift.corruptions import SEVERITIES


@dataclass(frozen=True)
class _Sheet:
    """A table before it is shown: `texts` columns come left-aligned, first."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int


def comparison_tables(comparison: Comparison) -> tuple[Table, ...]:
    """For a terminal; single corruptions are not compared between bundles here, their means are."""
    return tuple(_terminal(sheet) for sheet in _sheets(comparison, every_subject=False))


def comparison_markdown(comparison: Comparison) -> str:
    """All tables, each under its title."""
    return "\n".join(_markdown(sheet) for sheet in _sheets(comparison, every_subject=True))


def _sheets(comparison: Comparison, *, every_subject: bool) -> Iterator[_Sheet]:
    sheets = (
        _kept(comparison),
        _means(comparison),
        _sizes(comparison),
        _differences(comparison, every_subject=every_subject),
        _scores(comparison),
        _gaps(comparison),
    )
    return (sheet for sheet in sheets if sheet.rows)


def _kept(comparison: Comparison) -> _Sheet:
    """One row a corruption, a column a severity."""
    k = _depth(comparison.shifts)
    shown = [s for s in comparison.shifts if s.k == k and s.severity and not _is_mean(s)]
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for shift in shown:
        key = (shift.dataset, shift.bundle, _marked(shift), DIRECTION_TITLES[shift.direction])
        row = rows.setdefault((*key, f"{100 * shift.clean:.1f}"), {})
        row[shift.severity or 0] = f"{100 * shift.recall.value:.1f} ({_share(shift.retention)})"
    return _Sheet(
        f"R@{k} under corruption by severity, in % (in brackets: % of the clean figure kept; "
        "* kept out of training, (*) kept out but for a kind much like it)",
        ("set", "bundle", "corruption", "", "clean", *map(str, SEVERITIES)),
        tuple((*key, *(row.get(each, "–") for each in SEVERITIES)) for key, row in rows.items()),
        texts=4,
    )


def _means(comparison: Comparison) -> _Sheet:
    k = _depth(comparison.shifts)
    return _Sheet(
        f"R@{k} averaged over a group of corruptions, with 95% intervals (%)",
        ("set", "bundle", "corruptions", "", "severity", "clean", "mean recall", "kept"),
        tuple(
            (
                shift.dataset, shift.bundle, shift.subject, DIRECTION_TITLES[shift.direction],
                str(shift.severity), f"{100 * shift.clean:.1f}", percent(shift.recall),
                percent(shift.retention),
            )
            for shift in comparison.shifts
            if shift.k == k and _is_mean(shift)
        ),
        texts=4,
    )  # fmt: skip


def _sizes(comparison: Comparison) -> _Sheet:
    k = _depth(comparison.shifts)
    return _Sheet(
        f"R@{k} at other input sizes, with 95% intervals (%)",
        ("set", "bundle", "input", "", "own size", "recall", "difference", "kept"),
        tuple(
            (
                shift.dataset, shift.bundle, shift.subject, DIRECTION_TITLES[shift.direction],
                f"{100 * shift.clean:.1f}", percent(shift.recall), _points(shift.difference),
                percent(shift.retention),
            )
            for shift in comparison.shifts
            if shift.k == k and shift.severity is None
        ),
        texts=4,
    )  # fmt: skip


def _differences(comparison: Comparison, *, every_subject: bool) -> _Sheet:
    k = _depth(comparison.differences)
    return _Sheet(
        f"R@{k} minus that of {comparison.reference}, in points "
        "(95% intervals by paired bootstrap over images)",
        ("set", "bundle", "under", "", "recall", "kept", "verdict on the recall"),
        tuple(
            (
                each.dataset, each.bundle, _subject(each), DIRECTION_TITLES[each.direction],
                _points(each.recall), _points(each.retention), each.verdict,
            )
            for each in comparison.differences
            if each.k == k and (every_subject or each.subject == "clean" or _is_mean(each))
        ),
        texts=4,
    )  # fmt: skip


def _scores(comparison: Comparison) -> _Sheet:
    k = _depth(comparison.scores)
    return _Sheet(
        f"Corruption errors (1 − R@{k}) against {comparison.reference}'s = 100; relative: errors added",
        ("set", "bundle", "", "corruptions", "mean", "relative"),
        tuple(
            (
                each.dataset, each.bundle, DIRECTION_TITLES[each.direction],
                str(each.corruptions), percent(each.score), percent(each.relative),
            )
            for each in comparison.scores
            if each.k == k
        ),
        texts=3,
    )  # fmt: skip


def _gaps(comparison: Comparison) -> _Sheet:
    home = comparison.gaps[0].in_domain if comparison.gaps else ""
    return _Sheet(
        f"Gap to other sets: recall on {home} minus recall here, in points (galleries differ in size)",
        ("set", "bundle", "the set is", "", "R@", "gap"),
        tuple(
            (
                each.dataset,
                each.bundle,
                each.status or "not looked for",
                DIRECTION_TITLES[each.direction],
                str(each.k),
                _points(each.gap),
            )
            for each in comparison.gaps
        ),
        texts=4,
    )


def _depth(figures: Sequence[Shift | Difference | CorruptionScore]) -> int:
    return max((each.k for each in figures), default=0)


def _is_mean(figure: Shift | Difference) -> bool:
    return figure.subject.startswith("mean of")


def _subject(figure: Difference) -> str:
    return figure.subject if figure.severity is None else f"{figure.subject} {figure.severity}"


def _marked(shift: Shift) -> str:
    mark = "" if not shift.held_out else " (*)" if shift.near else " *"
    return shift.subject + mark


def _share(retention: Estimate | None) -> str:
    return "–" if retention is None else f"{100 * retention.value:.0f}"


def _points(difference: Estimate | None) -> str:
    """ "+1.2 (−0.3 to +2.7)"."""
    if difference is None:
        return "–"
    value, low, high = (
        f"{100 * each:+.1f}".replace("-", "−") for each in (difference.value, difference.low, difference.high)
    )
    return f"{value} ({low} to {high})"


def _terminal(sheet: _Sheet) -> Table:
    table = Table(title=sheet.title, title_justify="left")
    for at, heading in enumerate(sheet.columns):
        table.add_column(heading, justify="left" if at < sheet.texts else "right", no_wrap=at >= sheet.texts)
    for row in sheet.rows:
        table.add_row(*map(escape, row))
    return table


def _markdown(sheet: _Sheet) -> str:
    lines = [f"{sheet.title}:", "", *markdown_table(sheet.columns, sheet.rows, texts=sheet.texts)]
    return "\n".join(lines) + "\n"
