"""`python -m benchmarks.faults.soak`: an hour of mixed load, changes and swaps; does the service stay level?

A few callers, with pauses: images, texts, searches, bad requests of many kinds, callers that leave, and puts
and deletes over a fixed set of ids, each looked at again. Every few minutes the gallery changes and is rebuilt,
and the release is swapped in. Exit status: 0 when every answer was the one that its request deserves, every id
was what was acknowledged last, memory grew by less than 1% after the warm-up, and files and threads stayed
level; 1 otherwise; 2 when it could not be tried.
"""

import asyncio
import itertools
import json
import random
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.faults.ledger import Ledger, Operation, Requests, version_of
from benchmarks.faults.levels import Levels
from benchmarks.faults.mixture import Kind, mixture
from benchmarks.faults.trial import ITEMS, TABLE_NAME, Answer, Caller, Left, get, prune, rebuild, run, trial
from benchmarks.http import Service, post_json
from benchmarks.inputs import read_inputs, write_gallery
from encoders.bundle import DEFAULT_BUNDLE

MAX_GROWTH = 0.01
WARM_UP_MINUTES = 10.0
WARM_UP_SWAPS = 3  # as long: until then memory fills that is kept for releases, shapes of batches, threads
READ_EVERY_SECONDS = 10.0
IMAGES = 16
IDS = 2_000  # that are put and deleted
CHANGES, LOOKS = 0.25, 0.1  # shares of all requests
LONGEST_PAUSE_SECONDS = 0.3
LEAVE_WITHIN_SECONDS = 0.05
KEPT_RELEASES = 3
SWAP_SECONDS = 120.0  # in which a release is served after its rebuild

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    swaps: int = 0


@dataclass(frozen=True)
class Soak:
    service: Service
    bundle: Path
    kinds: Sequence[Kind]
    changes: Requests
    ledger: Ledger
    seconds: float
    pause_seconds: float  # between a swap and the next rebuild
    seed: int

    async def put(self, tally: Tally, levels: Levels, *, clients: int) -> None:
        """For as long as it is to take; then every id is looked at once more."""
        ids = [[f"soak/{number}" for number in range(client, IDS, clients)] for client in range(clients)]
        await asyncio.gather(*(self._fill(some, tally) for some in ids))
        over = asyncio.Event()
        others = [
            asyncio.create_task(self._swap(tally, over)),
            asyncio.create_task(self._read(tally, levels, over)),
        ]
        callers = [self._client(number, some, tally, levels) for number, some in enumerate(ids)]
        await asyncio.gather(*callers)
        over.set()
        await asyncio.gather(*others)
        caller = Caller(self.service.port)
        for name in itertools.chain.from_iterable(ids):
            await self._look(caller, name, tally)
        caller.leave()

    async def _fill(self, ids: Sequence[str], tally: Tally) -> None:
        """Half of the ids, which is about as many as there are later, by what the changes put and delete."""
        caller = Caller(self.service.port)
        for number, name in enumerate(ids):
            self.ledger.versions[name] = None
            if number % 2:
                await self._change(caller, self.changes.put(name, as_image=number % 4 == 1), tally)
        caller.leave()

    async def _client(self, number: int, ids: Sequence[str], tally: Tally, levels: Levels) -> None:
        caller, chance = Caller(self.service.port), random.Random(f"{self.seed} {number}")
        shares = [kind.share for kind in self.kinds]
        while time.monotonic() < levels.started + self.seconds:
            turn = chance.random()
            if turn < CHANGES:
                await self._change(caller, self.changes.next(self.ledger, ids), tally)
            elif turn < CHANGES + LOOKS:
                await self._look(caller, chance.choice(ids), tally)
            else:
                (kind,) = chance.choices(self.kinds, shares)
                await self._one(caller, kind, chance, tally)
            await asyncio.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS))
        caller.leave()

    async def _change(self, caller: Caller, operation: Operation, tally: Tally) -> None:
        if await self._ask(caller, Kind("change", 0, lambda _: b""), operation.request, tally):
            self.ledger.versions.update(operation.changes)
            self.ledger.acknowledged += 1

    async def _look(self, caller: Caller, name: str, tally: Tally) -> None:
        """An item of the caller's own is as it was acknowledged last, and so is its image."""
        tally.answers["look at an item", 200] += 1
        found, expected = await version_of(caller, name, self.ledger), self.ledger.versions[name]
        if found != expected:
            tally.wrong.append(f"{name}: {expected} was acknowledged and {found} is there")

    async def _one(self, caller: Caller, kind: Kind, chance: random.Random, tally: Tally) -> None:
        request = kind.make(chance)
        if not kind.leaves:
            await self._ask(caller, kind, request, tally)
            return
        await caller.send_and_leave(
            request, after_seconds=chance.uniform(0, LEAVE_WITHIN_SECONDS), reset=chance.random() < 0.5
        )
        tally.answers[kind.name, 0] += 1

    async def _ask(self, caller: Caller, kind: Kind, request: bytes, tally: Tally) -> bool:
        """Whether the answer was a right one."""
        try:
            answer = await caller.ask(request)
        except Left as error:
            tally.wrong.append(f"{kind.name}: no answer: {error}")
            return False
        tally.answers[kind.name, answer.status] += 1
        if problem := _judge(kind, answer):
            tally.wrong.append(f"{kind.name}: {problem}")
        return not problem

    async def _swap(self, tally: Tally, over: asyncio.Event) -> None:
        """Change the gallery, rebuild it, see that it is served; the items of the smaller one are in both."""
        for items in itertools.cycle((2 * ITEMS, ITEMS)):
            try:
                await asyncio.wait_for(over.wait(), self.pause_seconds)
                return
            except TimeoutError:
                write_gallery(self.service.workplace / TABLE_NAME, items)
            before = (await _release(self.service.port))["release"]
            await rebuild(self.service.workplace, self.bundle)
            await prune(self.service.workplace, keep=KEPT_RELEASES)
            give_up = time.monotonic() + SWAP_SECONDS
            while (await _release(self.service.port))["release"] == before:
                if time.monotonic() > give_up:
                    tally.wrong.append(f"{before} was still served {SWAP_SECONDS:g} s after a rebuild")
                    return
                await asyncio.sleep(0.5)
            tally.swaps += 1

    async def _read(self, tally: Tally, levels: Levels, over: asyncio.Event) -> None:
        while not over.is_set():
            warm = time.monotonic() >= levels.started + min(WARM_UP_MINUTES * 60, self.seconds / 2)
            if levels.warm is None and warm and tally.swaps >= WARM_UP_SWAPS:
                levels.end_warm_up()
            requests = tally.answers.total()
            levels.take(f"{requests:>8,} requests  {tally.swaps:>3} swaps  {len(tally.wrong)} wrong")
            await asyncio.sleep(READ_EVERY_SECONDS)


