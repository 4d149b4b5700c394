"""What a request wants found, and finding it on the search thread: one query, or many in one hop.

Knows releases, options and errors; nothing of HTTP, nor of how a query became a vector.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.modalities import Modality
from index.release import Release
from service.errors import DeadlineExceeded, InvalidField, WrongModel
from service.filters import Condition
from service.schemas import SearchOptions
from service.search import Found, Query, search
from service.serving import ServingState


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query: a unit vector (dim,), or the id of an item whose own vector it is; with the request's options.

    `asked_by`: the modality of what was asked; None for a bare vector.
    """

    options: SearchOptions
    condition: Condition | None
    vector: NDArray[np.float32] | None = None
    like_item: str = ""
    truncated: bool = False
    asked_by: Modality | None = None

    def query(self, release: Release) -> Query:
        """Search thread only; raises UnknownItem."""
        options, vector, excluded = self.options, self.vector, None
        if vector is None:
            excluded = release.items.row(self.like_item)
            vector = release.images.reconstruct(excluded)
        return Query(
            vector=vector,
            asked_by=self.asked_by,
            space=options.space,
            k=options.k,
            offset=options.offset,
            score_threshold=options.score_threshold,
            condition=self.condition,
            excluded_item_row=excluded,
            with_payload=options.with_payload,
            with_vector=options.with_vector,
        )


def unit_vector(numbers: Sequence[float], fingerprint: str, *, encoder: Encoder) -> NDArray[np.float32]:
    """A caller's vector made unit. Raises WrongModel where it is another encoder's, InvalidField where none."""
    if fingerprint != encoder.fingerprint:
        raise WrongModel(
            f"the vector is of {fingerprint}, and {encoder.fingerprint} ({encoder.name}) "
            "is served: embed the query again",
            param="model_fingerprint",
        )
    vector = np.asarray(numbers, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if len(vector) != encoder.dim or not np.isfinite(length) or length == 0.0:
        raise InvalidField(
            f"vector has {len(vector)} numbers and length {length:g}: "
            f"expected {encoder.dim} finite numbers, not all zero",
            param="vector",
        )
    return (vector / length).astype(np.float32)


def find(state: ServingState, wanted: Wanted) -> Found:
    """Search thread only; raises UnknownItem."""
    query = wanted.query(state.release)
    return search(state.release, query, payload_filter=state.payload_filter, judge=state.judge)


def find_each(
    state: ServingState, several: Sequence[Wanted | TwinlensError], *, deadline: float
) -> list[Found | TwinlensError]:
    """What each finds, or its own error; what has failed already is handed on. Search thread only.

    Raises DeadlineExceeded once `deadline`, in time.perf_counter() seconds, has passed: nobody waits any more.
    """
    found: list[Found | TwinlensError] = []
    for wanted in several:
        if time.perf_counter() > deadline:
            raise DeadlineExceeded(f"the deadline passed after {len(found)} of {len(several)} queries")
        found.append(_found(state, wanted))
    return found


def _found(state: ServingState, wanted: Wanted | TwinlensError) -> Found | TwinlensError:
    if isinstance(wanted, TwinlensError):
        return wanted
    try:
        return find(state, wanted)
    except TwinlensError as error:
        return error
