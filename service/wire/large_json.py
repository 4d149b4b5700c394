"""Large JSON: counted before it is parsed, and parsed in parts, so that nobody else waits meanwhile.

pydantic's parser holds the interpreter's lock from beginning to end: half a second for four million strings, a
tenth for an image of 64 MiB in base64. Here large JSON is cut at its commas, and each part is parsed by that
same parser. (ijson parses in parts too, but reads numbers in another way, and does not cut strings.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from service.errors import TooLarge

PART_BYTES = 1 << 20  # parsed at once: 1.4 ms of plain text, 4 of escapes
PART_MARKS = 50_000  # brackets, commas and colons in it: 3 ms
MAX_DEPTH = 200  # as pydantic's parser has it
MAX_TEXT_BYTES = 32 << 20  # of one string, which is one piece of memory in the end: 15 ms
SCANNED_BYTES = 1 << 18  # at once; an escape takes up to 12 bytes, which is the least
_ESCAPE_BYTES = 12  # of the longest, a surrogate pair: \ud83d\ude00
_HIGH_SURROGATES = (b"\\ud8", b"\\ud9", b"\\uda", b"\\udb")
_SPACE = b" \t\r\n"
_OPENING, _CLOSING = b"[{", b"]}"
_STEPS = np.zeros(256, dtype=np.int8)  # by which a sign changes the depth
_STEPS[list(_OPENING)], _STEPS[list(_CLOSING)] = 1, -1
_IS_MARK = _STEPS != 0
_IS_MARK[list(b",:")] = True


@dataclass(frozen=True, slots=True)
class Bounds:
    """Most values, and most lists, objects and fields, of one JSON text."""

    values: int
    parts: int


def parse_large(data: bytes, *, bounds: Bounds) -> Any:
    """Parse JSON as pydantic does. Raises TooLarge, mostly before anything is parsed, and ValueError."""
    marks = _Marks.of(data, bounds)
    return _Parser(data, marks).value(0, len(data))


@dataclass(frozen=True, slots=True)
class _Marks:
    """The brackets, commas and colons outside strings, in order: where each is, which, and how deep.

    A bracket is as deep as what it encloses from outside; a comma or colon, one deeper than its own brackets.
    """

    places: NDArray[np.int64]
    signs: NDArray[np.uint8]
    depths: NDArray[np.int16]

    @classmethod
    def of(cls, data: bytes, bounds: Bounds) -> "_Marks":
        found, counts = [], np.zeros(256, dtype=np.int64)
        for places, signs in _scan(data):
            found.append((places, signs))
            counts += np.bincount(signs, minlength=256)
            _refuse_crowded(counts, bounds)
        places = np.concatenate([places for places, _ in found] or [np.zeros(0, dtype=np.int64)])
        signs = np.concatenate([signs for _, signs in found] or [np.zeros(0, dtype=np.uint8)])
        steps = _STEPS[signs]
        after = np.cumsum(steps, dtype=np.int32)
        if len(after) and (after.min() < 0 or after[-1] != 0):
            raise ValueError("a bracket has no other one that closes or opens it")
        if len(after) and after.max() > MAX_DEPTH:
            raise ValueError(f"lists and objects are nested more than {MAX_DEPTH} deep")
        return cls(places, signs, (after - (steps > 0)).astype(np.int16))


def _refuse_crowded(counts: NDArray[np.int64], bounds: Bounds) -> None:
    """A value costs up to fifty times its bytes, a list or an object up to a hundred times. Raises TooLarge."""
    parts = int(counts[list(b"[{:")].sum())
    values = int(counts[ord(",")]) + 1
    if parts > bounds.parts or values > bounds.values:
        raise TooLarge(
            f"the JSON has at least {parts} lists, objects and fields and {values} values, and {bounds.parts} "
            f"and {bounds.values} are taken here: send less at once"
        )


def _scan(data: bytes) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """The marks of one stretch after another: their places and signs. NumPy lets go of the lock meanwhile."""
    within_string, escaped = False, False
    for start in range(0, len(data), SCANNED_BYTES):
        stretch = data[start : start + SCANNED_BYTES]
        if escaped:  # by the last byte of the stretch before
            stretch = b"_" + stretch[1:]
        if b"\\" in stretch:
            stretch = stretch.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        escaped = stretch.endswith(b"\\")
        signs = np.frombuffer(stretch, dtype=np.uint8)
        quotes = np.flatnonzero(signs == ord('"'))
        marks = np.flatnonzero(_IS_MARK[signs])
        quotes_before = np.searchsorted(quotes, marks) + within_string
        marks = marks[quotes_before % 2 == 0]
        within_string = bool((len(quotes) + within_string) % 2)
        yield marks + start, signs[marks]


class _Parser:
    """Values of one text, each by where it starts and ends in it. Raises ValueError throughout."""

    def __init__(self, data: bytes, marks: _Marks) -> None:
        self._data, self._marks = data, marks

    def value(self, start: int, end: int) -> Any:
        """The one value that stands between these places, with nothing but white space around it."""
        first, last = self._index(start), self._index(end) - 1  # of the marks in it
        if end - start <= PART_BYTES and last - first < PART_MARKS:
            return self._parse(self._data[start:end], start)
        start, end = self._stripped(start, end)
        if last < first:
            if self._data[start : start + 1] == b'"' == self._data[end - 1 : end] and end - start > 1:
                return self._string(start + 1, end - 1)
            return self._parse(self._data[start:end], start)  # a long number
        if not self._is_one(first, last, start, end):
            raise ValueError(f"more than one value, or none, at byte {start}")
        is_list = self._data[start : start + 1] == b"["
        if self._stripped(start + 1, end - 1) == (end - 1, end - 1):
            return [] if is_list else {}
        return self._list(first, last) if is_list else self._object(first, last)

    def _list(self, first: int, last: int) -> list[Any]:
        """`first`, `last`: the marks that are its brackets."""
        found: list[Any] = []
        for start, end, is_one in self._parts(first, last):
            if is_one:
                found.append(self.value(start, end))
            else:
                found += self._filled(start, end, b"[", b"]")
        return found

    def _object(self, first: int, last: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for start, end, is_one in self._parts(first, last):
            if not is_one:
                found.update(self._filled(start, end, b"{", b"}"))
                continue
            inner = slice(self._index(start), self._index(end))
            at = self._marks.depths[first] + 1
            colons = (self._marks.signs[inner] == ord(":")) & (self._marks.depths[inner] == at)
            if not colons.any():
                raise ValueError(f"a field without a colon at byte {start}")
            colon = int(self._marks.places[inner][colons.argmax()])
            key = self.value(start, colon)
            if not isinstance(key, str):
                raise ValueError(f"a field whose name is no string at byte {start}")
            found[key] = self.value(colon + 1, end)
        return found

    def _filled(self, start: int, end: int, opening: bytes, closing: bytes) -> Any:
        """Some elements, of which there must be one at least: between two commas something must stand."""
        found = self._parse(opening + self._data[start:end] + closing, start)
        if not found:
            raise ValueError(f"nothing where a value was expected at byte {start}")
        return found

    def _parts(self, first: int, last: int) -> Iterator[tuple[int, int, bool]]:
        """Stretches from comma to comma, as long as may be parsed at once; True: one element that is longer."""
        places, depths = self._marks.places, self._marks.depths
        inner = slice(first + 1, last)
        is_comma = (depths[inner] == depths[first] + 1) & (self._marks.signs[inner] == ord(","))
        edges = np.append(np.flatnonzero(is_comma) + first + 1, last)  # the marks at which an element ends
        ends = places[edges]
        at, start, mark = 0, int(places[first]) + 1, first
        while at < len(edges):
            by_bytes = int(np.searchsorted(ends, start + PART_BYTES, side="right"))
            by_marks = int(np.searchsorted(edges, mark + PART_MARKS, side="right"))
            stop = max(at + 1, min(by_bytes, by_marks))
            end, edge = int(ends[stop - 1]), int(edges[stop - 1])
            yield start, end, end - start > PART_BYTES or edge - mark > PART_MARKS
            at, start, mark = stop, end + 1, edge

    def _string(self, start: int, end: int) -> str:
        """What stands between the quotes; in parts that cut no character and no escape."""
        if end - start > MAX_TEXT_BYTES:
            raise TooLarge(
                f"a text in the JSON has {end - start} bytes and {MAX_TEXT_BYTES} are taken: "
                "send an image as it is, as body or form"
            )
        parts: list[str] = []
        at, is_plain = start, True
        while at < end:
            stop = end if end - at <= PART_BYTES else self._safe_cut(at, at + PART_BYTES)
            parts.append(self._parse(b'"' + self._data[at:stop] + b'"', at))
            is_plain = is_plain and len(parts[-1]) == stop - at
            at = stop
        if not is_plain:
            return "".join(parts)
        del parts  # half the memory, and half the time with the lock held
        return str(memoryview(self._data)[start:end], "ascii")

    def _safe_cut(self, start: int, cut: int) -> int:
        """The last place up to `cut` that is within no character and no escape."""
        for _ in range(3):
            cut -= self._data[cut] & 0xC0 == 0x80  # within a character of up to four bytes
        slash = self._data.rfind(b"\\", cut - _ESCAPE_BYTES, cut)
        if slash < 0:
            return cut
        if not self._begins_escape(start, slash):  # it is the second of two
            return slash + 1
        before = slash - _ESCAPE_BYTES // 2
        if self._data[before : before + 4].lower() in _HIGH_SURROGATES and self._begins_escape(start, before):
            return before  # the pair stays one
        return slash

    def _begins_escape(self, start: int, slash: int) -> bool:
        """Whether the backslash there is no escaped one; `start` is within no escape."""
        run = self._data[start : slash + 1]
        return (len(run) - len(run.rstrip(b"\\"))) % 2 == 1

    def _parse(self, part: bytes, start: int) -> Any:
        try:
            return from_json(part)
        except ValueError as error:
            words = str(error).partition(" at line ")[0]
            raise ValueError(f"{words}, at or after byte {start}") from error

    def _is_one(self, first: int, last: int, start: int, end: int) -> bool:
        """Whether these marks are the brackets of all that stands between `start` and `end`."""
        places, depths = self._marks.places, self._marks.depths
        if places[first] != start or places[last] != end - 1:
            return False
        if self._data[start : start + 1] + self._data[end - 1 : end] not in (b"[]", b"{}"):
            return False
        return bool(np.all(depths[first + 1 : last] > depths[first]))

    def _index(self, place: int) -> int:
        return int(np.searchsorted(self._marks.places, place))

    def _stripped(self, start: int, end: int) -> tuple[int, int]:
        """Without white space around it; some at a time, as a text may be all white space."""
        while start < end:
            piece = self._data[start : min(end, start + PART_BYTES)]
            start += len(piece) - len(piece.lstrip(_SPACE))
            if piece.lstrip(_SPACE):
                break
        while start < end:
            piece = self._data[max(start, end - PART_BYTES) : end]
            end -= len(piece) - len(piece.rstrip(_SPACE))
            if piece.rstrip(_SPACE):
                break
        return start, end
