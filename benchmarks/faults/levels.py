"""What a service holds as time goes on, and whether it stays level: memory, open files, threads."""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import typer

from benchmarks.faults.trial import Reading

MOST_MORE = 2  # files, and threads, that the last fifth may have more than the first: a caller just there
BARS = "▁▂▃▄▅▆▇█"
COLUMNS = 60


@dataclass
class Levels:
    """Readings of one process, each told as it is taken. Those before the warm-up's end do not count."""

    process_id: int
    started: float = field(default_factory=time.monotonic)
    readings: list[Reading] = field(default_factory=list)
    warm: int | None = None  # readings that were taken when the warm-up ended

    def take(self, note: str = "") -> None:
        reading = Reading.of(self.process_id)
        self.readings.append(reading)
        minutes = (time.monotonic() - self.started) / 60
        typer.echo(
            f"{minutes:7.2f} min  service {reading.service_mebibytes:7.1f} MiB  with its decoders "
            f"{reading.tree_mebibytes:7.1f} MiB  {reading.files:>4} files  {reading.threads:>3} threads  {note}"
        )

    def end_warm_up(self) -> None:
        self.warm = len(self.readings)

    def report(self, *, most_growth: float) -> bool:
        """Say how much more the last fifth of the readings holds than the first, and whether that is level.

        Raises ValueError where the warm-up never ended, or nothing was read after it.
        """
        if self.warm is None or not self.readings[self.warm :]:
            raise ValueError("nothing was read after the warm-up: try for longer")
        typer.echo(f"service, MiB: {sparkline([one.service_mebibytes for one in self.readings])}")
        service, tree = self._growth(_service), self._growth(_tree)
        files, threads = self._more(_files), self._more(_threads)
        typer.echo(
            f"after the warm-up the service grew by {100 * service:+.2f}%, with its decoders by "
            f"{100 * tree:+.2f}%; {files:+.1f} files, {threads:+.1f} threads"
        )
        return max(service, tree) < most_growth and max(files, threads) <= MOST_MORE

    def _fifths(self, value: Callable[[Reading], float]) -> tuple[float, float]:
        """Means of the first fifth and of the last."""
        after = [value(one) for one in self.readings[self.warm :]]
        fifth = max(1, len(after) // 5)
        return sum(after[:fifth]) / fifth, sum(after[-fifth:]) / fifth

    def _growth(self, value: Callable[[Reading], float]) -> float:
        first, last = self._fifths(value)
        return last / first - 1.0

    def _more(self, value: Callable[[Reading], float]) -> float:
        first, last = self._fifths(value)
        return last - first


def sparkline(values: Sequence[float]) -> str:
    """The least, a bar for each of up to 60 means in turn, the most."""
    least, most = min(values), max(values)
    columns = min(COLUMNS, len(values))
    edges = [position * len(values) // columns for position in range(columns + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
    step = (most - least) / (len(BARS) - 1) or 1.0
    return f"{least:.1f} {''.join(BARS[round((mean - least) / step)] for mean in means)} {most:.1f}"


def _service(reading: Reading) -> float:
    return reading.service_mebibytes


def _tree(reading: Reading) -> float:
    return reading.tree_mebibytes


def _files(reading: Reading) -> float:
    return reading.files


def _threads(reading: Reading) -> float:
    return reading.threads
