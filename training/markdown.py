"""Tables in Markdown, whatever their cells hold."""

from collections.abc import Iterable, Sequence


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> list[str]:
    """Lines of a table; its first `texts` columns lie to the left, figures to the right."""
    rule = "|" + "---|" * texts + "---:|" * (len(columns) - texts)
    return [_line(columns), rule, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    whole = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(whole)} |"
