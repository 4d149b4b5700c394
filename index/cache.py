"""What was embedded before, by the SHA-256 of an image's or a text's bytes; lies beside the releases.

So a killed rebuild goes on where it was, and an unchanged gallery costs hashing only. One file for each
encoder. SQLite commits a batch or nothing, at whatever byte the process is killed; rows carry a checksum
against bits that flip later. A broken cache costs time, never a rebuild.
"""

import logging
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

CACHE_FOLDER = ".cache"
LOCKED_SECONDS = 1.0  # another process that has the cache open keeps it for long: waiting on helps nobody
FORMAT = "v1"  # raise it when thumbnails or decoding change: old files are then dropped

_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (digest BLOB PRIMARY KEY, width INTEGER, height INTEGER,
                                   vector BLOB, thumbnail BLOB, checksum INTEGER);
CREATE TABLE IF NOT EXISTS texts (digest BLOB PRIMARY KEY, truncated INTEGER, vector BLOB, checksum INTEGER);
"""

# What SQLite raises for a damaged file; the second for text in it, or in a message about it, that is no UTF-8.
_FAULTS = (sqlite3.DatabaseError, UnicodeDecodeError)
_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
}
_REFUSED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeenImage:
    digest: bytes
    width_pixels: int
    height_pixels: int
    vector: NDArray[np.float32]
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class SeenText:
    digest: bytes
    truncated: bool
    vector: NDArray[np.float32]


class EmbeddingCache:
    """Look-ups from any thread; a context manager. With `path` None it remembers nothing."""

    def __init__(self, path: Path | None, *, dim: int) -> None:
        self._path = path
        self._vector_bytes = 4 * dim
        self._lock = threading.Lock()
        self._connection = None if path is None else self._connected(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._connection.close()

    def image(self, digest: bytes) -> SeenImage | None:
        row = self._row(
            "SELECT width, height, vector, thumbnail, checksum FROM images WHERE digest = ?", digest
        )
        if row is None:
            return None
        width, height, vector, thumbnail, checksum = row
        if not _are(int, width, height) or not _are(bytes, vector, thumbnail):
            return None
        if len(vector) != self._vector_bytes or _checksum(digest, width, height, vector, thumbnail) != checksum:
            return None
        return SeenImage(digest, width, height, np.frombuffer(vector, dtype="<f4"), thumbnail)

    def text(self, digest: bytes) -> SeenText | None:
        row = self._row("SELECT truncated, vector, checksum FROM texts WHERE digest = ?", digest)
        if row is None:
            return None
        truncated, vector, checksum = row
        if not _are(int, truncated) or not _are(bytes, vector):
            return None
        if len(vector) != self._vector_bytes or _checksum(digest, truncated, vector) != checksum:
            return None
        return SeenText(digest, bool(truncated), np.frombuffer(vector, dtype="<f4"))

    def add_images(self, images: Sequence[SeenImage]) -> None:
        """Remember all of them or, killed meanwhile, none."""
        self._write("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", map(_image_row, images))

    def add_texts(self, texts: Sequence[SeenText]) -> None:
        self._write("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?)", map(_text_row, texts))

    def keep_only(self, image_digests: Iterable[list[bytes]], text_digests: Iterable[list[bytes]]) -> None:
        """Forget all but these; the room goes back to the file system."""
        self._keep_only("images", image_digests)
        self._keep_only("texts", text_digests)
        self._write("PRAGMA incremental_vacuum", None)

    def _keep_only(self, table: str, digests: Iterable[list[bytes]]) -> None:
        self._write("CREATE TEMP TABLE kept (digest BLOB PRIMARY KEY)", None)
        for some in digests:
            self._write("INSERT OR IGNORE INTO kept VALUES (?)", ((digest,) for digest in some))
        self._write(f"DELETE FROM {table} WHERE digest NOT IN (SELECT digest FROM kept)", None)  # noqa: S608 - two literals
        self._write("DROP TABLE kept", None)

    def _connected(self, path: Path) -> sqlite3.Connection | None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _connect(path)
        except _FAULTS as error:
            if _may_pass(error, path):
                _log.warning("going on without the cache %s, which cannot be opened: %s", path, error)
                return None
            _log.warning("%s is broken, starting a new one: %s", path, error)
        _remove(path)
        try:
            return _connect(path)
        except _FAULTS as error:
            _log.warning("going on without a cache, %s cannot be made: %s", path, error)
            return None

    def _row(self, query: str, digest: bytes) -> tuple[Any, ...] | None:
        with self._lock:
            if self._connection is None:
                return None
            try:
                row: tuple[Any, ...] | None = self._connection.execute(query, (digest,)).fetchone()
            except _FAULTS as error:
                self._give_up(error)
                return None
        return row

    def _write(self, statement: str, rows: Iterable[tuple[int | bytes, ...]] | None) -> None:
        with self._lock:
            if self._connection is None:
                return
            try:
                with self._connection:
                    if rows is None:
                        self._connection.executescript(statement)  # execute() would vacuum one page only
                    else:
                        self._connection.executemany(statement, rows)
            except _FAULTS as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """For the rest of this job there is no cache; the file goes too, unless the fault is not its own."""
        _log.warning("going on without the cache %s, which failed: %s", self._path, error)
        if self._connection is not None:
            with suppress(*_FAULTS):
                self._connection.close()
        self._connection = None
        if self._path is not None and not _may_pass(error, self._path):
            _remove(self._path)


def cache_path(releases: Path, fingerprint: str, precision: str) -> Path:
    return releases / CACHE_FOLDER / f"{fingerprint}-{precision}-{FORMAT}.sqlite"


def remove_other_caches(releases: Path, fingerprints: set[str]) -> None:
    """Delete the caches of encoders that no release was made with, and those of another format."""
    for path in (releases / CACHE_FOLDER).glob("*.sqlite"):
        fingerprint, _, version = path.stem.partition("-")
        if fingerprint not in fingerprints or not version.endswith(FORMAT):
            _remove(path)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LOCKED_SECONDS, check_same_thread=False)
    try:
        # One process at a time holds the releases' lock, so the cache may be held exclusively too.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        with closing(connection.execute("SELECT count(*) FROM images LIMIT 1")) as cursor:
            cursor.fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _may_pass(error: Exception, path: Path) -> bool:
    """Whether the fault is the disk's or another process's: what was embedded is then too dear to delete."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in _REFUSED:  # also what SQLite says of a file whose header is damaged
        return not (os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK))
    return code in _PASSING


def _are(kind: type, *values: object) -> bool:
    """SQLite keeps a type with each value, and a flipped bit changes that too."""
    return all(isinstance(value, kind) for value in values)


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm", f"{path.name}-journal"):
        path.with_name(name).unlink(missing_ok=True)


def _image_row(image: SeenImage) -> tuple[int | bytes, ...]:
    vector = np.asarray(image.vector, dtype="<f4").tobytes()
    fields = (image.width_pixels, image.height_pixels, vector, image.thumbnail)
    return (image.digest, *fields, _checksum(image.digest, *fields))


def _text_row(text: SeenText) -> tuple[int | bytes, ...]:
    vector = np.asarray(text.vector, dtype="<f4").tobytes()
    truncated = int(text.truncated)
    return (text.digest, truncated, vector, _checksum(text.digest, truncated, vector))


def _checksum(*fields: int | bytes) -> int:
    value = 0
    for part in fields:
        value = zlib.crc32(part if isinstance(part, bytes) else str(part).encode(), value)
    return value
