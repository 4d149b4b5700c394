"""`python -m benchmarks.faults.overload`: ten times what the service can do, for a minute.

First what it can do is measured, with callers that wait for their answers; then requests come ten times as
fast, whatever becomes of the ones before. Exit status: 0 when every answer was a 200 or a 429 that says when to
come again, the 99th percentile of the accepted came within the deadline, at least half as much was served as
before, and memory was flat; 1 otherwise; 2 when it could not be tried.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.trial import Caller, Left, Reading, run, trial, with_deadline
from benchmarks.http import Service, post, post_json
from benchmarks.inputs import read_inputs
from encoders.bundle import DEFAULT_BUNDLE

CLIENTS = 16  # that wait, while what it can do is measured
MEASURE_SECONDS = 8.0
MAX_GROWTH = 0.02
MIN_SERVED = (
    0.5  # of what it can do alone; refusing costs something, and so does this program on the same cores
)
MAX_CALLERS = 400  # connections; the service takes 512
READINGS = 10

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    statuses: Counter[str] = field(default_factory=Counter)
    seconds_of_accepted: list[float] = field(default_factory=list)
    retry_afters: list[int] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)
    readings: list[Reading] = field(default_factory=list)
    unsent: int = 0


def mixed_requests(deadline_ms: int) -> list[bytes]:
    """An image, and 16 texts, in turn."""
    inputs = read_inputs(32)
    titles = itertools.cycle(inputs.titles)
    pairs = [
        (
            post("/embed/image", image.data, media_type=image.media_type),
            post_json("/embed/text", {"texts": list(itertools.islice(titles, 16))}),
        )
        for image in inputs.images
    ]
    return [with_deadline(request, deadline_ms) for pair in pairs for request in pair]


async def capacity(service: Service, requests: Sequence[bytes], seconds: float) -> float:
    """Requests a second, with callers that wait."""
    done, turn = 0, itertools.cycle(requests)
    stop_at = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal done
        caller = Caller(service.port)
        while time.perf_counter() < stop_at:
            answer = await caller.ask(next(turn))
            done += answer.status == 200
        caller.leave()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return done / seconds


async def overload(
    service: Service, requests: Sequence[bytes], tally: Tally, *, rate: float, seconds: float
) -> None:
    """`rate` requests a second, come what may."""
    free = [Caller(service.port) for _ in range(MAX_CALLERS)]
    running: set[asyncio.Task[None]] = set()
    turn, started, sent = itertools.cycle(requests), time.perf_counter(), 0
    next_reading = 0.0
    while (now := time.perf_counter() - started) < seconds:
        if now >= next_reading:
            tally.readings.append(Reading.of(service.process.pid))
            next_reading += seconds / READINGS
        for _ in range(int(now * rate) - sent):
            sent += 1
            if not free:
                tally.unsent += 1
                continue
            task = asyncio.create_task(_one(free.pop(), free, next(turn), tally))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.002)
    await asyncio.gather(*running)
    tally.readings.append(Reading.of(service.process.pid))


async def _one(caller: Caller, free: list[Caller], request: bytes, tally: Tally) -> None:
    started = time.perf_counter()
    try:
        answer = await caller.ask(request)
    except Left as error:
        tally.wrong[f"no answer: {error}"] += 1
        return
    finally:
        free.append(caller)
    tally.statuses[str(answer.status)] += 1
    if answer.status == 200:
        tally.seconds_of_accepted.append(time.perf_counter() - started)
    elif answer.status == 429 and answer.headers.get("retry-after", "").isdigit():
        tally.retry_afters.append(int(answer.headers["retry-after"]))
    else:
        tally.wrong[f"{answer.status} to {request.split()[1].decode()}: {answer.body[:300]!r}"] += 1


def report(tally: Tally, *, able: float, seconds: float, deadline_seconds: float) -> bool:
    served = sorted(tally.seconds_of_accepted)
    if not served:
        typer.echo("nothing was served")
        return False
    p50, p99 = (served[min(len(served) - 1, int(share * len(served)))] for share in (0.5, 0.99))
    memory = [reading.service_mebibytes for reading in tally.readings]
    grown = memory[-1] / memory[1] - 1.0
    typer.echo(f"answers {dict(tally.statuses)}, {tally.unsent} not sent for want of a connection")
    typer.echo(f"served {len(served) / seconds:.1f} a second of {able:.1f} that it can")
    typer.echo(
        f"accepted: p50 {p50:.2f} s, p99 {p99:.2f} s, slowest {served[-1]:.2f} s of {deadline_seconds:g} s"
    )
    if tally.retry_afters:
        typer.echo(f"retry-after from {min(tally.retry_afters)} to {max(tally.retry_afters)} s")
    typer.echo(
        f"memory {' '.join(f'{each:.0f}' for each in memory)} MiB: {100 * grown:.2f}% after the first tenth"
    )
    for problem, count in tally.wrong.most_common(20):
        typer.echo(f"{count} times {problem}")
    enough = len(served) / seconds >= MIN_SERVED * able
    return not tally.wrong and p99 < deadline_seconds and grown < MAX_GROWTH and enough


@command.command(name="overload")
def main(
    *,
    seconds: Annotated[float, typer.Option(min=1, help="how long")] = 60.0,
    times: Annotated[float, typer.Option(min=1, help="of what it can do")] = 10.0,
    deadline_seconds: Annotated[float, typer.Option(min=0.1, help="of every request")] = 5.0,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Put more on a service of its own than it can do; tell what it answered."""
    tally, requests = Tally(), mixed_requests(int(deadline_seconds * 1e3))

    def attempt() -> bool:
        with trial(bundle) as service:
            asyncio.run(capacity(service, requests, MEASURE_SECONDS / 4))  # warm up
            able = asyncio.run(capacity(service, requests, MEASURE_SECONDS))
            typer.echo(f"it can do {able:.1f} requests a second; now {times * able:.0f} a second come in")
            asyncio.run(overload(service, requests, tally, rate=times * able, seconds=seconds))
        return report(tally, able=able, seconds=seconds, deadline_seconds=deadline_seconds)

    run(attempt)


if __name__ == "__main__":
    command()
