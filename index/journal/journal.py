"""Writing changes: one process at a time, durable before `commit` returns.

SQLite makes each group of changes in one transaction (write-ahead log, synchronous=FULL); images are durable
before the transaction that names them, and deleted after the one that names them no more. What a kill leaves
behind is swept when the journal is opened next. Not thread-safe: one thread owns it.
"""

import ctypes
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from encoders.folders import sync
from index.errors import IdempotencyKeyReused, JournalFailed, JournalFull
from index.journal.answers import find_answer, keep_answer
from index.journal.changes import Change, ChangeSet, Committed, RequestKey, checksum_of, to_row
from index.journal.database import (
    JOURNAL_NAME,
    State,
    create_tables,
    is_new,
    log_of,
    open_writer,
    rows_after,
    told,
)
from index.journal.images import IMAGES_NAME, ImageFiles
from index.journal.location import LIVE_NAME, Acknowledged, Placement, lock_writer, read_acknowledged
from index.journal.reserve import Reserve
from index.journal.snapshot import open_snapshot
from index.journal.upkeep import Upkeep, is_named, used_bytes

# After any other error of a COMMIT its transaction may be on the disk, and be found there after a kill.
_NOT_WRITTEN = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_BUSY}

Outcome = Committed | IdempotencyKeyReused


class Journal:
    """The changes beside some releases, with the lock that makes this process their only writer."""

    def __init__(self, releases: Path, *, known: int = 0, accept_loss: bool = False) -> None:
        """Open for writing, check everything, and sweep what a kill left behind.

        `known`: the last change that any release holds. Raises JournalBusy with who writes there,
        CorruptJournal (also where changes are missing, unless `accept_loss`), UnsupportedJournal, JournalFull
        or JournalFailed.
        """
        self.folder = releases / LIVE_NAME
        self._path = self.folder / JOURNAL_NAME
        self._broken = ""
        self.is_untidy = False
        """Whether `tidy` is due."""
        check = partial(_check, releases, known=known, accept_loss=accept_loss)
        with ExitStack() as stack:
            self._lock = lock_writer(releases)
            stack.callback(self._lock.release)
            if not self._path.exists():
                check()  # before anything is made
            _make_folders(self.folder)
            self._reserve = Reserve(self.folder)
            stack.callback(self._reserve.close)
            least = max(read_acknowledged(releases), known) if accept_loss else 0
            self._connection, self._state = self._open_database(check, least)
            stack.callback(self._close_database)
            self._files = ImageFiles(self.folder / IMAGES_NAME)
            stack.callback(self._files.close)
            self._placement = Placement(self._lock, (self._path, log_of(self._path), self._files.folder))
            self._acknowledged = Acknowledged(releases)
            stack.callback(self._acknowledged.close)
            self._acknowledged.write(self.sequence)
            self._upkeep = Upkeep(self._connection, self._path, files=self._files, reserve=self._reserve)
            self._upkeep.sweep()
            self._resources = stack.pop_all()
        self.tidy()

    @property
    def sequence(self) -> int:
        """The number of the last change."""
        return self._state.sequence

    def close(self) -> None:
        self._resources.close()

    def commit(self, sets: Sequence[ChangeSet]) -> list[Outcome]:
        """Make all of them durable, or none; one outcome for each set, in order.

        A set whose request was carried out before changes nothing; its outcome is the answer of then, or
        IdempotencyKeyReused where that request asked for something else. Raises JournalFull where there is no
        room, JournalFailed where the disk fails or the files were moved, CorruptJournal; nothing is then
        acknowledged.
        """
        only_deletes = all(one.only_deletes for one in sets)
        make_room: list[Callable[[], None]] = [lambda: self._upkeep.make_room(self.sequence)]
        if only_deletes:
            make_room.insert(0, self._reserve.give_up)
        for step in make_room:
            with suppress(JournalFull):
                return self._commit(sets, only_deletes=only_deletes)
            step()
        return self._commit(sets, only_deletes=only_deletes)

    def answer_to(self, key: RequestKey) -> Outcome | None:
        """What `commit` would give for a request that was carried out before; None for one that was not."""
        with told(self._path):
            kept = find_answer(self._connection, key.name)
        if kept is None:
            return None
        if kept.content != key.content:
            return IdempotencyKeyReused("the idempotency key was used for another request: choose a new key")
        return Committed((), kept.answer, replayed=True)

    def changes_after(self, sequence: int) -> tuple[list[Change], int]:
        """The last change of every id after a number, in order, and the last number. Raises CorruptJournal."""
        with told(self._path):
            return [change for change, _ in rows_after(self._connection, sequence)], self.sequence

    def tidy(self) -> None:
        """Delete what no change names any more, after the changes were acknowledged. Raises nothing."""
        self.is_untidy = False
        if not self._broken:
            self._upkeep.tidy()

    def compact(self) -> None:
        """Give back to the disk all that holds nothing. Raises JournalFull or JournalFailed."""
        self._upkeep.give_back_all()
        self.tidy()

    def _open_database(self, check: Callable[[], None], least: int) -> tuple[sqlite3.Connection, State]:
        """`least`: what the next number must exceed."""
        try:
            check()  # by a reader: nothing is written to a file that is damaged
            return _open_database(self._path, least)
        except JournalFull:
            self._reserve.give_up()
            check()
            return _open_database(self._path, least)

    def _close_database(self) -> None:
        try:
            self._placement.check()
        except JournalFailed:
            # Closing would delete the log at the path, which is somebody else's by now: this one stays open.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        else:
            self._connection.close()

    def _commit(self, sets: Sequence[ChangeSet], *, only_deletes: bool) -> list[Outcome]:
        if self._broken:
            raise JournalFailed(self._broken)
        self._placement.check()
        if not only_deletes:
            self._upkeep.hold_reserve()
        fresh = self._files.write({digest: image.data for one in sets for digest, image in one.images.items()})
        try:
            with told(self._path):
                group = self._write(sets)
        except BaseException:
            if not self._broken:
                self._files.remove(fresh)
            raise
        self._state = group.state
        self._upkeep.perhaps_dead |= group.replaced | fresh
        self._acknowledge()
        self.is_untidy = self._upkeep.is_due()
        return group.outcomes

    def _write(self, sets: Sequence[ChangeSet]) -> "_Group":
        with _transaction(self._connection) as connection:
            group = _Group(connection, self._state)
            for one in sets:
                before = self.answer_to(one.key) if one.key else None
                group.outcomes.append(before or group.apply(one))
            group.finish()
            self._placement.check()
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if error.sqlite_errorcode not in _NOT_WRITTEN:
                    self._broken = f"{self.folder} failed ({error}), and takes no changes until a restart"
                raise
        return group

    def _acknowledge(self) -> None:
        try:
            self._placement.check()
        except JournalFailed as error:
            self._broken = f"{error}; no changes are taken until a restart"
            raise
        self._acknowledged.write(self.sequence)


