"""`python -m benchmarks.faults.soak`: a hundred thousand mixed requests, and what the service's memory does.

Pictures, texts, searches, bad requests of many kinds, and callers that leave. Exit status: 0 when every answer
was the one that its request deserves and memory grew by less than 2% after the warm-up; 1 otherwise; 2 when it
could not be tried.
"""

import asyncio
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.mixture import Kind, mixture
from benchmarks.faults.trial import Answer, Caller, Left, Reading, run, trial
from benchmarks.http import Service, post_json
from benchmarks.inputs import read_inputs
from encoders.bundle import DEFAULT_BUNDLE

MAX_GROWTH = 0.02
WARM_UP = 5_000  # requests, or half of them: arenas, tokenizers' and interpreter's memories fill until then
READINGS = 40
PICTURES = 16
LEAVE_WITHIN_SECONDS = 0.05

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    readings: list[tuple[int, Reading]] = field(default_factory=list)


@dataclass(frozen=True)
class Soak:
    service: Service
    kinds: Sequence[Kind]
    requests: int
    clients: int
    seed: int

    async def put(self, tally: Tally) -> None:
        numbers = iter(range(self.requests))
        await asyncio.gather(*(self._client(numbers, tally) for _ in range(self.clients)))

    async def _client(self, numbers: Iterator[int], tally: Tally) -> None:
        caller = Caller(self.service.port)
        shares = [kind.share for kind in self.kinds]
        for number in numbers:  # shared by all clients
            if number % max(1, self.requests // READINGS) == 0:
                self._read(number, tally)
            chance = random.Random(f"{self.seed} {number}")
            (kind,) = chance.choices(self.kinds, shares)
            await self._one(caller, kind, chance, tally)
        caller.leave()

    async def _one(self, caller: Caller, kind: Kind, chance: random.Random, tally: Tally) -> None:
        request = kind.make(chance)
        if kind.leaves:
            await caller.send_and_leave(
                request, after_seconds=chance.uniform(0, LEAVE_WITHIN_SECONDS), reset=chance.random() < 0.5
            )
            tally.answers[kind.name, 0] += 1
            return
        try:
            answer = await caller.ask(request)
        except Left as error:
            tally.wrong.append(f"{kind.name}: no answer: {error}")
            return
        tally.answers[kind.name, answer.status] += 1
        if problem := _judge(kind, answer):
            tally.wrong.append(f"{kind.name}: {problem}")

    def _read(self, number: int, tally: Tally) -> None:
        reading = Reading.of(self.service.process.pid)
        tally.readings.append((number, reading))
        typer.echo(
            f"{number:>9,} requests  service {reading.service_mebibytes:7.1f} MiB  with its decoders "
            f"{reading.tree_mebibytes:7.1f} MiB  {reading.files:>4} files  {reading.threads:>3} threads"
        )


def _judge(kind: Kind, answer: Answer) -> str:
    if answer.status not in kind.statuses:
        return f"{answer.status} {answer.body[:300]!r}"
    if answer.status >= 400 and set(json.loads(answer.body)) != {"error"}:
        return f"an error in another shape: {answer.body[:300]!r}"
    return ""


def growth(readings: Sequence[tuple[int, Reading]], warm_up: int) -> float:
    """Of the service's own process: the mean of the last fifth over that of the first, after the warm-up."""
    after = [reading.service_mebibytes for number, reading in readings if number >= warm_up]
    fifth = max(1, len(after) // 5)
    return sum(after[-fifth:]) / sum(after[:fifth]) - 1.0


@command.command()
def soak(
    *,
    requests: Annotated[int, typer.Option(min=100, help="how many")] = 100_000,
    clients: Annotated[int, typer.Option(min=1, help="connections that send them")] = 16,
    seed: Annotated[int | None, typer.Option(help="of the requests; by default another each time")] = None,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Put mixed requests on a service of its own and watch its memory."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    typer.echo(f"seed {chosen}, {requests:,} requests by {clients} clients")

    def attempt() -> bool:
        tally, inputs = Tally(), read_inputs(PICTURES)
        with trial(bundle) as service:
            ids = _item_ids(service)
            started = time.monotonic()
            asyncio.run(Soak(service, mixture(inputs, ids), requests, clients, chosen).put(tally))
            tally.readings.append((requests, Reading.of(service.process.pid)))
            typer.echo(f"{requests / (time.monotonic() - started):.0f} requests a second")
        for (name, status), count in sorted(tally.answers.items()):
            typer.echo(f"{name:>22} {status or 'left':>5} {count:>8,}")
        for problem in tally.wrong[:20]:
            typer.echo(problem)
        grown = growth(tally.readings, min(WARM_UP, requests // 2))
        typer.echo(f"{len(tally.wrong)} wrong answers; memory after the warm-up grew by {100 * grown:.2f}%")
        return not tally.wrong and grown < MAX_GROWTH

    run(attempt)


def _item_ids(service: Service) -> list[str]:
    async def ask() -> list[str]:
        caller = Caller(service.port)
        answer = await caller.ask(post_json("/search/text", {"query": "a dog", "k": 50}))
        caller.leave()
        return [hit["id"] for hit in json.loads(answer.body)["results"]]

    return asyncio.run(ask())


if __name__ == "__main__":
    command()
