"""What is embedded and searched: images, titles and queries of the demo gallery, the same in every run."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from encoders.images import decode_image

DEMO = Path(__file__).resolve().parent.parent / "demo"
GALLERY = DEMO / "gallery"
PHOTO_WIDTH_PIXELS, PHOTO_HEIGHT_PIXELS = 500, 375
PHOTO_NOISE = 6.0  # of 255, standard deviation: a flat drawing would decode faster than any photo
PHOTO_QUALITY = 88


@dataclass(frozen=True)
class ImageFile:
    media_type: str
    data: bytes


@dataclass(frozen=True)
class Inputs:
    """`drawings` as they are (WebP, up to 256 px); `images`: half of them so, half as photo-sized JPEGs."""

    drawings: list[ImageFile]
    images: list[ImageFile]
    titles: list[str]
    queries: list[str]


def read_inputs(count: int) -> Inputs:
    """Evenly spaced items of the gallery, `count` of them, and all queries."""
    items = read_items()
    chosen = [items[position * len(items) // count] for position in range(count)]
    drawings = [(GALLERY / item["image"]).read_bytes() for item in chosen]
    return Inputs(
        drawings=[ImageFile("image/webp", drawing) for drawing in drawings],
        images=[
            ImageFile("image/jpeg", as_photo(drawing, seed=number))
            if number % 2
            else ImageFile("image/webp", drawing)
            for number, drawing in enumerate(drawings)
        ],
        titles=[str(item["title"]) for item in items],
        queries=[str(row["query"]) for row in _rows(DEMO / "queries.jsonl")],
    )


def read_items() -> list[dict[str, Any]]:
    return _rows(GALLERY / "items.jsonl")


def write_gallery(path: Path, count: int) -> None:
    """A table of `count` evenly spaced items, whose images stay where they are."""
    items = read_items()
    wanted = min(count, len(items))
    rows = [items[position * len(items) // wanted] for position in range(wanted)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def as_photo(drawing: bytes, *, seed: int) -> bytes:
    """A JPEG with the size in pixels and in bytes, and so the cost to decode, of a photo on the web."""
    image = decode_image(drawing).resize((PHOTO_WIDTH_PIXELS, PHOTO_HEIGHT_PIXELS), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(seed).normal(0.0, PHOTO_NOISE, (PHOTO_HEIGHT_PIXELS, PHOTO_WIDTH_PIXELS, 1))
    noisy = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=PHOTO_QUALITY)
    return buffer.getvalue()


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
