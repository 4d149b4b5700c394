"""`python -m training evaluate`: bundles × sets to a table, a page, JSON, images and Markdown.

Thin: parse, call, show. torch is imported only once the sets have been read.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from training.console import errors_shown
from training.data.labelled import ZeroShotTask, read_zero_shot
from training.data.pairs import PairSet, read_pairs
from training.errors import EvaluationError
from training.evaluation.bundles import MeasureSettings, measure_bundles
from training.evaluation.comparison import Comparison, write_comparison
from training.evaluation.comparison_tables import comparison_markdown, comparison_tables
from training.evaluation.progress import progress_on
from training.evaluation.report import (
    RetrievalReport,
    bundle_names,
    dataset_names,
    report_markdown,
    report_notes,
    report_table,
    write_report,
)
from training.evaluation.shifts import corruptions_of
from training.evaluation.zero_shot_tables import zero_shot_markdown, zero_shot_notes, zero_shot_table
from training.files import replacing
from training.page.failures import FailureLogs
from training.page.writing import write_report_page
from training.shift.conditions import (
    corrupted_conditions,
    parse_corruptions,
    parse_input_sizes,
    parse_severities,
)

EXIT_LEAKS = 3
LONGEST_ENDING = 80

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
        typer.Option(help="Images with classes: folder:FOLDER, csv:FILE?class=COLUMN, … (repeatable)."),
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help="Texts with {} for a class's name, one a line (default: CLIP's seven).")
    ] = None,
    corruptions: Annotated[
        str, typer.Option(help="all, image, text, light, resolution, or names, separated by commas.")
    ] = "",
    severities: Annotated[str, typer.Option(help="Of the corruptions: 1-5, 3, or 1,3,5.")] = "1-5",
    input_sizes: Annotated[
        str,
        typer.Option(help="Other sizes for the image tower, in pixels: 160,288 or 160x224 (height x width)."),
    ] = "",
    baseline: Annotated[
        Path | None, typer.Option(help="A bundle that the others are compared with (default: the first).")
    ] = None,
    in_domain: Annotated[
        str | None, typer.Option(help="The name of the set that is not unseen: gaps are from its figures.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for report.html, and the same as JSON, PNGs and Markdown.")
    ] = None,
    train: Annotated[
        list[str] | None,
        typer.Option(
            help="A set the bundles were trained on: looked through for the test images (repeatable)."
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="A folder to keep embeddings in, and reuse.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images and captions the encoder takes at once.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    bank: Annotated[
        bool,
        typer.Option("--bank/--no-bank", help="Rank with the bundle's bank of queries, as a release does."),
    ] = True,
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Keep the report in the bundle (report.json), and its figures in its README.md."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON report a line and bundle.")] = False,
) -> None:
    """Measure how well bundles retrieve, text→image and image→text, on sets of pairs, clean and under shift.

    Exit status: 0 measured; 3 measured, but test images stand in a --train set; 2 a bundle, a set or an
    option cannot be used.
    """
    with errors_shown():
        settings = MeasureSettings(
            batch=batch,
            cache=cache,
            device=device,
            precision=precision,
            conditions=corrupted_conditions(parse_corruptions(corruptions), parse_severities(severities)),
            input_sizes=parse_input_sizes(input_sizes),
            baseline=baseline,
            in_domain=in_domain,
            bank=bank,
        )
        if store and not bank:
            raise EvaluationError(
                "--store keeps the figures of a release, which ranks with the bank: not --no-bank"
            )
        if out:
            out.mkdir(parents=True, exist_ok=True)
        zero_shot = read_zero_shot(classify or (), templates)
        measured = _measure(bundles, data or (), train=train or (), zero_shot=zero_shot, settings=settings)
        if out:
            _write(measured, bundles, out)
        if store:
            _store(bundles, measured.reports)
    _show(measured, as_json=as_json)
    raise typer.Exit(EXIT_LEAKS if measured.leaked else 0)


@dataclass(frozen=True)
class _Measured:
    """Reports of the bundles in their order, how they compare, and what the page shows besides."""

    reports: Sequence[RetrievalReport]
    comparison: Comparison | None
    test_sets: Sequence[PairSet]
    failures: FailureLogs

    @property
    def leaked(self) -> bool:
        return any(
            leaks
            for report in self.reports
            for dataset in report.datasets
            for leaks in (dataset.leaks or {}).values()
        )


def _measure(
    bundles: Sequence[Path],
    data: Sequence[str],
    *,
    train: Sequence[str],
    zero_shot: ZeroShotTask,
    settings: MeasureSettings,
) -> _Measured:
    if not data and not zero_shot.sets:
        raise EvaluationError("nothing to measure: name a set by --data, or images by --classify")
    test_sets, train_sets = ([read_pairs(spec) for spec in specs] for specs in (data, train))
    failures = FailureLogs()
    with progress_on(_err) as progress:
        reports, comparison = measure_bundles(
            bundles,
            test_sets,
            train_sets=train_sets,
            zero_shot=zero_shot,
            settings=settings,
            progress=progress,
            listener=failures.of,
        )
    return _Measured(reports, comparison, test_sets, failures)


def _store(bundles: Sequence[Path], reports: Sequence[RetrievalReport]) -> None:
    from encoders.bundle import Bundle
    from training.card import store_report

    # A baseline that is none of the bundles has the last report: it was not asked to keep it.
    for path, report in zip(bundles, reports, strict=False):
        store_report(Bundle.open(path, verify=False), report)


def _write(measured: _Measured, bundles: Sequence[Path], folder: Path) -> None:
    reports, comparison = measured.reports, measured.comparison
    for report, name in zip(reports, bundle_names(reports), strict=True):
        suffix = "" if len(reports) == 1 else "-" + name.replace(" ", "-")
        write_report(report, folder / f"report{suffix}.json")
    _draw(reports, folder)
    parts = [report_markdown(reports), zero_shot_markdown(reports)]
    if comparison:
        write_comparison(comparison, folder / "comparison.json")
        parts.append(comparison_markdown(comparison))
    with replacing(folder / "report.md") as file:
        file.write("\n".join(part for part in parts if part).encode())
    write_report_page(
        reports,
        comparison,
        folder / "report.html",
        logs=measured.failures.logs,
        pair_sets=measured.test_sets,
        bundles=bundles,
        command=shlex.join(["python", "-m", "training", *sys.argv[1:]]),
    )


def _draw(reports: Sequence[RetrievalReport], folder: Path) -> None:
    """report.png, and a set's curves and heat map where it was corrupted."""
    from training.evaluation.charts import draw_curves, draw_heat_map, draw_recall

    if names := dataset_names(reports):
        draw_recall(reports, folder / "report.png")
    corrupted = [name for name in names if corruptions_of(reports, name)]
    for name, ending in zip(corrupted, _endings(corrupted), strict=True):
        draw_curves(reports, name, folder / f"severity-{ending}.png")
        draw_heat_map(reports, name, folder / f"heat-{ending}.png")


def _endings(names: Sequence[str]) -> list[str]:
    """Parts of file names, all different: a set may be called anything."""
    plain = [re.sub(r"[^\w.+-]+", "-", name)[:LONGEST_ENDING] for name in names]
    return [each if plain.count(each) == 1 else f"{each}-{at}" for at, each in enumerate(plain, 1)]


def _show(measured: _Measured, *, as_json: bool) -> None:
    reports, comparison = measured.reports, measured.comparison
    if as_json:
        for report in reports:
            typer.echo(report.model_dump_json())
        return
    # A pipe has no width of its own: give the table the one it needs instead of folding it at 80.
    console = _out if _out.is_terminal else Console(width=160)
    compared = comparison_tables(comparison) if comparison else ()
    for table in (report_table(reports), *compared, zero_shot_table(reports)):
        if table.row_count:
            console.print(table)
    for note in [*report_notes(reports), *zero_shot_notes(reports)]:
        style = "red" if "LEAK" in note or "SEEN:" in note else "yellow" if "WARNING" in note else "dim"
        console.print(f"[{style}]{escape(note)}[/{style}]", highlight=False, soft_wrap=True)