def compact(releases: Path, *, known: int = 0, accept_loss: bool = False) -> int:
    """Give back to the disk what live changes hold for nothing; returns how many bytes. Raises as `Journal`."""
    before = used_bytes(releases / LIVE_NAME)
    with closing(Journal(releases, known=known, accept_loss=accept_loss)) as journal:  # which sweeps
        journal.compact()
    return max(0, before - used_bytes(releases / LIVE_NAME))


class _Group:
    """The rows, thumbnails and kept answers of one transaction."""

    def __init__(self, connection: sqlite3.Connection, state: State) -> None:
        self._connection = connection
        self.state = state
        self.outcomes: list[Outcome] = []
        self.replaced: set[bytes] = set()
        """Digests of images whose change was replaced."""

    def apply(self, one: ChangeSet) -> Committed:
        done = [self._change(change) for change in one.changes]
        for digest, image in one.images.items():
            row = (digest, image.thumbnail, checksum_of(digest, image.thumbnail))
            self._connection.execute("INSERT OR REPLACE INTO thumbnails VALUES (?, ?, ?)", row)
        if one.key is None:
            return Committed(done)
        answer = one.answer(done)
        keep_answer(self._connection, one.key, answer)
        return Committed(done, answer)

    def finish(self) -> None:
        for digest in self.replaced:
            if not is_named(self._connection, digest):
                self._connection.execute("DELETE FROM thumbnails WHERE digest = ?", (digest,))
        self.state.write(self._connection)

    def _change(self, change: Change) -> Change:
        done = replace(change, sequence=self.state.sequence + 1)
        row, old_checksum = to_row(done), None
        old = self._connection.execute(
            "SELECT sequence, digest, checksum FROM changes WHERE id = ?", (change.id,)
        ).fetchone()
        if old is not None:
            sequence, digest, old_checksum = old
            self._connection.execute("DELETE FROM changes WHERE sequence = ?", (sequence,))
            if digest is not None:
                self.replaced.add(digest)
        self._connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", row)
        self.state = self.state.replaced(row, old_checksum)
        return done


def _check(releases: Path, *, known: int, accept_loss: bool) -> None:
    with open_snapshot(releases, known=known, accept_loss=accept_loss):
        pass


def _make_folders(folder: Path) -> None:
    try:
        (folder / IMAGES_NAME).mkdir(parents=True, exist_ok=True)
        sync(folder)
        sync(folder.parent)
    except OSError as error:
        raise JournalFailed(f"live changes cannot be kept in {folder}: {error.strerror}") from error


def _open_database(path: Path, least: int) -> tuple[sqlite3.Connection, State]:
    connection = open_writer(path)
    try:
        with told(path), _transaction(connection):  # which makes the log, so that it stays where it is
            if is_new(connection):
                create_tables(connection)
            state = State.read(connection)
            state = replace(state, sequence=max(state.sequence, least))
            state.write(connection)
            connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection, state


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Rolled back unless it is committed within."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
