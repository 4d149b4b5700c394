"""Train/test leakage: the same photo, by its published id, or nearly the same image, by perceptual hash.

The hash is pHash (DCT signs about the median; Zauner 2010) at 16×16 = 256 bits, of the luminance over
white, the uniform border cropped away: 64 bits took one ball, coin or flag for another among drawings. The
`imagehash` package was left alone because it brings SciPy and PyWavelets for one 16×32 matrix.

Measured on 160 photos, cut-outs and emoji against their own copies (JPEG 30, half size, 64 px, squashed,
white border, white or black border under JPEG, blurred, brightened, 3% cropped off each side): 83% of the
copies lie within 48 bits, 90% within 64; no two different images among them were nearer than 68. Among
thousands of drawings, two balls, coins or flags come as near as 50.

Knows ids and pixels; not what is done about a leak.
"""

import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.errors import ImageError
from encoders.images import decode_image
from training.data.pairs import CaptionedImage, MissingImage, PairSet
from training.errors import UnreadableImage

Hashes = NDArray[np.uint64]
"""(n, HASH_WORDS)"""

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels"""

HASH_SIDE = 16
HASH_WORDS = HASH_SIDE * HASH_SIDE // 64
SAMPLE_SIDE_PIXELS = 32
USUAL_BITS_SET = (HASH_SIDE * HASH_SIDE - 1) // 2
FARTHEST = HASH_SIDE * HASH_SIDE
MAX_DISTANCE = 48
"""Bits of 256; nothing but the same image came nearer on the sets above."""

BORDER_SIDE_PIXELS = 128
BORDER_LEVELS = 4.0
"""A row or column whose mean difference from the corners is below this, of 255, is border."""

MOST_BORDERS = 3
BORDER_LEAST_LEFT = 8

BLOCK_PAIRS = 4 * 1024 * 1024
SETS_REMEMBERED = 16

FLICKR8K_NAME = re.compile(r"(\d+)_[0-9a-f]{6,12}\.jpe?g(\.\d+)?")
FLICKR30K_NAME = re.compile(r"([1-9]\d{4,11})\.jpe?g")
COCO_NAME = re.compile(r"(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.jpe?g")

_FREQUENCIES = np.arange(HASH_SIDE)[:, None] * (2 * np.arange(SAMPLE_SIDE_PIXELS)[None] + 1)
_COSINES = np.cos(np.pi * _FREQUENCIES / (2 * SAMPLE_SIDE_PIXELS)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Leak:
    """A training image that is, or is nearly, a test image. `distance` is in bits of 256; 0 for an id."""

    train_id: str
    test_id: str
    kind: Literal["photo id", "image", "mirrored image"]
    distance: int


@dataclass(frozen=True, slots=True)
class HashedImages:
    """Perceptual hashes (n, HASH_WORDS) of the images that could be decoded, and those that could not."""

    ids: tuple[str, ...]
    upright: Hashes
    mirrored: Hashes
    unreadable: tuple[MissingImage, ...]


def find_leaks(train: PairSet, test: PairSet, *, max_distance: int = MAX_DISTANCE) -> list[Leak]:
    """Training images that show up in `test`, the nearest first; one leak for a pair of images.

    A pair is reported by its photo id, else by the nearer of its two distances, upright and mirrored.
    Images that cannot be decoded are left to whoever trains or evaluates on them.
    """
    by_id = _leaks_by_photo_id(train.images, test.images)
    known = {(leak.train_id, leak.test_id) for leak in by_id}
    by_hash = leaks_by_hash(hashed_once(train.images), hashed_once(test.images), max_distance=max_distance)
    leaks = by_id + [leak for leak in by_hash if (leak.train_id, leak.test_id) not in known]
    return sorted(leaks, key=lambda leak: (leak.distance, leak.test_id, leak.train_id))


def photo_id(image_id: str) -> str | None:
    """`flickr:<digits>` or `coco:<number>` for a name as those datasets publish it; None for any other.

    Flickr8k's `1000268201_693b08cb0e.jpg` and Flickr30k's `1000268201.jpg` are one photo; so are
    `COCO_val2014_000000000139.jpg` and `000000000139.jpg`. Visual Genome numbers its own photos.
    """
    folder, _, name = image_id.rpartition("/")
    if folder.startswith("VG_100K"):
        return f"vg:{name}"
    if match := FLICKR8K_NAME.fullmatch(name) or FLICKR30K_NAME.fullmatch(name):
        return f"flickr:{match[1]}"
    match = COCO_NAME.fullmatch(name)
    return f"coco:{int(match[1])}" if match else None


def perceptual_hash(image: Image.Image) -> Hashes:
    """(HASH_WORDS,) words of the image over white without its uniform border."""
    return _packed(_bits(_coefficients(image)))


def hash_images(images: Sequence[CaptionedImage]) -> HashedImages:
    """Decode and hash every image, on all cores (Pillow decodes outside the interpreter's lock)."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        results = list(threads.map(_hash_source, images))
    outcomes = [(image.image_id, result) for image, result in zip(images, results, strict=True)]
    read = [(image_id, result) for image_id, result in outcomes if not isinstance(result, str)]
    words = np.array([both for _, both in read], dtype=np.uint64).reshape(len(read), 2, HASH_WORDS)
    return HashedImages(
        ids=tuple(image_id for image_id, _ in read),
        upright=words[:, 0],
        mirrored=words[:, 1],
        unreadable=tuple(MissingImage(image_id, why) for image_id, why in outcomes if isinstance(why, str)),
    )


@lru_cache(maxsize=SETS_REMEMBERED)
def hashed_once(images: tuple[CaptionedImage, ...]) -> HashedImages:
    """`hash_images`, remembered: a run checks each of its sources against several sets."""
    return hash_images(images)


def leaks_by_hash(train: HashedImages, test: HashedImages, *, max_distance: int) -> list[Leak]:
    """Pairs of at most `max_distance` bits between a training image and a test image, or its mirror image."""
    upright = _near(train.upright, test.upright, max_distance=max_distance)
    mirrored = _near(train.upright, test.mirrored, max_distance=max_distance)
    leaks = []
    for pair in upright.keys() | mirrored.keys():
        train_id, test_id = train.ids[pair[0]], test.ids[pair[1]]
        distance, reflected = upright.get(pair, FARTHEST), mirrored.get(pair, FARTHEST)
        if distance <= reflected:
            leaks.append(Leak(train_id, test_id, "image", distance))
        else:
            leaks.append(Leak(train_id, test_id, "mirrored image", reflected))
    return sorted(leaks, key=lambda leak: (leak.distance, leak.test_id, leak.train_id))


def near_any(hashes: Hashes, images: HashedImages, *, max_distance: int) -> NDArray[np.bool_]:
    """(images,): whether any of `hashes` (n, HASH_WORDS) is so near to an image or to its mirror image."""
    found = np.zeros(len(images.ids), dtype=np.bool_)
    if not len(images.ids):
        return found
    rows = max(1, BLOCK_PAIRS // len(images.ids))
    for start in range(0, len(hashes), rows):
        block = hashes[start : start + rows]
        for turned in (images.upright, images.mirrored):
            found |= (distances(block, turned) <= max_distance).any(axis=0)
    return found


def distances(first: Hashes, second: Hashes) -> NDArray[np.float32]:
    """Hamming distances (n, m) in bits, as if every hash had `USUAL_BITS_SET` bits set.

    Nearly all have. An image that varies along one axis only (a flag of plain stripes) has a few, and all
    such would be near each other, and near a blank page, by the bare count.
    """
    apart = np.zeros((len(first), len(second)), dtype=np.float32)
    for word in range(HASH_WORDS):
        apart += np.bitwise_count(first[:, None, word] ^ second[None, :, word])
    bits_set = [np.bitwise_count(hashes).sum(axis=1, dtype=np.float32) for hashes in (first, second)]
    together = bits_set[0][:, None] + bits_set[1][None, :]
    apart *= 2 * USUAL_BITS_SET / np.clip(together, 1, 2 * USUAL_BITS_SET)
    return apart


def write_leaks(leaks: Iterable[Leak], path: Path, *, comment: str) -> None:
    """Write the training ids as an `exclude=` list: each once, its nearest test image in the line above."""
    nearest: dict[str, Leak] = {}
    for leak in leaks:
        if leak.train_id not in nearest or leak.distance < nearest[leak.train_id].distance:
            nearest[leak.train_id] = leak
    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    for train_id, leak in sorted(nearest.items()):
        lines += [f"# {leak.kind}, {leak.distance} bits: {leak.test_id}", train_id]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _leaks_by_photo_id(train: Sequence[CaptionedImage], test: Sequence[CaptionedImage]) -> list[Leak]:
    wanted: dict[str, list[str]] = {}
    for image in test:
        if photo := photo_id(image.image_id):
            wanted.setdefault(photo, []).append(image.image_id)
    return [
        Leak(image.image_id, test_id, "photo id", 0)
        for image in train
        if (photo := photo_id(image.image_id))
        for test_id in wanted.get(photo, ())
    ]


def _near(first: Hashes, second: Hashes, *, max_distance: int) -> dict[tuple[int, int], int]:
    """(row of first, row of second) -> distance, where it is at most `max_distance`; memory is a block's."""
    found: dict[tuple[int, int], int] = {}
    rows = max(1, BLOCK_PAIRS // max(1, len(second)))
    for start in range(0, len(first), rows):
        apart = distances(first[start : start + rows], second)
        for row, column in np.argwhere(apart <= max_distance).tolist():
            found[start + row, column] = round(float(apart[row, column]))
    return found


def _hash_source(image: CaptionedImage) -> tuple[Hashes, Hashes] | str:
    """The hashes upright and mirrored, or why there are none."""
    try:
        coefficients = _coefficients(decode_image(image.source.read()))
    except (ImageError, UnreadableImage) as error:
        return str(error)
    reflected = coefficients * np.where(np.arange(HASH_SIDE) % 2, -1, 1)[None, :]
    return _packed(_bits(coefficients)), _packed(_bits(reflected))


def _coefficients(image: Image.Image) -> NDArray[np.float32]:
    """The lowest DCT coefficients (HASH_SIDE, HASH_SIDE); mirroring the image negates the odd columns."""
    grey = _on_white(image)
    sample = grey.resize((SAMPLE_SIDE_PIXELS,) * 2, Image.Resampling.BOX, box=_content(grey))
    levels = np.asarray(sample, dtype=np.float32)
    return np.asarray(_COSINES @ (levels - levels.mean()) @ _COSINES.T, dtype=np.float32)


def _bits(coefficients: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which coefficients exceed their median, but the first, the mean level. All ones for a blank image.

    No other image has more than half of the bits set, so blank ones match each other alone.
    """
    values = coefficients.ravel()[1:]
    if not values.any():
        return np.ones(HASH_SIDE * HASH_SIDE, dtype=np.bool_)
    return np.concatenate([[False], values > np.median(values)])


def _packed(bits: NDArray[np.bool_]) -> Hashes:
    return np.packbits(bits).view(np.uint64)


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("L")
    colours = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("L")


def _content(grey: Image.Image) -> Box:
    """The box within the uniform borders: a frame may hold a plain background, so they are peeled in turn."""
    box: Box = (0.0, 0.0, float(grey.width), float(grey.height))
    for _ in range(MOST_BORDERS):
        inner = _without_border(grey, box)
        if inner == box:
            break
        box = inner
    return box


def _without_border(grey: Image.Image, box: Box) -> Box:
    """`box` without its outermost border. Row means, not single pixels, so JPEG's ringing moves it little."""
    side = BORDER_SIDE_PIXELS
    levels = np.asarray(grey.resize((side, side), Image.Resampling.BOX, box=box), dtype=np.float32)
    contrast = np.abs(levels - np.median(levels[[0, 0, -1, -1], [0, -1, 0, -1]]))
    rows = np.flatnonzero(contrast.mean(axis=1) > BORDER_LEVELS)
    columns = np.flatnonzero(contrast.mean(axis=0) > BORDER_LEVELS)
    if len(rows) < BORDER_LEAST_LEFT or len(columns) < BORDER_LEAST_LEFT:
        return box
    left, top, right, bottom = box
    across, down = (right - left) / side, (bottom - top) / side
    first_column, end_column = _inside(columns)
    first_row, end_row = _inside(rows)
    return (
        left + first_column * across,
        top + first_row * down,
        left + end_column * across,
        top + end_row * down,
    )


def _inside(lines: NDArray[np.intp]) -> tuple[int, int]:
    """First line and end of the content; where a border was, without the line that holds some of both."""
    first, last = int(lines[0]), int(lines[-1])
    return first + (first > 0), last + (last == BORDER_SIDE_PIXELS - 1)
