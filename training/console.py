"""What the commands share: how errors are told, and how far a stage is. It knows none of them."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from encoders.errors import TwinlensError

if TYPE_CHECKING:
    from training.evaluation.embedding import OnProgress

EXIT_BAD_INPUT = 2
SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def errors_shown(*others: type[Exception]) -> Iterator[None]:
    """Errors meant for people, and `others`, become one line on stderr, and exit status 2."""
    expected: tuple[type[Exception], ...] = (TwinlensError, OSError, *others)
    try:
        yield
    except expected as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(EXIT_BAD_INPUT)


@contextmanager
def stages_on(console: Console) -> Iterator["OnProgress"]:
    """A callback that shows a bar a stage, with the time left, on a terminal; elsewhere a line now and then."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        yield _bars(bars)


def _bars(bars: Progress) -> "OnProgress":
    """One bar, which each stage takes over from the one before: the same stage comes many times."""
    under_way: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in under_way:
            for task in under_way.values():
                bars.remove_task(task)
            under_way.clear()
            under_way[stage] = bars.add_task(escape(stage), total=total)
        bars.update(under_way[stage], completed=done)

    return show


def _lines(console: Console) -> "OnProgress":
    shown_at = time.monotonic()

    def show(stage: str, done: int, total: int) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at > SECONDS_BETWEEN_LINES:
            shown_at = time.monotonic()
            console.print(escape(f"{stage}: {done:,} of {total:,}"), highlight=False, soft_wrap=True)

    return show
