"""`python -m benchmarks.short_queries`: what asking a short query in templates adds to the time of a search.

Each query goes to one service twice in turn, as templates and as it is typed (`expand: off`), and, with
`--against`, to the service of another checkout. No query is sent in two rounds, so nothing comes from a cache.
Exit status: 0 measured, and within the limit where another checkout is asked; 1 beyond it; 2 not measured.
"""

import http.client
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.http import BenchmarkFailed, free_port, running, serving, wait_until_compiled
from benchmarks.inputs import GALLERY, write_gallery
from benchmarks.rebuild import rebuild_gallery
from encoders.bundle import DEFAULT_BUNDLE
from encoders.errors import TwinlensError

ITEMS = 200
ADJECTIVES = ("small", "shiny", "old", "wooden")
NOUNS = (
    "car",
    "house",
    "dog",
    "cup",
    "tree",
    "flower",
    "boat",
    "chair",
    "bird",
    "clock",
    "hat",
    "table",
    "lamp",
)
WARM_UP = 10
LIMIT = 1.5  # times as long as the other checkout takes

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@command.command()
def measure(
    *,
    against: Annotated[
        Path | None,
        typer.Option(help="another checkout with its .venv, of an earlier commit, say"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="passes over all queries, each with words of its own")] = 5,
) -> None:
    """Print the median and the 90th percentile of each way, and the ratio to the limit."""
    try:
        took = _measure(against and against.absolute(), rounds)
    except (BenchmarkFailed, TwinlensError, OSError, subprocess.SubprocessError) as error:
        typer.echo(f"cannot measure: {error}", err=True)
        raise typer.Exit(2) from error
    medians = {name: statistics.median(values) for name, values in took.items()}
    for name, values in took.items():
        tenth = statistics.quantiles(values, n=10)[-1]
        typer.echo(f"{name}: median {medians[name]:.2f} ms, 90th percentile {tenth:.2f} ms of {len(values)}")
    ratios = {name: medians["templates"] / median for name, median in medians.items() if name != "templates"}
    for name, ratio in ratios.items():
        typer.echo(f"templates take {ratio:.2f} times the time of {name}")
    load = os.getloadavg()[0]
    typer.echo(f"load of the machine (one minute): {load:.1f} on {os.cpu_count()} cores")
    raise typer.Exit(1 if against is not None and ratios[against.name] > LIMIT else 0)


def _measure(against: Path | None, rounds: int) -> dict[str, list[float]]:
    with ExitStack() as stack:
        workplace = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twinlens-short-")))
        table = workplace / "gallery.jsonl"
        write_gallery(table, ITEMS)
        rebuild_gallery(table, root=GALLERY, bundle=DEFAULT_BUNDLE, releases=workplace / "releases")
        service = stack.enter_context(serving(workplace / "releases", workplace, {**os.environ}))
        ours = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
        ways = {"templates": (ours, {}), "as it is typed": (ours, {"expand": "off"})}
        if against is not None:
            port = stack.enter_context(_other(against, table, workplace))
            ways[str(against.name)] = (http.client.HTTPConnection("127.0.0.1", port, timeout=60), {})
        took: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds):
            queries = [f"{adjective} {noun} {turn}" for adjective, noun in product(ADJECTIVES, NOUNS)]
            for number, query in enumerate(queries):
                for name, (connection, options) in ways.items():
                    seconds = _ask(connection, {"query": query, "k": 10, **options})
                    if turn or number >= WARM_UP:
                        took[name].append(1_000.0 * seconds)
    return took


@contextmanager
def _other(checkout: Path, table: Path, workplace: Path) -> Iterator[int]:
    """The same gallery, indexed and served by another checkout's code and encoder; gives the port."""
    python, releases, port = str(checkout / ".venv/bin/python"), str(workplace / "other"), free_port()
    made = subprocess.run(
        [python, "-m", "index", "rebuild", "--gallery", str(table), "--root", str(GALLERY),
         "--bundle", str(checkout / "encoders/default"), "--releases", releases],
        cwd=checkout, capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        raise BenchmarkFailed(f"{checkout} did not index: {made.stderr.decode(errors='replace')[-2000:]}")
    command = [python, "-m", "service", "--releases", releases, "--port", str(port)]
    with running(
        command, port=port, ready="/readyz", workplace=workplace, settings={**os.environ}, folder=checkout
    ) as service:
        wait_until_compiled(service)
        yield port


def _ask(connection: http.client.HTTPConnection, body: dict[str, object]) -> float:
    """Seconds of one search. Raises BenchmarkFailed for any answer but a 200."""
    started = time.perf_counter()
    connection.request("POST", "/search/text", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    took = time.perf_counter() - started
    if answer.status != 200:
        raise BenchmarkFailed(
            f"{body} was answered with {answer.status}: {said[:500].decode(errors='replace')}"
        )
    return took


if __name__ == "__main__":
    command()
