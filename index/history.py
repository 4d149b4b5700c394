"""What was current, in order: the way back that a rollback takes.

`HISTORY` beside the releases has one id a line, the current one last. A publication adds a line, and so does
a rollback to a named release. Any other rollback takes away the lines that it goes back over, so that the next
one goes further back.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from encoders.folders import staged_file
from index.catalog import CURRENT_NAME, current_release_id, is_release_id, release_ids
from index.errors import CorruptRelease, NoRelease

HISTORY_NAME = "HISTORY"
KEPT = 1000  # ids, 24 bytes each

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class History:
    """Ids of what was current, oldest first. `current` is the last; None where `CURRENT` names no release."""

    ids: tuple[str, ...]
    current: str | None


def read_history(releases: Path) -> History:
    """The history as `CURRENT` bears it out: that is what counts, and it may have been changed by hand."""
    recorded = _recorded(releases)
    try:
        current = current_release_id(releases)
    except NoRelease:
        return History(recorded or (), None)
    except CorruptRelease:
        return History(tuple(release_ids(releases)) if recorded is None else recorded, None)
    if recorded is None:  # an earlier version kept none: the order of their making has to do
        recorded = tuple(each for each in release_ids(releases) if each < current)
    if recorded[-1:] == (current,):
        return History(recorded, current)
    if recorded[-2:-1] == (current,):  # a change was cut short, or CURRENT was set back by hand
        return History(recorded[:-1], current)
    return History((*recorded, current), current)


@contextmanager
def next_current(releases: Path, ids: tuple[str, ...]) -> Iterator[Callable[[], None]]:
    """Calling what is given makes the last of `ids` current, and them its history; it needs no more room.

    Needs the lock on changes. The history is replaced first: a kill in between is seen from `CURRENT`, which is
    behind by one.
    """
    kept = ids[-KEPT:]
    history = "".join(f"{each}\n" for each in kept)
    with (
        staged_file(releases / HISTORY_NAME, history.encode()) as replace_history,
        staged_file(releases / CURRENT_NAME, f"{kept[-1]}\n".encode()) as replace_current,
    ):

        def switch() -> None:
            replace_history()
            replace_current()

        yield switch


def make_current(releases: Path, ids: tuple[str, ...]) -> None:
    """Make the last of `ids` current, and them its history. Needs the lock on changes."""
    with next_current(releases, ids) as switch:
        switch()


def _recorded(releases: Path) -> tuple[str, ...] | None:
    """The ids in the file; None where there is no file."""
    try:
        lines = (releases / HISTORY_NAME).read_text("utf-8", errors="replace").split()
    except FileNotFoundError:
        return None
    sound = tuple(line for line in lines if is_release_id(line))
    if len(sound) < len(lines):
        _log.warning("%s holds what is no id of a release; it is left out", releases / HISTORY_NAME)
    return sound
