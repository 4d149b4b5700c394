"""`python -m benchmarks.faults.swaps`: releases swapped again and again while callers search and embed.

Three releases of other galleries are made current in turn, as `python -m index rollback ID` does it, and taken
up by a reload; three callers ask all the while. Exit status: 0 when every answer was a 200 of one release in
itself and was that release's own, memory, files and threads stayed level, and only what is served is mapped in
the end; 1 otherwise; 2 when it could not be tried.
"""

import asyncio
import itertools
import json
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.faults.levels import Levels
from benchmarks.faults.trial import (
    ITEMS,
    RELEASES_NAME,
    TABLE_NAME,
    Caller,
    Left,
    rebuild,
    run,
    trial,
    with_deadline,
)
from benchmarks.http import BenchmarkFailed, Service, post, post_json
from benchmarks.inputs import read_inputs, write_gallery
from encoders.bundle import DEFAULT_BUNDLE
from index.catalog import current_release_id
from index.publish import rollback

SIZES = (ITEMS, 2 * ITEMS, 3 * ITEMS)  # items of the releases
CALLERS = 3
QUERIES = 8
PAUSE_SECONDS = 0.05  # of each caller between two requests
MAX_GROWTH = 0.01
WARM_UP_SHARE = 5  # a fifth of the swaps, 20 at the most: memory that is kept for one release more fills
WARM_UP_SWAPS = 20
RELOAD_MILLISECONDS = 120_000
FREE_SECONDS = 30.0  # until what was replaced is mapped no more

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    answers: Counter[str] = field(default_factory=Counter)  # by release
    wrong: list[str] = field(default_factory=list)
    swap_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Questions:
    """Requests, and what each release answers to them: ids in order."""

    requests: Sequence[bytes]
    found: dict[str, list[Any]] = field(default_factory=dict)

    async def learn(self, port: int, release: str) -> None:
        """While it is the one that is served. Raises BenchmarkFailed."""
        caller = Caller(port)
        answers = [json.loads((await caller.ask(request)).body) for request in self.requests]
        caller.leave()
        if {answer["release"] for answer in answers} != {release}:
            raise BenchmarkFailed(f"{release} is not served")
        self.found[release] = [_ids(answer) for answer in answers]

    def judge(self, number: int, status: int, body: bytes) -> tuple[str, str]:
        """The release that answered, and what is wrong."""
        if status != 200:
            return "", f"{status} {body[:300]!r}"
        answer = json.loads(body)
        release = str(answer["release"])
        if release not in self.found:
            return release, f"{release} was never made current"
        expected, found = self.found[release][number], _ids(answer)
        return release, "" if found == expected else f"{release} found {found} instead of {expected}"


def _ids(answer: Mapping[str, Any]) -> list[Any]:
    """Of all results; of a batch by query."""
    if "answers" in answer:
        return [_ids(part) for part in answer["answers"]]
    return [hit["id"] for hit in answer["results"]]


def questions() -> Questions:
    """Searches by text, by image, and for several at once."""
    inputs = read_inputs(QUERIES)
    texts = [post_json("/search/text", {"query": query, "k": 10}) for query in inputs.queries[:QUERIES]]
    images = [
        post("/search/image?k=10", each.data, media_type=each.media_type) for each in inputs.images[:QUERIES]
    ]
    batch = {"queries": [{"text": query} for query in inputs.queries[:QUERIES]], "k": 10}
    return Questions([*texts, *images, post_json("/search/batch", batch)])


