"""`python -m benchmarks.faults.stalls`: how long others wait while requests of every kind come at their limits.

One caller sends the request, another asks /healthz all the while: its slowest answer is how long the event loop
stood still. Of a few tries the least counts, as neighbours on the machine only add to it. Exit status: 0 when
nothing stood still for longer than `--most-ms`; 1 otherwise; 2 when it could not be tried.
"""

import json
import socket
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.limits import MIB, kinds
from benchmarks.faults.trial import get, run, trial
from benchmarks.http import Service
from encoders.bundle import DEFAULT_BUNDLE

PAUSE_SECONDS = 0.001
TIMEOUT_SECONDS = 300.0

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Try:
    answer: str  # status and error code
    seconds: float
    stall_seconds: float


@contextmanager
def probing(port: int) -> Iterator[list[float]]:
    """How long each answer of /healthz took meanwhile, in seconds."""
    taken: list[float] = []
    over = threading.Event()

    def ask() -> None:
        request = get("/healthz")
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as caller:
            caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not over.is_set():
                started = time.perf_counter()
                caller.sendall(request)
                caller.recv(65_536)
                taken.append(time.perf_counter() - started)
                time.sleep(PAUSE_SECONDS)

    thread = threading.Thread(target=ask, name="probe")
    thread.start()
    time.sleep(0.05)
    try:
        yield taken
        time.sleep(0.05)
    finally:
        over.set()
        thread.join()


def send(port: int, request: bytes) -> str:
    """Status and error code of the answer; what has no answer is told as such."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as caller:
        sender = threading.Thread(target=_send_all, args=(caller, request))
        sender.start()
        try:
            status, body = _receive(caller)
        except OSError:
            return "no answer"
        finally:
            with suppress(OSError):
                caller.shutdown(socket.SHUT_RDWR)  # an answer may come before all was sent
            sender.join()
    return f"{status} {json.loads(body)['error']['code']}" if status >= 400 else str(status)


def _receive(caller: socket.socket) -> tuple[int, bytes]:
    """Status and body. Raises OSError where there is no whole answer."""
    with caller.makefile("rb") as answer:
        status = answer.readline().split()
        if len(status) < 2:
            raise ConnectionError("the connection was closed without an answer")
        length = 0
        while (line := answer.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        return int(status[1]), answer.read(length)


def _send_all(caller: socket.socket, request: bytes) -> None:
    with suppress(OSError):
        caller.sendall(request)


def attempt_on(service: Service, *, tries: int, only: str) -> list[tuple[str, float, Try]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/release", timeout=10) as answer:
        release = json.load(answer)
    found = []
    for kind in kinds(release["model_fingerprint"], release["dim"]):
        if only not in kind.name:
            continue
        request = kind.make()
        best = min((_try(service.port, request) for _ in range(tries)), key=lambda one: one.stall_seconds)
        found.append((kind.name, len(request) / MIB, best))
        typer.echo(
            f"{kind.name:<50} {len(request) / MIB:7.2f} MiB  {best.answer:<28} {best.seconds * 1e3:9.1f} ms  "
            f"{best.stall_seconds * 1e3:8.1f} ms"
        )
    return found


def _try(port: int, request: bytes) -> Try:
    with probing(port) as taken:
        started = time.perf_counter()
        answer = send(port, request)
        seconds = time.perf_counter() - started
    return Try(answer, seconds, max(taken))


@command.command()
def stalls(
    *,
    most_ms: Annotated[float, typer.Option(help="that the event loop may stand still")] = 50.0,
    tries: Annotated[int, typer.Option(min=1, help="of each request; the least stall counts")] = 3,
    only: Annotated[str, typer.Option(help="requests whose name has this in it")] = "",
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Send a service of its own requests at their limits; tell how long others waited meanwhile."""

    def attempt() -> bool:
        with trial(bundle, live_changes=True, body_seconds=120) as service:
            with probing(service.port) as taken:
                time.sleep(2.0)
            usual = statistics.median(taken)
            typer.echo(f"with nothing to do: {max(taken) * 1e3:.1f} ms, usually {usual * 1e3:.2f} ms")
            found = attempt_on(service, tries=tries, only=only)
        late = [name for name, _, one in found if one.stall_seconds * 1e3 > most_ms]
        typer.echo(f"{len(found)} requests, {len(late)} of them stood in the way for more than {most_ms:g} ms")
        return not late

    run(attempt)


if __name__ == "__main__":
    command()
