"""Qdrant's filters over the payloads of a release, as exact masks over its rows.

`{"must": […], "should": […], "must_not": […]}`, nested at will, of conditions on a payload key:
match (value, any, except), range (gt, gte, lt, lte), is_empty, and has_id. A payload value that is a list
matches when one of its elements does; `a.b` reaches into objects. Each key's values are gathered once per
release, when first asked for. Form: https://qdrant.tech/documentation/concepts/filtering/. Knows no HTTP.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from encoders.errors import TwinlensError
from index.items import ItemTable
from service.errors import InvalidField

Mask = NDArray[np.bool_]
MAX_DEPTH = 8
Scalar = str | bool | int | float


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Match(_Part):
    value: Scalar | None = None
    any: list[Scalar] | None = None
    excluded: list[Scalar] | None = Field(None, alias="except")

    @model_validator(mode="after")
    def _one(self) -> "Match":
        if sum(part is not None for part in (self.value, self.any, self.excluded)) != 1:
            raise ValueError("match takes exactly one of value, any, except")
        return self


class Range(_Part):
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


class KeyOf(_Part):
    key: str


def _listed(value: object) -> object:
    """Qdrant takes one condition where a list is expected."""
    return [value] if isinstance(value, dict) else value


class Condition(_Part):
    key: str | None = None
    match: Match | None = None
    range: Range | None = None
    is_empty: KeyOf | None = None
    has_id: list[str] | None = None
    must: Annotated[list["Condition"], BeforeValidator(_listed)] | None = None
    should: Annotated[list["Condition"], BeforeValidator(_listed)] | None = None
    must_not: Annotated[list["Condition"], BeforeValidator(_listed)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Condition":
        if (self.key is None) != (self.match is None and self.range is None):
            raise ValueError('a condition needs "key" together with "match" or "range"')
        return self


def parse_filter(raw: dict[str, Any] | None) -> Condition | None:
    """Raises InvalidField, with where in the filter the problem is."""
    if raw is None:
        return None
    try:
        parsed = Condition.model_validate(raw)
    except (ValidationError, RecursionError) as error:
        raise InvalidField(f"filter: {_where(error)}", param="filter") from error
    if _depth(parsed) > MAX_DEPTH:
        raise InvalidField(f"filter is nested more than {MAX_DEPTH} deep", param="filter")
    return parsed


def _where(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deep"
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _depth(condition: Condition) -> int:
    nested = [*(condition.must or ()), *(condition.should or ()), *(condition.must_not or ())]
    return 1 + max(map(_depth, nested), default=0)


class Column:
    """The values of one payload key over all rows."""

    def __init__(self, values: Iterable[Any], *, rows: int) -> None:
        self.filled: Mask = np.zeros(rows, dtype=np.bool_)
        rows_of: dict[tuple[str, Scalar], list[int]] = {}
        number_rows: list[int] = []
        numbers: list[float] = []
        for row, value in enumerate(values):
            for element in _elements(value):
                self.filled[row] = True
                rows_of.setdefault(_token(element), []).append(row)
                if isinstance(element, int | float) and not isinstance(element, bool):
                    number_rows.append(row)
                    numbers.append(float(element))
        self._rows_of = {token: np.array(found) for token, found in rows_of.items()}
        self._number_rows = np.array(number_rows, dtype=np.int64)
        self._numbers = np.array(numbers, dtype=np.float64)

    def equal_any(self, wanted: Iterable[Scalar]) -> Mask:
        mask = np.zeros_like(self.filled)
        for value in wanted:
            found = self._rows_of.get(_token(value))
            if found is not None:
                mask[found] = True
        return mask

    def within(self, bounds: Range) -> Mask:
        good = np.ones(len(self._numbers), dtype=np.bool_)
        tests: tuple[tuple[float | None, Callable[[Any, Any], Any]], ...] = (
            (bounds.gt, np.greater),
            (bounds.gte, np.greater_equal),
            (bounds.lt, np.less),
            (bounds.lte, np.less_equal),
        )
        for bound, test in tests:
            if bound is not None:
                good &= test(self._numbers, bound)
        mask = np.zeros_like(self.filled)
        mask[self._number_rows[good]] = True
        return mask


class PayloadFilter:
    """Masks over the items of one release. Not thread-safe: the search thread owns it."""

    def __init__(self, items: ItemTable) -> None:
        self._items = items
        self._columns: dict[str, Column] = {}

    def mask(self, condition: Condition) -> Mask:
        """Which rows (n,) fulfil the condition."""
        mask = np.ones(len(self._items), dtype=np.bool_)
        for part in self._own_parts(condition):
            mask &= part
        for nested in condition.must or ():
            mask &= self.mask(nested)
        for nested in condition.must_not or ():
            mask &= ~self.mask(nested)
        if condition.should:
            mask &= np.logical_or.reduce([self.mask(nested) for nested in condition.should])
        return mask

    def _own_parts(self, condition: Condition) -> Iterator[Mask]:
        if condition.key is not None:
            column = self._column(condition.key)
            if condition.range is not None:
                yield column.within(condition.range)
            if condition.match is not None:
                yield _matched(column, condition.match)
        if condition.is_empty is not None:
            yield ~self._column(condition.is_empty.key).filled
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

    def _column(self, key: str) -> Column:
        if key not in self._columns:
            values = (_reach(payload, key) for payload in self._items.payloads())
            self._columns[key] = Column(values, rows=len(self._items))
        return self._columns[key]


def _matched(column: Column, match: Match) -> Mask:
    if match.excluded is not None:
        return column.filled & ~column.equal_any(match.excluded)
    if match.any is not None:
        return column.equal_any(match.any)
    return column.equal_any(() if match.value is None else (match.value,))


def _reach(payload: dict[str, Any], key: str) -> Any:
    if key in payload:
        return payload[key]
    value: Any = payload
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _elements(value: Any) -> Iterator[Scalar]:
    for element in value if isinstance(value, list) else (value,):
        if isinstance(element, str | bool | int | float) and not (
            isinstance(element, float) and math.isnan(element)
        ):
            yield element


def _token(value: Scalar) -> tuple[str, Scalar]:
    """True is not 1, though Python says so; 1 is 1.0."""
    return ("bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number", value)
