"""Activations of a frozen stem, kept on disk, so that epochs after the first cost only what is trained.

A store holds fixed-size float16 records under 16-byte keys, append-only: the records' file is flushed before
the keys' file, and what lies beyond the last whole key is ignored, so a kill at any byte loses at most the last
batch. The caller makes the keys (digest of the image, view, settings, weights). One writer at a time: the
lock ends with its process.
"""

import fcntl
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import CheckpointError

KEY_BYTES = 16

Activations = NDArray[np.float16]


class ActivationStore:
    """Records of one shape in `folder`; memory is the keys' (some 150 bytes a record), the rest is mapped."""

    def __init__(self, folder: Path, shape: Sequence[int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.shape = tuple(shape)
        self._records = folder / "records.f16"
        self._keys = folder / "keys.bin"
        self._record_bytes = 2 * math.prod(self.shape)
        self._rows = self._read_keys()
        self._mapped: NDArray[np.float16] | None = None
        self._writing = False

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the writer's lock, see all written so far. Raises CheckpointError while another holds it."""
        with (self._keys.parent / "writer.lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CheckpointError(
                    f"another run is writing activations to {self._keys.parent}: wait, or name another --cache"
                ) from error
            self._rows = self._read_keys()
            os.truncate(self._keys, len(self._rows) * KEY_BYTES)
            os.truncate(self._records, len(self._rows) * self._record_bytes)
            self._writing = True
            try:
                yield
            finally:
                self._writing = False

    def append(self, keys: Sequence[bytes], records: Activations) -> None:
        """Store records (n, *shape) under n new keys, durably; within `writing` only."""
        if not self._writing:
            raise RuntimeError("append outside of writing(): two writers would mix their records")
        if records.shape != (len(keys), *self.shape) or records.dtype != np.float16:
            raise ValueError(
                f"records are {records.dtype} {records.shape}, expected float16 (n, *{self.shape})"
            )
        _append(self._records, np.ascontiguousarray(records).tobytes())
        _append(self._keys, b"".join(keys))
        for key in keys:
            self._rows[key] = len(self._rows)
        self._mapped = None

    def read(self, keys: Sequence[bytes]) -> Activations:
        """(n, *shape) float16; a key that is not stored raises KeyError."""
        rows = [self._rows[key] for key in keys]
        if self._mapped is None:
            self._mapped = np.memmap(
                self._records, dtype=np.float16, mode="r", shape=(len(self._rows), *self.shape)
            )
        return np.asarray(self._mapped[rows])

    def _read_keys(self) -> dict[bytes, int]:
        """Row by key, for those rows that are whole in both files."""
        for path in (self._keys, self._records):
            path.touch()
        whole = min(self._keys.stat().st_size // KEY_BYTES, self._records.stat().st_size // self._record_bytes)
        raw = self._keys.read_bytes()[: whole * KEY_BYTES]
        return {raw[start : start + KEY_BYTES]: start // KEY_BYTES for start in range(0, len(raw), KEY_BYTES)}


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
