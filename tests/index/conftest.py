"""A small gallery with titles and captions, and one release of it that tests only read."""

import json

import numpy as np
import pytest
from PIL import Image

from index.rebuilding import RebuildSettings, rebuild
from index.sources import open_gallery


@pytest.fixture(scope="session")
def draw():
    """Writes an image of noise, another for each seed."""

    def write(path, *, seed=0, size=(24, 16)):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def table(tmp_path_factory, draw):
    """An items.jsonl of twelve images; four titles, each shared by three images."""
    folder = tmp_path_factory.mktemp("table")
    colours = ["red", "green", "blue", "black"]
    rows = []
    for number in range(12):
        name = f"images/{number:02d}.png"
        draw(folder / name, seed=number)
        rows.append({"image": name, "title": f"a {colours[number % 4]} square", "year": 2000 + number})
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def index_gallery(tiny_bundle):
    """Rebuilds in this process: index_gallery(source, releases, **settings) -> RebuildReport."""

    def run(source, releases, *, on_progress=lambda _: None, **settings):
        chosen = {"bundle": tiny_bundle, "decode_threads": 2, "batch_size": 8, **settings}
        asked = RebuildSettings(gallery=open_gallery(str(source)), releases=releases, **chosen)
        return rebuild(asked, on_progress=on_progress)

    return run


@pytest.fixture(scope="session")
def published(tmp_path_factory, table, index_gallery):
    """A folder with one release of `table`; read it, never change it."""
    releases = tmp_path_factory.mktemp("published")
    index_gallery(table, releases)
    return releases
