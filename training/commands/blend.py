"""`python -m training interpolate` and `soup`: what a person types, and what they are told.

Thin: parse, call, show. torch is imported only once the arguments are seen to fit together.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from training.console import errors_shown
from training.errors import BlendError

if TYPE_CHECKING:
    from encoders.bundle import Bundle
    from training.blend.measured import Measure, Point
    from training.evaluation.report import RetrievalReport


Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Batch = Annotated[int, typer.Option(min=1, help="Images and captions the encoder takes at once.")]


def interpolate_command(
    first: Annotated[Path, typer.Argument(help="The bundle at α = 0: what fine-tuning began from.")],
    second: Annotated[Path, typer.Argument(help="The bundle at α = 1: what came out.")],
    *,
    alpha: Annotated[float | None, typer.Option(min=0, max=1, help="Share of the second bundle.")] = None,
    alphas: Annotated[str | None, typer.Option(help="Several, 0,0.25,0.5: prints the curve on --data.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="A set to show the curve on (repeatable).")] = None,
    best_on: Annotated[
        list[str] | None, typer.Option(help="A set to choose α on, for --out: none of --data's (repeatable).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder that the bundle is written to.")] = None,
    device: Device = "auto",
    batch: Batch = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line and α.")] = False,
) -> None:
    """Average two bundles' weights, (1 − α) · first + α · second (WiSE-FT)."""
    with errors_shown():
        if alpha is not None:
            _write(first, second, alpha, _out_alone(out, alphas, data, best_on))
            return
        wanted = _parse_alphas(alphas)
        if not data and not best_on:
            raise BlendError("--alphas prints a curve: name a set to draw it on with --data")
        if (out is None) != (not best_on):
            raise BlendError(
                "--out with --alphas needs --best-on, a set to choose α on, and the other way round"
            )
        if both := set(data or ()) & set(best_on or ()):
            raise BlendError(
                f"{both.pop()}: what α is chosen on cannot show how good the choice is; name another"
            )
        measures = {"": data or [], "choice: ": best_on or []}
        for title, specs in measures.items():
            if not specs:
                continue
            points = _curve(first, second, wanted, _measure(specs, device, batch))
            _show_curve(points, title=title, as_json=as_json)
            if title and out is not None:
                _choose(first, second, points, out)


def soup_command(
    bundles: Annotated[list[Path], typer.Argument(help="Two bundles and more, of the same towers.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder that the bundle is written to.")],
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Keep only what does not lower the score on --data.")
    ] = False,
    data: Annotated[
        list[str] | None, typer.Option(help="Held-out sets: a greedy soup chooses on them (repeatable).")
    ] = None,
    device: Device = "auto",
    batch: Batch = 32,
) -> None:
    """Average the weights of several bundles: a uniform soup, or a greedy one."""
    with errors_shown():
        if len(bundles) < 2:
            raise BlendError(f"a soup takes at least two bundles, {len(bundles)} is given")
        if greedy != bool(data):
            raise BlendError("--greedy chooses by retrieval on --data: give both, or neither")
        from encoders.bundle import Bundle
        from training.blend.blend import blend, check_alike

        opened = [Bundle.open(path) for path in bundles]
        check_alike(opened)
        if data:
            from training.blend.measured import greedy_soup

            opened, tasted = greedy_soup(opened, _measure(data, device, batch))
            for taste in tasted:
                outcome = "kept" if taste.kept else "left out"
                typer.echo(f"{taste.name}: score {100 * taste.score:.2f} with it, {outcome}")
        method = "greedy soup" if greedy else "uniform soup"
        made = blend(opened, [1 / len(opened)] * len(opened), out, method=method)
        typer.echo(f"bundle {made.name} {made.fingerprint[:12]} of {len(opened)} written to {out}")
        _tell_left_behind(opened, made)


def _out_alone(out: Path | None, *others: object) -> Path:
    if out is None or any(others):
        raise BlendError("--alpha takes --out alone, no --alphas, --data or --best-on: it writes one bundle")
    return out


def _write(first: Path, second: Path, alpha: float, out: Path) -> None:
    from encoders.bundle import Bundle
    from training.blend.blend import blend

    opened = [Bundle.open(first), Bundle.open(second)]
    made = blend(opened, [1 - alpha, alpha], out, method="interpolation")
    typer.echo(f"bundle {made.name} {made.fingerprint[:12]} at α = {alpha:g} written to {out}")
    _tell_left_behind(opened, made)


def _tell_left_behind(parents: "Sequence[Bundle]", made: "Bundle") -> None:
    from training.heirlooms import left_behind

    if told := left_behind(parents, made):
        typer.echo(told)


def _parse_alphas(text: str | None) -> list[float]:
    if text is None:
        raise BlendError("give --alpha 0.5 with --out, or --alphas 0,0.25,0.5,0.75,1 with --data")
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise BlendError(f"--alphas takes numbers joined by commas, not {text!r}") from error
    if any(not 0 <= one <= 1 for one in found):
        raise BlendError(f"--alphas lie between 0 and 1, given {text!r}")
    return found


def _measure(specs: Sequence[str], device: str, batch: int) -> "Measure":
    from training.blend.measured import measure_on
    from training.data.pairs import read_pairs

    return measure_on([read_pairs(spec) for spec in specs], device=device, batch=batch)


def _curve(first: Path, second: Path, alphas: Sequence[float], measure: "Measure") -> "list[Point]":
    from encoders.bundle import Bundle
    from training.blend.measured import curve

    return curve(Bundle.open(first), Bundle.open(second), alphas, measure)


def _choose(first: Path, second: Path, points: "Sequence[Point]", out: Path) -> None:
    from training.blend.measured import best_alpha

    _write(first, second, best_alpha(points), out)


def _show_curve(points: "Sequence[Point]", *, title: str, as_json: bool) -> None:
    from training.blend.measured import score

    if as_json:
        for point in points:
            report = point.report.model_dump(mode="json")
            typer.echo(json.dumps({"alpha": point.alpha, "score": score(point.report), "report": report}))
        return
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for point in points:
        for line in _lines(point.report):
            console.print(f"{title}α {point.alpha:<5g} {escape(line)}", highlight=False, soft_wrap=True)


def _lines(report: "RetrievalReport") -> list[str]:
    from training.evaluation.report import DIRECTION_TITLES, percent

    return [
        f"{dataset.name} {arrow}  " + "  ".join(
            f"R@{k} {percent(estimate)}" for k, estimate in dataset.recall[direction].items()
        )
        for dataset in report.datasets
        for direction, arrow in DIRECTION_TITLES.items()
    ]  # fmt: skip
