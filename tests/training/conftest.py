"""A small world to train in: images of two coloured fields, captions that name them."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {
    "red": (220, 30, 30), "green": (30, 180, 40), "blue": (30, 60, 220), "yellow": (240, 220, 40),
    "black": (10, 10, 10), "white": (245, 245, 245),
}  # fmt: skip


def write_coloured_pairs(folder: Path, *, copies: int = 1, seed: int = 0) -> str:
    """The spec of a CSV of 30 · copies images of 40 × 40 pixels, a little noisy, two captions each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for copy, (top, bottom) in itertools.product(range(copies), itertools.permutations(COLOURS, 2)):
        field = np.empty((40, 40, 3))
        field[:20], field[20:] = COLOURS[top], COLOURS[bottom]
        noisy = np.clip(field + rng.normal(0, 12, field.shape), 0, 255).astype(np.uint8)
        name = f"{top}-{bottom}-{copy}.png"
        Image.fromarray(noisy).save(folder / name)
        rows += [(name, f"{top} on {bottom}"), (name, f"a {top} square on the {bottom}")]
    with (folder / "pairs.csv").open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption"))
        writer.writerows(rows)
    return f"csv:{folder / 'pairs.csv'}"


@pytest.fixture
def coloured_pairs() -> Callable[..., str]:
    return write_coloured_pairs
