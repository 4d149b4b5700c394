"""`python -m benchmarks.faults.requests`: thousands of bad and odd requests over all routes, to a real service.

Each goes over a connection of its own. Exit status: 0 when each was answered 2xx, 3xx or 4xx in the one shape
of errors, or with what 503, 504 and 507 are meant for, or was no request that can be answered, and when good
requests were answered rightly after each hundred; 1 otherwise; 2 when it could not be tried.
"""

import asyncio
import json
import secrets
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.faults.oddities import Request, good_requests, odd_request
from benchmarks.faults.trial import HEAD_END, Caller, Left, Reading, run, trial
from benchmarks.http import Service, post, post_json
from benchmarks.inputs import read_inputs
from encoders.bundle import DEFAULT_BUNDLE

EVERY = 100  # good requests after so many odd ones
PATIENCE_SECONDS = 60.0  # for an answer, or for the connection to be closed
MAX_BODY_BYTES = 1 << 20  # of the service that is tried: what is too large need not take long to send
MEANT = {503: {"unavailable", "not_ready"}, 504: {"deadline_exceeded"}, 507: {"storage_full"}}
TOLERANCE = 1e-4  # of an embedding from batches of other sizes

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)  # status (0: none) and code
    by_oddity: Counter[tuple[str, int]] = field(
        default_factory=Counter
    )  # what was done, and the status's first digit
    wrong: dict[int, str] = field(
        default_factory=dict
    )  # number of the request -> what is wrong with its answer
    good: int = 0
    slowest_seconds: float = 0.0


