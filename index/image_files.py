"""Where an image's bytes lie, and how to read them safely.

Knows files and ranges within files; not what is in them, and nothing of galleries or releases.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from index.errors import ImageMissing

MAX_IMAGE_BYTES = 256 * 1024 * 1024
LIVE_SCHEME = "live://"
"""Begins the path of an image that came with a live change, before its name there. No gallery has such."""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """An image below the gallery's root: a whole file, or `length_bytes` of one from `offset_bytes` on."""

    path: str
    offset_bytes: int | None = None
    length_bytes: int | None = None

    def read(self, root: Path, *, live: Path | None = None, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The image's bytes; raises `ImageMissing` with the reason. `live`: the folder of live images,
        which are named by what is in them.

        Only regular files are opened: a pipe or a device under an image's name would block for ever.
        """
        file_path, live_name = root / self.path, ""
        if self.path.startswith(LIVE_SCHEME):
            live_name = self.path.removeprefix(LIVE_SCHEME)
            if live is None or not live_name:
                raise ImageMissing("the item was put as a vector, without an image", code="no_image")
            file_path = live / live_name
        try:
            status = file_path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ImageMissing(f"{file_path} is not a regular file", code="not_a_file")
            length = status.st_size if self.length_bytes is None else self.length_bytes
            if length > max_bytes:
                raise ImageMissing(f"{file_path}: {length} bytes, at most {max_bytes}", code="too_many_bytes")
            with file_path.open("rb", buffering=0) as file:
                data = _read_exactly(file.fileno(), length, self.offset_bytes or 0)
        except FileNotFoundError as error:
            raise ImageMissing(f"{file_path} does not exist", code="missing") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error  # which alone would repeat the path
            raise ImageMissing(f"{file_path} cannot be read: {reason}", code=reading_fault(error)) from error
        if live_name and digest_of(data).hex() != live_name:
            raise ImageMissing(f"{file_path} has changed since it was put: put it again", code="changed")
        return data


def reading_fault(error: Exception) -> str:
    """The reason in one word, as the failure ledger has it: whether the disk or somebody's rights failed."""
    return "not_permitted" if isinstance(error, PermissionError) else "unreadable"


def _read_exactly(descriptor: int, length_bytes: int, offset_bytes: int) -> bytes:
    data = os.pread(descriptor, length_bytes, offset_bytes)
    while len(data) < length_bytes:
        more = os.pread(descriptor, length_bytes - len(data), offset_bytes + len(data))
        if not more:
            raise OSError(f"it ends after {len(data)} of {length_bytes} bytes")
        data += more
    return data


def digest_of(data: bytes) -> bytes:
    """SHA-256, 32 bytes: what an image or a text is known by in the cache and the tables."""
    return hashlib.sha256(data).digest()
