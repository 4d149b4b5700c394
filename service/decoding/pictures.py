"""Bytes to the pixels a tower reads, and to what a gallery keeps of a picture.

Takes what callers send: raw bytes, base64, data URIs. Knows nothing of HTTP, tickets or devices, nor in which
process it runs, and fetches nothing: a URL is refused.
"""

import binascii
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.images import Preprocessing, decode_image, to_pixels
from index.pictures import digest_of
from index.thumbnails import make_thumbnail
from service.errors import InvalidField

ImageSource = bytes | str
"""Raw bytes of an image file, or its base64 or data URI."""

MAX_ASPECT = 200
"""Resizing the short side of a thread-like image to the tower's side makes the long one enormous."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What is decoded at all: pixels in the whole image, and on its shorter side."""

    max_pixels: int
    min_side_pixels: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole picture, for a gallery: `pixels` (height, width, 3) uint8 as the tower reads them.

    `digest` is the SHA-256 of the file's bytes; `thumbnail` is WebP, at most 256 px on its long side.
    """

    pixels: NDArray[np.uint8]
    width_pixels: int
    height_pixels: int
    digest: bytes
    thumbnail: bytes


def image_bytes(source: ImageSource) -> bytes:
    """The bytes of an image file. Raises InvalidField for text that is neither base64 nor a data URI."""
    if isinstance(source, bytes):
        return source
    head, comma, rest = source.partition(",") if source.startswith("data:") else ("", "", source)
    if head and not (comma and head.endswith(";base64")):
        raise InvalidField(
            f"data URI {source[:40]!r} is not base64: expected data:image/…;base64,…", code="invalid_base64"
        )
    if rest[:8].lower().startswith(("http:", "https:", "ftp:", "file:")):
        raise InvalidField(
            f"{rest[:80]!r} is a URL, and no URL is ever fetched: send the image itself as base64",
            code="url_not_fetched",
        )
    return _base64(rest)


def _base64(text: str) -> bytes:
    try:
        compact = text if text.isalnum() else "".join(text.split()).replace("-", "+").replace("_", "/")
        return binascii.a2b_base64(compact + "=" * (-len(compact) % 4), strict_mode=True)
    except ValueError as error:  # binascii.Error is one; so is a character outside ASCII
        raise InvalidField(
            f"{text[:24]!r}… ({len(text)} characters) is not base64: {error}", code="invalid_base64"
        ) from error


def decode_pixels(
    source: ImageSource, preprocessing: Preprocessing, *, limits: ImageLimits
) -> NDArray[np.uint8]:
    """(height, width, 3) uint8. Raises InvalidField, UndecodableImage or ImageTooLarge."""
    return to_pixels(_decode(image_bytes(source), limits), preprocessing)


def decode_picture(source: ImageSource, preprocessing: Preprocessing, *, limits: ImageLimits) -> Picture:
    """Decoded once for the tower and for the gallery. Raises as `decode_pixels` does."""
    data = image_bytes(source)
    image = _decode(data, limits)
    return Picture(
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
