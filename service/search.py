"""A query vector to hits in a release. Pure reading; knows nothing of HTTP, encoders or threads.

Results are ordered by cosine, less what the release takes off for hubs where a text looks for images, or an
image for texts; the cosine itself is what hits report. `relevance` and `good_match` are None where the
bundle has no calibration for this way of asking.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.modalities import Modality
from encoders.query_bank import ASKED_BY
from index.release import Release
from index.vectors import VectorIndex
from service.columns import Mask
from service.filters import Condition, PayloadFilter
from service.relevance import Judge
from service.schemas import Space

JUDGED_HITS = 10  # looked at, no fewer and no more: the decision must not hang on how many were asked for
MAX_ITEMS_OF_TEXT = 100  # named with a text hit; a title may be that of every item


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for: a unit vector (dim,), and which of the hits to give.

    `asked_by`: the modality of what was asked; None for a bare vector, which no bank of queries speaks for.
    """

    vector: NDArray[np.float32]
    asked_by: Modality | None = None
    space: Space = "images"
    k: int = 10
    offset: int = 0
    score_threshold: float | None = None
    condition: Condition | None = None
    excluded_item_row: int | None = None
    with_payload: bool = True
    with_vector: bool = False

    @property
    def corrected(self) -> bool:
        """Whether hubs are to be held back: the banks hold queries of the other modality."""
        return self.asked_by == ASKED_BY[self.space]


@dataclass(frozen=True, slots=True)
class Found:
    """Hits as the wire has them, best first, and whether the gallery (what passes the filter) holds a match."""

    hits: list[dict[str, Any]]
    good_match: bool | None


def search(
    release: Release, query: Query, *, payload_filter: PayloadFilter, judge: Judge | None = None
) -> Found:
    """A page of hits. The decision is about the best hit of all, whatever page or threshold was asked for."""
    scores, rows, chosen_from = _ranked(release, query, payload_filter)
    enough = slice(None) if query.score_threshold is None else scores >= query.score_threshold
    page = slice(query.offset, query.offset + query.k)
    shown, shown_rows = scores[enough][page], rows[enough][page]
    judgement = judge and judge.judge(
        shown,
        best=scores[:JUDGED_HITS],
        vector=query.vector,
        asked_by=query.asked_by,
        space=query.space,
        chosen_from=chosen_from,
    )
    relevance = judgement.relevance if judgement else [None] * len(shown)
    describe = _image_hit if query.space == "images" else _text_hit
    hits = []
    for score, row, likely in zip(shown.tolist(), shown_rows.tolist(), relevance, strict=True):
        hit = describe(release, row, query)
        hits.append({"id": hit.pop("id"), "score": round(score, 6), "relevance": likely, **hit})
    return Found(hits, judgement.good_match if judgement else None)


def _ranked(
    release: Release, query: Query, payload_filter: PayloadFilter
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    """Scores and rows, best first, as many as the page needs; excluded and filtered rows left out.

    And among how many items they are the best.
    """
    vectors = release.images if query.space == "images" else release.texts
    excluded = query.excluded_item_row if query.space == "images" else None
    wanted = max(query.offset + query.k + (excluded is not None), JUDGED_HITS)
    reach, chosen_from = min(wanted, max(1, len(vectors))), len(vectors)
    # Of corrected rows any may be under a threshold of cosine, so that how deep a page reaches is not known.
    by_threshold = query.score_threshold is not None and query.corrected and vectors.penalties is not None
    if query.condition is None and not by_threshold:
        found_scores, found_rows = vectors.search(query.vector[None], reach, corrected=query.corrected)
        scores, rows = found_scores[0], found_rows[0]
    else:
        mask = _mask(release, query, payload_filter)
        chosen_from = int(np.count_nonzero(mask))
        scores, rows = _search_masked(vectors, query, mask=mask, reach=len(vectors) if by_threshold else reach)
    keep = rows >= 0
    if excluded is not None:
        keep &= rows != excluded
    return scores[keep], rows[keep], chosen_from


def _mask(release: Release, query: Query, payload_filter: PayloadFilter) -> Mask:
    """Over images, or over the texts that belong to at least one image that passes; all without a condition."""
    if query.condition is None:
        return np.ones(len(release.images if query.space == "images" else release.texts), dtype=np.bool_)
    items = payload_filter.mask(query.condition)
    if query.space == "images":
        return items
    offsets, rows = release.texts_table.item_lists()
    passed_before = np.concatenate([[0], np.cumsum(items[rows])])
    fits: Mask = passed_before[offsets[1:]] > passed_before[offsets[:-1]]
    return fits


def _search_masked(
    vectors: VectorIndex, query: Query, *, mask: Mask, reach: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Exact search among the rows that the mask lets through."""
    rows = np.flatnonzero(mask)
    parts = [block[mask[start : start + len(block)]] @ query.vector for start, block in vectors.blocks()]
    scores = np.concatenate(parts).astype(np.float32) if parts else np.empty(0, dtype=np.float32)
    penalties = vectors.penalties if query.corrected else None
    best = np.argsort(-scores if penalties is None else penalties[rows] - scores, kind="stable")[:reach]
    return scores[best], rows[best]


def _image_hit(release: Release, row: int, query: Query) -> dict[str, Any]:
    hit: dict[str, Any] = {"id": release.items.id(row)}
    if query.with_payload:
        hit["payload"] = release.items.payload(row)
    if query.with_vector:
        hit["vector"] = release.images.reconstruct(row)
    return hit


def _text_hit(release: Release, row: int, query: Query) -> dict[str, Any]:
    table = release.texts_table
    offsets, rows = table.item_lists()
    own = rows[offsets[row] : offsets[row + 1]]
    hit: dict[str, Any] = {
        "id": table.id(row),
        "text": table.text(row),
        "items": [release.items.id(item) for item in own[:MAX_ITEMS_OF_TEXT].tolist()],
        "item_count": len(own),
    }
    if query.with_payload:
        hit["payload"] = table.payload(row)
    if query.with_vector:
        hit["vector"] = release.texts.reconstruct(row)
    return hit
