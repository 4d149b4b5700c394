"""What the service tells of the gallery as a whole: what to filter by, duplicates, how far things have moved.

Reading raises KeyError, TypeError or ValueError for anything that is not the API's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twinlens.answers import Json

Verdict = Literal["as proven", "has moved", "far"]


@dataclass(frozen=True, slots=True)
class FieldValue:
    value: str | bool | int | float
    count: int


@dataclass(frozen=True, slots=True)
class PayloadField:
    """A field of the payloads; `key` is what a filter calls it. `values`: those that repeat, most common first.

    `more_distinct`: there are more distinct values than were told apart.
    """

    key: str
    kind: Literal["text", "number", "bool", "mixed"]
    filled: int
    distinct: int
    more_distinct: bool
    values: Sequence[FieldValue]
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True)
class Fields:
    """What there is to filter by; of all `items` so many were looked at as `counted` says."""

    fields: Sequence[PayloadField]
    items: int
    counted: int
    release: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """`score` is the cosine; `identical`: the files are the same to the byte."""

    id: str
    score: float
    identical: bool


@dataclass(frozen=True, slots=True)
class DuplicatesOfItem:
    """An item and what looks like it, best first, at most 100 of `count`."""

    id: str
    duplicates: Sequence[Duplicate]
    count: int


@dataclass(frozen=True, slots=True)
class DuplicatesPage:
    """Each pair is named once. `next` is the cursor for what follows, None at the end; a page may be empty.

    So far `scanned` of `total` items were compared with all behind them.
    """

    items: Sequence[DuplicatesOfItem]
    scanned: int
    total: int
    next: str | None
    release: str


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Queries of one kind, or one side of the gallery; a `verdict` of None: nothing can be said, and `why`."""

    subject: str
    seen: int
    verdict: Verdict | None
    why: str


@dataclass(frozen=True, slots=True)
class Drift:
    """How far queries and gallery lie from what the encoder was proven on; `raw` has each measure."""

    verdict: Verdict | None
    reports: Sequence[DriftReport]
    release: str
    raw: Json


def read_fields(answer: Json) -> Fields:
    fields = [_field(one) for one in answer["fields"]]
    return Fields(fields, answer["items"], answer["counted"], answer["release"])


def _field(one: Json) -> PayloadField:
    values = [FieldValue(entry["value"], entry["count"]) for entry in one["values"]]
    return PayloadField(**_picked(PayloadField, one) | {"values": values})


def read_duplicates(answer: Json) -> DuplicatesPage:
    items = [_duplicates_of_item(one) for one in answer["results"]]
    return DuplicatesPage(items, answer["scanned"], answer["total"], answer["next"], answer["release"])


def _duplicates_of_item(one: Json) -> DuplicatesOfItem:
    twins = [Duplicate(**_picked(Duplicate, twin)) for twin in one["duplicates"]]
    return DuplicatesOfItem(one["id"], twins, one["count"])


def read_drift(answer: Json) -> Drift:
    reports = [DriftReport(**_picked(DriftReport, one)) for one in answer["reports"]]
    return Drift(answer["verdict"], reports, answer["release"], answer)


def _picked(kind: type[Any], answer: Json) -> dict[str, Any]:
    """The fields of `kind`: a newer service may tell more."""
    return {name: answer[name] for name in kind.__dataclass_fields__}
