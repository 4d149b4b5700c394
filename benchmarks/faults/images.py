"""`python -m benchmarks.faults.images`: thousands of random and spoiled images, sent to the real service.

Exit status: 0 when every one was answered 200 or 4xx in the one shape of errors, good images kept their
vector all the while, the service stayed ready and its memory flat; 1 otherwise; 2 when it could not be tried.
"""

import asyncio
import json
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.mutants import good_files, mutant
from benchmarks.faults.trial import Answer, Caller, Left, Reading, metrics, run, trial, with_deadline
from benchmarks.http import Service, post
from benchmarks.inputs import GALLERY, read_items
from encoders.bundle import DEFAULT_BUNDLE
from encoders.images import decode_image

EVERY = 20  # a good image after so many spoiled ones
SIDE_PIXELS = 96
WARM_UP = 0.1  # of the images, after which memory is looked at first: buffers and arenas fill until then
MAX_GROWTH_MEBIBYTES = 64.0
TOLERANCE = 1e-4  # of an embedding from batches of other sizes
DEADLINE_SECONDS = 120.0

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)  # status (0: none) and code
    wrong: dict[int, str] = field(default_factory=dict)  # number of the image -> what is wrong with its answer
    good_checked: int = 0
    slowest_seconds: float = 0.0


@dataclass(frozen=True)
class Barrage:
    """Images `0 … count - 1` of a seed, to one service."""

    service: Service
    files: Sequence[bytes]
    seed: int
    count: int
    clients: int

    async def send_all(self, tally: Tally) -> list[Reading]:
        """What the service takes after the warm-up and at the end; fewer where it did not live to see it."""
        expected = await self._good_vector(Caller(self.service.port))
        readings: list[Reading] = []
        warm_up = int(self.count * WARM_UP)
        for part in (range(warm_up), range(warm_up, self.count)):
            numbers = iter(part)
            await asyncio.gather(*(self._client(numbers, expected, tally) for _ in range(self.clients)))
            if self.service.process.poll() is None:
                readings.append(Reading.of(self.service.process.pid))
        return readings

    async def _client(self, numbers: Iterator[int], expected: list[float], tally: Tally) -> None:
        caller = Caller(self.service.port)
        for number in numbers:  # shared by all clients
            if number % max(1, self.count // 10) == 0:
                typer.echo(f"{number:>9,} images")
            started = time.perf_counter()
            try:
                await self._one(caller, number, expected, tally)
            except (Left, OSError, ValueError, KeyError) as error:
                tally.answers[0, type(error).__name__] += 1
                tally.wrong[number] = f"no answer: {error!r}"
                caller.leave()
            tally.slowest_seconds = max(tally.slowest_seconds, time.perf_counter() - started)
        caller.leave()

    async def _one(self, caller: Caller, number: int, expected: list[float], tally: Tally) -> None:
        answer = await ask(caller, mutant(self.files, self.seed, number))
        code, problem = judge(answer)
        if number % EVERY == 0:
            tally.good_checked += 1
            if not same(await self._good_vector(caller), expected):
                problem = "a good image then had another vector"
        tally.answers[answer.status, code] += 1
        if problem:
            tally.wrong[number] = problem

    async def _good_vector(self, caller: Caller) -> list[float]:
        answer = await ask(caller, self.files[0])
        if answer.status != 200:
            raise ValueError(f"a good image was answered {answer.status}: {answer.body[:200]!r}")
        return list(json.loads(answer.body)["data"][0]["embedding"])


async def ask(caller: Caller, image: bytes) -> Answer:
    request = post("/embed/image", image, media_type="image/jpeg")
    async with asyncio.timeout(2 * DEADLINE_SECONDS):
        return await caller.ask(with_deadline(request, int(DEADLINE_SECONDS * 1e3)))


def judge(answer: Answer) -> tuple[str, str]:
    """The error code of an answer, and what is wrong with the answer; both may be empty."""
    content = json.loads(answer.body)
    if answer.status == 200:
        numbers = content["data"][0]["embedding"]
        length = sum(number * number for number in numbers)
        return "", "" if abs(length - 1.0) < 1e-3 else f"an embedding of length² {length}"
    code = str(content["error"]["code"])
    if not 400 <= answer.status < 500 or answer.status == 429:
        return code, f"{answer.status} {content['error']['message']}"
    return code, ""


def same(found: list[float], expected: list[float]) -> bool:
    return len(found) == len(expected) and all(
        abs(a - b) < TOLERANCE for a, b in zip(found, expected, strict=True)
    )


def report(tally: Tally, readings: Sequence[Reading], after: dict[str, float]) -> bool:
    """Print what was found; whether all was as it should be. `after`: metrics at the end."""
    for (status, code), count in sorted(tally.answers.items()):
        typer.echo(f"{status or 'none':>5} {code:<24} {count:>8,}")
    typer.echo(f"good images between them: {tally.good_checked:,}, each with its vector unless named below")
    typer.echo(f"slowest answer: {tally.slowest_seconds:.2f} s")
    for moment, reading in zip(("after the warm-up", "at the end"), readings, strict=False):
        typer.echo(f"{moment}: {reading}")
    for name, value in after.items():
        if name.startswith(("twinlens_decoder", "twinlens_ready")) and "_created" not in name:
            typer.echo(f"{name} {value:g}")
    for number, problem in sorted(tally.wrong.items())[:20]:
        typer.echo(f"image {number}: {problem}")
    typer.echo(f"{len(tally.wrong)} wrong answers")
    if len(readings) < 2:
        typer.echo("the service ended by itself")
        return False
    grown = readings[-1].service_mebibytes - readings[0].service_mebibytes
    return not tally.wrong and grown <= MAX_GROWTH_MEBIBYTES and after["twinlens_ready"] == 1.0


@command.command()
def images(
    *,
    count: Annotated[int, typer.Option(min=10, help="how many images")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="of the images; by default another each time")] = None,
    clients: Annotated[int, typer.Option(min=1, help="connections that send them")] = 8,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
    keep: Annotated[Path | None, typer.Option(help="write the images with a wrong answer here")] = None,
) -> None:
    """Send random and spoiled images to a service of its own; tell how it fared."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    typer.echo(f"seed {chosen}, {count:,} images")

    def attempt() -> bool:
        drawing = decode_image((GALLERY / read_items()[0]["image"]).read_bytes())
        files = list(good_files(drawing.resize((SIDE_PIXELS, SIDE_PIXELS * 3 // 4))).values())
        tally = Tally()
        with trial(bundle) as service:
            readings = asyncio.run(Barrage(service, files, chosen, count, clients).send_all(tally))
            after = asyncio.run(metrics(service.port)) if service.process.poll() is None else {}
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for number in tally.wrong:
                (keep / f"{chosen}-{number}").write_bytes(mutant(files, chosen, number))
        return report(tally, readings, after)

    run(attempt)


if __name__ == "__main__":
    command()
