"""`python -m benchmarks.faults.failover`: services on one folder of releases, one of which takes changes.

The one that takes changes is killed, or stopped, while clients put and delete, and another takes over: it must
have every change that was acknowledged. A second one that would take changes beside it must be refused, and
told who does. A third only reads: it must answer all the while, and have every change once a rebuild took it
in. Exit status: 0 when it was so; 1 otherwise; 2 when it could not be tried.
"""

import asyncio
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.kills import Kill, Services, ask, started, write_until_killed
from benchmarks.faults.ledger import Ledger, Requests, check, version_of
from benchmarks.faults.trial import Caller, Left, get, run
from benchmarks.http import ROOT, BenchmarkFailed, Service, free_port, post_json, serving
from benchmarks.inputs import GALLERY
from benchmarks.rebuild import rebuild_gallery
from encoders.bundle import DEFAULT_BUNDLE
from index.catalog import current_release_id

REBUILD_EVERY = 5  # takeovers
FOLLOW_SECONDS = 120.0  # in which the reader serves a new release
REFUSED_SECONDS = 120.0
PAUSE_SECONDS = 0.05

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Reader:
    """A service without live changes, and what it answered while the others came and went."""

    service: Service
    answers: int = 0
    problems: list[str] = field(default_factory=list)
    followed: int = 0

    @contextmanager
    def asked(self) -> Iterator[None]:
        """A caller of its own searches until the block ends."""
        over = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._ask(over)))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    async def _ask(self, over: threading.Event) -> None:
        caller, request = Caller(self.service.port), post_json("/search/text", {"query": "a dog", "k": 5})
        while not over.is_set():
            try:
                answer = await caller.ask(request)
            except Left as error:
                self.problems.append(f"the reader gave no answer: {error}")
                continue
            self.answers += 1
            if answer.status != 200:
                self.problems.append(f"the reader: {answer.status} {answer.body[:200]!r}")
            await asyncio.sleep(PAUSE_SECONDS)
        caller.leave()

    def follow(self, releases: Path, ledger: Ledger) -> None:
        """Wait until it serves what is current, and compare every item with what was acknowledged."""
        wanted, give_up = current_release_id(releases), time.monotonic() + FOLLOW_SECONDS
        while json.loads(asyncio.run(ask(self.service.port, get("/release"))).body)["release"] != wanted:
            if time.monotonic() > give_up:
                self.problems.append(f"the reader did not serve {wanted} within {FOLLOW_SECONDS:.0f} s")
                return
            time.sleep(0.1)
        asyncio.run(self._compare(ledger))
        self.followed += 1

    async def _compare(self, ledger: Ledger) -> None:
        caller = Caller(self.service.port)
        for name, version in sorted(ledger.versions.items()):
            found = await version_of(caller, name, ledger)
            if found != version:
                self.problems.append(
                    f"the reader has {found} of {name}, {version} was acknowledged and rebuilt"
                )
        caller.leave()


def refused(releases: Path, *, writer: int) -> str:
    """What is wrong with how a second writer is refused; empty where it is told who writes."""
    arguments = ["--live-changes", "--device", "cpu", "--engine", "torch", "--port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", "service", "--releases", str(releases), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=REFUSED_SECONDS,
    )  # fmt: skip
    told = done.stdout + done.stderr
    return "" if done.returncode and str(writer) in told else f"{done.returncode}: {told[-500:]}"


@command.command()
def failover(
    *,
    count: Annotated[int, typer.Option(min=1, help="how often another service takes over")] = 30,
    seed: Annotated[int | None, typer.Option(help="by default another each time")] = None,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Have services take over from each other under load, beside a reader, and count what was lost."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    typer.echo(f"seed {chosen}, {count} takeovers")

    def attempt() -> bool:
        with (
            started(bundle) as (services, releases, table),
            serving(releases, releases.parent, {**os.environ, "TWINLENS_WATCH_SECONDS": "1"}) as service,
        ):
            reader, ledger = Reader(service), Ledger()
            with reader.asked():
                for number in range(count):
                    _take_over(services, releases, ledger, random.Random(f"{chosen} {number}"), number)
                    if number % REBUILD_EVERY == REBUILD_EVERY - 1:
                        _settled(services, ledger)
                        rebuild_gallery(table, root=GALLERY, bundle=bundle.absolute(), releases=releases)
                        reader.follow(releases, ledger)
                        typer.echo(f"{number + 1} takeovers, {ledger.acknowledged:,} acknowledged")
        problems = [*ledger.problems, *reader.problems]
        for problem in problems[:20]:
            typer.echo(problem)
        typer.echo(
            f"{count} takeovers: {ledger.acknowledged:,} changes acknowledged, {ledger.counts['lost']} lost, "
            f"{ledger.counts['half']} half; the reader answered {reader.answers:,} searches and followed "
            f"{reader.followed} releases, {len(reader.problems)} wrong"
        )
        return not problems

    run(attempt)


def _take_over(services: Services, releases: Path, ledger: Ledger, chance: random.Random, number: int) -> None:
    """Start, compare with what is known, write, and end it. Raises BenchmarkFailed."""
    pid = services.start()
    answer = asyncio.run(ask(services.port, post_json("/embed/text", {"texts": "a dog"})))
    encoder = json.loads(answer.body)
    requests = Requests(encoder["model_fingerprint"], encoder["dim"], chance, first=number * 1_000_000)
    asyncio.run(check(services.port, ledger))
    if number % REBUILD_EVERY == 0 and (problem := refused(releases, writer=pid)):
        ledger.problems.append(f"a second writer beside {pid}: {problem}")
    kill = Kill.chosen(chance, traced=False)
    asyncio.run(write_until_killed(services, pid, kill, requests, ledger))
    status = services.wait()
    if kill.number == signal.SIGTERM and status != 0:
        raise BenchmarkFailed(f"SIGTERM ended the service with {status}")


def _settled(services: Services, ledger: Ledger) -> None:
    """What was in flight is sent again, so that what must be there is known."""
    pid = services.start()
    asyncio.run(check(services.port, ledger))
    os.kill(pid, signal.SIGTERM)
    services.wait()


if __name__ == "__main__":
    command()
