"""The values of payload keys over all rows of a release: gathered in one pass when first asked for, then kept.

Knows nothing of a filter's form. Not thread-safe: the search thread owns it.
"""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Scalar = str | bool | int | float
Bound = tuple[np.ufunc, float]
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


class Columns:
    """The columns of one release. A key that no payload has costs nothing, so asking for many is no way to
    keep the search thread busy."""

    def __init__(self, items: Payloads) -> None:
        self._items = items
        self._empty = Column(len(items))
        self._keys: frozenset[str] | None = None  # of all payloads, nested ones as a.b; None: not looked yet
        self._kept: OrderedDict[str, Column] = OrderedDict()

    def of(self, keys: Collection[str]) -> Mapping[str, Column]:
        """The column of each key; at most one pass over the payloads for all of them together."""
        found: dict[str, Column] = {}
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)
                found[key] = self._kept[key]
        missing = {key for key in keys if key not in found}
        if self._keys is not None:
            found.update(dict.fromkeys(missing - self._keys, self._empty))
            missing &= self._keys
        if missing:
            found.update(self._gather(missing))
        return found

    def _gather(self, keys: Collection[str]) -> dict[str, Column]:
        columns = {key: Column(len(self._items)) for key in keys}
        seen: set[str] = set()
        for row, payload in enumerate(self._items.payloads()):
            if self._keys is None:
                seen.update(_paths(payload))
            for key, column in columns.items():
                column.add(row, _reach(payload, key))
        if self._keys is None:
            self._keys = frozenset(seen)
        for key, column in columns.items():
            column.close()
            if key in self._keys:
                self._kept[key] = column
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return columns


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
