"""A small real release, and the real service on a real socket."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from index.rebuild import RebuildSettings, rebuild
from index.sources import open_gallery
from service.app import create_app
from service.server import Server
from service.serving import Serving
from service.settings import Settings

WORDS = ("red", "green", "blue", "yellow", "black", "white")
ITEM_COUNT = 24


def picture(seed: int, *, width: int = 48, height: int = 40) -> bytes:
    """PNG of noise: every seed looks different to any encoder."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


def write_gallery(folder: Path) -> Path:
    """24 pictures in two folders with titles, categories, years; an odd id among them."""
    rows = []
    for number in range(ITEM_COUNT):
        path = f"{('animals', 'cars')[number % 2]}/{WORDS[number % 6]} ä#?% {number}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(number, width=320 if number == 1 else 48))
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
