"""Qdrant's filters over the payloads of a release, as exact masks over its rows.

`{"must": […], "should": […], "must_not": […]}`, nested at will, of conditions on a payload key: match (value,
any, except), range (gt, gte, lt, lte), is_empty, and has_id. A payload value that is a list matches when one of
its elements does: by `except`, when one is none of those. `a.b` reaches into objects; empty is what is missing,
null or `[]`. Numbers are compared exactly, as Python compares them; truth values are none. What one filter may
ask for is bounded. Form: https://qdrant.tech/documentation/concepts/filtering/.
"""

import math
import operator
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from encoders.errors import TwinlensError
from service.errors import InvalidField
from service.search.columns import Bound, Column, Columns, Mask, Payloads, Scalar

MAX_DEPTH = 8
MAX_CONDITIONS = 64  # in one filter, nested ones counted
MAX_VALUES = 1000  # in one any, except or has_id
MAX_SIZE = 5000  # keys, elements and values in all: more would hold up the event loop, or the search thread


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _checked_number(given: object) -> object:
    """No text that reads as a number, no truth value, and none without end."""
    is_number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not is_number or (isinstance(given, float) and not math.isfinite(given)):
        raise ValueError("a range compares with finite numbers")
    return given


Number = Annotated[int | float, BeforeValidator(_checked_number)]
Values = Annotated[list[Scalar], Field(max_length=MAX_VALUES, fail_fast=True)]


class Match(_Part):
    value: Scalar | None = None
    any: Values | None = None
    excluded: Values | None = Field(None, alias="except")

    @model_validator(mode="after")
    def _one(self) -> "Match":
        if sum(part is not None for part in (self.value, self.any, self.excluded)) != 1:
            raise ValueError("match takes exactly one of value, any, except")
        return self


class Range(_Part):
    gt: Number | None = None
    gte: Number | None = None
    lt: Number | None = None
    lte: Number | None = None

    def bounds(self) -> list[Bound]:
        given = (
            (operator.gt, self.gt),
            (operator.ge, self.gte),
            (operator.lt, self.lt),
            (operator.le, self.lte),
        )
        return [(compare, bound) for compare, bound in given if bound is not None]


class KeyOf(_Part):
    key: str


def _listed(value: object) -> object:
    """Qdrant takes one condition where a list is expected."""
    return [value] if isinstance(value, dict) else value


Conditions = Annotated[
    list["Condition"], Field(max_length=MAX_CONDITIONS, fail_fast=True), BeforeValidator(_listed)
]


class Condition(_Part):
    key: str | None = None
    match: Match | None = None
    range: Range | None = None
    is_empty: KeyOf | None = None
    has_id: Annotated[list[str], Field(max_length=MAX_VALUES, fail_fast=True)] | None = None
    must: Conditions | None = None
    should: Conditions | None = None
    must_not: Conditions | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Condition":
        if (self.key is None) != (self.match is None and self.range is None):
            raise ValueError('a condition needs "key" together with "match" or "range"')
        return self


def parse_filter(raw: dict[str, Any] | None) -> Condition | None:
    """Raises InvalidField, with where in the filter the problem is."""
    if raw is None:
        return None
    if _is_oversized(raw):
        raise InvalidField(
            f"filter holds more than {MAX_SIZE} keys and values: ask for less at once", param="filter"
        )
    try:
        parsed = Condition.model_validate(raw)
    except (ValidationError, RecursionError) as error:
        raise InvalidField(f"filter: {_where(error)}", param="filter") from error
    if _depth(parsed) > MAX_DEPTH:
        raise InvalidField(f"filter is nested more than {MAX_DEPTH} deep", param="filter")
    count = sum(1 for _ in _parts(parsed)) - 1
    if count > MAX_CONDITIONS:
        raise InvalidField(
            f"filter has {count} conditions and {MAX_CONDITIONS} are taken: "
            "give the values of one key together, as any or except",
            param="filter",
        )
    return parsed


def _is_oversized(raw: object) -> bool:
    """Whether there is more in it than `MAX_SIZE`; looks no further than that."""
    count, left = 0, [raw]
    while left:
        part = left.pop()
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        count += len(inner)
        if count > MAX_SIZE:
            return True
        left.extend(inner)
    return False


def _where(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _nested(condition: Condition) -> list[Condition]:
    return [*(condition.must or ()), *(condition.should or ()), *(condition.must_not or ())]


def _depth(condition: Condition) -> int:
    return 1 + max(map(_depth, _nested(condition)), default=0)


def _parts(condition: Condition) -> Iterator[Condition]:
    """The condition and all within it."""
    yield condition
    for nested in _nested(condition):
        yield from _parts(nested)


def _keys(condition: Condition) -> Iterator[str]:
    for part in _parts(condition):
        if part.key is not None:
            yield part.key
        if part.is_empty is not None:
            yield part.is_empty.key


class Filtered(Payloads, Protocol):
    """Items by row, as a release or a delta holds them."""

    def row(self, item_id: str) -> int:
        """Raises `UnknownItem`."""
        ...


class PayloadFilter:
    """Masks over some items. Not thread-safe: the search thread owns it."""

    def __init__(self, items: Filtered) -> None:
        self._items = items
        self._columns = Columns(items)

    def mask(self, condition: Condition) -> Mask:
        """Which rows (n,) fulfil the condition."""
        return self._mask(condition, self._columns.of(frozenset(_keys(condition))))

    def _mask(self, condition: Condition, columns: Mapping[str, Column]) -> Mask:
        mask = np.ones(len(self._items), dtype=np.bool_)
        for part in self._own_parts(condition, columns):
            mask &= part
        for nested in condition.must or ():
            mask &= self._mask(nested, columns)
        for nested in condition.must_not or ():
            mask &= ~self._mask(nested, columns)
        if condition.should:
            any_of = np.zeros_like(mask)
            for nested in condition.should:
                any_of |= self._mask(nested, columns)
            mask &= any_of
        return mask

    def _own_parts(self, condition: Condition, columns: Mapping[str, Column]) -> Iterator[Mask]:
        if condition.key is not None:
            column = columns[condition.key]
            if condition.range is not None:
                yield column.within(condition.range.bounds())
            if condition.match is not None:
                yield _matched(column, condition.match)
        if condition.is_empty is not None:
            yield ~columns[condition.is_empty.key].filled
        if condition.has_id is not None:
            yield self._has_id(condition.has_id)

    def _has_id(self, ids: list[str]) -> Mask:
        mask = np.zeros(len(self._items), dtype=np.bool_)
        for item_id in ids:
            try:
                mask[self._items.row(item_id)] = True
            except TwinlensError:  # an id that no item has selects nothing
                continue
        return mask


def _matched(column: Column, match: Match) -> Mask:
    if match.excluded is not None:
        return column.has_other(match.excluded)
    if match.any is not None:
        return column.equal_any(match.any)
    return column.equal_any(() if match.value is None else (match.value,))
