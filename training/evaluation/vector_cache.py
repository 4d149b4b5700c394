"""Vectors on disk by a key of whatever made them: one SQLite file a bundle, precision and kind of device.

Every `put` is durable against a killed process when it returns, so an interrupted run goes on where it stopped.
What is damaged on disk counts as absent, and is made anew.
"""

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from training.errors import EvaluationError
from training.evaluation.ranks import Floats

BUSY_SECONDS = 60.0
_KEYS_PER_QUERY = 500
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS vectors"
    " (key BLOB PRIMARY KEY, vector BLOB NOT NULL, flag INTEGER NOT NULL, crc INTEGER NOT NULL)"
)


def cache_key(*parts: object) -> bytes:
    """A key (32 bytes) of parts whose order and borders count."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


class NoCache:
    """Keeps nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def get(self, keys: Sequence[bytes]) -> dict[bytes, tuple[Floats, bool]]:  # noqa: ARG002 - the contract's
        """Those of the keys that are there, and whole."""
        return {}

    def put(self, keys: Sequence[bytes], vectors: Floats, *, flags: Iterable[bool]) -> None:
        """Keep vectors (n, dim) with a flag each."""


class VectorCache(NoCache):
    """Key → (float32 vector of `dim`, a flag). A context manager; of one thread."""

    def __init__(self, path: Path, *, dim: int) -> None:
        self._path, self._dim = path, dim
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors_named():
            self._connection = _opened_anew_if_damaged(path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, tuple[Floats, bool]]:
        """Those of the keys that are there, and whole."""
        found: dict[bytes, tuple[Floats, bool]] = {}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            chunk = keys[start : start + _KEYS_PER_QUERY]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, vector, flag, crc FROM vectors WHERE key IN ({marks})"  # noqa: S608 - only marks
            for key, blob, flag, crc in self._rows(query, chunk):
                if len(blob) == 4 * self._dim and zlib.crc32(blob) == crc:
                    found[key] = (np.frombuffer(blob, dtype=np.float32), bool(flag))
        return found

    def put(self, keys: Sequence[bytes], vectors: Floats, *, flags: Iterable[bool]) -> None:
        """Keep vectors (n, dim) with a flag each."""
        rows = [
            (key, blob, int(flag), zlib.crc32(blob))
            for key, blob, flag in zip(keys, map(np.ndarray.tobytes, vectors), flags, strict=True)
        ]
        with self._errors_named(), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)

    def _rows(self, query: str, keys: Sequence[bytes]) -> list[tuple[bytes, bytes, int, int]]:
        with self._errors_named():
            try:
                return self._connection.execute(query, keys).fetchall()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # a page is damaged: nothing of the file is to be trusted
                self._connection.close()
                _remove(self._path)
                self._connection = _opened(self._path)
                return []

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise EvaluationError(
                f"the cache {self._path} cannot be used: {error}; free its disk, or name another folder"
            ) from error


def _opened_anew_if_damaged(path: Path) -> sqlite3.Connection:
    try:
        return _opened(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        _remove(path)
        return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        # A killed process loses nothing in this mode, a power cut at most the last batches: never the file.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
