"""Reading the changes beside the releases, also while a service writes there. Changes nothing on disk.

    live/snapshot-<n>.log   the last change of every id up to number n, then how many there are
    live/journal-<n>.log    the changes from number n on, until the next journal begins
    live/pictures/          see `index.live.pictures`

Numbers have twenty digits, so that names sort as they do. Knows nothing of encoders or releases.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from index.errors import CorruptJournal
from index.live.frames import Frames
from index.live.records import Change, from_bytes

LIVE_NAME = "live"
SNAPSHOT, JOURNAL = "snapshot", "journal"
_NAME = re.compile(r"(snapshot|journal)-(\d{20})\.log")
_LAST = b"\xff\xff\xff\xff"  # no record begins so: it would be of 4 GiB
_TRIES = 10  # a service that compacts takes files away while they are being opened


def file_name(kind: str, sequence: int) -> str:
    return f"{kind}-{sequence:020}.log"


@dataclass(frozen=True, slots=True)
class LiveFile:
    """`sequence`: of a snapshot, the last change in it; of a journal, the first."""

    path: Path
    kind: str
    sequence: int


def live_files(folder: Path) -> tuple[list[LiveFile], list[LiveFile]]:
    """What counts, in order: the newest snapshot, then the journals behind it; and what it made needless."""
    if not folder.is_dir():
        return [], []
    found = sorted((path.name, path) for path in folder.iterdir() if _NAME.fullmatch(path.name))
    files = [LiveFile(path, name.partition("-")[0], int(name[-24:-4])) for name, path in found]
    snapshots = [file for file in files if file.kind == SNAPSHOT]
    journals = [file for file in files if file.kind == JOURNAL]
    # Compaction begins a new journal first, so that every journal lies before a snapshot's end or behind it.
    covered = snapshots[-1].sequence if snapshots else 0
    behind = [file for file in journals if file.sequence > covered]
    needless = [file for file in (*snapshots[:-1], *journals) if file not in behind]
    return [*snapshots[-1:], *behind], needless


class LiveReader:
    """All changes on disk, oldest first; of an id that changed several times there may be several.

    Iterating raises CorruptJournal for damage, and for a number that is missing. A torn tail of the last
    journal is passed over: it was never acknowledged, or is being written just now.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sequence = 0
        """The number of the last change; known once all were read."""
        self.tail: tuple[Path, int] | None = None
        """A journal with a torn tail, and how many of its bytes are whole."""

    def __iter__(self) -> Iterator[Change]:
        with ExitStack() as stack:
            opened = self._open(stack)
            for place, (file, stream) in enumerate(opened):
                is_last = place == len(opened) - 1
                yield from self._read(file, stream, may_be_torn=is_last and file.kind == JOURNAL)

    def _open(self, stack: ExitStack) -> list[tuple[LiveFile, BinaryIO]]:
        for left in reversed(range(_TRIES)):
            opening = ExitStack()
            try:
                files = live_files(self._folder)[0]
                opened: list[tuple[LiveFile, BinaryIO]] = [
                    (file, opening.enter_context(file.path.open("rb"))) for file in files
                ]
            except FileNotFoundError as error:
                opening.close()
                if not left:
                    raise CorruptJournal(
                        f"{self._folder}: {error.filename} is gone whenever it is opened"
                    ) from error
            else:
                stack.push(opening.pop_all())
                return opened
        raise AssertionError

    def _read(self, file: LiveFile, stream: BinaryIO, *, may_be_torn: bool) -> Iterator[Change]:
        if file.kind == JOURNAL and file.sequence > self.sequence + 1:
            raise CorruptJournal(
                f"{file.path} begins with change {file.sequence}, and those after {self.sequence} are missing: "
                "bring back the file that held them"
            )
        frames = Frames(stream, file.path)
        read = _snapshot(frames, file.path) if file.kind == SNAPSHOT else _journal(frames, file)
        for change in read:
            self.sequence = change.sequence
            yield change
        self.sequence = max(self.sequence, file.sequence - (file.kind == JOURNAL))
        if frames.torn:
            if not may_be_torn:
                raise CorruptJournal(f"{file.path} ends in the middle of a frame, at byte {frames.whole_bytes}")
            self.tail = file.path, frames.whole_bytes


def _journal(frames: Frames, file: LiveFile) -> Iterator[Change]:
    expected = file.sequence
    for body in frames:
        for change in from_bytes(body):
            if change.sequence != expected:
                raise CorruptJournal(f"{file.path}: change {change.sequence} where {expected} should be")
            expected += 1
            yield change


def _snapshot(frames: Frames, path: Path) -> Iterator[Change]:
    count = promised = 0
    for body in frames:
        if body.startswith(_LAST):
            promised = int(body[len(_LAST) :]) + 1
            continue
        for change in from_bytes(body):
            count += 1
            yield change
    if promised != count + 1:
        raise CorruptJournal(f"{path} holds {count} changes and should hold {promised - 1}: it was cut")


def snapshot_end(count: int) -> bytes:
    """The body of a snapshot's last frame: that it is complete, and how many changes it holds."""
    return _LAST + str(count).encode()
