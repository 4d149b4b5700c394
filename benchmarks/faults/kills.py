"""`python -m benchmarks.faults.kills`: a service killed again and again while clients put and delete.

At random times (SIGKILL), in order (SIGTERM), and at system calls (strace, from Debian, sends SIGKILL at the
n-th fsync, write, rename …). After each kill the service is started again, and every item must be what was
acknowledged last, or what was in flight: a batch whole or not at all, an image with its bytes. What was in
flight is then sent again with its idempotency key. Exit status: 0 when nothing was lost; 1 otherwise; 2 when it
could not be tried.
"""

import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.faults.ledger import Ledger, Requests, check, write
from benchmarks.faults.trial import Answer, Caller, Left, get, run
from benchmarks.http import BenchmarkFailed, free_port, post_json
from benchmarks.inputs import GALLERY, write_gallery
from benchmarks.rebuild import rebuild_gallery
from encoders.bundle import DEFAULT_BUNDLE
from index.journal.changes import Upsert
from index.journal.images import IMAGES_NAME
from index.journal.location import LIVE_NAME
from index.journal.snapshot import open_snapshot

ROOT = Path(__file__).resolve().parents[2]
ITEMS = 64  # of the gallery
WRITERS = 8
IDS_PER_WRITER = 5
SYSTEM_CALLS = ("fsync", "fdatasync", "pwrite64", "rename", "unlink", "ftruncate")
LATEST_CALL = {"fsync": 60, "fdatasync": 40, "pwrite64": 400, "rename": 30, "unlink": 20, "ftruncate": 2}
LONGEST_SECONDS = 1.5  # of writing before a kill
TRACED_SECONDS = 8.0  # until a call that does not come is given up, and SIGKILL sent
READY_SECONDS = 120.0
REBUILD_EVERY = 40  # kills: what was put is then taken into a release

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Services:
    """Starts a service over the releases, one after the other, by the fork server."""

    def __init__(self, releases: Path, workplace: Path) -> None:
        self.port = free_port()
        self._settings = {
            "releases": str(releases),
            "port": self.port,
            "live_changes": True,
            "engine": "torch",
            "device": "cpu",
            "watch_seconds": 0,
            "decode_workers": 1,
            "log": str(workplace / "log"),
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults.fork_server"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._line()

    def start(self) -> int:
        """The pid of a service that is ready."""
        self._server.stdin.write(json.dumps(self._settings) + "\n")
        self._server.stdin.flush()
        pid = int(self._line())
        give_up = time.monotonic() + READY_SECONDS
        while True:
            try:
                if asyncio.run(ask(self.port, get("/readyz"))).status == 200:
                    return pid
            except Left:
                pass
            if time.monotonic() > give_up or not Path(f"/proc/{pid}/task").exists():
                log = Path(self._settings["log"]).read_text(errors="replace")
                raise BenchmarkFailed(f"the service was not ready; its log ends:\n{log[-2000:]}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Its exit status."""
        return int(self._line())

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()

    def _line(self) -> str:
        return self._server.stdout.readline()


async def ask(port: int, request: bytes) -> Answer:
    caller = Caller(port)
    try:
        return await caller.ask(request)
    finally:
        caller.leave()


@dataclass(frozen=True)
class Kill:
    """How: a signal after some seconds, or SIGKILL at a system call."""

    name: str
    after_seconds: float = 0.0
    number: int = signal.SIGKILL
    call: str = ""
    nth: int = 0

    @classmethod
    def chosen(cls, chance: random.Random, *, traced: bool) -> "Kill":
        kind = chance.choices(("random", "SIGTERM", "call"), (3, 2, 5 if traced else 0))[0]
        if kind == "call":
            call = chance.choice(SYSTEM_CALLS)
            return cls(call, call=call, nth=chance.randint(1, LATEST_CALL[call]))
        number = signal.SIGTERM if kind == "SIGTERM" else signal.SIGKILL
        return cls("SIGTERM" if kind == "SIGTERM" else "SIGKILL", chance.uniform(0, LONGEST_SECONDS), number)

    async def carry_out(self, pid: int) -> None:
        if not self.call:
            await asyncio.sleep(self.after_seconds)
            os.kill(pid, self.number)
            return
        inject = f"inject={self.call}:signal=SIGKILL:when={self.nth}"
        tracer = await asyncio.create_subprocess_exec(
            "strace", "-f", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", f"trace={self.call}", "-e", inject
        )
        try:
            await asyncio.wait_for(tracer.wait(), TRACED_SECONDS)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            await tracer.wait()


async def write_until_killed(
    services: Services, pid: int, kill: Kill, requests: Requests, ledger: Ledger
) -> None:
    ids = [[f"w{writer}/{number}" for number in range(IDS_PER_WRITER)] for writer in range(WRITERS)]
    writing = [write(services.port, some, requests, ledger) for some in ids]
    await asyncio.gather(kill.carry_out(pid), *writing)


def check_files(releases: Path, ledger: Ledger) -> None:
    """The journal is whole, and there is an image for each that it names, and no other."""
    with open_snapshot(releases) as snapshot:
        named = {one.digest.hex() for one in snapshot.changes() if isinstance(one, Upsert) and one.digest}
    there = {path.name for path in (releases / LIVE_NAME / IMAGES_NAME).iterdir()}
    if named != there:
        ledger.problems.append(f"{len(named - there)} images are missing, {len(there - named)} are too many")
        ledger.counts["images"] += len(named ^ there)


@contextmanager
def started(bundle: Path) -> Iterator[tuple[Services, Path, Path]]:
    """Services over a release of a part of the demo gallery, its folder, and the gallery's table."""
    with tempfile.TemporaryDirectory(prefix="twinlens-kills-") as folder:
        table, releases = Path(folder) / "gallery.jsonl", Path(folder) / "releases"
        write_gallery(table, ITEMS)
        rebuild_gallery(table, root=GALLERY, bundle=bundle.absolute(), releases=releases)
        services = Services(releases, Path(folder))
        try:
            yield services, releases, table
        finally:
            services.close()


@command.command()
def kills(
    *,
    count: Annotated[int, typer.Option(min=1, help="how often the service is killed")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="of kills and requests; by default another each time")
    ] = None,
    bundle: Annotated[Path, typer.Option(help="the encoder to serve")] = DEFAULT_BUNDLE,
) -> None:
    """Kill a service of its own under concurrent puts and deletes, and count what was acknowledged and lost."""
    chosen = secrets.randbelow(2**32) if seed is None else seed
    traced = shutil.which("strace") is not None
    typer.echo(f"seed {chosen}, {count} kills" + ("" if traced else "; no strace: none at system calls"))

    def attempt() -> bool:
        with started(bundle) as (services, releases, table):
            ledger, done = _killed(
                services, releases, table, bundle, count, random.Random(chosen), traced=traced
            )
        typer.echo(f"{'killed at':>12} {'kills':>6} {'acknowledged':>13}")
        for name, (times, acknowledged) in sorted(done.items()):
            typer.echo(f"{name:>12} {times:>6} {acknowledged:>13,}")
        typer.echo(f"{'all':>12} {count:>6} {ledger.acknowledged:>13,}")
        for name, number in sorted(ledger.counts.items()):
            typer.echo(f"{name}: {number:,}")
        for problem in ledger.problems[:20]:
            typer.echo(problem)
        typer.echo(
            f"{ledger.acknowledged:,} writes acknowledged, {ledger.counts['lost']} lost, "
            f"{ledger.counts['half']} half"
        )
        return not ledger.problems

    run(attempt)


def _killed(
    services: Services,
    releases: Path,
    table: Path,
    bundle: Path,
    count: int,
    chance: random.Random,
    *,
    traced: bool,
) -> tuple[Ledger, dict[str, tuple[int, int]]]:
    """What is known in the end; and by kind of kill how many there were, and acknowledged before them."""
    ledger, done, requests = Ledger(), {}, None
    for number in range(count + 1):
        pid = services.start()
        if requests is None:
            answer = asyncio.run(ask(services.port, post_json("/embed/text", {"texts": "a dog"})))
            encoder = json.loads(answer.body)
            requests = Requests(encoder["model_fingerprint"], encoder["dim"], chance)
        asyncio.run(check(services.port, ledger))
        if number == count:
            os.kill(pid, signal.SIGTERM)
            services.wait()
            check_files(releases, ledger)
            break
        kill, before = Kill.chosen(chance, traced=traced), ledger.acknowledged
        asyncio.run(write_until_killed(services, pid, kill, requests, ledger))
        status = services.wait()
        if kill.number == signal.SIGTERM and status != 0:
            ledger.problems.append(f"SIGTERM ended it with {status}")
        times, acknowledged = done.get(kill.name, (0, 0))
        done[kill.name] = (times + 1, acknowledged + ledger.acknowledged - before)
        if number % REBUILD_EVERY == REBUILD_EVERY - 1:
            rebuild_gallery(table, root=GALLERY, bundle=bundle.absolute(), releases=releases)
            typer.echo(f"{number + 1} kills, {ledger.acknowledged:,} acknowledged, {dict(ledger.counts)}")
    return ledger, done


if __name__ == "__main__":
    command()
