"""`python -m benchmarks.start`: from `python -m service` to ready, beside `import torch, open_clip` alone.

The two take turns on one machine; files are in the page cache after the first. Exit status: 0 measured, 1 not.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.http import ROOT, BenchmarkFailed, serving, wait_until_compiled
from benchmarks.inputs import GALLERY, write_gallery
from benchmarks.rebuild import rebuild_gallery
from encoders.bundle import DEFAULT_BUNDLE
from encoders.errors import TwinlensError

ITEMS = 200
IMPORTS = "import torch, open_clip"
ENGINES = ("auto", "torch")

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def measure(
    *,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
    rounds: Annotated[int, typer.Option(min=1, help="the median of so many is told")] = 5,
) -> None:
    """Seconds until the service answers, by engine, and those of the imports that nothing can save."""
    rounds_of: dict[str, list[tuple[float, float]]] = {name: [] for name in (IMPORTS, *ENGINES)}
    try:
        with tempfile.TemporaryDirectory(prefix="twinlens-start-") as folder:
            workplace = Path(folder)
            write_gallery(workplace / "gallery.jsonl", ITEMS)
            releases = workplace / "releases"
            rebuild_gallery(
                workplace / "gallery.jsonl", root=GALLERY, bundle=bundle.absolute(), releases=releases
            )
            for number in range(rounds + 1):
                for name, times in rounds_of.items():
                    took = _imports() if name == IMPORTS else _start(releases, workplace, engine=name)
                    if number:  # the first round reads files from disk
                        times.append(took)
    except (BenchmarkFailed, TwinlensError, OSError) as error:
        typer.echo(f"cannot measure: {error}", err=True)
        raise typer.Exit(1) from error
    ends = {name: [median(column) for column in zip(*times, strict=True)] for name, times in rounds_of.items()}
    imports, _ = ends[IMPORTS]
    typer.echo(f"{IMPORTS}: {imports:.2f} s")
    for name in ENGINES:
        ready, compiled = ends[name]
        typer.echo(
            f"engine {name}: ready {ready - imports:.2f} s beyond the imports, as fast as it will be after "
            f"{compiled - imports:.2f} s"
        )


def _imports() -> tuple[float, float]:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True, cwd=ROOT)
    return (took := time.perf_counter() - began), took


def _start(releases: Path, workplace: Path, *, engine: str) -> tuple[float, float]:
    """Until it is ready, and until nothing is being compiled any more."""
    began = time.perf_counter()
    with serving(releases, workplace, {**os.environ, "TWINLENS_ENGINE": engine}, compiled=False) as service:
        ready = time.perf_counter() - began
        wait_until_compiled(service)
        return ready, time.perf_counter() - began


if __name__ == "__main__":
    command()
