"""Each thing the service can be asked, as a `Call`: what to send, and how to read the answer.

The only place that knows paths and fields; the methods of `Client` and `AsyncClient` hand on to here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

from twinlens.answers import (
    BatchAnswer,
    Change,
    ChangeAnswer,
    Embeddings,
    Item,
    ItemError,
    Json,
    Readiness,
    Release,
    Reload,
    SearchAnswer,
    read_batch,
    read_change,
    read_changes,
    read_embeddings,
    read_item,
    read_release,
    read_reload,
    read_search,
)
from twinlens.overviews import Drift, DuplicatesPage, Fields, read_drift, read_duplicates, read_fields
from twinlens.queries import ImageInput, NewItem, Query, Truncate, numbers, read_image

T = TypeVar("T")
_GONE = "unknown_item"  # the code of an error
_ROUTES = {"text": ("text", "query"), "vector": ("vector", "vector"), "id": ("item", "id")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """`body` goes to httpx as it is (json, files, data …); `answers`: statuses that `read` takes beside 2xx.

    `read_again` comes before `read` where an earlier attempt may have done all of it and its answer was lost;
    it gives None where that makes no difference.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Mapping[str, Any]
    answers: frozenset[int] = frozenset()
    read_again: Callable[[httpx.Response], T | None] = lambda _: None


def embed_images(
    images: ImageInput | Sequence[ImageInput], *, dimensions: int | None = None
) -> Call[Embeddings]:
    """An embedding or an error for each image: bytes, a path, or an open file; one or several.

    `dimensions` cuts vectors and makes them unit again.
    """
    several = images if isinstance(images, list | tuple) else [images]
    if not several:
        raise ValueError("no image to embed: give one or several")
    files = [("images", (str(index), read_image(image))) for index, image in enumerate(several)]
    fields = {"encoding_format": "base64"} | _given(dimensions=dimensions)
    return _post("/embed/image", read_embeddings, {"files": files, "data": fields})


def embed_texts(
    texts: str | Sequence[str], *, truncate: Truncate = "end", dimensions: int | None = None
) -> Call[Embeddings]:
    """An embedding or an error for each text. `truncate="none"`: a text that does not fit is an error."""
    several = [texts] if isinstance(texts, str) else list(texts)
    fields = {"texts": several, "truncate": truncate, "encoding_format": "base64"}
    return _post("/embed/text", read_embeddings, {"json": fields | _given(dimensions=dimensions)})


def search(query: Query) -> Call[SearchAnswer]:
    """Search by exactly one of `text`, `image`, `vector` and `id`; see `Query` for the options."""
    kind, options = query.kind(), query.options()
    value: Any = getattr(query, kind)
    if kind == "image":
        fields = {name: _form_value(option) for name, option in options.items()}
        return _post(
            "/search/image", read_search, {"files": {"image": ("0", read_image(value))}, "data": fields}
        )
    path, name = _ROUTES[kind]
    asked = numbers(value) if kind == "vector" else value
    return _post(f"/search/{path}", read_search, {"json": {name: asked} | options})


def _form_value(option: object) -> str:
    return option if isinstance(option, str) else json.dumps(option)


def search_batch(queries: Sequence[Query], options: Query) -> Call[BatchAnswer]:
    """Results or an error for each query. `options` stand for every query that has none of its own."""
    asked = {"queries": [query.as_json() for query in queries]} | options.options()
    return _post("/search/batch", read_batch, {"json": asked})


def item(id: str) -> Call[Item]:
    """The payload of an item; raises NotFound."""
    return _get(f"/items/{_quoted(id)}", read_item)


def image(id: str, *, side_pixels: int | None = None) -> Call[bytes]:
    """The item's image; with `side_pixels` the smallest copy that has as many on its long side."""
    return Call(
        method="GET",
        path=f"/images/{_quoted(id)}",
        read=lambda response: response.content,
        body={"params": _given(side=side_pixels)},
    )


def fields() -> Call[Fields]:
    """The payloads' fields with their common values: what there is to filter by."""
    return _get("/fields", read_fields)


