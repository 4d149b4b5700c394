"""What the payloads of a gallery hold: each field with its kind, its common values, its range. For whoever
offers filters. Values are read as filters read them, so that every count is what that filter lets through.
A release is counted once; what is laid over it is then added and taken off.

Bounded in fields, values and items looked at.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from index.items import ItemTable
from service.search.columns import Number, Scalar, elements_of, number_of, token_of

T = TypeVar("T")
MAX_ITEMS = 200_000  # read in about a second; of more, as many are looked at, evenly spread
MAX_FIELDS = 64
MAX_VALUES = 50  # of one field, the most common ones
MAX_DISTINCT = 10_000  # values that are told apart in one field; it bounds memory
MAX_VALUE_CHARACTERS = 100  # what is longer is prose, and nobody's filter
REPEATING = 0.1  # share of a field's items that common values must hold: titles repeat by chance too


@dataclass(slots=True)
class _Tally:
    """One field while its items are counted."""

    filled: int = 0
    kinds: set[str] = field(default_factory=set)
    counts: Counter[tuple[str, Scalar]] = field(default_factory=Counter)
    minimum: Number | None = None
    maximum: Number | None = None
    overflowed: bool = False

    def add(self, value: Any) -> None:
        """The value of one item; the same twice in a list counts once."""
        elements = {token_of(element): element for element in elements_of(value)}
        self.filled += bool(elements)
        for token, element in elements.items():
            self.kinds.add(token[0])
            self._count(token)
            number = number_of(element)
            if number is not None:
                self.minimum = number if self.minimum is None else min(self.minimum, number)
                self.maximum = number if self.maximum is None else max(self.maximum, number)

    def remove(self, value: Any) -> None:
        """What was added before. Its kind and the range stay: which other value has them is not known."""
        tokens = {token_of(element) for element in elements_of(value)}
        self.filled -= bool(tokens)
        self.counts.subtract(tokens & self.counts.keys())

    def copy(self) -> "_Tally":
        return replace(self, kinds=set(self.kinds), counts=self.counts.copy())

    def _count(self, token: tuple[str, Scalar]) -> None:
        if token in self.counts or len(self.counts) < MAX_DISTINCT:
            self.counts[token] += 1
        else:
            self.overflowed = True

    def report(self, key: str) -> dict[str, Any]:
        return {
            "key": key,
            "kind": next(iter(self.kinds)) if len(self.kinds) == 1 else "mixed",
            "filled": self.filled,
            "distinct": sum(count > 0 for count in self.counts.values()),
            "more_distinct": self.overflowed,
            "values": self._common(),
            "minimum": self.minimum,
            "maximum": self.maximum,
        }

    def _common(self) -> list[dict[str, Any]]:
        """The values that repeat, most common first; none where nearly every item has its own."""
        common = [
            (value, count)
            for (_, value), count in sorted(self.counts.items(), key=_by_count)[:MAX_VALUES]
            if count > 1 and (not isinstance(value, str) or len(value) <= MAX_VALUE_CHARACTERS)
        ]
        held = sum(count for _, count in common)
        if held < REPEATING * self.filled:
            return []
        return [{"value": value, "count": count} for value, count in common]


def _by_count(counted: tuple[tuple[str, Scalar], int]) -> tuple[int, str]:
    (_, value), count = counted
    return -count, str(value)


class FieldCounts:
    """The fields of a release's items, counted when first asked for and then kept. Thread-safe."""

    def __init__(self, items: ItemTable) -> None:
        self._items = items
        self._step = -(-len(items) // MAX_ITEMS) or 1
        self._rows = range(0, len(items), self._step)  # that are looked at
        self._lock = threading.Lock()
        self._tallies: dict[str, _Tally] | None = None

    def report(self, *, hidden: Sequence[int] = (), added: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The fields in order of appearance, as the wire has them, and how many of the items were looked at.

        Of the release without the rows `hidden`, and with items of the payloads `added`.
        """
        tallies = {key: tally.copy() for key, tally in self._of_release().items()}
        gone, more = [row for row in hidden if row in self._rows], added[:: self._step]
        for row in gone:
            for key, value in _leaves(self._items.payload(row)):
                if key in tallies:
                    tallies[key].remove(value)
        for payload in more:
            _count(tallies, payload)
        return {
            "items": len(self._items) - len(hidden) + len(added),
            "counted": len(self._rows) - len(gone) + len(more),
            "fields": [tally.report(key) for key, tally in tallies.items() if tally.filled],
        }

    def _of_release(self) -> dict[str, _Tally]:
        with self._lock:
            if self._tallies is None:
                tallies: dict[str, _Tally] = {}
                for row in self._rows:
                    _count(tallies, self._items.payload(row))
                self._tallies = tallies
            return self._tallies


def _count(tallies: dict[str, _Tally], payload: Mapping[str, Any]) -> None:
    for key, value in _leaves(payload):
        if key in tallies or len(tallies) < MAX_FIELDS:
            tallies.setdefault(key, _Tally()).add(value)


def _leaves(payload: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value), what lies in objects as a.b; a list is one value, of which each element may match."""
    for key, value in payload.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{path}", inner) for path, inner in _leaves(value))
        else:
            yield key, value


class Once(Generic[T]):
    """The result of `work`, done in a pool when first asked for and then kept; event loop only."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: asyncio.Future[T] | None = None

    async def get(self, pool: Executor) -> T:
        """Raises what `work` raised; the next caller tries again."""
        if self._result is None or (self._result.done() and _failed(self._result)):
            self._result = asyncio.get_running_loop().run_in_executor(pool, self._work)
        return await asyncio.shield(self._result)  # a caller that leaves must not take it from the others


def _failed(result: asyncio.Future[T]) -> bool:
    return result.cancelled() or result.exception() is not None
