"""What a run tells people while it goes: a progress bar, lines, a metrics JSONL and TensorBoard.

It does not decide anything.
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.evaluation.metrics import DEFAULT_KS
from training.fit.checkpoint import cut_log
from training.fit.forgetting import Change
from training.fit.validate import Outcome

LINE_SECONDS = 30.0
"""Where there is no terminal, a line this often instead of a bar."""


class Reporter:
    """Speaks for one run; give `folder=None` and a quiet console on all but the first process."""

    def __init__(
        self, console: Console, folder: Path | None, *, steps_done: int = 0, validated: bool = True
    ) -> None:
        self._console = console
        self._log = None
        self._board: Any = None
        if folder is not None:
            from torch.utils.tensorboard.writer import SummaryWriter  # slow to import; only training needs it

            path = folder / "metrics.jsonl"
            cut_log(path, steps_done, validated=validated)
            self._log = path.open("a", encoding="utf8")
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=steps_done + 1)

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._log is not None:
            self._log.close()
            self._board.close()

    def say(self, text: str) -> None:
        self._console.print(escape(text), highlight=False)

    def warn(self, texts: Sequence[str]) -> None:
        for text in texts:
            self._console.print(f"[yellow]warning[/] {escape(text)}", highlight=False)

    def record(self, step: int, **figures: float | str) -> None:
        """One line of the metrics log; numbers go to TensorBoard too."""
        if self._log is None:
            return
        self._log.write(json.dumps({"step": step, **figures}) + "\n")
        self._log.flush()
        prefix = f"{figures['set']}/" if "set" in figures else ""
        for name, value in figures.items():
            if isinstance(value, float):
                self._board.add_scalar(prefix + name, value, step)

    def outcomes(self, step: int, outcomes: Sequence[Outcome]) -> None:
        """Say and record a validation."""
        for outcome in outcomes:
            recall = {name: 100 * value for name, value in outcome.recall.items()}
            t2i = "/".join(f"{recall[f't2i@{k}']:.1f}" for k in DEFAULT_KS)
            i2t = "/".join(f"{recall[f'i2t@{k}']:.1f}" for k in DEFAULT_KS)
            self.say(f"  {outcome.name}: T→I R@1/5/10 {t2i}  I→T {i2t}  score {100 * outcome.score:.2f}")
            self.record(
                step, set=outcome.name, **{name: round(value, 6) for name, value in outcome.recall.items()}
            )

    def changes(self, step: int, changes: Sequence[Change]) -> None:
        """Say and record held-out sets before the first step and after the last."""
        for name in dict.fromkeys(change.name for change in changes):
            own = [change for change in changes if change.name == name]
            for change in own:
                if change.figure.endswith("@10"):
                    self.say(f"  {change}")
            self.record(0, set=name, moment="before", **{one.figure: round(one.before, 6) for one in own})
            self.record(step, set=name, moment="after", **{one.figure: round(one.after, 6) for one in own})

    @contextmanager
    def bar(self, title: str, total: int, *, done: int = 0, unit: str = "images") -> Iterator["Bar"]:
        """A bar on a terminal, a line now and then elsewhere."""
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        ) as progress:
            yield Bar(self, progress, title, total=total, done=done, unit=unit)


class Bar:
    """One task under way; `advance` counts units, images/s is over the time since it began."""

    def __init__(
        self, reporter: Reporter, progress: Progress, title: str, *, total: int, done: int, unit: str
    ) -> None:
        self._reporter, self._progress, self._title, self._unit = reporter, progress, title, unit
        self._task = progress.add_task(title, total=total, completed=done, note="")
        self._total, self._first, self._done = total, done, done
        self._began = self._spoke = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        now = time.monotonic()
        rate = (self._done - self._first) / max(1e-9, now - self._began)
        text = f"{note}  {rate:.0f} {self._unit}/s".strip()
        self._progress.update(self._task, advance=count, note=text)
        if self._progress.disable and now - self._spoke > LINE_SECONDS:
            self._spoke = now
            left = (self._total - self._done) / max(1e-9, rate)
            self._reporter.say(f"  {self._title} {self._done}/{self._total}  {text}  {left:.0f} s left")
