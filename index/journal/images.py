"""The images of live changes, as they were sent: live/images/<sha256>. Thumbnails are in the journal."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

from encoders.folders import NO_ROOM, sync
from index.errors import CorruptJournal, ImageMissing, JournalFailed, JournalFull
from index.image_files import digest_of
from index.journal.changes import checksum_of
from index.journal.database import JOURNAL_NAME, open_reader, told

IMAGES_NAME = "images"
_TEMPORARY_PREFIX = "."
WRITERS = 8  # at once: 32 images of 50 kB took 190 ms one after the other, 37 ms so (LOG 2026-11-30)


class ImageFiles:
    """Writes and deletes the files; belongs to whoever writes the journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(WRITERS, thread_name_prefix="live-images")

    def close(self) -> None:
        self._pool.shutdown()

    def write(self, images: Mapping[bytes, bytes]) -> set[bytes]:
        """Make all of them durable, by digest; returns those that were not there before.

        Raises JournalFull or JournalFailed, and nothing is left of what was not there before.
        """
        if not images:
            return set()
        fresh = {digest for digest in images if not self._path(digest).exists()}
        try:
            self._write_all(images)
        except OSError as error:
            self.remove(fresh)
            if error.errno in NO_ROOM:
                raise JournalFull(
                    f"there is no room in {self.folder} for an image: free some on that disk, delete items, "
                    "or run `python -m index compact`"
                ) from error
            raise JournalFailed(f"an image cannot be kept in {self.folder}: {error.strerror}") from error
        return fresh

    def remove(self, digests: set[bytes]) -> None:
        for digest in digests:
            with suppress(OSError):  # it is swept when the journal is opened next
                self._path(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[bytes]:
        """Of all files that are there; what a kill left half written is deleted. Raises JournalFailed."""
        try:
            for entry in os.scandir(self.folder):
                if entry.name.startswith(_TEMPORARY_PREFIX):
                    Path(entry.path).unlink(missing_ok=True)
                    continue
                with suppress(ValueError):  # nothing of ours
                    yield bytes.fromhex(entry.name)
        except OSError as error:
            raise JournalFailed(f"{self.folder} cannot be swept: {error.strerror}") from error

    def _write_all(self, images: Mapping[bytes, bytes]) -> None:
        if len(images) == 1:
            written = [self._write(*one) for one in images.items()]
        else:
            futures = [self._pool.submit(self._write, *one) for one in images.items()]
            wait(futures)
            written = [future.result() for future in futures]
        if any(written):
            sync(self.folder)

    def _write(self, digest: bytes, data: bytes) -> bool:
        """False where the file is there, and whole: one that was damaged is written anew."""
        path = self._path(digest)
        with suppress(OSError):
            if path.stat().st_size == len(data) and path.read_bytes() == data:
                return False
        temporary = path.with_name(f"{_TEMPORARY_PREFIX}{path.name}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return True

    def _path(self, digest: bytes) -> Path:
        return self.folder / digest.hex()


class ImageStore:
    """Reads images and thumbnails, from any thread, also while they are written."""

    def __init__(self, live: Path) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def read(self, digest: bytes) -> bytes:
        """The image's bytes; raises ImageMissing, also where they are not what was put."""
        path = self._live / IMAGES_NAME / digest.hex()
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageMissing(f"{path} cannot be read: {error.strerror}") from error
        if digest_of(data) != digest:
            raise ImageMissing(f"{path} has changed since it was put", code="changed")
        return data

    def thumbnail(self, digest: bytes) -> bytes:
        """WebP; raises ImageMissing."""
        path = self._live / JOURNAL_NAME
        try:
            with self._lock, told(path):
                if self._connection is None:
                    self._connection = open_reader(path)
                row = self._connection.execute(
                    "SELECT thumbnail, checksum FROM thumbnails WHERE digest = ?", (digest,)
                ).fetchone()
        except (JournalFailed, CorruptJournal) as error:
            raise ImageMissing(str(error)) from error
        if row is None or checksum_of(digest, row[0]) != row[1]:
            raise ImageMissing(f"{path} has no thumbnail of {digest.hex()}, or a damaged one")
        thumbnail: bytes = row[0]
        return thumbnail
