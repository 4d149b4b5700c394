"""A lock that one process holds at a time, and that says who; the kernel frees the lock of a killed process."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from encoders.errors import TwinlensError

_HOLDER_BYTES = 300


class LockBusy(TwinlensError):
    """Another process holds the lock; `holder` says which."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is held by {holder}")
        self.holder = holder


class ProcessLock:
    """An exclusive lock (flock) on a file that stays where it is and names its holder."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises LockBusy, or OSError where the file cannot be opened."""
        self.path = path
        self.identity = (0, 0)
        # A soft lock would outlive a killed process: without flock there is no lock at all.
        self._lock = FileLock(
            path, timeout=0, thread_local=False, fallback_to_soft=False, on_acquired=self._sign
        )
        try:
            self._lock.acquire()
        except Timeout as error:
            raise LockBusy(path, _holder(path)) from error

    def release(self) -> None:
        self._lock.release()

    def _sign(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.identity = (status.st_dev, status.st_ino)  # device and inode: tells whether the file was replaced
        name = f"process {os.getpid()} on {socket.gethostname()}".encode()[: _HOLDER_BYTES - 1]
        with suppress(
            OSError
        ):  # on a full disk the holder stays unknown; what is there is written over in place
            os.pwrite(descriptor, name.ljust(_HOLDER_BYTES - 1) + b"\n", 0)


def _holder(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_HOLDER_BYTES).decode(errors="replace").strip() or "an unknown process"
