"""What the payloads of a release hold: each field with its kind, its common values, its range. For whoever
offers filters. Values are read as filters read them, so that every count is what that filter lets through.

Knows nothing of HTTP, nor of the form of a filter. Bounded in fields, values and items looked at.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from index.items import ItemTable
from service.search.columns import Scalar, elements_of, number_of, token_of

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
    minimum: float | None = None
    maximum: float | None = None
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
            "distinct": len(self.counts),
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


def count_fields(items: ItemTable) -> dict[str, Any]:
    """The fields in order of appearance, as the wire has them, and how many of the items were looked at."""
    tallies: dict[str, _Tally] = {}
    rows = range(0, len(items), -(-len(items) // MAX_ITEMS) or 1)
    for row in rows:
        for key, value in _leaves(items.payload(row)):
            if key in tallies or len(tallies) < MAX_FIELDS:
                tallies.setdefault(key, _Tally()).add(value)
    fields = [tally.report(key) for key, tally in tallies.items() if tally.filled]
    return {"items": len(items), "counted": len(rows), "fields": fields}


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
