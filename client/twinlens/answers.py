"""What the service answers, as frozen dataclasses, and how each is read from JSON.

Vectors are `array("f")`: float32, four bytes a number; `numpy.asarray(vector)` shares their memory. Reading
raises KeyError, TypeError or ValueError for anything that is not the API's.
"""

import base64
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from twinlens.errors import ItemFailed

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one of several items or queries failed; the others did not."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit vector; `truncated` when the text was longer than the encoder reads."""

    vector: "array[float]"
    truncated: bool


@dataclass(frozen=True, slots=True)
class Embeddings:
    """An embedding or an error for each item, in the order asked."""

    items: Sequence[Embedding | ItemError]
    model: str
    model_fingerprint: str
    dim: int

    def vectors(self) -> "list[array[float]]":
        """All vectors; raises ItemFailed naming the first item that has none."""
        found = []
        for index, item in enumerate(self.items):
            if isinstance(item, ItemError):
                raise ItemFailed(f"item {index}: {item.message}", code=item.code)
            found.append(item.vector)
        return found


Verdict = Literal["match", "unsure", "nothing"]


@dataclass(frozen=True, slots=True)
class Hit:
    """An image or a text of the gallery. `score` is the cosine; `relevance` is comparable between queries."""

    id: str
    score: float
    relevance: float | None
    payload: Json = field(default_factory=dict)
    vector: "array[float] | None" = None
    text: str | None = None
    items: Sequence[str] = ()
    item_count: int | None = None


@dataclass(frozen=True, slots=True)
class SearchResults:
    """Hits, best first, and whether the best of them answers the query.

    `verdict`: "match", "unsure" (the encoder cannot tell) or "nothing"; None where the encoder is not
    calibrated for such a search. `good_match` is False for "nothing" alone. `likely` and `perhaps`: the
    relevance from which on a hit is called so. `templates`: that a short query was asked by; None: as it was
    typed. `unknown_words`: of the query, where the encoder has learned none of them.
    """

    hits: Sequence[Hit]
    verdict: Verdict | None
    good_match: bool | None
    truncated: bool
    likely: float | None
    perhaps: float | None
    templates: tuple[str, ...] | None
    unknown_words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchAnswer(SearchResults):
    release: str
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """Results or an error for each query, in the order asked."""

    answers: Sequence[SearchResults | ItemError]
    release: str
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class Item:
    id: str
    payload: Json
    width_pixels: int | None  # None: put as a vector, without an image
    height_pixels: int | None
    release: str


@dataclass(frozen=True, slots=True)
class Change:
    """A put or a delete that is durable and searchable; `sequence` rises with every change.

    None: an attempt deleted it whose answer was lost, as the next one found; its number is not known.
    """

    id: str
    sequence: int | None


@dataclass(frozen=True, slots=True)
class ChangeAnswer:
    """A change or an error for each item, in the order asked."""

    put: Sequence[Change | ItemError]
    deleted: Sequence[Change | ItemError]
    release: str
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class Release:
    """What is served; `raw` is all of the answer, and has `details` of how it was checked where asked for."""

    release: str
    model: str
    model_fingerprint: str
    dim: int
    raw: Json


@dataclass(frozen=True, slots=True)
class Reload:
    """`release` is served now; `swapped`: it took the place of another one.

    `still_loading`: the deadline came first; `release()` says when the other has taken its place.
    """

    release: str
    swapped: bool
    still_loading: bool = False


@dataclass(frozen=True, slots=True)
class Readiness:
    ready: bool
    why_not: str | None = None

    def __bool__(self) -> bool:
        return self.ready


def read_embeddings(answer: Json) -> Embeddings:
    items = [_embedding(item) for item in answer["data"]]
    return Embeddings(items, answer["model"], answer["model_fingerprint"], answer["dim"])


def _embedding(item: Json) -> Embedding | ItemError:
    if "error" in item:
        return read_error(item["error"])
    return Embedding(_float32(base64.b64decode(item["embedding"], validate=True)), item["truncated"])


def _float32(data: bytes) -> "array[float]":
    vector = array("f")
    vector.frombytes(data)
    if sys.byteorder == "big":
        vector.byteswap()  # the wire is little-endian
    return vector


def read_error(error: Json) -> ItemError:
    return ItemError(error["code"], error["message"])


def read_search(answer: Json) -> SearchAnswer:
    return SearchAnswer(
        release=answer["release"], model_fingerprint=answer["model_fingerprint"], **_told(answer)
    )


def read_batch(answer: Json) -> BatchAnswer:
    answers = [read_error(one["error"]) if "error" in one else _results(one) for one in answer["answers"]]
    return BatchAnswer(answers, answer["release"], answer["model_fingerprint"])


def _results(answer: Json) -> SearchResults:
    return SearchResults(**_told(answer))


def _told(answer: Json) -> dict[str, Any]:
    """The fields of SearchResults; services from before verdicts leave most of them out."""
    levels, templates = answer.get("levels") or {}, answer.get("templates")
    return {
        "hits": [_hit(hit) for hit in answer["results"]],
        "verdict": answer.get("verdict"),
        "good_match": answer["good_match"],
        "truncated": answer["truncated"],
        "likely": levels.get("likely"),
        "perhaps": levels.get("perhaps"),
        "templates": None if templates is None else tuple(templates),
        "unknown_words": tuple(answer.get("unknown_words") or ()),
    }


def _hit(hit: Json) -> Hit:
    vector = hit.get("vector")
    return Hit(
        id=hit["id"],
        score=hit["score"],
        relevance=hit["relevance"],
        payload=hit.get("payload", {}),
        vector=None if vector is None else array("f", vector),
        text=hit.get("text"),
        items=hit.get("items", ()),
        item_count=hit.get("item_count"),
    )


def read_item(answer: Json) -> Item:
    return Item(answer["id"], answer["payload"], answer["width"], answer["height"], answer["release"])


def read_release(answer: Json) -> Release:
    return Release(answer["release"], answer["model"], answer["model_fingerprint"], answer["dim"], answer)


def read_reload(answer: Json) -> Reload:
    return Reload(answer["release"], answer["swapped"], "loading" in answer)


def read_change(answer: Json) -> Change:
    return Change(answer["id"], answer["sequence"])


def read_changes(answer: Json) -> ChangeAnswer:
    put, deleted = ([_change(one) for one in answer[name]] for name in ("put", "delete"))
    return ChangeAnswer(put, deleted, answer["release"], answer["model_fingerprint"])


def _change(one: Json) -> Change | ItemError:
    return read_error(one["error"]) if "error" in one else read_change(one)
