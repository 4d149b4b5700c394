"""The real service in a process of its own on the loopback device, and loads put on it."""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import Job, Load, write_requests
from benchmarks.machine import peak_memory_mebibytes, process_tree

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 120.0
STOP_SECONDS = 30.0


class BenchmarkFailed(Exception):
    """Something that was to be measured did not work; the message has what it said."""


@dataclass(frozen=True)
class Service:
    port: int
    process: subprocess.Popen[bytes]
    workplace: Path

    def peak_memory_mebibytes(self) -> float:
        """Of all its processes; what they share counts in each."""
        return sum(peak_memory_mebibytes(pid) for pid in process_tree(self.process.pid))

    def put_load(
        self, requests: Sequence[bytes], *, clients: int, warm_up_seconds: float, seconds: float
    ) -> Load:
        """Have `clients` connections send the requests in turn; raises BenchmarkFailed for any but a 200."""
        file = self.workplace / "requests"
        write_requests(file, requests)
        job = Job(
            port=self.port,
            server=self.process.pid,
            requests=str(file),
            clients=clients,
            warm_up_seconds=warm_up_seconds,
            seconds=seconds,
        )
        command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(job))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if done.returncode:
            raise BenchmarkFailed(f"the load generator failed: {done.stderr.decode(errors='replace')[-2000:]}")
        load = Load(**json.loads(done.stdout))
        if load.failure:
            raise BenchmarkFailed(f"with {clients} clients: {load.failure}")
        return load


@contextmanager
def serving(
    releases: Path, workplace: Path, settings: Mapping[str, str], *, compiled: bool = True
) -> Iterator[Service]:
    """`python -m service` over the releases, ready; `settings` are its environment.

    compiled: not before its encoder is as fast as it will be.
    """
    port = free_port()
    command = [sys.executable, "-m", "service", "--releases", str(releases), "--port", str(port)]
    with running(command, port=port, ready="/readyz", workplace=workplace, settings=settings) as service:
        if compiled:
            wait_until_compiled(service)
        yield service


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    ready: str,
    workplace: Path,
    settings: Mapping[str, str],
    folder: Path = ROOT,
) -> Iterator[Service]:
    """Any server, started in `folder`, once it answers at the path `ready`; ended with the block.

    Raises BenchmarkFailed, with the end of its log.
    """
    with tempfile.TemporaryFile(dir=workplace) as log:
        process = subprocess.Popen(command, cwd=folder, env={**settings}, stderr=log, stdout=log)
        try:
            _wait_until_ready(process, port, ready)
            yield Service(port, process, workplace)
        except BenchmarkFailed as error:
            log.seek(0)
            tail = log.read()[-2000:].decode(errors="replace")
            raise BenchmarkFailed(f"{error}\nthe server's log ends:\n{tail}") from error
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def post(path: str, body: bytes, *, media_type: str) -> bytes:
    """The bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {media_type}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def post_json(path: str, content: object) -> bytes:
    return post(path, json.dumps(content).encode(), media_type="application/json")


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise BenchmarkFailed(f"the server ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise BenchmarkFailed(f"the server was not ready after {READY_SECONDS:.0f} s")


def wait_until_compiled(service: Service) -> None:
    """Until a service that is ready has made its fastest engine ready too."""
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up:
        with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/release", timeout=5) as answer:
            if not json.load(answer)["compiling"]:
                return
        time.sleep(0.1)
    raise BenchmarkFailed(f"the towers were not compiled after {READY_SECONDS:.0f} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
