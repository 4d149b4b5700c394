"""Bytes to the pixels a tower reads, and to what a gallery keeps of an image.

Takes what callers send: raw bytes, base64, data URIs.
"""

import binascii
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.images import Preprocessing, decode_image, to_pixels
from index.image_files import digest_of
from index.thumbnails import make_thumbnail
from service.errors import InvalidField

ImageSource = bytes | str
"""Raw bytes of an image file, or its base64 or data URI."""

MAX_URI_HEAD = 1024  # characters before the comma of a data URI
PIECE_CHARACTERS = 1 << 20  # read within a millisecond
_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\n\r\v\f"
MAX_ASPECT = 200
"""Resizing the short side of a thread-like image to the tower's side makes the long one enormous."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is decoded at all: pixels in the whole image, and on its shorter side."""

    max_pixels: int
    min_side_pixels: int


@dataclass(frozen=True, slots=True)
class WholeImage:
    """A whole image, for a gallery: `pixels` (height, width, 3) uint8 as the tower reads them.

    `digest` is the SHA-256 of the file's bytes; `thumbnail` is WebP, at most 256 px on its long side.
    """

    pixels: NDArray[np.uint8]
    width_pixels: int
    height_pixels: int
    digest: bytes
    thumbnail: bytes


def image_bytes(source: ImageSource) -> bytes:
    """The bytes of an image file. Raises InvalidField for text that is neither base64 nor a data URI."""
    return source if isinstance(source, bytes) else _base64(source)


def start_of_base64(text: str) -> int:
    """Find where it begins, behind the head of a data URI. Raises InvalidField where plainly there is none."""
    start = 0
    if text.startswith("data:"):
        start = text.find(",", 0, MAX_URI_HEAD) + 1
        if not text[:start].endswith(";base64,"):
            raise InvalidField(
                f"data URI {text[:40]!r} is not base64: expected data:image/…;base64,…", code="invalid_base64"
            )
    if text[start : start + 8].lower().startswith(("http:", "https:", "ftp:", "file:")):
        raise InvalidField(
            f"{text[start : start + 80]!r} is a URL, and no URL is ever fetched: "
            "send the image itself as base64",
            code="url_not_fetched",
        )
    if not text.isascii():
        raise _no_base64(text, "it holds characters outside ASCII")
    return start


def pieces_of(text: str, start: int = 0) -> Iterator[bytes]:
    """Give ASCII in pieces: what reads all of it at once keeps every other thread waiting."""
    for place in range(start, len(text), PIECE_CHARACTERS):
        yield text[place : place + PIECE_CHARACTERS].encode("ascii")


def _base64(text: str) -> bytes:
    """Decode standard or URL-safe base64, with or without padding, with white space anywhere."""
    decoded: list[bytes] = []
    left = b""
    try:
        for piece in pieces_of(text, start_of_base64(text)):
            left += piece.translate(_STANDARD, _WHITE_SPACE)
            whole = max(0, len(left) - 1) // 4 * 4  # and never the last four, which may be padded
            decoded.append(binascii.a2b_base64(left[:whole], strict_mode=True))
            if b"=" in left[:whole]:
                raise binascii.Error("something stands behind the padding")
            left = left[whole:]
        decoded.append(binascii.a2b_base64(left + b"=" * (-len(left) % 4), strict_mode=True))
    except binascii.Error as error:
        raise _no_base64(text, str(error)) from error
    return b"".join(decoded)


def _no_base64(text: str, why: str) -> InvalidField:
    return InvalidField(f"{text[:24]!r}… ({len(text)} characters) is not base64: {why}", code="invalid_base64")


def decode_pixels(
    source: ImageSource, preprocessing: Preprocessing, *, limits: ImageLimits
) -> NDArray[np.uint8]:
    """(height, width, 3) uint8. Raises InvalidField, UndecodableImage or ImageTooLarge."""
    return to_pixels(_decode(image_bytes(source), limits), preprocessing)


def decode_whole_image(source: ImageSource, preprocessing: Preprocessing, *, limits: ImageLimits) -> WholeImage:
    """Decoded once for the tower and for the gallery. Raises as `decode_pixels` does."""
    data = image_bytes(source)
    image = _decode(data, limits)
    return WholeImage(
        to_pixels(image, preprocessing), image.width, image.height, digest_of(data), make_thumbnail(image)
    )


def _decode(data: bytes, limits: ImageLimits) -> Image.Image:
    image = decode_image(data, max_pixels=limits.max_pixels)
    short, long = sorted(image.size)
    if short < limits.min_side_pixels:
        raise InvalidField(
            f"image of {image.width}×{image.height} pixels shows nothing: "
            f"each side must have at least {limits.min_side_pixels}",
            code="image_too_small",
        )
    if long > MAX_ASPECT * short:
        raise InvalidField(
            f"image of {image.width}×{image.height} pixels is more than {MAX_ASPECT} times as long as wide",
            code="image_too_narrow",
        )
    return image
