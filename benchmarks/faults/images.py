"""`python -m benchmarks.faults.images`: thousands of random and spoiled pictures, sent to the real service.

Exit status: 0 when every one was answered 200 or 4xx in the one shape of errors, good pictures kept their
vector all the while, the service stayed ready and its memory flat; 1 otherwise; 2 when it could not be tried.
"""

import http.client
import json
import os
import queue
import secrets
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.faults.mutants import good_files, mutant
from benchmarks.http import BenchmarkFailed, Service, serving
from benchmarks.inputs import GALLERY, read_items, write_gallery
from benchmarks.machine import process_tree
from benchmarks.rebuild import rebuild_gallery
from encoders.bundle import DEFAULT_BUNDLE
from encoders.errors import TwinlensError
from encoders.images import decode_image

ITEMS = 32  # of the gallery: enough for a release
EVERY = 20  # a good picture after so many spoiled ones
SIDE_PIXELS = 96
WARM_UP = 0.1  # of the pictures, after which memory is looked at first: buffers and arenas fill until then
MAX_GROWTH_MEBIBYTES = 64.0
TOLERANCE = 1e-4  # of an embedding from batches of other sizes
DEADLINE_SECONDS = 120.0

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    """What was answered; the lock is for the clients that fill it."""

    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    wrong: dict[int, str] = field(
        default_factory=dict
    )  # number of the picture -> what was wrong with its answer
    good_checked: int = 0
    slowest_seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class Trial:
    """Pictures `0 … count - 1` of a seed, to one service."""

    service: Service
    files: Sequence[bytes]
    seed: int
    count: int
    clients: int

    def send_all(self, tally: Tally, progress: Progress) -> list[float]:
        """Memory of the service's own process in MiB, after the warm-up and at the end."""
        bar = progress.add_task("pictures", total=self.count)
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        expected = self._good_vector(self._connection())
        memory: list[float] = []
        for part in (range(int(self.count * WARM_UP)), range(int(self.count * WARM_UP), self.count)):
            for number in part:
                numbers.put(number)
            clients = [
                threading.Thread(
                    target=self._client, args=(numbers, tally, expected, lambda: progress.advance(bar))
                )
                for _ in range(self.clients)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            memory.append(resident_mebibytes(self.service.process.pid))
        return memory

    def _client(
        self,
        numbers: "queue.SimpleQueue[int]",
        tally: Tally,
        expected: list[float],
        advance: Callable[[], None],
    ) -> None:
        connection = self._connection()
        while True:
            try:
                number = numbers.get_nowait()
            except queue.Empty:
                connection.close()
                return
            started = time.perf_counter()
            try:
                self._one(connection, number, tally, expected)
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                with tally.lock:
                    tally.answers[0, type(error).__name__] += 1
                    tally.wrong[number] = f"no answer: {error!r}"
                connection.close()
            with tally.lock:
                tally.slowest_seconds = max(tally.slowest_seconds, time.perf_counter() - started)
            advance()

    def _one(
        self, connection: http.client.HTTPConnection, number: int, tally: Tally, expected: list[float]
    ) -> None:
        status, body = ask(connection, mutant(self.files, self.seed, number))
        code, problem = judge(status, body)
        if number % EVERY == 0 and not same(self._good_vector(connection), expected):
            problem = "a good picture then had another vector"
        with tally.lock:
            tally.answers[status, code] += 1
            tally.good_checked += number % EVERY == 0
            if problem:
                tally.wrong[number] = problem

    def _good_vector(self, connection: http.client.HTTPConnection) -> list[float]:
        status, body = ask(connection, self.files[0])
        if status != 200:
            raise ValueError(f"a good picture was answered {status}: {body[:200]!r}")
        return list(json.loads(body)["data"][0]["embedding"])

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=DEADLINE_SECONDS)


