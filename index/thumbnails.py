"""Thumbnails: small WebP images, all of a release in one file, found by byte range.

One file, because a folder of a million little ones is slow to copy, hash and delete.
"""

import io
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from index.errors import CorruptRelease

THUMBNAIL_SIDE_PIXELS = 256


def make_thumbnail(image: Image.Image) -> bytes:
    """WebP bytes of an upright RGB image, its long side at most 256 px; smaller ones keep their size."""
    thumbnail = image.copy() if max(image.size) <= THUMBNAIL_SIDE_PIXELS else _shrunk(image)
    buffer = io.BytesIO()
    # method 1: 2.6 times as fast as the default (1.8 ms against 4.8) for 11% more bytes
    thumbnail.save(buffer, "WEBP", quality=80, method=1)
    return buffer.getvalue()


class ThumbnailWriter:
    """Appends thumbnails to one file; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._offset_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, thumbnail: bytes) -> tuple[int, int]:
        """Write one; returns its (offset, length) in bytes."""
        place = (self._offset_bytes, len(thumbnail))
        self._file.write(thumbnail)
        self._offset_bytes += len(thumbnail)
        return place


class ThumbnailFile:
    """Reads thumbnails by byte range; safe from many threads at once."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CorruptRelease(f"{path.name} cannot be opened: {error.strerror}") from error
        self._name = path.name
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        data = os.pread(self._descriptor, length_bytes, offset_bytes)
        if len(data) != length_bytes:
            raise CorruptRelease(f"{self._name} ends before byte {offset_bytes + length_bytes}")
        return data


def _shrunk(image: Image.Image) -> Image.Image:
    scale = THUMBNAIL_SIDE_PIXELS / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
