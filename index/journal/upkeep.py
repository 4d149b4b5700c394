"""Keeps live/ as small as what it holds: no dead images, few free pages, a short log; and the reserve whole."""

import logging
import sqlite3
from contextlib import suppress
from pathlib import Path

from index.errors import JournalFailed, JournalFull, ReleaseError
from index.journal.database import BUSY_SECONDS, PAGE_BYTES, log_of, told
from index.journal.images import ImageFiles
from index.journal.reserve import Reserve

MOST_FREE_BYTES = 1 << 20  # of pages that nothing uses; or an eighth of the file, where that is more
MOST_LOG_BYTES = 4 << 20  # after a large transaction
_PAGES_AT_ONCE = 256  # are moved to the front of the file, so that the log stays small meanwhile

_log = logging.getLogger(__name__)


class Upkeep:
    """Belongs to whoever writes the journal, and works between its transactions."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, *, files: ImageFiles, reserve: Reserve
    ) -> None:
        self._connection, self._path = connection, path
        self._files, self._reserve = files, reserve
        self._complaint = ""
        self._squeezed_at = -1  # the last number when room was last made
        self.perhaps_dead: set[bytes] = set()
        """Digests of images that a transaction replaced, deleted or did not need."""

    def is_due(self) -> bool:
        """Whether there is something to delete, to give back, or to make whole."""
        try:
            return (
                bool(self.perhaps_dead)
                or not self._reserve.is_held
                or self._free_bytes() > self._most_free_bytes()
                or _size_bytes(log_of(self._path)) > MOST_LOG_BYTES
            )
        except JournalFailed:  # told when it is tidied
            return True

    def tidy(self) -> None:
        """Delete dead images, keep file and log small and the reserve whole.

        The changes are durable as they are: what goes wrong here is logged, and tried again after the next
        ones.
        """
        problems = []
        for step in (self._remove_dead, self._keep_small, self.hold_reserve):
            try:
                step()
            except ReleaseError as error:
                problems.append(str(error))
        complaint = "; ".join(problems)
        if complaint and complaint != self._complaint:
            _log.warning("%s could not be tidied: %s", self._path.parent, complaint)
        self._complaint = complaint

    def make_room(self, sequence: int) -> None:
        """For a change that found none; does nothing where none was made since this was last done."""
        if sequence != self._squeezed_at:
            self._squeezed_at = sequence
            with suppress(JournalFull):
                self.give_back_all()

    def give_back_all(self) -> None:
        """All that holds nothing. Raises JournalFull where there is no room even for that, JournalFailed."""
        self._remove_dead()
        self._give_back_pages(0)
        self._cut_log()

    def sweep(self) -> None:
        """Delete all images that no change names: a kill may have left some."""
        for digest in self._files.digests():
            self.perhaps_dead.add(digest)
            self._remove_dead()

    def hold_reserve(self) -> None:
        """Raises JournalFull or JournalFailed."""
        self._reserve.hold(_size_bytes(self._path))

    def _remove_dead(self) -> None:
        while self.perhaps_dead:
            digest = self.perhaps_dead.pop()
            with told(self._path):
                if not is_named(self._connection, digest):
                    self._files.remove({digest})

    def _keep_small(self) -> None:
        self._give_back_pages(self._most_free_bytes())
        if _size_bytes(log_of(self._path)) > MOST_LOG_BYTES:
            self._cut_log()

    def _give_back_pages(self, most_free_bytes: int) -> None:
        """Raises JournalFull where there is no room even for moving some pages."""
        while (free := self._free_bytes()) > most_free_bytes:
            with told(self._path):  # execute() would move one page only
                self._connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
            if self._free_bytes() >= free:
                return
            self._cut_log()

    def _cut_log(self) -> None:
        """As far as readers let it: nobody waits for them."""
        with told(self._path):
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")

    def _free_bytes(self) -> int:
        with told(self._path):
            pages: int = self._connection.execute("PRAGMA freelist_count").fetchone()[0]
        return pages * PAGE_BYTES

    def _most_free_bytes(self) -> int:
        return max(MOST_FREE_BYTES, _size_bytes(self._path) // 8)


def is_named(connection: sqlite3.Connection, digest: bytes) -> bool:
    """Whether any change names the image."""
    found = connection.execute("SELECT 1 FROM changes WHERE digest = ? LIMIT 1", (digest,)).fetchone()
    return found is not None


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise JournalFailed(f"{path} cannot be read: {error.strerror}") from error


def used_bytes(folder: Path) -> int:
    """What the files take on the disk."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total
