"""Golden inputs: images and texts of which each part breaks alone when one part of an encoder breaks.

Drawn, not collected, so that they are small and free. They follow the tower's size: some images have it exactly
(nothing is resized), some its shape, some another; some are grey, some one flat colour, one has alpha, one is
turned by its EXIF tag. Texts are short, long, and beyond the context.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

Shape = Literal["own", "scaled", "other"]
"""Against the tower's: its very size; its shape at another size; another shape."""
Kind = Literal["flat", "scene", "alpha", "turned"]

SHORT_IDS = 8
"""Token ids, special ones included, up to which a text counts as short."""

_ORIENTATION = 0x0112
_LEVELS = 12
"""Steps of a gradient: few, so that the files stay small."""

TEXTS = (
    "a dog",
    "a red car",
    "blue and white",
    "A BLACK CAT",
    "",
    "two children in yellow coats run along the beach with a small black dog, the sea dark and the light low",
    "a white square on a red circle and a green square on a blue circle with yellow light on the dark car",
    "Hello, world! (yes/no?) — “quoted”; 50 % off: $3.99 & more… e-mail me@example.org #42",
    "Zwei Katzen — 二匹の猫 🐈 на крыше, ένα σπίτι, naïve café",
    "  a   dog \t on a \n light   boat  ",
)
_SENTENCE = "a black dog and a white cat with a red car on the dark square of a light town, image {number}, "


@dataclass(frozen=True)
class GoldenImage:
    """An encoded image, and what about it is out of the ordinary. coloured: its channels differ."""

    name: str
    data: bytes
    shape: Shape
    coloured: bool
    kind: Kind = "scene"


def golden_images(height: int, width: int) -> tuple[GoldenImage, ...]:
    """For a tower that reads height × width pixels."""
    own, grey = scene(width, height), scene(width, height).convert("L")
    wide, tall = (
        (round(1.9 * width) | 1, round(0.8 * height) | 1),
        (round(0.6 * width) | 1, round(1.5 * height) | 1),
    )
    twice, half = scene(2 * width, 2 * height), scene(max(1, width // 2), max(1, height // 2))
    return (
        GoldenImage("flat grey", _png(Image.new("L", (width, height), 150)), "own", False, "flat"),
        GoldenImage("flat red", _png(Image.new("RGB", (width, height), (200, 40, 30))), "own", True, "flat"),
        GoldenImage("scene", _png(own), "own", True),
        GoldenImage("scene in blue", _png(_channels_turned(own)), "own", True),
        GoldenImage("grey scene", _png(grey), "own", False),
        GoldenImage("scene twice as large", _png(twice), "scaled", True),
        GoldenImage("scene half as large", _png(half), "scaled", True),
        GoldenImage("wide scene", _png(scene(*wide)), "other", True),
        GoldenImage("tall scene", _png(scene(*tall)), "other", True),
        GoldenImage("wide grey scene", _png(scene(*wide).convert("L")), "other", False),
        GoldenImage("scene with alpha", _png(_see_through(own)), "own", True, "alpha"),
        GoldenImage("turned scene", _turned_jpeg(scene(height, width)), "own", True, "turned"),
    )


def golden_texts(count_ids: Callable[[str], int], *, context_length: int) -> tuple[str, ...]:
    """`TEXTS`, and one that goes beyond the context. count_ids: how many ids a text has, nothing cut."""
    beyond, number = "", 0
    while count_ids(beyond) <= context_length and number < context_length:
        number += 1
        beyond += _SENTENCE.format(number=number)
    return (*TEXTS, beyond)


def scene(width: int, height: int) -> Image.Image:
    """An RGB image without symmetry: gradients, shapes with edges, lines of dashes like small print."""
    y, x = np.mgrid[0:height, 0:width]
    across, down = (x + 0.5) / width, (y + 0.5) / height
    ramps = np.stack([across, 1.0 - down, 0.2 + 0.6 * across * down], axis=-1)
    image = Image.fromarray((np.floor(ramps * _LEVELS) * (255.0 / _LEVELS)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for kind, box, colour in (
        ("rectangle", (0.08, 0.10, 0.42, 0.45), (225, 60, 35)),
        ("ellipse", (0.50, 0.05, 0.95, 0.40), (35, 90, 220)),
        ("ellipse", (0.15, 0.20, 0.30, 0.38), (250, 240, 90)),
        ("rectangle", (0.05, 0.62, 0.60, 0.95), (245, 245, 240)),
        ("ellipse", (0.66, 0.55, 0.94, 0.92), (30, 140, 60)),
    ):
        corners = [(box[0] * width, box[1] * height), (box[2] * width, box[3] * height)]
        (draw.rectangle if kind == "rectangle" else draw.ellipse)(corners, fill=colour)
    _small_print(draw, width, height)
    return image


def _small_print(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    """Seven lines of dashes of one to five hundredths of the width, on the white card."""
    for line in range(7):
        left, step = 0.08, 0
        while left < 0.55:
            length = 0.012 * (1 + (line * 5 + step * 3) % 4)
            top = 0.65 + 0.04 * line
            corners = [(left * width, top * height), (min(left + length, 0.57) * width, (top + 0.018) * height)]
            draw.rectangle(corners, fill=(20, 20, 40 + 20 * line))
            left, step = left + length + 0.012, step + 1


def _channels_turned(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge("RGB", (blue, red, green))


def _see_through(image: Image.Image) -> Image.Image:
    """The image, clear in its middle and half clear below."""
    alpha = np.full((image.height, image.width), 255, dtype=np.uint8)
    alpha[image.height // 2 :] = 128
    alpha[image.height // 4 : image.height // 2, image.width // 4 : 3 * image.width // 4] = 0
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(alpha))
    return clear


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _turned_jpeg(image: Image.Image) -> bytes:
    """Stored lying on its side: upright, its sides are exchanged."""
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()