def _judge(kind: Kind, answer: Answer) -> str:
    if answer.status not in kind.statuses:
        return f"{answer.status} {answer.body[:300]!r}"
    if answer.status >= 400 and set(json.loads(answer.body)) != {"error"}:
        return f"an error in another shape: {answer.body[:300]!r}"
    return ""


@command.command()
def soak(
    *,
    minutes: Annotated[float, typer.Option(min=1.0, help="for how long")] = 60.0,
    clients: Annotated[int, typer.Option(min=1, help="callers, each with pauses")] = 4,
    pause_minutes: Annotated[float, typer.Option(min=0.1, help="between a swap and the next rebuild")] = 2.0,
    seed: Annotated[int | None, typer.Option(help="of the requests; by default another each time")] = None,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Put mixed requests, changes and swaps on a service of its own and watch its memory."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    typer.echo(f"seed {chosen}, {minutes:g} minutes of {clients} callers, {IDS:,} ids")

    def attempt() -> bool:
        tally, ledger, inputs = Tally(), Ledger(), read_inputs(IMAGES)
        with trial(bundle, live_changes=True) as service:
            levels = Levels(service.process.pid)
            release = asyncio.run(_release(service.port))
            changes = Requests(release["model_fingerprint"], release["dim"], random.Random(chosen))
            kinds = mixture(inputs, _item_ids(service))
            trying = Soak(service, bundle, kinds, changes, ledger, minutes * 60, pause_minutes * 60, chosen)
            asyncio.run(trying.put(tally, levels, clients=clients))
        for (name, status), count in sorted(tally.answers.items()):
            typer.echo(f"{name:>22} {status or 'left':>5} {count:>8,}")
        wrong = [*tally.wrong, *ledger.problems]
        for problem in wrong[:20]:
            typer.echo(problem)
        typer.echo(
            f"{tally.answers.total():,} requests, {len(wrong)} wrong answers; {ledger.acknowledged:,} changes "
            f"acknowledged; {tally.swaps} swaps"
        )
        return levels.report(most_growth=MAX_GROWTH) and not wrong

    run(attempt)


async def _release(port: int) -> dict[str, Any]:
    caller = Caller(port)
    answer = await caller.ask(get("/release"))
    caller.leave()
    release: dict[str, Any] = json.loads(answer.body)
    return release


def _item_ids(service: Service) -> list[str]:
    """Of the gallery."""

    async def ask() -> list[str]:
        caller = Caller(service.port)
        answer = await caller.ask(post_json("/search/text", {"query": "a dog", "k": 50}))
        caller.leave()
        return [hit["id"] for hit in json.loads(answer.body)["results"]]

    return asyncio.run(ask())


if __name__ == "__main__":
    command()
