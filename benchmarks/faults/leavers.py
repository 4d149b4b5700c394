"""`python -m benchmarks.faults.leavers`: a caller that leaves in the middle of a request, a thousand times.

In the middle of the head, before the body, in the middle of it, and right after it, while its items wait, are
decoded or encoded; politely and by a reset. Exit status: 0 when afterwards nothing is left of them (no request,
item, file or thread), answers are as before and memory did not grow by 2%; 1 otherwise; 2 when it could not be
tried.
"""

import asyncio
import json
import random
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.trial import Caller, Reading, metrics, run, trial
from benchmarks.http import Service, post, post_json
from benchmarks.inputs import read_inputs
from encoders.bundle import DEFAULT_BUNDLE

AT_ONCE = 16
MAX_GROWTH = 0.02
SETTLE_SECONDS = 60.0
LEAVE_WITHIN_SECONDS = 0.25
TOLERANCE = 1e-4  # of an embedding from a batch of another size

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def requests_of_leavers() -> list[bytes]:
    """One image, many images' worth of texts, a search."""
    inputs = read_inputs(8)
    images = [post("/embed/image", each.data, media_type=each.media_type) for each in inputs.images]
    texts = [post_json("/embed/text", {"texts": inputs.titles[start : start + 64]}) for start in (0, 64, 128)]
    searches = [post_json("/search/text", {"query": query}) for query in inputs.queries[:4]]
    return [*images, *texts, *searches]


def part(request: bytes, chance: random.Random) -> bytes:
    """Half of a head, a head alone, half of a body, or all."""
    head = request.index(b"\r\n\r\n") + 4
    end = chance.choice((head // 2, head, (head + len(request)) // 2, len(request), len(request)))
    return request[:end]


async def leave(service: Service, requests: Sequence[bytes], *, times: int, chance: random.Random) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turns:
            await Caller(service.port).send_and_leave(
                part(chance.choice(requests), chance),
                after_seconds=chance.uniform(0, LEAVE_WITHIN_SECONDS),
                reset=chance.random() < 0.5,
            )

    await asyncio.gather(*(one() for _ in range(times)))


async def left_behind(service: Service) -> dict[str, float]:
    """What of the callers is still there once they are gone; waits for it to go. Empty: nothing."""
    give_up = time.monotonic() + SETTLE_SECONDS
    while True:
        found = await metrics(service.port)
        still = {
            name: value for name, value in found.items() if name.startswith("twinlens_pending_items") and value
        }
        if (requests := found["twinlens_requests_in_flight"]) > 1:  # the one that asks is one
            still["twinlens_requests_in_flight"] = requests
        if found["twinlens_bodies_bytes"]:
            still["twinlens_bodies_bytes"] = found["twinlens_bodies_bytes"]
        if not still or time.monotonic() > give_up:
            return still
        await asyncio.sleep(0.1)


async def vector(service: Service, request: bytes) -> list[float]:
    caller = Caller(service.port)
    answer = await caller.ask(request)
    caller.leave()
    return list(json.loads(answer.body)["data"][0]["embedding"])


async def attempt_on(service: Service, *, times: int, seed: int) -> bool:
    requests, chance = requests_of_leavers(), random.Random(seed)
    # As often, to warm up: what the tallest batches take of memory is kept for the next ones.
    await leave(service, requests, times=times, chance=chance)
    await left_behind(service)
    expected = await vector(service, requests[0])
    before = Reading.of(service.process.pid)
    await leave(service, requests, times=times, chance=chance)
    still = await left_behind(service)
    after = Reading.of(service.process.pid)
    found = await vector(service, requests[0])
    same = all(abs(one - other) < TOLERANCE for one, other in zip(found, expected, strict=True))
    grown = after.service_mebibytes / before.service_mebibytes - 1.0
    typer.echo(f"before {before}\nafter  {after}\nleft behind: {still or 'nothing'}; same vector: {same}")
    typer.echo(f"memory grew by {100 * grown:.2f}%")
    return (
        not still
        and same
        and grown < MAX_GROWTH
        and after.files <= before.files + AT_ONCE
        and after.threads <= before.threads
    )


@command.command()
def leavers(
    *,
    times: Annotated[int, typer.Option(min=1, help="how many leave")] = 1_000,
    seed: Annotated[int | None, typer.Option(help="of what they do; by default another each time")] = None,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Have callers leave a service of its own; tell what they left behind."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    typer.echo(f"seed {chosen}, {times:,} leavers")

    def attempt() -> bool:
        with trial(bundle) as service:
            return asyncio.run(attempt_on(service, times=times, seed=chosen))

    run(attempt)


if __name__ == "__main__":
    command()