@dataclass(frozen=True)
class Barrage:
    """Requests `0 … count - 1` of a seed, to one service."""

    service: Service
    good: Sequence[Request]
    checks: "Checks"
    seed: int
    count: int
    clients: int

    async def send_all(self, tally: Tally) -> None:
        numbers = iter(range(self.count))
        await asyncio.gather(*(self._client(numbers, tally) for _ in range(self.clients)))

    async def _client(self, numbers: Iterator[int], tally: Tally) -> None:
        for number in numbers:  # shared by all clients
            request = odd_request(self.good, self.seed, number)
            started = time.perf_counter()
            status, code, problem = await exchange(self.service.port, request)
            tally.slowest_seconds = max(tally.slowest_seconds, time.perf_counter() - started)
            tally.answers[status, code] += 1
            for name in request.told:
                tally.by_oddity[name, status // 100] += 1
            if number % EVERY == EVERY - 1:
                problem = await self.checks.problem(self.service.port) or problem
                tally.good += 1
            if problem:
                tally.wrong[number] = problem


async def exchange(port: int, request: Request) -> tuple[int, str, str]:
    """Status (0: none) and error code of the first answer, and what is wrong with it; both may be empty."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(request.to_bytes())
            await writer.drain()
            if request.cut is not None:
                writer.write_eof()
            return await _answer(reader, request)
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, "closed", ""
    except TimeoutError:
        return 0, "silent", f"neither an answer nor a goodbye in {PATIENCE_SECONDS:g} s"
    finally:
        writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, request: Request) -> tuple[int, str, str]:
    head = await reader.readuntil(HEAD_END)
    while head.startswith(b"HTTP/1.1 100"):
        head = await reader.readuntil(HEAD_END)
    status = int(head.split()[1])
    headers = dict(line.partition(": ")[::2] for line in head.decode("latin-1").lower().split("\r\n")[1:-2])
    has_body = request.method != b"HEAD" and status not in (204, 304)
    body = await reader.readexactly(int(headers.get("content-length", "0"))) if has_body else b""
    if status < 400 or not has_body:
        return status, "", "" if status < 500 else f"{status} to a HEAD"
    return judge(status, body)


def judge(status: int, body: bytes) -> tuple[int, str, str]:
    try:
        error = json.loads(body)["error"]
        code, shape = str(error["code"]), set(error)
    except (ValueError, KeyError, TypeError):
        return status, "?", f"{status} in another shape: {body[:200]!r}"
    if shape != {"code", "message", "param", "type"}:
        return status, code, f"an error of {sorted(shape)}"
    if status >= 500 and code not in MEANT.get(status, set()):
        return status, code, f"{status} {error['message']}"
    return status, code, ""


@dataclass(frozen=True)
class Checks:
    """Good requests, and what is in their answers as long as the service is well."""

    requests: Sequence[bytes]
    expected: Sequence[list[float]]

    @classmethod
    async def of(cls, port: int, image: bytes, media_type: str) -> "Checks":
        requests = [
            post_json("/embed/text", {"texts": "a dog on a beach"}),
            post("/embed/image", image, media_type=media_type),
        ]
        return cls(requests, [await cls._vector(port, one) for one in requests])

    async def problem(self, port: int) -> str:
        for request, expected in zip(self.requests, self.expected, strict=True):
            try:
                found = await self._vector(port, request)
            except (Left, OSError, ValueError, KeyError) as error:
                return f"a good request then: {error!r}"
            if any(abs(one - other) > TOLERANCE for one, other in zip(found, expected, strict=True)):
                return "a good request then had another vector"
        return ""

    @staticmethod
    async def _vector(port: int, request: bytes) -> list[float]:
        caller = Caller(port)
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await caller.ask(request)
        caller.leave()
        if answer.status != 200:
            raise ValueError(f"{answer.status} {answer.body[:200]!r}")
        return list(json.loads(answer.body)["data"][0]["embedding"])


async def check_good(port: int, good: Sequence[Request]) -> list[str]:
    """What is wrong with the good requests as they are: none of them may be refused."""
    wrong = []
    for request in good:
        status, code, _ = await exchange(port, request)
        if not 200 <= status < 400:
            wrong.append(f"{request.method.decode()} {request.target.decode()} itself: {status} {code}")
    return wrong


def report(tally: Tally) -> bool:
    for (status, code), count in sorted(tally.answers.items()):
        typer.echo(f"{status or 'none':>5} {code:<28} {count:>7,}")
    digits = sorted({digit for _, digit in tally.by_oddity})
    names = sorted({name for name, _ in tally.by_oddity})
    typer.echo(f"{'done to it':<20}" + "".join(f"{f'{digit}xx' if digit else 'none':>8}" for digit in digits))
    for name in names:
        typer.echo(f"{name:<20}" + "".join(f"{tally.by_oddity[name, digit]:>8,}" for digit in digits))
    typer.echo(f"good requests between them: {tally.good} times; slowest answer {tally.slowest_seconds:.2f} s")
    for number, problem in sorted(tally.wrong.items())[:20]:
        typer.echo(f"request {number}: {problem}")
    typer.echo(f"{len(tally.wrong)} wrong answers")
    return not tally.wrong


@command.command()
def requests(
    *,
    count: Annotated[int, typer.Option(min=10, help="how many requests")] = 5_000,
    seed: Annotated[int | None, typer.Option(help="of the requests; by default another each time")] = None,
    clients: Annotated[int, typer.Option(min=1, help="connections at once")] = 4,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
    keep: Annotated[Path | None, typer.Option(help="write the requests with a wrong answer here")] = None,
) -> None:
    """Send bad and odd requests to a service of its own; tell how it answered."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    typer.echo(f"seed {chosen}, {count:,} requests")

    def attempt() -> bool:
        tally, inputs = Tally(), read_inputs(1)
        image = inputs.images[0]
        settings = {
            "live_changes": True,
            "max_body_bytes": MAX_BODY_BYTES,
            "body_seconds": 1,
            "header_seconds": 1,
        }
        with trial(bundle, **settings) as service:
            release = _ask(service, "/release")
            ids = [hit["id"] for hit in _ask(service, "/search/text", {"query": "a", "k": 3})["results"]]
            good = good_requests(
                image.data, fingerprint=release["model_fingerprint"], dim=release["dim"], ids=ids
            )
            if problems := asyncio.run(check_good(service.port, good)):
                raise ValueError("; ".join(problems))
            checks = asyncio.run(Checks.of(service.port, image.data, image.media_type))
            asyncio.run(Barrage(service, good, checks, chosen, count, clients).send_all(tally))
            lives = service.process.poll() is None
            typer.echo(f"{Reading.of(service.process.pid)}" if lives else "the service ended by itself")
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            for number in tally.wrong:
                (keep / f"{chosen}-{number}").write_bytes(odd_request(good, chosen, number).to_bytes())
        return report(tally) and lives

    run(attempt)


def _ask(service: Service, path: str, content: object = None) -> Any:
    body = None if content is None else json.dumps(content).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}{path}", body, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.load(answer)


if __name__ == "__main__":
    command()
