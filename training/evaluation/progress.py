"""How far an evaluation is: a bar for the whole run with the time left, and the stage under way.

On a terminal two bars; elsewhere a plain line now and then, and one at the end of each stage. The time left is
made of the rates seen so far, of images and captions apart; what a cache already had costs none. It decides
nothing.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:  # it brings torch, which a command loads last
    from training.evaluation.embedding import OnProgress

SECONDS_BETWEEN_LINES = 10.0
KINDS = ("images", "captions")
WEIGHTS = {"images": 10, "captions": 1}
"""In the bar's share of the work; the time left is measured."""


@dataclass
class _Work:
    """Of one kind: planned, done (by work or from a cache), and the pace of what was worked for."""

    planned: int = 0
    done: int = 0
    worked: int = 0
    seconds: float = 0.0

    @property
    def seconds_left(self) -> float:
        return max(0, self.planned - self.done) * self.seconds / max(1, self.worked)


@dataclass
class RunProgress:
    """Of one run. `plan` first; `at(prefix)` gives what an evaluation calls."""

    console: Console
    bars: Progress | None = None
    clock: Callable[[], float] = time.monotonic
    _work: dict[str, _Work] = field(default_factory=lambda: {kind: _Work() for kind in KINDS})
    _stage: str = ""
    _stage_done: int = 0
    _stage_began: tuple[int, float] = (0, 0.0)
    _between_seconds: float = 0.0
    _tasks: list[TaskID] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._last = self._shown_at = self.clock()

    def plan(self, *, images: int, captions: int) -> None:
        """So many are to be embedded, over all bundles, sets and conditions."""
        self._work["images"].planned += images
        self._work["captions"].planned += captions

    def at(self, prefix: str) -> "OnProgress":
        """An `OnProgress` that names its stages with a prefix."""
        return lambda stage, done, total: self._update(prefix + stage, done, total)

    @property
    def share(self) -> float:
        """Of the planned work that is done, from 0 to 1."""
        planned = sum(WEIGHTS[kind] * work.planned for kind, work in self._work.items())
        done = sum(WEIGHTS[kind] * min(work.done, work.planned) for kind, work in self._work.items())
        return done / planned if planned else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None until something was done. Time between stages (ranking) goes with the share that is left."""
        if self.share == 0:
            return None
        between = self._between_seconds * (1 - self.share) / self.share
        return between + sum(work.seconds_left for work in self._work.values())

    def _update(self, stage: str, done: int, total: int) -> None:
        now = self.clock()
        self._account(stage, done, now)
        began_with, began_at = self._stage_began
        rate = (done - began_with) / max(1e-3, now - began_at)
        if self.bars is not None:
            self._draw(self.bars, total, rate)
        elif done == total or now - self._shown_at > SECONDS_BETWEEN_LINES:
            self._shown_at = now
            pace = f", {rate:,.1f}/s" if done > began_with else ""
            line = f"{stage}: {done:,} of {total:,}{pace}; {self._whole()}"
            self.console.print(escape(line), highlight=False, soft_wrap=True)

    def _account(self, stage: str, done: int, now: float) -> None:
        work = self._work.get(stage.rpartition(": ")[2], _Work())
        if stage != self._stage:  # what it begins with was in the cache
            self._stage, self._stage_began = stage, (done, now)
            self._between_seconds += now - self._last
            work.done += done
        else:
            work.done += done - self._stage_done
            work.worked += done - self._stage_done
            work.seconds += now - self._last
        self._stage_done, self._last = done, now

    def _whole(self) -> str:
        left = self.seconds_left
        return f"{self.share:.0%} of the run" + ("" if left is None else f", {_clock(left)} left")

    def _draw(self, bars: Progress, total: int, rate: float) -> None:
        if not self._tasks:
            self._tasks = [bars.add_task("whole run", total=1.0, note=""), bars.add_task("", note="")]
        run, stage = self._tasks
        bars.update(run, completed=self.share, note=self._whole())
        done, name = self._stage_done, escape(self._stage)
        note = f"{done:,} of {total:,}, {rate:,.1f}/s"
        bars.update(stage, description=name, completed=done, total=total, note=note)


@contextmanager
def progress_on(console: Console) -> Iterator[RunProgress]:
    """Bars where the console is a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield RunProgress(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console) as bars:
        yield RunProgress(console, bars)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
