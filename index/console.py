"""What the commands show: progress, summaries, tables. A bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

from encoders.permissions import reading_advice
from index.catalog import FAILURES_NAME
from index.journal.changes import Change, Upsert
from index.manifest import Manifest
from index.report import OnProgress, RebuildReport, Tally

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_on(console: Console) -> Iterator[OnProgress]:
    """A callback that shows a rebuild's progress, rate and time left."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("indexing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        yield _Bar(bar)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("indexing", total=None, detail="")
        self._started = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        rate = tally.done / max(1e-3, time.monotonic() - self._started)
        failed = f", {tally.failures.total()} failed" if tally.failures else ""
        self._bar.update(
            self._task, completed=tally.done, total=tally.expected, detail=f"{rate:,.0f}/s{failed}"
        )


@dataclass
class _Lines:
    console: Console
    _started: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self._shown < SECONDS_BETWEEN_LINES:
            return
        self._shown = now
        rate = tally.done / (now - self._started)
        left = (tally.expected - tally.done) / rate if tally.expected else 0.0
        self.console.print(
            f"{tally.done:,} of about {tally.expected or 0:,} done, {tally.failures.total():,} failed, "
            f"{rate:,.0f}/s, about {left:,.0f} s left",
            highlight=False,
        )


def show_report(console: Console, report: RebuildReport) -> None:
    """What was published, and what was left out and why."""
    counts, tally = report.manifest.counts, report.tally
    console.print(
        f"published [bold]{report.release_id}[/bold]: {counts.images:,} images ({counts.reused:,} reused), "
        f"{counts.texts:,} texts ({counts.texts_cut:,} cut) in {report.seconds:.1f} s, "
        f"{report.images_per_second:,.1f} images/s",
        highlight=False,
    )
    if since := report.manifest.difference:
        line = (
            f"+{since.added:,}, −{since.removed:,}, {since.changed:,} changed, {since.unchanged:,} as before "
            f"(since {since.release})"
        )
        console.print(line if console.encoding.startswith("utf") else line.replace("−", "-"), highlight=False)
    for searched, measured in report.manifest.recall.items():
        console.print(
            f"recall@{measured.k} of {searched} against exact search, {measured.query_count} queries "
            f"({measured.queries}): {measured.recall:.4f}",
            highlight=False,
        )
    if counts.skipped:
        console.print(f"{counts.skipped:,} files were passed over: their names are not those of images")
    if tally.changed_meanwhile:
        console.print(
            f"{tally.changed_meanwhile:,} were put again or deleted while this was built: a service with live "
            "changes serves them as they are now, and the next rebuild takes them in",
            highlight=False,
        )
    if tally.failures:
        _show_failures(console, report)


def _show_failures(console: Console, report: RebuildReport) -> None:
    kinds = ", ".join(f"{count:,} {code}" for code, count in report.tally.failures.most_common())
    console.print(f"[yellow]{report.tally.failures.total():,} failed[/yellow]: {kinds}", highlight=False)
    for failure in report.tally.first_failures:
        line = _printable(f"{failure.item}: {failure.message}", console.encoding)
        console.print(f"  {escape(line)}", highlight=False)
    if report.tally.failures["not_permitted"]:
        console.print(reading_advice(Path(report.manifest.gallery.root)), highlight=False, markup=False)
    console.print(f"all of them are in {report.release_id}/{FAILURES_NAME}", highlight=False)


def _printable(text: str, encoding: str) -> str:
    """What a terminal can show and obeys not: names and messages may hold anything."""
    shown = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def changes_table(changes: list[Change]) -> Table:
    """One line for each change, in order."""
    table = Table("", Column("item", overflow="fold"), "change", "of", "texts")
    for change in changes:
        name = escape(_printable(change.id, "utf-8"))
        if isinstance(change, Upsert):
            kind = "an image" if change.digest else "a vector"
            table.add_row(f"{change.sequence}", name, "put", kind, f"{len(change.texts)}")
        else:
            table.add_row(f"{change.sequence}", name, "[red]delete[/red]", "", "")
    return table


def releases_table(manifests: list[Manifest], broken: dict[str, str], current: str | None) -> Table:
    """One line for each release, the current one marked."""
    table = Table(
        "", Column("release", min_width=23), "bundle", "fingerprint", "images", "texts", "failed", "MB"
    )
    for manifest in manifests:
        size_bytes = sum(entry.bytes for entry in manifest.files.values())
        counts = manifest.counts
        numbers = (f"{counts.images:,}", f"{counts.texts:,}", f"{counts.failed:,}", f"{size_bytes / 1e6:,.1f}")
        mark = "→" if manifest.id == current else ""
        table.add_row(mark, manifest.id, escape(manifest.bundle), manifest.fingerprint[:12], *numbers)
    for release_id, problem in broken.items():
        table.add_row("→" if release_id == current else "", release_id, f"[red]{escape(problem)}[/red]")
    return table