def ask(connection: http.client.HTTPConnection, picture: bytes) -> tuple[int, bytes]:
    headers = {"content-type": "image/jpeg", "x-deadline-ms": str(int(DEADLINE_SECONDS * 1e3))}
    connection.request("POST", "/embed/image", picture, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def judge(status: int, body: bytes) -> tuple[str, str]:
    """The error code of an answer, and what is wrong with the answer; both may be empty."""
    content = json.loads(body)
    if status == 200:
        numbers = content["data"][0]["embedding"]
        length = sum(number * number for number in numbers)
        return "", "" if abs(length - 1.0) < 1e-3 else f"an embedding of length² {length}"
    code = str(content["error"]["code"])
    if not 400 <= status < 500 or status == 429:
        return code, f"{status} {content['error']['message']}"
    return code, ""


def same(found: list[float], expected: list[float]) -> bool:
    return len(found) == len(expected) and all(
        abs(a - b) < TOLERANCE for a, b in zip(found, expected, strict=True)
    )


def resident_mebibytes(process_id: int) -> float:
    status = Path(f"/proc/{process_id}/status").read_text("ascii", errors="replace")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def decoder_metrics(service: Service) -> dict[str, float]:
    """What /metrics says of the decoding processes, and whether the service is ready."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    named = (line.rsplit(" ", 1) for line in lines if line.startswith(("twinlens_decoder", "twinlens_ready ")))
    return {name: float(value) for name, value in named if "_created" not in name}


def report(tally: Tally, memory: Sequence[float], metrics: Mapping[str, float], *, console: Console) -> bool:
    """Print what was found; whether all was as it should be."""
    table = Table("status", "code", "pictures", box=None)
    for (status, code), count in sorted(tally.answers.items()):
        table.add_row(str(status) if status else "none", code, f"{count:,}")
    console.print(table)
    growth = memory[-1] - memory[0]
    console.print(
        f"good pictures between them: {tally.good_checked:,}, each with its vector unless named below"
    )
    console.print(f"slowest answer: {tally.slowest_seconds:.2f} s")
    console.print(
        f"memory of the service: {memory[0]:.0f} MiB after the warm-up, {memory[-1]:.0f} MiB at the end"
    )
    for name, value in metrics.items():
        console.print(f"{name} {value:g}", highlight=False)
    for number, problem in sorted(tally.wrong.items())[:20]:
        console.print(f"picture {number}: {problem}", highlight=False, markup=False)
    sound = not tally.wrong and growth <= MAX_GROWTH_MEBIBYTES and metrics.get("twinlens_ready") == 1.0
    console.print("as it should be" if sound else f"NOT as it should be: {len(tally.wrong)} wrong answers")
    return sound


@command.command()
def images(
    *,
    count: Annotated[int, typer.Option(min=10, help="how many pictures")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="of the pictures; by default another each time")] = None,
    clients: Annotated[int, typer.Option(min=1, help="connections that send them")] = 8,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
    keep: Annotated[Path | None, typer.Option(help="write the pictures with a wrong answer here")] = None,
) -> None:
    """Send random and spoiled pictures to a service of its own; tell how it fared."""
    console = Console(width=110)
    chosen = secrets.randbelow(2**32) if seed is None else seed
    console.print(f"seed {chosen}, {count:,} pictures", highlight=False)
    drawing = decode_image((GALLERY / read_items()[0]["image"]).read_bytes())
    files = list(good_files(drawing.resize((SIDE_PIXELS, SIDE_PIXELS * 3 // 4))).values())
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="twinlens-faults-") as folder:
        workplace = Path(folder)
        try:
            write_gallery(workplace / "gallery.jsonl", ITEMS)
            rebuild_gallery(
                workplace / "gallery.jsonl",
                root=GALLERY,
                bundle=bundle.absolute(),
                releases=workplace / "releases",
            )
            with serving(workplace / "releases", workplace, dict(os.environ)) as service:
                trial = Trial(service, files, chosen, count, clients)
                with Progress(console=Console(stderr=True)) as progress:
                    memory = trial.send_all(tally, progress)
                metrics = decoder_metrics(service)
                console.print(f"processes at the end: {len(process_tree(service.process.pid))}")
        except (BenchmarkFailed, TwinlensError, OSError, ValueError) as error:
            typer.echo(f"cannot try: {error}", err=True)
            raise typer.Exit(2) from error
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        for number in tally.wrong:
            (keep / f"{chosen}-{number}").write_bytes(mutant(files, chosen, number))
    if not report(tally, memory, metrics, console=console):
        raise typer.Exit(1)


if __name__ == "__main__":
    command()
