"""The journal's SQLite file: opened, checked whole, and its failures told in this package's errors.

The last change of every id is a row of `changes`; replacing it gives it a new number. `state` has the last
number, how many rows there are and the sum of their checksums, so that a row that is gone is noticed as one
that has changed is. SQLite keeps no checksums of pages, and ends a write-ahead log silently at the first
damaged frame: what ends too early is noticed by `location.Acknowledged`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from index.errors import CorruptJournal, JournalFailed, JournalFull
from index.journal.changes import Change, Row, checksum_of, from_row
from index.journal.location import ACCEPT_LOSS, has_room

JOURNAL_NAME = "journal.sqlite"
WAL_SUFFIX = "-wal"
FORMAT = 1  # PRAGMA user_version
BUSY_SECONDS = 10.0  # that another process may hold the file, a reader of an earlier opening for example
PAGE_BYTES = 4096
CHECKPOINT_PAGES = 256  # in the write-ahead log, until they are moved into the file
LOG_BYTES = 1 << 20  # that the log keeps when it begins anew
_FULL = {sqlite3.SQLITE_FULL}
# What SQLite says where writing or growing a file failed for a reason that it keeps to itself: no room, a
# quota.
_PERHAPS_FULL = {
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_CANTOPEN,
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}
_COLUMNS = "sequence, id, digest, fields, vectors, checksum"
_TABLES = (
    """CREATE TABLE changes (sequence INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, digest BLOB, fields BLOB,
                             vectors BLOB, checksum INTEGER NOT NULL)""",
    "CREATE INDEX changes_by_digest ON changes (digest) WHERE digest IS NOT NULL",
    "CREATE TABLE thumbnails (digest BLOB PRIMARY KEY, thumbnail BLOB NOT NULL, checksum INTEGER NOT NULL)",
    """CREATE TABLE answers (number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, content BLOB NOT NULL,
                             answer BLOB NOT NULL, created INTEGER NOT NULL, bytes_so_far INTEGER NOT NULL,
                             checksum INTEGER NOT NULL)""",
    """CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), sequence INTEGER NOT NULL,
                           count INTEGER NOT NULL, sum INTEGER NOT NULL, checksum INTEGER NOT NULL)""",
    "INSERT INTO state VALUES (1, 0, 0, 0, 0)",
    f"PRAGMA user_version = {FORMAT}",
)


@dataclass(frozen=True, slots=True)
class State:
    """The last number, how many rows `changes` has, and the sum of their checksums."""

    sequence: int
    count: int
    sum: int

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> "State":
        row = connection.execute("SELECT sequence, count, sum, checksum FROM state").fetchone()
        if row is None or checksum_of(*(str(value).encode() for value in row[:3])) != row[3]:
            raise CorruptJournal("its state is damaged")
        return cls(*row[:3])

    def write(self, connection: sqlite3.Connection) -> None:
        values = (self.sequence, self.count, self.sum)
        checksum = checksum_of(*(str(value).encode() for value in values))
        connection.execute(
            "UPDATE state SET sequence = ?, count = ?, sum = ?, checksum = ?", (*values, checksum)
        )

    def replaced(self, new: Row, old_checksum: int | None) -> "State":
        """After a row that has the next number, in place of one with `old_checksum`."""
        added = (1, new[-1]) if old_checksum is None else (0, new[-1] - old_checksum)
        return replace(self, sequence=new[0], count=self.count + added[0], sum=self.sum + added[1])


def open_writer(path: Path) -> sqlite3.Connection:
    """A connection that commits durably; the file is made where there is none.

    Raises JournalFull, JournalFailed or CorruptJournal.
    """
    with told(path):
        connection = _connect(path, "mode=rwc")
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # these two count for a new file only
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
        except BaseException:
            connection.close()
            raise
    return connection


def create_tables(connection: sqlite3.Connection) -> None:
    """Within a transaction."""
    for statement in _TABLES:
        connection.execute(statement)
    State(0, 0, 0).write(connection)


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, also on a read-only file system. Raises JournalFailed or
    CorruptJournal.

    Without a log nobody writes: the file is then read as it is, for SQLite would make a log to read it
    otherwise.
    """
    alone = not log_of(path).exists()
    with told(path):
        return _connect(path, "mode=ro&immutable=1" if alone else "mode=ro")


RESTORE = (
    "bring it back from a copy. Without one, every change there ever was is given up by moving the folder "
    f"it lies in away and running `{ACCEPT_LOSS}`"
)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what SQLite raises within into CorruptJournal, JournalFull or JournalFailed with what to do."""
    try:
        yield
    except CorruptJournal as error:
        words = str(error)
        raise CorruptJournal(words if str(path) in words else f"{path}: {words}: {RESTORE}") from error
    except sqlite3.ProgrammingError:
        raise  # a fault of ours, and none of the file's
    except (sqlite3.Error, UnicodeDecodeError) as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code & 0xFF in _DAMAGED:
            raise CorruptJournal(f"{path} is damaged ({error}): {RESTORE}") from error
        if code in _FULL or (code in _PERHAPS_FULL and not has_room(path.parent, size_bytes=_largest(path))):
            raise JournalFull(
                f"there is no room in {path.parent}: free some on that disk, delete items, "
                "or run `python -m index compact`"
            ) from error
        name = getattr(error, "sqlite_errorname", "")
        raise JournalFailed(f"{path} cannot be used: {error} ({name})") from error


def verify(connection: sqlite3.Connection) -> State:
    """Read everything: pages, rows, their number. Raises CorruptJournal; call it within `told`."""
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        raise CorruptJournal(
            f"it is of format {found} and {FORMAT} is read: was it written by a newer version?"
        )
    problems = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
    if problems != ["ok"]:
        raise CorruptJournal("; ".join(map(str, problems)))
    state = State.read(connection)
    count = total = 0
    for _, checksum in rows_after(connection, 0):
        count += 1
        total += checksum
    if (count, total) != (state.count, state.sum):
        raise CorruptJournal(f"it holds {count} changes that are not the {state.count} it should hold")
    return state


def rows_after(connection: sqlite3.Connection, sequence: int) -> Iterator[tuple[Change, int]]:
    """Every change with a higher number, in order, with its checksum. Raises CorruptJournal."""
    query = f"SELECT {_COLUMNS} FROM changes WHERE sequence > ? ORDER BY sequence"  # noqa: S608 - a literal
    with closing(connection.execute(query, (sequence,))) as cursor:
        for row in cursor:
            yield from_row(row), row[-1]


def log_of(path: Path) -> Path:
    return path.with_name(path.name + WAL_SUFFIX)


def _connect(path: Path, options: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _largest(path: Path) -> int:
    """The size of the file or of its log, in bytes."""
    return max(file.stat().st_size if file.exists() else 0 for file in (path, log_of(path)))


def is_new(connection: sqlite3.Connection) -> bool:
    """Whether a kill, or nobody yet, came before the tables."""
    return not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
