"""The values of payload keys over all rows of a release: gathered in one pass when first used, then kept."""

import math
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Scalar = str | bool | int | float
Number = int | float
Bound = tuple[Callable[[Any, Any], Any], Number]
"""An operator (as `operator.gt`) and what a number is compared with."""
INLINE_VALUES = 20_000  # of all keys that are asked for together: read within some 50 ms
MAX_KEPT = 64  # columns; a key of a release beyond them is gathered anew
MAX_REST = 1 << 14  # more than an integer of 64 bits is away from the nearest float64: 2^10 at most
DIGEST_BYTES = 16  # of a value: what it is known by, so that a title of each of a million items costs 32 MB


class Column:
    """The values of one payload key, by row; `add` in row order, then `close`. 8 to 50 bytes a value."""

    def __init__(self, rows: int) -> None:
        self.filled: Mask = np.zeros(rows, dtype=np.bool_)  # neither null nor an empty list
        self._digests = bytearray()
        self._digest_rows = array("q")
        self._number_rows = array("q")
        self._numbers = array("d")
        self._rests = array("h")
        self.close()

    def add(self, row: int, value: Any) -> None:
        """A value that stands twice in a list counts once."""
        self.filled[row] = value is not None and value != []
        for digest, element in {digest_of(element): element for element in elements_of(value)}.items():
            self._digests += digest
            self._digest_rows.append(row)
            number = number_of(element)
            if number is not None:
                nearest, rest = _split(number)
                self._number_rows.append(row)
                self._numbers.append(nearest)
                self._rests.append(rest)

    def close(self) -> None:
        """Turn what was added into arrays: value i has the rows `_rows[_bounds[i] : _bounds[i + 1]]`."""
        digests = np.frombuffer(bytes(self._digests), dtype=f"S{DIGEST_BYTES}")
        order = np.argsort(digests, kind="stable")
        self._values, starts = np.unique(digests[order], return_index=True)
        self._bounds = np.append(starts, len(digests))
        self._rows: Rows = np.array(self._digest_rows, dtype=np.int64)[order]
        self._rows_with_number: Rows = np.array(self._number_rows, dtype=np.int64)
        self._number_of = np.array(self._numbers, dtype=np.float64)
        self._rest_of = np.array(self._rests, dtype=np.int16)
        self._digests = bytearray()
        self._digest_rows, self._number_rows = array("q"), array("q")
        self._numbers, self._rests = array("d"), array("h")

    def equal_any(self, wanted: Iterable[Scalar]) -> Mask:
        """Rows with at least one of these values."""
        mask = np.zeros_like(self.filled)
        for rows in self._rows_of(wanted):
            mask[rows] = True
        return mask

    def has_other(self, unwanted: Iterable[Scalar]) -> Mask:
        """Rows with at least one value that is none of these."""
        left = np.bincount(self._rows, minlength=len(self.filled))
        for rows in self._rows_of(unwanted):
            left[rows] -= 1
        other: Mask = left > 0
        return other

    def within(self, bounds: Iterable[Bound]) -> Mask:
        """Rows with a number for which every comparison holds, exactly: between float64s integers go on."""
        good = np.ones(len(self._number_of), dtype=np.bool_)
        for compare, bound in bounds:
            nearest, rest = _split(bound)
            holds = compare(self._number_of, nearest)
            same = self._number_of == nearest
            holds[same] = compare(self._rest_of[same], rest)
            good &= holds
        mask = np.zeros_like(self.filled)
        mask[self._rows_with_number[good]] = True
        return mask

    def _rows_of(self, values: Iterable[Scalar]) -> Iterator[Rows]:
        """The rows of each value that there is; a value given twice comes once."""
        for digest in {digest_of(value) for value in values}:
            place = int(np.searchsorted(self._values, digest))
            if place < len(self._values) and self._values[place] == digest.rstrip(b"\0"):
                yield self._rows[self._bounds[place] : self._bounds[place + 1]]


class Payloads(Protocol):
    """The payloads of some items, in the order of their rows."""

    def __len__(self) -> int: ...

    def payloads(self) -> Iterator[dict[str, Any]]: ...


class NotGathered(Exception):
    """Columns are asked for that take long to gather: call `gather` where no search waits, then ask again."""

    def __init__(self, gather: Callable[[], None]) -> None:
        super().__init__("the payloads have yet to be read for this filter")
        self.gather = gather


