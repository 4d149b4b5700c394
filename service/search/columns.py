"""The values of payload keys over all rows of a release: gathered in one pass when first asked for, then kept.

Knows nothing of a filter's form.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Scalar = str | bool | int | float
Bound = tuple[np.ufunc, float]
INLINE_ROWS = 20_000  # whose payloads are read within some 50 ms
MAX_KEPT = 64  # columns; a key of a release beyond them is gathered anew


class Column:
    """The values of one payload key, as lists of rows; `add` in row order, then `close`."""

    def __init__(self, rows: int) -> None:
        self.filled: Mask = np.zeros(rows, dtype=np.bool_)
        self._found: dict[tuple[str, Scalar], list[int]] = {}
        self._number_rows: list[int] = []
        self._numbers: list[float] = []
        self.close()

    def add(self, row: int, value: Any) -> None:
        for element in elements_of(value):
            self.filled[row] = True
            self._found.setdefault(token_of(element), []).append(row)
            number = number_of(element)
            if number is not None:
                self._number_rows.append(row)
                self._numbers.append(number)

    def close(self) -> None:
        """Turn what was added into arrays."""
        self._rows_of = {token: np.array(rows) for token, rows in self._found.items()}
        self._rows_with_number = np.array(self._number_rows, dtype=np.int64)
        self._number_of = np.array(self._numbers, dtype=np.float64)
        self._found, self._number_rows, self._numbers = {}, [], []

    def equal_any(self, wanted: Iterable[Scalar]) -> Mask:
        mask = np.zeros_like(self.filled)
        for value in wanted:
            found = self._rows_of.get(token_of(value))
            if found is not None:
                mask[found] = True
        return mask

    def within(self, bounds: Iterable[Bound]) -> Mask:
        """Rows with a number for which every comparison holds."""
        good = np.ones(len(self._number_of), dtype=np.bool_)
        for compare, bound in bounds:
            good &= compare(self._number_of, bound)
        mask = np.zeros_like(self.filled)
        mask[self._rows_with_number[good]] = True
        return mask


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
        if missing and len(self._items) > INLINE_ROWS:
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


def number_of(value: Scalar) -> float | None:
    """None for what is no number, or one beyond float64."""
    if isinstance(value, bool | str):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def token_of(value: Scalar) -> tuple[str, Scalar]:
    """True is not 1, though Python says so; 1 is 1.0."""
    return ("bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number", value)
