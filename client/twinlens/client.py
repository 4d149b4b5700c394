"""`Client`: the calls of `calls`, sent with httpx. `AsyncClient` differs in nothing but how to wait.

The signatures stand here in full, and once more there, so that editors and `help` show them.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from twinlens import calls
from twinlens.answers import (
    BatchAnswer,
    Change,
    ChangeAnswer,
    Embeddings,
    Item,
    Readiness,
    Release,
    Reload,
    SearchAnswer,
)
from twinlens.calls import Call
from twinlens.configured import Configured
from twinlens.exchange import Options, Pause, Send, Told, exchange
from twinlens.overviews import Drift, DuplicatesPage, Fields
from twinlens.queries import Expand, ImageInput, NewItem, Query, Space, Truncate

T = TypeVar("T")


class Client(Configured):
    """Blocking; safe to share between threads. A context manager, or `close()` it."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        deadline_seconds: float | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        http: httpx.Client | None = None,
    ) -> None:
        """`http`: your own httpx client, for proxies or certificates; it stays yours to close."""
        super().__init__(url, Options(key, deadline_seconds, timeout_seconds, retries), owns_http=http is None)
        self._http = http or httpx.Client()

    def embed_images(
        self, images: ImageInput | Sequence[ImageInput], *, dimensions: int | None = None
    ) -> Embeddings:
        """An embedding or an error for each image: bytes, a path, or an open file; one or several.

        `dimensions` cuts vectors and makes them unit again.
        """
        return self._perform(calls.embed_images(images, dimensions=dimensions))

    def embed_texts(
        self, texts: str | Sequence[str], *, truncate: Truncate = "end", dimensions: int | None = None
    ) -> Embeddings:
        """An embedding or an error for each text. `truncate="none"`: a text that does not fit is an error."""
        return self._perform(calls.embed_texts(texts, truncate=truncate, dimensions=dimensions))

    def search(
        self,
        *,
        text: str | None = None,
        image: ImageInput | None = None,
        vector: Iterable[float] | None = None,
        id: str | None = None,
        model_fingerprint: str | None = None,
        k: int | None = None,
        offset: int | None = None,
        in_: Space | None = None,
        filter: Mapping[str, Any] | None = None,
        score_threshold: float | None = None,
        with_payload: bool | None = None,
        with_vector: bool | None = None,
        truncate: Truncate | None = None,
        expand: Expand | None = None,
        count_in_drift: bool | None = None,
    ) -> SearchAnswer:
        """Search by exactly one of `text`, `image`, `vector` and `id`; see `Query` for the options."""
        return self._perform(
            calls.search(
                Query(
                    text=text,
                    image=image,
                    vector=vector,
                    id=id,
                    model_fingerprint=model_fingerprint,
                    k=k,
                    offset=offset,
                    in_=in_,
                    filter=filter,
                    score_threshold=score_threshold,
                    with_payload=with_payload,
                    with_vector=with_vector,
                    truncate=truncate,
                    expand=expand,
                    count_in_drift=count_in_drift,
                )
            )
        )

    def search_batch(
        self,
        queries: Sequence[Query],
        *,
        model_fingerprint: str | None = None,
        k: int | None = None,
        offset: int | None = None,
        in_: Space | None = None,
        filter: Mapping[str, Any] | None = None,
        score_threshold: float | None = None,
        with_payload: bool | None = None,
        with_vector: bool | None = None,
        truncate: Truncate | None = None,
        expand: Expand | None = None,
        count_in_drift: bool | None = None,
    ) -> BatchAnswer:
        """Results or an error for each query. Options here stand for every query that has none of its own."""
        return self._perform(
            calls.search_batch(
                queries,
                Query(
                    model_fingerprint=model_fingerprint,
                    k=k,
                    offset=offset,
                    in_=in_,
                    filter=filter,
                    score_threshold=score_threshold,
                    with_payload=with_payload,
                    with_vector=with_vector,
                    truncate=truncate,
                    expand=expand,
                    count_in_drift=count_in_drift,
                ),
            )
        )

    def item(self, id: str) -> Item:
        """The payload of an item; raises NotFound."""
        return self._perform(calls.item(id))

    def image(self, id: str, *, side_pixels: int | None = None) -> bytes:
        """The item's image; with `side_pixels` the smallest copy that has as many on its long side."""
        return self._perform(calls.image(id, side_pixels=side_pixels))

    def fields(self) -> Fields:
        """The payloads' fields with their common values: what there is to filter by."""
        return self._perform(calls.fields())

    def duplicates(
        self, *, min_score: float | None = None, limit: int | None = None, cursor: str | None = None
    ) -> DuplicatesPage:
        """Images that are nearly the same: pairs of `min_score` or more, about `limit`, on from a `cursor`."""
        return self._perform(calls.duplicates(min_score=min_score, limit=limit, cursor=cursor))

    def put_item(
        self,
        id: str,
        *,
        image: ImageInput | None = None,
        vector: Iterable[float] | None = None,
        model_fingerprint: str | None = None,
        payload: Mapping[str, Any] | None = None,
        texts: Sequence[str] | None = None,
    ) -> Change:
        """Add an item, or replace the one of that id: see `NewItem`. Durable and searchable on return."""
        return self._perform(
            calls.put_item(
                NewItem(
                    id=id,
                    image=image,
                    vector=vector,
                    model_fingerprint=model_fingerprint,
                    payload=payload,
                    texts=texts,
                )
            )
        )

    def delete_item(self, id: str) -> Change:
        """Take an item out. Raises NotFound where there is none, but not where a retry finds it gone."""
        return self._perform(calls.delete_item(id))

    def change_items(self, *, put: Sequence[NewItem] = (), delete: Sequence[str] = ()) -> ChangeAnswer:
        """Put and delete many at once, with a change or an error for each."""
        return self._perform(calls.change_items(put=put, delete=delete))

    def release(self, *, details: bool = False) -> Release:
        """What is served; with `details` also how it was checked: recall, gate, evaluation."""
        return self._perform(calls.release(details=details))

    def reload(self) -> Reload:
        """Serve what is current now, without dropping a request; where there are keys, with one that may write.

        What takes longer than the deadline goes on loading: see `Reload.still_loading`.
        """
        return self._perform(calls.reload())

    def drift(self) -> Drift:
        """How far queries and gallery lie from what the encoder was proven on."""
        return self._perform(calls.drift())

    def ready(self) -> Readiness:
        """Whether the service can answer just now, and if not why; true or false in a condition."""
        return self._perform(calls.ready())

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _perform(self, call: Call[T]) -> T:
        steps = exchange(call, self._options)
        told: Told = None
        try:
            while True:
                told = self._do(steps.send(told), call)
        except StopIteration as done:
            answer: T = done.value
            return answer

    def _do(self, step: Send | Pause, call: Call[T]) -> Told:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(**self._request(step, call))
        except httpx.RequestError as error:
            return error