class Columns:
    """The columns of some items. A key that no payload has costs nothing, so asking for many is no way to
    keep the search thread busy; nor is a new key of a large gallery. Thread-safe."""

    def __init__(self, items: Payloads) -> None:
        self._items = items
        self._empty = Column(len(items))
        self._keys: frozenset[str] | None = None  # of all payloads, nested ones as a.b; None: not looked yet
        self._kept: OrderedDict[str, Column] = OrderedDict()
        self._lock = threading.Lock()
        self._gathering = threading.Lock()  # one at a time: who comes second may find what it wants

    def of(self, keys: Collection[str]) -> Mapping[str, Column]:
        """The column of each key. Raises NotGathered where that means reading very many payloads."""
        found, missing = self._known(keys)
        if missing and len(self._items) * len(missing) > INLINE_VALUES:
            raise NotGathered(partial(self._gather_missing, frozenset(keys)))
        if missing:
            found.update(self._gather(missing))
        return found

    def _gather_missing(self, keys: Collection[str]) -> None:
        with self._gathering:
            _, missing = self._known(keys)
            if missing:
                self._gather(missing)

    def _known(self, keys: Collection[str]) -> tuple[dict[str, Column], set[str]]:
        """The columns that there are, and the keys of those that have yet to be gathered."""
        with self._lock:
            return self._look_up(keys)

    def _look_up(self, keys: Collection[str]) -> tuple[dict[str, Column], set[str]]:
        found: dict[str, Column] = {}
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
        missing = {key for key in keys if key not in found}
        if self._keys is not None:
            found.update(dict.fromkeys(missing - self._keys, self._empty))
            missing &= self._keys
        return found, missing

    def _gather(self, keys: Collection[str]) -> dict[str, Column]:
        """One pass over the payloads for all keys together."""
        columns = {key: Column(len(self._items)) for key in keys}
        seen: set[str] = set()
        look_for_keys = self._keys is None
        for row, payload in enumerate(self._items.payloads()):
            if look_for_keys:
                seen.update(_paths(payload))
            for key, column in columns.items():
                column.add(row, _reach(payload, key))
        for column in columns.values():
            column.close()
        with self._lock:
            self._keep(columns, seen)
        return columns

    def _keep(self, columns: Mapping[str, Column], seen: set[str]) -> None:
        if self._keys is None:
            self._keys = frozenset(seen)
        self._kept.update((key, column) for key, column in columns.items() if key in self._keys)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)


def _paths(payload: Mapping[str, Any]) -> Iterator[str]:
    for key, value in payload.items():
        yield key
        if isinstance(value, dict):
            yield from (f"{key}.{path}" for path in _paths(value))


def _reach(payload: dict[str, Any], key: str) -> Any:
    if key in payload:
        return payload[key]
    value: Any = payload
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def elements_of(value: Any) -> Iterator[Scalar]:
    for element in value if isinstance(value, list) else (value,):
        if isinstance(element, str | bool | int | float) and not (
            isinstance(element, float) and math.isnan(element)
        ):
            yield element


def number_of(value: Scalar) -> Number | None:
    """None for what is no number, or an integer beyond 64 bits: payloads hold those as text."""
    if isinstance(value, bool | str):
        return None
    return value if isinstance(value, float) or -(1 << 63) <= value < 1 << 64 else None


def _split(number: Number) -> tuple[float, int]:
    """The nearest float64, and what is left of an integer then: they sort as the numbers do."""
    try:
        nearest = float(number)
    except OverflowError:
        return (math.inf if number > 0 else -math.inf), 0
    rest = number - int(nearest) if isinstance(number, int) else 0
    return nearest, max(-MAX_REST, min(rest, MAX_REST))


def token_of(value: Scalar) -> tuple[str, Scalar]:
    """True is not 1, though Python says so; 1 is 1.0."""
    return ("bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number", value)


def digest_of(value: Scalar) -> bytes:
    """What a column knows a value by: the same for the same token."""
    kind, content = token_of(value)
    if isinstance(content, float) and content.is_integer():
        content = int(content)
    text = content if isinstance(content, str) else repr(content)
    return blake2b(f"{kind} {text}".encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
