"""`python -m benchmarks.peer`: Twinlens and infinity on one model.

Exit status: 0 measured; 1 something did not work.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.http import ROOT, BenchmarkFailed
from benchmarks.inputs import read_inputs
from benchmarks.machine import describe
from benchmarks.peer.environment import prepare
from benchmarks.peer.race import CLIENTS, Course, Result, race
from encoders.errors import TwinlensError

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
WHOLE = Course(rounds=3, seconds=8.0, warm_up_seconds=2.0)
QUICK = Course(rounds=1, seconds=4.0, warm_up_seconds=1.0)
IMAGES = 128


@command.command()
def measure(
    *,
    folder: Annotated[
        Path, typer.Option(help="where the peer's environment and the model are, or are made")
    ] = ROOT / ".cache/peer",
    quick: Annotated[bool, typer.Option("--quick", help="one short round")] = False,
    out: Annotated[Path | None, typer.Option(help="write the figures to this file too, as JSON")] = None,
) -> None:
    """Images and texts a second of both on the same ViT-B/32 weights, and how exact their vectors are."""
    progress = Console(stderr=True)

    def say(what: str) -> None:
        progress.print(f"{what} …", highlight=False)

    with tempfile.TemporaryDirectory(prefix="twinlens-peer-") as workplace:
        try:
            made = prepare(folder.absolute(), say=say)
            results = race(made, read_inputs(IMAGES), QUICK if quick else WHOLE, Path(workplace), say=say)
        except (TwinlensError, BenchmarkFailed) as error:
            typer.echo(f"cannot measure: {error}", err=True)
            raise typer.Exit(1) from error
    _show(results, Console(width=max(100, progress.width)))
    if out is not None:
        out.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n", "utf-8")


def _show(results: Sequence[Result], console: Console) -> None:
    machine = describe()
    console.print(f"{machine.processor}, {machine.cores} cores", highlight=False)
    table = Table(title=f"ViT-B/32, random weights, {CLIENTS} clients", title_justify="left")
    for name in ("what", "server"):
        table.add_column(name, no_wrap=True)
    for name in ("a second", "to infinity", "CPU ms each", "by CPU", "least cosine to fp32"):
        table.add_column(name, justify="right")
    for result in sorted(results, key=lambda each: each.what):
        table.add_row(
            result.what, result.server, f"{result.per_second:,.1f}", f"{result.to_peer:.2f}",
            f"{result.cpu_milliseconds:.2f}", f"{result.to_peer_by_cpu:.2f}", f"{result.least_cosine:.6f}",
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    command()
