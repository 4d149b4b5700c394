"""Reading the changes beside some releases, also while a service writes there, and on a read-only disk."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

from index.errors import CorruptJournal
from index.journal.changes import Change
from index.journal.database import JOURNAL_NAME, State, is_new, log_of, open_reader, rows_after, told, verify
from index.journal.location import LIVE_NAME, read_acknowledged, refuse_earlier_form, refuse_loss

EMPTY = State(0, 0, 0)


@dataclass(frozen=True)
class Snapshot:
    """The last change of every id, up to number `sequence`; what comes later does not change it."""

    path: Path
    sequence: int
    _connection: Connection | None = None

    def changes(self, *, after: int = 0) -> Iterator[Change]:
        """Those with a higher number, in order. Raises CorruptJournal."""
        if self._connection is None:
            return
        with told(self.path):
            for change, _ in rows_after(self._connection, after):
                yield change


@contextmanager
def open_snapshot(releases: Path, *, known: int = 0, accept_loss: bool = False) -> Iterator[Snapshot]:
    """Read and check everything. `known`: the last change that any release holds.

    Raises CorruptJournal (also where changes are missing that were acknowledged or that a release holds, unless
    `accept_loss`), UnsupportedJournal, JournalFailed.
    """
    folder = releases / LIVE_NAME
    path = folder / JOURNAL_NAME
    refuse_earlier_form(folder)
    expected = (
        0 if accept_loss else max(read_acknowledged(releases), known)
    )  # first: a writer goes on meanwhile
    if not path.exists():
        refuse_loss(folder, 0, expected=expected)
        yield Snapshot(path, 0)
        return
    with _checked(path) as (connection, state):
        refuse_loss(folder, state.sequence, expected=expected)
        yield Snapshot(path, state.sequence, connection)


def last_sequence_of(releases: Path, item_id: str) -> int:
    """The number of the last change of an item as of now; 0 where there is none. Raises as `open_snapshot`."""
    path = releases / LIVE_NAME / JOURNAL_NAME
    with told(path), closing(open_reader(path)) as connection:
        row = connection.execute("SELECT sequence FROM changes WHERE id = ?", (item_id,)).fetchone()
    return row[0] if row else 0


@contextmanager
def _checked(path: Path) -> Iterator[tuple[Connection, State]]:
    """One transaction in which everything was read and found whole."""
    was_alone = not log_of(path).exists()
    connection = open_reader(path)
    try:
        try:
            state = _verify(connection, path)
        except CorruptJournal:
            if not (was_alone and log_of(path).exists()):
                raise
            connection.close()  # a writer began meanwhile, and this was no one state of the file
            connection = open_reader(path)
            state = _verify(connection, path)
        yield connection, state
    finally:
        connection.close()


def _verify(connection: Connection, path: Path) -> State:
    with told(path):
        connection.execute("BEGIN")
        return EMPTY if is_new(connection) else verify(connection)
