"""A service of its own over a small release, callers for it, and what is read off it. Linux: it reads /proc."""

import asyncio
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import typer

from benchmarks.http import ROOT, BenchmarkFailed, Service, serving
from benchmarks.inputs import GALLERY, write_gallery
from benchmarks.machine import anonymous_memory_mebibytes, process_tree, resident_memory_mebibytes
from benchmarks.rebuild import rebuild_gallery
from encoders.errors import TwinlensError

ITEMS = 64  # of the gallery: enough for a release
TABLE_NAME, RELEASES_NAME = "gallery.jsonl", "releases"  # in a trial's workplace
HEAD_END = b"\r\n\r\n"
ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: a reset instead of a goodbye


class Left(Exception):
    """The service closed the connection before its answer was complete."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Caller:
    """One kept-alive connection, opened when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request. Raises Left."""
        reader = await self._send(request)
        try:
            head = await reader.readuntil(HEAD_END)
            lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        except (asyncio.IncompleteReadError, OSError) as error:
            self.leave()
            raise Left(f"{error!r}") from error
        if headers.get("connection") == "close":
            self.leave()
        return Answer(int(lines[0].split()[1]), headers, body)

    async def send_and_leave(self, request: bytes, *, after_seconds: float, reset: bool = False) -> None:
        """Send what may be a part of a request only, wait, and be gone."""
        self.leave()
        try:
            await self._send(request)
            await asyncio.sleep(after_seconds)
        except (Left, OSError):
            pass  # the service was the first to go
        finally:
            self.leave(reset=reset)

    def leave(self, *, reset: bool = False) -> None:
        if self._writer is not None:
            if reset:
                found: socket.socket = self._writer.get_extra_info("socket")
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                self._writer.transport.abort()
            self._writer.close()
        self._reader = self._writer = None

    async def _send(self, request: bytes) -> asyncio.StreamReader:
        try:
            if self._reader is None or self._writer is None:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writer.write(request)
            await self._writer.drain()
        except OSError as error:
            self.leave()
            raise Left(f"{error!r}") from error
        return self._reader


@dataclass(frozen=True)
class Reading:
    """MiB, files and threads. `service`: its own process, resident; `tree`: with its decoders, without what
    files back (libraries are shared with whatever else runs), and what they share counted once."""

    service_mebibytes: float
    tree_mebibytes: float
    files: int
    threads: int

    @classmethod
    def of(cls, process_id: int) -> Self:
        tree = 0.0
        for each in process_tree(process_id):
            with suppress(OSError):  # a decoder that ended meanwhile
                tree += anonymous_memory_mebibytes(each)
        return cls(
            resident_memory_mebibytes(process_id),
            tree,
            len(os.listdir(f"/proc/{process_id}/fd")),  # noqa: PTH208 - a count of names, of no folder of ours
            len(os.listdir(f"/proc/{process_id}/task")),  # noqa: PTH208
        )


async def metrics(port: int) -> dict[str, float]:
    """Every sample of /metrics by its name with labels."""
    caller = Caller(port)
    answer = await caller.ask(get("/metrics"))
    caller.leave()
    lines = (line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


def with_deadline(request: bytes, milliseconds: int) -> bytes:
    line, _, rest = request.partition(b"\r\n")
    return line + b"\r\nx-deadline-ms: %d\r\n" % milliseconds + rest


@contextmanager
def trial(bundle: Path, **settings: object) -> Iterator[Service]:
    """A service over a release of a part of the demo gallery; `settings` as in service/settings.py."""
    with tempfile.TemporaryDirectory(prefix="twinlens-faults-") as folder:
        workplace = Path(folder)
        table, releases = workplace / TABLE_NAME, workplace / RELEASES_NAME
        write_gallery(table, ITEMS)
        rebuild_gallery(table, root=GALLERY, bundle=bundle.absolute(), releases=releases)
        variables = {f"TWINLENS_{name.upper()}": str(value) for name, value in settings.items()}
        with serving(releases, workplace, {**os.environ, **variables}) as service:
            yield service


async def rebuild(workplace: Path, bundle: Path) -> None:
    """`python -m index rebuild` of the table in a trial's workplace, as it is now. Raises BenchmarkFailed."""
    await _index(
        "rebuild", "--gallery", str(workplace / TABLE_NAME), "--root", str(GALLERY),
        "--bundle", str(bundle.absolute()), "--releases", str(workplace / RELEASES_NAME),
    )  # fmt: skip


async def prune(workplace: Path, *, keep: int) -> None:
    await _index("prune", "--keep", str(keep), "--releases", str(workplace / RELEASES_NAME))


async def _index(*arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "index", *arguments,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise BenchmarkFailed(
            f"index {arguments[0]} ended with {process.returncode}: {said.decode(errors='replace')[-2000:]}"
        )


def run(attempt: Callable[[], bool]) -> None:
    """Exit status 0: as it should be; 1: not so; 2: it could not be tried."""
    try:
        sound = attempt()
    except (BenchmarkFailed, TwinlensError, OSError, ValueError) as error:
        typer.echo(f"cannot try: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo("as it should be" if sound else "NOT as it should be")
    if not sound:
        raise typer.Exit(1)