@dataclass(frozen=True)
class Swaps:
    service: Service
    asked: Questions
    releases: Sequence[str]

    async def put(self, tally: Tally, levels: Levels, count: int) -> None:
        for release in self.releases:
            await self._serve(release)
            await self.asked.learn(self.service.port, release)
        over = asyncio.Event()
        callers = [asyncio.create_task(self._ask(number, over, tally)) for number in range(CALLERS)]
        try:
            for number, release in zip(range(count), self._turns(), strict=False):
                if number == min(count // WARM_UP_SHARE, WARM_UP_SWAPS):
                    levels.end_warm_up()
                started = time.monotonic()
                await self._serve(release)
                tally.swap_seconds.append(time.monotonic() - started)
                await self._answered_by(release, tally)
                levels.take(f"swap {number + 1} in {tally.swap_seconds[-1]:.1f} s  {len(tally.wrong)} wrong")
        finally:
            over.set()
            await asyncio.gather(*callers)
        await self._check_freed(tally)

    def _turns(self) -> Iterator[str]:
        """The last is the one that is served at the start."""
        return itertools.cycle(self.releases)

    async def _serve(self, release: str) -> None:
        """Raises BenchmarkFailed where it is not served then."""
        await asyncio.to_thread(rollback, self.service.workplace / RELEASES_NAME, release)
        caller = Caller(self.service.port)
        answer = await caller.ask(with_deadline(post_json("/release/reload", {}), RELOAD_MILLISECONDS))
        caller.leave()
        if answer.status != 200 or json.loads(answer.body)["release"] != release:
            raise BenchmarkFailed(f"{release} was not taken up: {answer.status} {answer.body[:500]!r}")

    async def _answered_by(self, release: str, tally: Tally) -> None:
        """Until every caller may have had an answer of it."""
        enough = tally.answers[release] + 5 * CALLERS
        while tally.answers[release] < enough and not tally.wrong:
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, first: int, over: asyncio.Event, tally: Tally) -> None:
        caller = Caller(self.service.port)
        for number in itertools.count(first):
            if over.is_set():
                break
            which = number % len(self.asked.requests)
            try:
                answer = await caller.ask(self.asked.requests[which])
            except Left as error:
                tally.wrong.append(f"no answer: {error}")
                continue
            release, problem = self.asked.judge(which, answer.status, answer.body)
            tally.answers[release] += 1
            if problem:
                tally.wrong.append(problem)
            await asyncio.sleep(PAUSE_SECONDS)
        caller.leave()

    async def _check_freed(self, tally: Tally) -> None:
        """Files of the served release only are mapped."""
        served = current_release_id(self.service.workplace / RELEASES_NAME)
        give_up = time.monotonic() + FREE_SECONDS
        while True:
            maps = Path(f"/proc/{self.service.process.pid}/maps").read_text()
            left = [release for release in self.releases if release != served and release in maps]
            if not left:
                return
            if time.monotonic() > give_up:
                tally.wrong.append(f"files of {left} are still mapped while {served} is served")
                return
            await asyncio.sleep(0.1)


async def prepared(workplace: Path, bundle: Path) -> list[str]:
    """Releases of each size; the last is current."""
    releases = workplace / RELEASES_NAME
    made = [current_release_id(releases)]
    for items in SIZES[1:]:
        write_gallery(workplace / TABLE_NAME, items)
        await rebuild(workplace, bundle)
        made.append(current_release_id(releases))
    return made


@command.command()
def swaps(
    *,
    count: Annotated[int, typer.Option(min=5, help="how many")] = 200,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Swap releases of a service of its own under load; tell how long it takes and what it leaves."""

    def attempt() -> bool:
        tally = Tally()
        with trial(bundle, watch_seconds=0) as service:
            releases = asyncio.run(prepared(service.workplace, bundle))
            levels = Levels(service.process.pid)
            asyncio.run(Swaps(service, questions(), releases).put(tally, levels, count))
        for problem in tally.wrong[:20]:
            typer.echo(problem)
        typer.echo(
            f"{len(tally.swap_seconds)} swaps, {statistics.median(tally.swap_seconds):.1f} s each, "
            f"{max(tally.swap_seconds):.1f} at the most; {tally.answers.total():,} answers meanwhile, of each "
            f"release {min(tally.answers[one] for one in releases):,} at least; {len(tally.wrong)} wrong"
        )
        return levels.report(most_growth=MAX_GROWTH) and not tally.wrong

    run(attempt)


if __name__ == "__main__":
    command()
