"""`python -m training evaluate`: bundles × sets to a table, JSON, a picture and Markdown.

Thin: parse, call, show. torch is imported only once the sets have been read.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from encoders.errors import TwinlensError
from training.errors import EvaluationError
from training.files import replacing
from training.labelled import ZeroShotTask, read_zero_shot
from training.pairs import PairSet, read_pairs
from training.report import (
    RetrievalReport,
    bundle_names,
    report_markdown,
    report_notes,
    report_table,
    write_report,
)
from training.zero_shot_tables import zero_shot_markdown, zero_shot_notes, zero_shot_table

EXIT_BAD_INPUT = 2
EXIT_LEAKS = 3
SECONDS_BETWEEN_LINES = 10.0

_out = Console()
_err = Console(stderr=True)


def evaluate_command(
    bundles: Annotated[list[Path], typer.Argument(help="Bundles to measure, side by side.")],
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(help="A set of pairs: karpathy:FILE:test, coco:FILE:FOLDER, csv:FILE, … (repeatable)."),
    ] = None,
    classify: Annotated[
        list[str] | None,
        typer.Option(help="Pictures with classes: folder:FOLDER, csv:FILE?class=COLUMN, … (repeatable)."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Texts with {} for a class's name, one a line (default: CLIP's seven).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for report.json, report.png and report.md.")
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            help="A set the bundles were trained on: looked through for the test images (repeatable)."
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="A folder to keep embeddings in, and reuse.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures and captions the encoder takes at once.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Keep the report in the bundle (report.json), and its figures in its README.md."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON report a line and bundle.")] = False,
) -> None:
    """Measure how well bundles retrieve, text→image and image→text, on sets of pairs.

    Exit status: 0 measured; 3 measured, but test images stand in a --train set; 2 a bundle, a set or an
    option cannot be used.
    """
    with _errors_shown():
        if out:
            out.mkdir(parents=True, exist_ok=True)
        zero_shot = read_zero_shot(classify or (), templates)
        if not data and not zero_shot.sets:
            raise EvaluationError("nothing to measure: name a set by --data, or pictures by --classify")
        test_sets = [read_pairs(spec) for spec in data or ()]
        train_sets = [read_pairs(spec) for spec in train or ()]
        with _progress_on(_err) as progress:
            reports = _measure(
                bundles,
                test_sets,
                train_sets=train_sets,
                zero_shot=zero_shot,
                settings=_Settings(batch=batch, cache=cache, device=device, precision=precision),
                progress=progress,
            )
        if store:
            _store(bundles, reports)
        if out:
            _write(reports, out)
    _show(reports, as_json=as_json)
    leaked = any(
        leaks for report in reports for each in report.datasets for leaks in (each.leaks or {}).values()
    )
    raise typer.Exit(EXIT_LEAKS if leaked else 0)


@dataclass(frozen=True)
class _Settings:
    batch: int
    cache: Path | None
    device: str
    precision: str


def _measure(
    bundles: Sequence[Path],
    test_sets: Sequence[PairSet],
    *,
    train_sets: Sequence[PairSet],
    zero_shot: ZeroShotTask,
    settings: _Settings,
    progress: "_Progress",
) -> list[RetrievalReport]:
    from encoders.bundle import Bundle
    from encoders.encoder import Encoder, check_precision
    from training.evaluate import EvaluationOptions, evaluate, leaks_into
    from training.zero_shot_run import with_classification

    # Every bundle is opened before the first is measured: a bad one says so at once, not after an hour.
    opened = [Bundle.open(path) for path in bundles]
    essences = [(bundle.name, bundle.fingerprint) for bundle in opened]
    if twice := next(
        (path for path, each in zip(bundles, essences, strict=True) if essences.count(each) > 1), None
    ):
        raise EvaluationError(f"the bundle {twice} is given twice")
    precision = check_precision(settings.precision)
    leaks = leaks_into(test_sets, train_sets, on_progress=progress.at("")) if train_sets else None
    reports = []
    for bundle in opened:
        encoder = Encoder.load(bundle, device=settings.device, precision=precision, max_batch=settings.batch)
        options = EvaluationOptions(batch=settings.batch, cache=settings.cache)
        on_progress = progress.at(f"{bundle.name}, " if len(opened) > 1 else "")
        report = evaluate(encoder, test_sets, options=options, leaks=leaks, on_progress=on_progress)
        reports.append(
            with_classification(report, encoder, zero_shot, options=options, on_progress=on_progress)
        )
    return reports


def _store(bundles: Sequence[Path], reports: Sequence[RetrievalReport]) -> None:
    from encoders.bundle import Bundle
    from training.card import store_report

    for path, report in zip(bundles, reports, strict=True):
        store_report(Bundle.open(path, verify=False), report)


def _write(reports: Sequence[RetrievalReport], folder: Path) -> None:
    from training.charts import draw_recall

    for report, name in zip(reports, bundle_names(reports), strict=True):
        suffix = "" if len(reports) == 1 else "-" + name.replace(" ", "-")
        write_report(report, folder / f"report{suffix}.json")
    if any(report.datasets for report in reports):
        draw_recall(reports, folder / "report.png")
    parts = [report_markdown(reports), zero_shot_markdown(reports)]
    with replacing(folder / "report.md") as file:
        file.write("\n".join(part for part in parts if part).encode())


def _show(reports: Sequence[RetrievalReport], *, as_json: bool) -> None:
    if as_json:
        for report in reports:
            typer.echo(report.model_dump_json())
        return
    # A pipe has no width of its own: give the table the one it needs instead of folding it at 80.
    console = _out if _out.is_terminal else Console(width=160)
    for table in (report_table(reports), zero_shot_table(reports)):
        if table.row_count:
            console.print(table)
    for note in [*report_notes(reports), *zero_shot_notes(reports)]:
        style = "red" if "LEAK" in note else "yellow" if "WARNING" in note else "dim"
        console.print(f"[{style}]{escape(note)}[/{style}]", highlight=False, soft_wrap=True)


@contextmanager
def _errors_shown() -> Iterator[None]:
    try:
        yield
    except (TwinlensError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(EXIT_BAD_INPUT)


@dataclass
class _Progress:
    """Shows each stage: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

    bars: Progress | None
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _shown_at: float = field(default_factory=time.monotonic)
    _started_at: dict[str, float] = field(default_factory=dict)

    def at(self, prefix: str) -> "_Stages":
        return _Stages(self, prefix)

    def update(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        rate = done / max(1e-3, now - self._started_at.setdefault(stage, self._shown_at))
        if self.bars is None:
            if now - self._shown_at > SECONDS_BETWEEN_LINES or done == total:
                self._shown_at = now
                left = (total - done) / max(rate, 1e-9)
                _err.print(
                    f"{stage}: {done:,} of {total:,}, {rate:,.1f}/s, {left:,.0f} s left", highlight=False
                )
            return
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(escape(stage), total=total, rate="")
        self.bars.update(self._tasks[stage], completed=done, rate=f"{rate:,.1f}/s")
        self._shown_at = now


@dataclass(frozen=True)
class _Stages:
    progress: _Progress
    prefix: str

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.progress.update(self.prefix + stage, done, total)


@contextmanager
def _progress_on(console: Console) -> Iterator[_Progress]:
    if not console.is_terminal:
        yield _Progress(None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=console) as bars:
        yield _Progress(bars)
