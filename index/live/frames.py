"""Frames: what is written to a journal at once, so that it is found again whole or not at all.

    magic (4) · length of the body (4) · CRC-32 of the body (4) · CRC-32 of these 12 bytes (4) · body · END (1)

All little-endian. A kill or a power cut can only leave the last frame unfinished: cut short, or ending in
zeros where its blocks were never written. That is a torn tail. Anything else that does not fit is damage: a
frame that was acknowledged once, and it must never be dropped in silence. Knows nothing of what a body holds.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from index.errors import CorruptJournal

MAGIC = b"TLJ1"
END = b"\xa5"  # not zero, so that a body whose last block was never written is told from a changed one
MAX_BODY_BYTES = 2**31
_HEAD = struct.Struct("<4sII")
_SUM = struct.Struct("<I")
HEADER_BYTES = _HEAD.size + _SUM.size


def frame(body: bytes) -> bytes:
    """Raises ValueError for a body that would not be read again."""
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes, and {MAX_BODY_BYTES} are read again")
    head = _HEAD.pack(MAGIC, len(body), zlib.crc32(body))
    return b"".join((head, _SUM.pack(zlib.crc32(head)), body, END))


class Frames:
    """Reads the frames of a file in order; `whole_bytes` is where the last one that was whole ended."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.whole_bytes = 0
        self.torn = False
        """Whether an unfinished frame follows; known once all were read."""

    def __iter__(self) -> Iterator[bytes]:
        """Bodies; ends before a torn tail. Raises CorruptJournal."""
        self._file.seek(self.whole_bytes)
        while header := self._file.read(HEADER_BYTES):
            body = self._body(header)
            if body is None:
                self.torn = True
                return
            self.whole_bytes += HEADER_BYTES + len(body) + len(END)
            yield body

    def _body(self, header: bytes) -> bytes | None:
        if len(header) < HEADER_BYTES:
            return None
        head, checksum = header[: _HEAD.size], _SUM.unpack(header[_HEAD.size :])[0]
        magic, length, body_checksum = _HEAD.unpack(head)
        if magic != MAGIC or zlib.crc32(head) != checksum or length > MAX_BODY_BYTES:
            if self._zeros_follow(header):
                return None
            raise self._corrupt("its header was changed")
        body, end = self._file.read(length), self._file.read(len(END))
        if len(body) < length or not end:
            return None
        if zlib.crc32(body) == body_checksum and end == END:
            return body
        if end == bytes(len(END)) and self._zeros_follow(end):
            return None
        raise self._corrupt("its content was changed")

    def _zeros_follow(self, start: bytes) -> bool:
        """Whether `start` and all behind it is zeros: room in the file that was never written."""
        block = start
        while block:
            if block.strip(b"\0"):
                return False
            block = self._file.read(1 << 20)
        return True

    def _corrupt(self, what: str) -> CorruptJournal:
        return CorruptJournal(
            f"{self._path}: the frame at byte {self.whole_bytes} is damaged, {what}. Changes that were "
            "acknowledged are in it: bring the file back from a copy. Without one, every change there ever was "
            f"is given up by taking all *.log files out of {self._path.parent}"
        )
