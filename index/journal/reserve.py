"""Room on the disk that is kept for deletes, as a file of real blocks: they must always work."""

import errno
import os
from contextlib import suppress
from pathlib import Path

from encoders.folders import NO_ROOM
from index.errors import JournalFailed, JournalFull

RESERVE_NAME = "reserve"
LEAST_BYTES = 2 << 20
MOST_BYTES = 32 << 20
"""Deleting 1,000 of 20,000 items writes 27 MB to SQLite's log; one writes 60 kB (LOG 2026-11-30)."""
_PIECE = bytes(1 << 20)


class Reserve:
    """Belongs to whoever writes the journal. Puts go on only while it is held."""

    def __init__(self, folder: Path) -> None:
        """Raises JournalFailed."""
        self._path = folder / RESERVE_NAME
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalFailed(f"{self._path} cannot be opened: {error.strerror}") from error
        status = os.fstat(self._descriptor)
        self._held_bytes = min(status.st_size, status.st_blocks * 512)

    def close(self) -> None:
        os.close(self._descriptor)

    @property
    def is_held(self) -> bool:
        return self._held_bytes > 0

    def hold(self, journal_bytes: int) -> None:
        """Have what deletes in a journal of this size may take. Raises JournalFull or JournalFailed."""
        wanted = min(max(journal_bytes // 2, LEAST_BYTES), MOST_BYTES)
        if wanted <= self._held_bytes <= 2 * wanted:
            return
        held = min(self._held_bytes, wanted)
        try:
            os.ftruncate(self._descriptor, held)
            _allocate(self._descriptor, wanted)
            self._held_bytes = wanted
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, held)  # what was allocated beyond is of more use to a delete
            if error.errno not in NO_ROOM:
                raise JournalFailed(f"{self._path} cannot be written: {error.strerror}") from error
            raise JournalFull(
                f"there is no room in {self._path.parent} for the {wanted} bytes that are kept for deletes: "
                "free some on that disk, or delete items"
            ) from error

    def give_up(self) -> None:
        """Let a delete have the room. Raises JournalFailed."""
        self._held_bytes = 0
        try:
            os.ftruncate(self._descriptor, 0)
            os.fsync(self._descriptor)  # some file systems give blocks to others only then
        except OSError as error:
            raise JournalFailed(f"{self._path} cannot be cut: {error.strerror}") from error


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Real blocks, not a hole."""
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise
        for start in range(0, size_bytes, len(_PIECE)):
            os.pwrite(descriptor, _PIECE[: size_bytes - start], start)
    os.fsync(descriptor)
