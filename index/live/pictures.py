"""The pictures of live changes: each once, by the SHA-256 of its bytes, with its thumbnail.

    live/pictures/<sha256>        the file as it was sent
    live/pictures/<sha256>.webp   its thumbnail

Knows nothing of items, journals or releases.
"""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from encoders.folders import sync
from index.errors import ImageMissing, JournalFailed, JournalFull
from index.pictures import digest_of

PICTURES_NAME = "pictures"
THUMBNAIL_SUFFIX = ".webp"
_TEMPORARY_PREFIX = "."
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PictureStore:
    """Thread-safe. Pictures are written before the change that names them, so none is ever missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}  # by name: how many put it just now

    @contextmanager
    def kept(self, digest: bytes, picture: bytes, thumbnail: bytes) -> Iterator[None]:
        """Both durable within; whether they stay is up to the change that names them.

        Raises JournalFull or JournalFailed, and leaves nothing half done.
        """
        with self._hold(digest.hex()):
            try:
                self.folder.mkdir(exist_ok=True)
                for path, content in ((self._thumbnail(digest), thumbnail), (self._picture(digest), picture)):
                    if not _holds(path, content):
                        _write(path, content)
                sync(self.folder)
            except OSError as error:
                kind = JournalFull if error.errno in _NO_ROOM else JournalFailed
                raise kind(f"the picture cannot be kept in {self.folder}: {error.strerror}") from error
            yield

    def read(self, digest: bytes) -> bytes:
        """The picture's bytes; raises ImageMissing, also where they are not what was put."""
        data = _read(self._picture(digest))
        if digest_of(data) != digest:
            raise ImageMissing(f"{self._picture(digest)} has changed since it was put", code="changed")
        return data

    def thumbnail(self, digest: bytes) -> bytes:
        """WebP; raises ImageMissing."""
        return _read(self._thumbnail(digest))

    def keep_only(self, digests: set[bytes]) -> None:
        """Delete all others, but for those that are being put just now."""
        if not self.folder.is_dir():
            return
        names = {digest.hex() for digest in digests}
        for path in self.folder.iterdir():
            name = path.name.lstrip(_TEMPORARY_PREFIX)[:64]
            if name in names:
                continue
            with self._lock:  # for one at a time: whoever puts meanwhile must not wait for all
                if name not in self._held:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _hold(self, name: str) -> Iterator[None]:
        with self._lock:
            self._held[name] = self._held.get(name, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._held[name] -= 1
                if not self._held[name]:
                    del self._held[name]

    def _picture(self, digest: bytes) -> Path:
        return self.folder / digest.hex()

    def _thumbnail(self, digest: bytes) -> Path:
        return self.folder / f"{digest.hex()}{THUMBNAIL_SUFFIX}"


def _holds(path: Path, content: bytes) -> bool:
    """A file gets its name only once it is durable; one that was damaged since is written anew."""
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{_TEMPORARY_PREFIX}{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageMissing(f"{path} cannot be read: {error.strerror}") from error
