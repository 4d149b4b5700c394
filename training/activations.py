"""Activations of a frozen stem, kept on disk, so that epochs after the first cost only what is trained.

A store holds fixed-size float16 records under 16-byte keys, append-only: the records' file is flushed before
the keys' file, and what lies beyond the last whole key is ignored, so a kill at any byte loses at most the last
batch. The caller makes the keys (digest of the picture, view, settings, weights); the store does not know what
they mean. One writer at a time: the first append takes a lock that ends with the process.
"""

import fcntl
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

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
        self._rows = self._recover()
        self._mapped: NDArray[np.float16] | None = None
        self._lock: IO[bytes] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def append(self, keys: Sequence[bytes], records: Activations) -> None:
        """Store records (n, *shape) under n new keys, durably."""
        if records.shape != (len(keys), *self.shape) or records.dtype != np.float16:
            raise ValueError(
                f"records are {records.dtype} {records.shape}, expected float16 (n, *{self.shape})"
            )
        self._take_lock()
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

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        self._lock = (self._keys.parent / "writer.lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"another run is writing activations to {self._keys.parent}: wait, or name another --cache"
            ) from error

    def _recover(self) -> dict[bytes, int]:
        """Keys by row of the whole records; both files are cut to those."""
        for path in (self._keys, self._records):
            path.touch()
        whole = min(self._keys.stat().st_size // KEY_BYTES, self._records.stat().st_size // self._record_bytes)
        os.truncate(self._keys, whole * KEY_BYTES)
        os.truncate(self._records, whole * self._record_bytes)
        raw = self._keys.read_bytes()
        return {raw[start : start + KEY_BYTES]: start // KEY_BYTES for start in range(0, len(raw), KEY_BYTES)}


def _append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