def duplicates(
    *, min_score: float | None = None, limit: int | None = None, cursor: str | None = None
) -> Call[DuplicatesPage]:
    """Images that are nearly the same: pairs of `min_score` or more, about `limit`, on from a `cursor`."""
    given = _given(min_score=min_score, limit=limit, cursor=cursor)
    return _call("GET", "/duplicates", read_duplicates, {"params": given})


def put_item(new: NewItem) -> Call[Change]:
    """Add an item, or replace the one of that id: see `NewItem`. Durable and searchable on return."""
    path = f"/items/{_quoted(new.id)}"
    if new.image is not None:
        fields = {name: json.dumps(value) for name, value in new.extras().items()}
        body = {"files": {"image": ("0", read_image(new.image))}, "data": fields}
        return _call("PUT", path, read_change, body)
    asked = new.as_json()
    del asked["id"]
    return _call("PUT", path, read_change, {"json": asked})


def delete_item(id: str) -> Call[Change]:
    """Take an item out. Raises NotFound where there is none, but not where a retry finds it gone."""

    def read_again(response: httpx.Response) -> Change | None:
        return Change(id, None) if error_code(response) == _GONE else None

    call = _call("DELETE", f"/items/{_quoted(id)}", read_change, {})
    return replace(call, read_again=read_again)


def change_items(*, put: Sequence[NewItem] = (), delete: Sequence[str] = ()) -> Call[ChangeAnswer]:
    """Put and delete many at once, with a change or an error for each."""
    gone = list(delete)
    asked = {"put": [new.as_json() for new in put], "delete": gone}

    def read_again(response: httpx.Response) -> ChangeAnswer | None:
        if not response.is_success:
            return None
        answer = read_changes(response.json())
        outcomes = [
            Change(id, None) if isinstance(one, ItemError) and one.code == _GONE else one
            for id, one in zip(gone, answer.deleted, strict=True)
        ]
        return replace(answer, deleted=outcomes)

    return replace(_post("/items/batch", read_changes, {"json": asked}), read_again=read_again)


def release(*, details: bool = False) -> Call[Release]:
    """What is served; with `details` also how it was checked: recall, gate, evaluation."""
    given = {"details": "true"} if details else {}
    return _call("GET", "/release", read_release, {"params": given})


def reload() -> Call[Reload]:
    """Serve what is current now, without dropping a request; where there are keys, with one that may write.

    What takes longer than the deadline goes on loading: see `Reload.still_loading`.
    """
    return _post("/release/reload", read_reload, {})


def drift() -> Call[Drift]:
    """How far queries and gallery lie from what the encoder was proven on."""
    return _get("/drift", read_drift)


def ready() -> Call[Readiness]:
    """Whether the service can answer just now, and if not why; true or false in a condition."""
    return Call(method="GET", path="/readyz", read=_read_ready, body={}, answers=frozenset({503}))


def error_code(response: httpx.Response) -> str | None:
    """The code of an error as the service tells it; None for any other answer."""
    try:
        code = response.json()["error"]["code"]
    except (KeyError, TypeError, ValueError):
        return None
    return code if isinstance(code, str) else None


def _read_ready(response: httpx.Response) -> Readiness:
    if response.is_success:
        return Readiness(ready=True)
    return Readiness(ready=False, why_not=response.json()["error"]["message"])


def _get(path: str, read: Callable[[Json], T]) -> Call[T]:
    return _call("GET", path, read, {})


def _post(path: str, read: Callable[[Json], T], body: Mapping[str, Any]) -> Call[T]:
    return _call("POST", path, read, body)


def _call(method: str, path: str, read: Callable[[Json], T], body: Mapping[str, Any]) -> Call[T]:
    return Call(method=method, path=path, read=lambda response: read(response.json()), body=body)


def _given(**options: object) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _quoted(id: str) -> str:
    """An id within a path. Raises ValueError for one whose path would lead to another item."""
    if not id or any(part in {"", ".", ".."} for part in id.split("/")):
        raise ValueError(f"{id!r} is no item's id: ids are clean relative paths")
    return quote(id, safe="/")
