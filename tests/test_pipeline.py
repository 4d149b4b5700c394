"""The whole path as a user walks it: train a bundle, index a gallery with it, serve it, search it over HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COLOURS = {
    "red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "yellow": (240, 220, 40),
    "black": (10, 10, 10), "white": (245, 245, 245),
}  # fmt: skip

RECIPE = """
name = "coloured"
ema = 0.5
[start]
bundle = "{bundle}"
[[sources]]
pairs = "csv:{folder}/train.csv"
word_dropout = 0.0
augmentation = {{ flip = 0.0, grey = 0.0, crop_area = [0.8, 1.0], jitter = 0.2 }}
[validation]
pairs = ["csv:{folder}/train.csv"]
every_epochs = 10
[[phases]]
name = "towers"
epochs = 40
train_image = "blocks.2"
views = 2
batch = 30
heads_lr = 5e-3
image_lr = 1e-3
text_lr = 1e-3
"""


def paint(folder: Path, *, seed: int) -> list[tuple[str, str]]:
    """An image of every colour alone, noisy: (name, caption)."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    rows = []
    for colour, rgb in COLOURS.items():
        for copy in range(5):
            noisy = np.clip(np.array(rgb) + rng.normal(0, 15, (40, 40, 3)), 0, 255).astype(np.uint8)
            name = f"{colour}-{copy}.png"
            Image.fromarray(noisy).save(folder / name)
            rows.append((name, f"a {colour} square"))
    return rows


def run(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[str]:
    """The address of a service over images that the model has not been trained on."""
    folder = tmp_path_factory.mktemp("pipeline")
    rows = paint(folder / "images", seed=1)
    lines = ["image,caption", *(f"images/{name},{caption}" for name, caption in rows)]
    (folder / "train.csv").write_text("\n".join(lines))
    paint(folder / "gallery", seed=2)
    (folder / "gallery" / "broken.jpg").write_bytes(b"no image")
    (folder / "texts.txt").write_text("\n".join(f"{colour} square" for colour in COLOURS))
    (folder / "recipe.toml").write_text(RECIPE.format(bundle=tiny_bundle, folder=folder))
    run("training", "fit", "recipe.toml", "--out", "bundle", "--threads", "1", cwd=folder)
    rebuild = subprocess.run(
        [
            sys.executable, "-m", "index", "rebuild", "--gallery", "gallery", "--bundle", "bundle",
            "--releases", "releases", "--texts", "texts.txt",
        ],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert rebuild.returncode == 3, rebuild.stdout + rebuild.stderr  # published, and one image is broken
    service = subprocess.Popen(
        [sys.executable, "-m", "service", "--releases", "releases", "--port", "0"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert service.stdout is not None
    try:
        yield next(
            found[0] for line in service.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line))
        )
    finally:
        service.send_signal(signal.SIGTERM)
        rest = service.communicate(timeout=60)[0]
        assert service.returncode == 0, rest


def post(url: str, body: bytes, content_type: str) -> Any:
    request = urllib.request.Request(url, data=body, headers={"content-type": content_type})  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        return json.load(answer)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_text_finds_images_that_were_never_trained_on(served: str, colour: str) -> None:
    body = json.dumps({"query": f"a {colour} square", "k": 5}).encode()
    results = post(f"{served}/search/text", body, "application/json")["results"]
    assert [result["id"].split("-")[0] for result in results] == [colour] * 5


@pytest.mark.parametrize("colour", ["red", "blue", "yellow"])
def test_an_image_finds_its_text(served: str, colour: str, tmp_path: Path) -> None:
    Image.new("RGB", (70, 50), COLOURS[colour]).save(tmp_path / "query.jpg")
    body = (tmp_path / "query.jpg").read_bytes()
    results = post(f"{served}/search/image?k=1&in=texts", body, "image/jpeg")["results"]
    assert results[0]["text"] == f"{colour} square"


def test_an_image_that_could_not_be_read_is_counted_in_the_release(served: str) -> None:
    with urllib.request.urlopen(f"{served}/release", timeout=60) as answer:  # noqa: S310 - loopback
        counts = json.load(answer)["counts"]
    assert counts["images"] == 30
    assert counts["failed"] == 1
