"""Writing changes: one process at a time, durable before `append` returns, compacted when it is worth it.

A kill at any byte loses nothing that was returned: a frame is written whole and made durable (fsync), what is
left of one that was not is cut off on the next start, and compaction writes a snapshot beside the journals
before it takes them away. Not thread-safe: one thread owns it. Knows nothing of HTTP, encoders or releases.
"""

import errno
import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from encoders.folders import sync
from index.errors import CorruptJournal, JournalBusy, JournalFailed, JournalFull
from index.live.frames import frame
from index.live.pictures import PICTURES_NAME, PictureStore
from index.live.reading import JOURNAL, SNAPSHOT, LiveReader, file_name, live_files, snapshot_end
from index.live.records import Change, Put, numbered, to_bytes

COMPACT_BYTES = 64 << 20  # of journals, before they are compacted; and never less than the snapshot has
COMPACT_FILES = 32  # of journals: every start of a service begins one
RETRY_CHANGES = 1000  # that go by after a compaction that failed, before the next
_RECORDS_PER_FRAME = 256
_LOCK = ".lock"
_TEMPORARY = ".compacting"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_log = logging.getLogger(__name__)


class Journal:
    """The changes beside some releases, with the lock that makes this process their only writer."""

    def __init__(self, folder: Path, *, floor: int = 0) -> None:
        """Open for writing, and mend what a kill left behind.

        `floor`: a number that the next change must exceed; releases may know higher ones than are left here.
        Raises JournalBusy with who writes there, CorruptJournal, or OSError.
        """
        (folder / PICTURES_NAME).mkdir(parents=True, exist_ok=True)
        sync(folder)
        sync(folder.parent)
        self.folder = folder
        self.pictures = PictureStore(folder / PICTURES_NAME)
        self._lock = _locked(folder / _LOCK)
        try:
            self._mend(floor)
        except BaseException:
            self._lock.close()
            raise

    def _mend(self, floor: int) -> None:
        (self.folder / _TEMPORARY).unlink(missing_ok=True)
        reader = LiveReader(self.folder)
        self._latest: dict[str, int] = {}  # the number of the last change of every id
        for change in reader:
            self._latest[change.id] = change.sequence
        self.sequence = max(reader.sequence, floor)
        self._compact_from = 0  # the change number; later after a failure
        if reader.tail is not None:
            path, whole_bytes = reader.tail
            _log.warning("%s ends in a change that was never acknowledged: cut off", path)
            os.truncate(path, whole_bytes)
            sync(path)
        self._broken = ""
        if reader.sequence < floor:
            _log.warning(
                "releases know changes up to %d, and in %s they end at %d: bring back those that are gone "
                "before the next rebuild, which would be without them",
                *(floor, self.folder, reader.sequence),
            )
            self._write_snapshot()  # so that no number is missing before the next one
        self._begin()
        self._drop_needless()
        self._compact_when_due()

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def append(self, changes: Sequence[Change]) -> list[Change]:
        """Make all of them durable, or none; returns them with their numbers.

        Raises JournalFull where there is no room, JournalFailed where the disk fails; nothing is then in.
        """
        if self._broken:
            raise JournalFailed(self._broken)
        done = numbered(changes, self.sequence + 1)
        self._write(frame(to_bytes(done)))
        self.sequence += len(done)
        self._latest.update((change.id, change.sequence) for change in done)
        self._compact_when_due()
        return done

    def _write(self, data: bytes) -> None:
        before = self._file.tell()
        try:
            _write_all(self._file.fileno(), data)
            os.fdatasync(self._file.fileno())
        except OSError as error:
            self._take_back(before, error)
            if error.errno in _NO_ROOM:
                raise JournalFull(
                    f"no room in {self.folder} for {len(data)} bytes ({error.strerror}): nothing was changed"
                ) from error
            raise JournalFailed(f"{self.folder} cannot be written: {error.strerror}") from error
        self._file.seek(0, os.SEEK_END)

    def _take_back(self, length_bytes: int, cause: OSError) -> None:
        """Half a frame must not stay in front of the next. A disk that failed to sync is not trusted again."""
        try:
            os.ftruncate(self._file.fileno(), length_bytes)
            self._file.seek(length_bytes)
            os.fdatasync(self._file.fileno())
        except OSError:
            cause = OSError(errno.EIO, os.strerror(errno.EIO))
        if cause.errno not in _NO_ROOM:
            self._broken = f"{self.folder} failed ({cause.strerror}), and takes no changes until a restart"

    def _begin(self) -> None:
        """Start a new journal behind the last change; an empty one of that name is taken up."""
        path = self.folder / file_name(JOURNAL, self.sequence + 1)
        file: BinaryIO = path.open("ab", buffering=0)
        try:
            sync(self.folder)
        except OSError:
            file.close()
            raise
        self._file = file

    def _compact_when_due(self) -> None:
        """The changes are durable as they are: what goes wrong here is no failure of theirs."""
        if self.sequence < self._compact_from:
            return
        try:
            if self._compaction_is_due():
                self.compact()
        except (OSError, CorruptJournal) as error:
            self._compact_from = self.sequence + RETRY_CHANGES
            _log.warning("%s stays as it is, it could not be compacted: %s", self.folder, error)

    def _compaction_is_due(self) -> bool:
        files = live_files(self.folder)[0]
        sizes = {SNAPSHOT: 0, JOURNAL: 0}
        for file in files:
            sizes[file.kind] += file.path.stat().st_size
        return len(files) > COMPACT_FILES or sizes[JOURNAL] > max(COMPACT_BYTES, sizes[SNAPSHOT])

    def compact(self) -> None:
        """Keep the last change of every id in one snapshot; drop the journals, and pictures that nothing shows.

        A new journal begins first: what is written to one that a snapshot covers would never be read again.
        Raises OSError (no room, for example) or CorruptJournal; nothing is lost then.
        """
        before = self._file
        self._begin()
        before.close()
        shown = self._write_snapshot()
        self._drop_needless()
        self.pictures.keep_only(shown)

    def _write_snapshot(self) -> set[bytes]:
        """Returns the digests of the pictures that it names."""
        temporary = self.folder / _TEMPORARY
        try:
            with temporary.open("wb") as file:
                digests = self._write_last_changes(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / file_name(SNAPSHOT, self.sequence))
        except BaseException:
            temporary.unlink(missing_ok=True)  # on a full disk it has what room there was
            raise
        sync(self.folder)
        return digests

    def _write_last_changes(self, file: BinaryIO) -> set[bytes]:
        digests: set[bytes] = set()
        count = 0
        for some in _by(_RECORDS_PER_FRAME, self._last_changes()):
            file.write(frame(to_bytes(some)))
            count += len(some)
            digests.update(change.digest for change in some if isinstance(change, Put) and change.digest)
        file.write(frame(snapshot_end(count)))
        return digests

    def _drop_needless(self) -> None:
        for old in live_files(self.folder)[1]:
            old.path.unlink()

    def _last_changes(self) -> Iterator[Change]:
        return (change for change in LiveReader(self.folder) if self._latest[change.id] == change.sequence)


def _locked(path: Path) -> BinaryIO:
    """The lock's file, which holds the process that has it; the kernel frees that of a killed one."""
    file = path.open("a+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read(20).decode(errors="replace").strip() or "unknown"
        file.close()
        raise JournalBusy(
            f"another service (process {owner}) writes changes to {path.parent}: "
            "stop it, or start this one without live_changes"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()).encode())
    return file


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _by(size: int, changes: Iterator[Change]) -> Iterator[Sequence[Change]]:
    some: list[Change] = []
    for change in changes:
        some.append(change)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
