"""A small real release, and the real service on a real socket: in this process, or in one of its own."""

import io
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from index.rebuilding import RebuildSettings, rebuild
from index.sources import open_gallery
from service.app import create_app
from service.server import Server
from service.serving import Serving
from service.settings import Settings

ROOT = Path(__file__).parents[2]
WORDS = ("red", "green", "blue", "yellow", "black", "white")
ITEM_COUNT = 24


def image_file(seed: int, *, width: int = 48, height: int = 40) -> bytes:
    """PNG of noise: every seed looks different to any encoder."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def write_gallery(folder: Path) -> Path:
    """24 images in two folders with titles, categories, years; an odd id among them."""
    rows = []
    for number in range(ITEM_COUNT):
        path = f"{('animals', 'cars')[number % 2]}/{WORDS[number % 6]} ä#?% {number}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(image_file(number, width=320 if number == 1 else 48))
        title = f"a {WORDS[number % 6]} {('dog', 'car')[number % 2]}"
        row = {
            "image": path,
            "title": title,
            "category": ("animals", "cars")[number % 2],
            "year": 2000 + number,
        }
        rows.append(row | ({"tags": ["first", "odd"]} if number == 1 else {}))
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "items.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def publish(releases: Path, gallery: Path, bundle: Path) -> str:
    """A release of the gallery, made current; returns its id."""
    settings = RebuildSettings(
        gallery=open_gallery(str(gallery)), bundle=bundle, releases=releases, device="cpu"
    )
    rebuild(settings)
    return (releases / "CURRENT").read_text().strip()


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory, gallery: Path, tiny_bundle: Path) -> Path:
    folder = tmp_path_factory.mktemp("releases")
    publish(folder, gallery, tiny_bundle)
    return folder


@pytest.fixture(scope="session")
def settings_for() -> Callable[..., Settings]:
    """Settings for tests: any free port, one thread for the encoder, nothing compiled, no watching."""

    def make(releases: Path, **changes: object) -> Settings:
        common = {"port": 0, "device": "cpu", "torch_threads": 1, "decode_workers": 2, "watch_seconds": 0}
        return Settings(**{"releases": releases, "engine": "torch", **common, **changes})

    return make


@dataclass(frozen=True)
class Running:
    """A service that runs in this process, and its address."""

    url: str
    serving: Serving
    client: httpx.Client


@contextmanager
def running(settings: Settings) -> Iterator[Running]:
    """The real service on a free port, in a thread; stopped as SIGTERM stops it."""
    app = create_app(settings)
    server = Server(app, settings)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            yield Running(url, app.state.serving, client)
    finally:
        server.should_exit = True
        thread.join()


def wait_until(holds: Callable[[], object], *, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"it did not happen in {seconds:g} s"
        time.sleep(0.005)


def metric(service: Running, name: str, **labels: str) -> float:
    return service.serving.telemetry.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def device_held(service: Running) -> Iterator[None]:
    """Nothing gets through the device meanwhile."""
    entered, free = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        assert free.wait(30)

    service.serving.embedder.device.call(wait)
    assert entered.wait(10)
    try:
        yield
    finally:
        free.set()


@contextmanager
def files_left(count: int) -> Iterator[None]:
    """This process may open so many more files meanwhile, and no descriptor is free below those it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all there is
    filled = [os.open(os.devnull, os.O_RDONLY)]
    while filled[-1] < highest:
        filled.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(highest, filled[-1]) + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filled:
            os.close(descriptor)


class HeldFile:
    """A file that gives nothing until it may, as on a disk that does not answer: a pipe lies in its place."""

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, path.read_bytes()
        self._writer: int | None = None

    def __enter__(self) -> "HeldFile":
        self._path.unlink()  # a link to it elsewhere stays as it is
        os.mkfifo(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on(self._content)

    def wait_for_reader(self) -> None:
        """Until somebody has opened it, who reads nothing yet."""
        wait_until(self._has_reader, seconds=120)  # of a process that may have to import all it needs

    def go_on(self, content: bytes | None = None) -> None:
        """Let it be read; `content`: something else than was in it."""
        self._path.unlink()
        self._path.write_bytes(content or self._content)
        if self._writer is not None:
            with suppress(BrokenPipeError):  # its reader may have ended
                os.write(self._writer, content or self._content)
            os.close(self._writer)
            self._writer = None

    def _has_reader(self) -> bool:
        if self._writer is None:
            with suppress(OSError):  # ENXIO: nobody has it open
                self._writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
        return self._writer is not None


@contextmanager
def spawned(*arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m service` in a process of its own, killed in the end; `variables` join the environment."""
    environment = {**os.environ, **variables, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "service", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until_it_serves(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    """Its address, and the lines that it logged until then."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"running on (http://[0-9.:]+)", line):
            return found[1], lines
    raise AssertionError("it ended before it served:\n" + "".join(lines))


@contextmanager
def dialled(service: Running) -> Iterator[socket.socket]:
    """A bare connection to it."""
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as caller:
        yield caller
