"""Good images in every format that is taken, and what chance makes of them.

The same seed and number give the same bytes.
"""

import io
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

MAX_RANDOM_BYTES = 4096
_NUMBERS = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff",
    b"\x00\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
)
_PNG_HEAD_BYTES = 8

Random = np.random.Generator


def good_files(drawing: Image.Image) -> dict[str, bytes]:
    """The drawing in each format, in the ways that reach different parts of its decoder."""
    grey, palette = drawing.convert("L"), drawing.convert("P")
    cmyk, clear = Image.merge("CMYK", [grey] * 4), Image.merge("RGBA", [*drawing.split(), grey])
    frames = [drawing.rotate(angle) for angle in (90, 180, 270)]
    animated = {"save_all": True, "append_images": frames}
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    saved: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", drawing, {"exif": exif}), ("JPEG", drawing, {"progressive": True, "subsampling": 0}),
        ("JPEG", grey, {"optimize": True}), ("JPEG", cmyk, {}), ("MPO", drawing, animated),
        ("PNG", drawing, {"exif": exif}), ("PNG", clear, {}), ("PNG", palette, {"bits": 8}),
        ("PNG", grey.convert("1"), {}), ("PNG", drawing, animated),
        ("GIF", palette, {"interlace": 1}), ("GIF", drawing, animated),
        ("WEBP", drawing, {}), ("WEBP", clear, {"lossless": True}), ("WEBP", clear, {"quality": 50}),
        ("WEBP", drawing, animated), ("TIFF", drawing, {}), ("TIFF", clear, {"compression": "tiff_lzw"}),
        ("TIFF", drawing, {"compression": "jpeg"}), ("TIFF", cmyk, {"compression": "tiff_adobe_deflate"}),
        ("TIFF", grey.convert("1"), {"compression": "group4"}), ("TIFF", drawing, {"compression": "packbits"}),
        ("TIFF", grey.convert("F"), {}), ("TIFF", drawing, animated),
        ("BMP", drawing, {}), ("BMP", palette, {}), ("BMP", clear, {}),
        ("PPM", drawing, {}), ("PPM", grey.convert("1"), {}),
        ("AVIF", drawing, {"speed": 10}), ("AVIF", clear, {"speed": 10}),
        ("AVIF", drawing, {"speed": 10, **animated}),
        ("JPEG2000", drawing, {}), ("JPEG2000", clear, {"irreversible": True, "tile_size": (64, 64)}),
    ]  # fmt: skip
    return {
        f"{kind} {number}": _saved(image, kind, options) for number, (kind, image, options) in enumerate(saved)
    }


def mutant(files: Sequence[bytes], seed: int, number: int) -> bytes:
    """One in ten is random bytes; the others are good files to which one to four things happened."""
    random = np.random.default_rng((seed, number))
    if random.random() < 0.1:
        return random.bytes(int(random.integers(0, MAX_RANDOM_BYTES)))
    data = files[int(random.integers(len(files)))]
    for _ in range(int(random.integers(1, 5))):
        data = _MISHAPS[int(random.integers(len(_MISHAPS)))](data, random, files)
    if random.random() < 0.5:  # else nearly every spoiled PNG stops at the first checksum
        data = with_right_checksums(data)
    return data


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks say that they are whole; anything else as it is."""
    if not data.startswith(b"\x89PNG"):
        return data
    parts, at = [data[:_PNG_HEAD_BYTES]], _PNG_HEAD_BYTES
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        parts.append(data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big"))
        at += 12 + length
    return b"".join([*parts, data[at:]])


def _saved(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    # copies: saving leaves settings behind in a drawing
    more = {"append_images": [frame.copy() for frame in options.get("append_images", ())]}
    image.copy().save(buffer, kind, **(options | more))
    return buffer.getvalue()


def _flip(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    spoiled = bytearray(data)
    # half the time near the beginning, where most of a format's promises stand
    end = min(len(data), 200) if random.random() < 0.5 else len(data)
    for place in random.integers(0, max(1, end), int(random.integers(1, 17))):
        if place < len(spoiled):
            spoiled[place] ^= 1 << int(random.integers(8))
    return bytes(spoiled)


def _cut(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    return data[: _place(data, random)]


def _splice(data: bytes, random: Random, files: Sequence[bytes]) -> bytes:
    other = files[int(random.integers(len(files)))]
    return data[: _place(data, random)] + other[_place(other, random) :]


def _number(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    """Some field becomes as large, as small or as negative as it can be."""
    at, value = _place(data[:400], random), _NUMBERS[int(random.integers(len(_NUMBERS)))]
    return data[:at] + value + data[at + len(value) :]


def _drop(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + int(random.integers(1, 64)) :]


def _repeat(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, random)
    part = data[at : at + int(random.integers(1, 256))]
    return data[:at] + part * int(random.integers(2, 64)) + data[at:]


def _insert(data: bytes, random: Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, random)
    return data[:at] + random.bytes(int(random.integers(1, 64))) + data[at:]


def _place(data: bytes, random: Random) -> int:
    return int(random.integers(0, len(data) + 1))


_MISHAPS: tuple[Callable[[bytes, Random, Sequence[bytes]], bytes], ...] = (
    _flip, _flip, _cut, _splice, _number, _number, _drop, _repeat, _insert,
)  # fmt: skip
