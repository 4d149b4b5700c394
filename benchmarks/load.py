"""The load generator: a process of its own, so that its CPU time can be told from the service's.

`python -m benchmarks.load '<a Job as JSON>'` prints a `Load` as JSON. Each client is one kept-alive connection
that sends its next request as soon as the answer to the last is in (a closed loop). Requests are ready bytes
and answers are not parsed beyond their length, so that it costs little.
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.machine import cpu_seconds

LENGTH = struct.Struct("<I")  # before each request in the file
HEAD_END = b"\r\n\r\n"
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Job:
    """`requests` is a file that `write_requests` wrote; `server` the process whose CPU time is wanted."""

    port: int
    server: int
    requests: str
    clients: int
    warm_up_seconds: float
    seconds: float
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Load:
    """What went through between two answers, `wall_seconds` apart.

    `generator_cpu` and `server_cpu` are CPU seconds a second of wall time. `latencies_seconds` are sorted.
    """

    answers: int
    wall_seconds: float
    generator_cpu: float
    server_cpu: float
    latencies_seconds: list[float]
    failure: str | None


def write_requests(path: Path, requests: Sequence[bytes]) -> None:
    path.write_bytes(b"".join(LENGTH.pack(len(request)) + request for request in requests))


def read_requests(path: Path) -> list[bytes]:
    data, requests, at = path.read_bytes(), [], 0
    while at < len(data):
        (length,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        requests.append(data[at : at + length])
        at += length
    return requests


class Tape:
    """When answers came and how long each took; and the first thing that went wrong."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self._next = 0
        self.times: list[float] = []
        self.latencies: list[float] = []
        self.failure: str | None = None

    def fail(self, why: str) -> None:
        self.failure = self.failure or why

    def request(self) -> bytes:
        self._next += 1
        return self._requests[self._next % len(self._requests)]


class Client(asyncio.Protocol):
    """One connection; HTTP/1.1 with `content-length`, which is all that the service answers with."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._answer = bytearray()
        self._expected = 0  # bytes of the whole answer; 0: its head is not in yet
        self._sent = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if not self._expected and (end := self._answer.find(HEAD_END)) >= 0:
            head = bytes(self._answer[:end]).lower()
            self._expected = end + len(HEAD_END) + int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if self._expected and len(self._answer) >= self._expected:
            self._take()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tape.fail(f"the service closed a connection ({exc})")

    def _send(self) -> None:
        self._sent = time.perf_counter()
        assert self._transport is not None  # noqa: S101 - for the type checker
        self._transport.write(self._tape.request())

    def _take(self) -> None:
        now = time.perf_counter()
        if not self._answer.startswith(b"HTTP/1.1 200 "):
            self._tape.fail(bytes(self._answer[:1000]).decode("utf-8", "replace"))
            return
        self._tape.times.append(now)
        self._tape.latencies.append(now - self._sent)
        self._answer.clear()
        self._expected = 0
        self._send()


async def put_load(job: Job) -> Load:
    """Warm up, measure, leave. The answers still on their way when time is up are not waited for."""
    loop = asyncio.get_running_loop()
    tape = Tape(read_requests(Path(job.requests)))
    loop.set_exception_handler(lambda _, what: tape.fail(f"{what['message']}: {what.get('exception')!r}"))
    transports = [
        (await loop.create_connection(lambda: Client(tape), job.host, job.port))[0] for _ in range(job.clients)
    ]
    await _wait(tape, job.warm_up_seconds, answers=job.clients)
    before = _clocks(job.server)
    await _wait(tape, job.seconds, answers=2 * job.clients)
    after = _clocks(job.server)
    failure = tape.failure
    for transport in transports:
        transport.abort()
    return _cut(tape, before, after, failure)


async def _wait(tape: Tape, seconds: float, *, answers: int) -> None:
    """At least so long, and for so many more answers; on a slow machine those may take a while."""
    enough = len(tape.times) + answers
    await asyncio.sleep(seconds)
    give_up = time.perf_counter() + PATIENCE_SECONDS
    while len(tape.times) < enough and not tape.failure and time.perf_counter() < give_up:
        await asyncio.sleep(POLL_SECONDS)


def _clocks(server: int) -> tuple[float, float, float]:
    """Wall, the generator's CPU, the server's CPU: seconds."""
    own = os.times()
    return time.perf_counter(), own.user + own.system, cpu_seconds(server)


def _cut(
    tape: Tape, before: tuple[float, float, float], after: tuple[float, float, float], failure: str | None
) -> Load:
    """From the last answer before the window to the last within it.

    Answers come in clumps, a device batch at a time: a window that ends anywhere else than at an answer
    counts a part of a batch that it did not wait for, or waits for one that it does not count.
    """
    first = sum(moment <= before[0] for moment in tape.times)
    last = sum(moment <= after[0] for moment in tape.times)
    if not failure and (first == 0 or last == first):
        failure = f"too slow to measure: {first} answers in the warm-up, {last - first} after it"
    wall = after[0] - before[0]
    return Load(
        answers=last - first,
        wall_seconds=tape.times[last - 1] - tape.times[first - 1] if not failure else 0.0,
        generator_cpu=(after[1] - before[1]) / wall,
        server_cpu=(after[2] - before[2]) / wall,
        latencies_seconds=sorted(tape.latencies[first:last]),
        failure=failure,
    )


def main(argument: str) -> None:
    job = Job(**json.loads(argument))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(put_load(job)))))


if __name__ == "__main__":
    main(sys.argv[1])
