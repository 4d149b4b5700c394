"""Where the journal lies: who writes there, whether its files are in place, what was acknowledged last.

Two files lie beside live/, so that they stay when it is moved: `.live.lock`, held by the one process that
writes changes, and `.live.acknowledged`, with the number of the last change that was acknowledged.
"""

import logging
import os
import tempfile
import zlib
from pathlib import Path

from encoders.folders import NO_ROOM
from encoders.locks import LockBusy, ProcessLock
from index.errors import CorruptJournal, JournalBusy, JournalFailed, UnsupportedJournal

LIVE_NAME = "live"
LOCK_NAME = ".live.lock"
ACKNOWLEDGED_NAME = ".live.acknowledged"
ACCEPT_LOSS = "python -m index compact --accept-loss"
_PROBE_BYTES = 1 << 16
_EARLIER_FORMS = ("journal-*.log", "snapshot-*.log")

_log = logging.getLogger(__name__)


def lock_writer(releases: Path) -> ProcessLock:
    """Be the only process that writes changes. Raises JournalBusy with who does, JournalFailed."""
    path = releases / LOCK_NAME
    try:
        return ProcessLock(path)
    except LockBusy as error:
        raise JournalBusy(
            f"{error.holder} writes changes to {releases}: stop it first, or start a service "
            "without live_changes"
        ) from error
    except OSError as error:
        raise JournalFailed(f"{path} cannot be locked: {error.strerror}") from error


def refuse_earlier_form(folder: Path) -> None:
    """Raises UnsupportedJournal where an earlier version kept its changes, which this one does not read."""
    found = sorted(path.name for pattern in _EARLIER_FORMS for path in folder.glob(pattern))
    if found:
        raise UnsupportedJournal(
            f"{folder} holds changes in the form of an earlier version ({found[0]}), and this one keeps them "
            "in SQLite. Rebuild with the version that wrote them, which takes them into a release, then move "
            f"{folder} away"
        )


class Acknowledged:
    """The number of the last change that was acknowledged, in a file beside live/.

    Written after each commit and before the acknowledgement, without fsync: after a kill it is exact, after a
    power cut it may lag, and it never leads. So a journal that ends before it has lost changes.
    """

    def __init__(self, releases: Path) -> None:
        """Open for writing. Raises JournalFailed."""
        path = releases / ACKNOWLEDGED_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalFailed(f"{path} cannot be written: {error.strerror}") from error
        self._path = path

    def write(self, sequence: int) -> None:
        try:
            os.pwrite(self._descriptor, _line(sequence), 0)
        except OSError as error:  # the change is durable without it
            _log.warning("%s stays behind: %s", self._path, error.strerror)

    def close(self) -> None:
        os.close(self._descriptor)


def read_acknowledged(releases: Path) -> int:
    """0 where nothing was acknowledged yet, or, with a warning, where the file cannot be read."""
    path = releases / ACKNOWLEDGED_NAME
    try:
        content = path.read_bytes()
        number = int(content[:20])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        _log.warning("%s cannot be read (%s): a journal that ends too early is not noticed", path, error)
        return 0
    if content != _line(number):
        _log.warning("%s is damaged: a journal that ends too early is not noticed", path)
        return 0
    return number


def refuse_loss(folder: Path, sequence: int, *, expected: int) -> None:
    """Raises CorruptJournal where the journal ends before `expected`: acknowledged, or in a release."""
    if sequence >= expected:
        return
    ends = f"ends with change {sequence}" if sequence else "holds no change"
    raise CorruptJournal(
        f"{folder} {ends}, and change {expected} was acknowledged: changes are lost, or were taken away. Bring "
        f"{folder} back from a copy, or accept that they are gone: `{ACCEPT_LOSS} --releases {folder.parent}`"
    )


class Placement:
    """Device and inode of what is written to, against what lies at its path now."""

    def __init__(self, lock: ProcessLock, paths: tuple[Path, ...]) -> None:
        """`paths` exist and are open by now."""
        self._expected = {lock.path: lock.identity, **{path: _identity(path) for path in paths}}

    def check(self) -> None:
        """Raises JournalFailed where a file was moved or replaced: what is written to it would be lost."""
        for path, expected in self._expected.items():
            if _identity(path) != expected:
                raise JournalFailed(
                    f"{path} was moved, deleted or replaced while this process writes there: put back what was "
                    "there, and stop the service before moving files"
                )


def has_room(folder: Path, *, size_bytes: int) -> bool:
    """Whether a file of this size may grow a little: SQLite does not say why it could not write."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.seek(size_bytes)  # a hole up to there
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in NO_ROOM
    return True


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _line(sequence: int) -> bytes:
    digits = b"%020d" % sequence
    return digits + b" %08x\n" % zlib.crc32(digits)
