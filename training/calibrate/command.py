"""`python -m training calibrate`: a bundle and held-out pairs to a calibration, and its figures on another set.

Thin: parse, call, show. torch is imported only once the sets have been read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer
from rich.console import Console

from training.calibrate.absent import DEFAULT_ABSENT, AbsentQuery, read_absent
from training.console import errors_shown, stages_on
from training.data.pairs import PairSet, read_pairs
from training.errors import CalibrationError

if TYPE_CHECKING:
    from encoders.calibration import Calibration, Figures
    from training.calibrate.report import CalibrationReport, TakenOut
    from training.calibrate.run import CalibrationSettings
    from training.evaluate.embedding import OnProgress

EXIT_NOTHING_KEPT = 4

Set: TypeAlias = tuple[PairSet, list[AbsentQuery]]
Sets: TypeAlias = tuple[list[PairSet], list[AbsentQuery]]


def calibrate_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle to calibrate.")],
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Held-out pairs to fit on (repeatable); without, the bundle's own is measured."),
    ] = None,
    absent: Annotated[Path, typer.Option(help="Captions of what those do not show.")] = DEFAULT_ABSENT,
    evaluate: Annotated[str | None, typer.Option(help="Other pairs, to measure on.")] = None,
    evaluate_absent: Annotated[
        Path, typer.Option(help="Captions of what the pairs to measure on do not show.")
    ] = DEFAULT_ABSENT,
    out: Annotated[
        Path | None, typer.Option(help="A folder for calibration.json, report.json and reliability.png.")
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write it into the bundle, whose fingerprint stays.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="A folder to keep embeddings in, and reuse.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pictures the encoder takes at once.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Fit what makes cosines say how relevant a hit is, and when nothing matches; measure it on another set.

    Exit status: 0 done; 4 --in-place wrote nothing, for a flat cutoff decides better; 2 a bundle, a set or a
    list cannot be used.
    """
    kept: Calibration | None = None
    losers: list[str] = []
    with errors_shown():
        if not data and evaluate is None:
            raise CalibrationError("nothing to do: name pairs to fit on (--data) or to measure on (--evaluate)")
        if not data and in_place:
            raise CalibrationError("--in-place writes what is fitted: name pairs to fit on (--data)")
        fit_on = ([read_pairs(spec) for spec in data], read_absent(absent)) if data else None
        test_on = None if evaluate is None else (read_pairs(evaluate), read_absent(evaluate_absent))
        from training.calibrate.run import CalibrationSettings

        settings = CalibrationSettings(batch=batch, cache=cache)
        with stages_on(Console(stderr=True)) as on_progress:
            calibration, report = _run(
                bundle, fit_on, test_on, settings=settings, device=device, on_progress=on_progress
            )
        if out is not None:
            from training.calibrate.report import write_calibration_report

            write_calibration_report(calibration, report, out)
        if in_place:
            from encoders.bundle import Bundle
            from training.calibrate.run import store_calibration, without_losers

            kept, losers = without_losers(calibration)
            if kept is not None:
                store_calibration(Bundle.open(bundle, verify=False), kept)
    show(calibration, report)
    for reason in losers:
        typer.echo(reason)
    if in_place and kept is None:
        raise typer.Exit(EXIT_NOTHING_KEPT)


def _run(
    path: Path,
    fit_on: Sets | None,
    test_on: Set | None,
    *,
    settings: "CalibrationSettings",
    device: str,
    on_progress: "OnProgress",
) -> "tuple[Calibration, CalibrationReport | None]":
    from encoders.bundle import Bundle
    from encoders.calibration import read_calibration
    from encoders.encoder import Encoder
    from training.calibrate.run import calibrate_encoder, measure_calibration

    bundle = Bundle.open(path)
    encoder = Encoder.load(bundle, device=device, max_batch=settings.batch)
    if fit_on is None:
        calibration = read_calibration(path, fingerprint=bundle.fingerprint)
        if calibration is None:
            raise CalibrationError(f"{path} carries no calibration: fit one on held-out pairs (--data)")
    else:
        calibration = calibrate_encoder(
            encoder, fit_on[0], absent=fit_on[1], settings=settings, on_progress=on_progress
        )
    if test_on is None:
        return calibration, None
    report = measure_calibration(
        encoder, calibration, test_on[0], absent=test_on[1], settings=settings, on_progress=on_progress
    )
    return calibration, report


def show(calibration: "Calibration", report: "CalibrationReport | None") -> None:
    """Figures of the fit, then of what it was measured on."""
    for name, direction in calibration.directions.items():
        if direction.figures is not None:
            _show_figures(f"fitted, {name}", direction.figures)
    for name, figures in (report.directions if report else {}).items():
        _show_figures(f"measured, {name}", figures)
    if report is not None and report.taken_out is not None:
        _show_taken_out(report.taken_out)


def _show_figures(title: str, figures: "Figures") -> None:
    decision = figures.decision
    typer.echo(
        f"{title}: {figures.measured_on}, gallery of {figures.gallery_items:,}\n"
        f"  relevance: expected calibration error {figures.expected_calibration_error:.3f}\n"
        f"  nothing matches: balanced accuracy {decision.balanced_accuracy:.1%} "
        f"(a flat cutoff at {figures.flat_cutoff:.3f}: {figures.flat_decision.balanced_accuracy:.1%}), "
        f"precision {decision.precision_absent:.1%}, recall {decision.recall_absent:.1%} "
        f"of {decision.absent_queries:,}; keeps {decision.recall_present:.1%} "
        f"of {decision.present_queries:,} queries that have a match"
    )


def _show_taken_out(taken_out: "TakenOut") -> None:
    typer.echo(
        f"own photo taken out: balanced accuracy {taken_out.decision.balanced_accuracy:.1%} "
        f"(flat cutoff {taken_out.flat_decision.balanced_accuracy:.1%}); a perfect judge would reach "
        f"{taken_out.ceiling:.1%}, as another photo is described as alike for {taken_out.still_described:.1%}"
    )
