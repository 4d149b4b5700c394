"""`python -m benchmarks`: measure and print. Exit status: 0 measured; 1 something did not work."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import report
from benchmarks.http import BenchmarkFailed
from benchmarks.plan import QUICK, WHOLE, Part
from benchmarks.ranking import RankingFailed
from benchmarks.run import measure_all
from encoders.bundle import DEFAULT_BUNDLE
from encoders.errors import TwinlensError

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def measure(
    *,
    bundle: Annotated[Path, typer.Option(help="the encoder to measure with")] = DEFAULT_BUNDLE,
    quick: Annotated[bool, typer.Option("--quick", help="one short round on a part of the gallery")] = False,
    only: Annotated[Part | None, typer.Option(help="this part, beside the encoder alone")] = None,
    out: Annotated[Path | None, typer.Option(help="write the figures to this file too, as JSON")] = None,
) -> None:
    """Encoder alone, over HTTP, rebuild, search, evaluation, memory: on this machine, in some minutes."""
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="twinlens-bench-") as workplace:
        try:
            found = measure_all(
                bundle.absolute(),
                QUICK if quick else WHOLE,
                Path(workplace),
                parts=tuple(Part) if only is None else (only,),
                say=lambda what: progress.print(f"measuring {what} …", highlight=False),
            )
        except (TwinlensError, BenchmarkFailed, RankingFailed) as error:
            typer.echo(f"cannot measure: {error}", err=True)
            raise typer.Exit(1) from error
    report.show(found, Console(width=max(100, progress.width)))
    if out is not None:
        out.write_text(report.as_json(found), "utf-8")


if __name__ == "__main__":
    command()
