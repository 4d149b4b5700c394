"""What a request wants found, and finding it on the search thread: one query, or many in one hop.

Knows releases, options and errors; nothing of HTTP, nor of how a query became a vector.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import Search
from encoders.encoder import Encoder
from encoders.errors import TwinlensError, UndecodableImage
from encoders.modalities import Modality
from service.device.tickets import Embedded, Outcome
from service.drift.windows import QueryNote
from service.errors import DeadlineExceeded, InvalidField, WrongModel, without_frames
from service.search.columns import NotGathered
from service.search.filters import Condition
from service.search.gallery_view import GalleryView
from service.search.hits import Query, SearchResult, search
from service.search.phrasing import AS_TYPED, Phrasing
from service.state import ServingState
from service.wire.schemas import SearchOptions

SLICE_SECONDS = 0.05  # of one request's many queries, then others' searches have their turn


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A query: a unit vector (dim,), or the id of an item whose own vector it is; with the request's options.

    `asked_by`: the modality of what was asked; None for a bare vector. `phrasing`: how a text was asked, and
    `typed` (dim,) the vector of the text itself where that is another one.
    """

    options: SearchOptions
    condition: Condition | None
    vector: NDArray[np.float32] | None = None
    like_item: str = ""
    truncated: bool = False
    asked_by: Modality | None = None
    phrasing: Phrasing = AS_TYPED
    typed: NDArray[np.float32] | None = None

    def query(self, view: GalleryView) -> Query:
        """Search thread only; raises UnknownItem."""
        options, vector, excluded = self.options, self.vector, None
        if vector is None:
            excluded = view.row(self.like_item)
            vector = view.vector(excluded)
        return Query(
            vector=vector,
            asked_by=self.asked_by,
            search=self._search(),
            space=options.space,
            k=options.k,
            offset=options.offset,
            score_threshold=options.score_threshold,
            condition=self.condition,
            excluded_item_row=excluded,
            with_payload=options.with_payload,
            with_vector=options.with_vector,
        )

    def embedded(self, outcome: Embedded) -> "SearchRequest":
        """With the vector of what was asked."""
        return replace(self, vector=outcome.vector, truncated=outcome.truncated, typed=outcome.typed)

    def told(self, found: SearchResult) -> dict[str, Any]:
        """What the answer says of itself, beside its hits."""
        return {
            "verdict": found.verdict,
            "good_match": None if found.verdict is None else found.verdict != "nothing",
            "levels": found.levels,
            "templates": self.phrasing.templates,
            "unknown_words": self.phrasing.unknown_words or None,
            "truncated": self.truncated,
        }

    def _search(self) -> Search | None:
        """An item that asks for more like it is an image, and so looks for texts as one."""
        if self.asked_by == "images" and self.options.space == "texts":
            return "image_to_text"
        return self.phrasing.search


def unit_vector(numbers: Sequence[float], fingerprint: str, *, encoder: Encoder) -> NDArray[np.float32]:
    """A caller's vector made unit. Raises WrongModel where it is another encoder's, InvalidField where none."""
    if fingerprint != encoder.fingerprint:
        raise WrongModel(
            f"the vector is of {fingerprint}, and {encoder.fingerprint} ({encoder.name}) "
            "is served: embed the query again",
            param="model_fingerprint",
        )
    if len(numbers) != encoder.dim:
        raise InvalidField(
            f"vector has {len(numbers)} numbers and those of {encoder.name} have {encoder.dim}", param="vector"
        )
    vector = np.asarray(numbers, dtype=np.float64)
    largest = float(np.abs(vector).max())
    if not np.isfinite(largest) or largest == 0.0:
        raise InvalidField(
            f"the largest number of vector is {largest:g}: all must be finite, and not all zero", param="vector"
        )
    scaled = vector / largest  # squares of very large or small numbers would leave float64's range
    return (scaled / np.linalg.norm(scaled)).astype(np.float32)


def find(state: ServingState, requested: SearchRequest) -> SearchResult:
    """Search thread only; raises UnknownItem."""
    query = requested.query(state.view)
    found = search(state.view, query, payload_filter=state.payload_filter, judge=state.judge)
    _note(state, requested, query, found)
    return found


def note_failure(state: ServingState, options: SearchOptions, outcome: Outcome) -> None:
    """An image to search with that could not be decoded counts as drift."""
    if isinstance(outcome, UndecodableImage) and options.count_in_drift:
        state.drift.note_undecodable()


def _note(state: ServingState, requested: SearchRequest, query: Query, found: SearchResult) -> None:
    """What drift is measured on: texts and images that people send, not vectors, nor items of the gallery."""
    if query.asked_by is None or query.excluded_item_row is not None:
        return
    if query.offset or not requested.options.count_in_drift:  # a further page is no query of its own
        return
    plain = query.condition is None  # of a filter's leavings a calibration says nothing about the encoder
    # Expected relevance is that of the gallery's own texts: sentences, as a rule.
    compared = plain and query.search != "words_to_image" and found.verdict is not None
    best = found.hits[0]["relevance"] if compared and found.hits else None
    matched = found.verdict != "nothing" if compared else None
    note = QueryNote(
        query.vector if requested.typed is None else requested.typed,
        requested.truncated,
        best,
        matched,
    )
    state.drift.note(query.asked_by, note)


def find_some(
    state: ServingState, several: Sequence[SearchRequest | TwinlensError], *, deadline: float
) -> list[SearchResult | TwinlensError]:
    """What the first of them find, or their own error: at least one, and no more once SLICE_SECONDS are over.

    Search thread only. Raises DeadlineExceeded where `deadline`, in time.perf_counter() seconds, has passed:
    nobody waits any more; NotGathered where already the first needs payloads that have yet to be read.
    """
    started = time.perf_counter()
    if started > deadline:
        raise DeadlineExceeded(f"the deadline passed with {len(several)} queries to go")
    found: list[SearchResult | TwinlensError] = []
    for requested in several:
        try:
            found.append(_found(state, requested))
        except NotGathered:
            if not found:
                raise
            break  # what was found stays; the next slice has what is missing read
        if time.perf_counter() - started > SLICE_SECONDS:
            break
    return found


def _found(state: ServingState, requested: SearchRequest | TwinlensError) -> SearchResult | TwinlensError:
    if isinstance(requested, TwinlensError):
        return requested
    try:
        return find(state, requested)
    except TwinlensError as error:
        return without_frames(error)
