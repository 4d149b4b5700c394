"""A query vector to hits. Pure reading.

Results are ordered by cosine, less what is taken off for hubs where a text looks for images, or an image for
texts; the cosine itself is what hits report. `relevance` and `verdict` are None where the bundle has no
calibration for this way of asking.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import Search, Verdict
from encoders.modalities import Modality
from encoders.query_bank import ASKED_BY
from service.search.filters import Condition, PayloadFilter
from service.search.gallery_view import GalleryView
from service.search.ranking import ROUNDING, Ranked, Ranking, allowed_rows
from service.search.relevance import Judge
from service.wire.schemas import Space

JUDGED_HITS = 10  # looked at, no fewer and no more: the decision must not hang on how many were asked for
MAX_ITEMS_OF_TEXT = 100  # named with a text hit; a title may be that of every item
_NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for: a unit vector (dim,), and which of the hits to give.

    `asked_by`: the modality of what was asked; None for a bare vector, which no bank of queries speaks for.
    `search`: the kind of search that was calibrated for this one; None: none was.
    """

    vector: NDArray[np.float32]
    asked_by: Modality | None = None
    search: Search | None = None
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
class SearchResult:
    """Hits as the wire has them, best first, and whether the gallery (what passes the filter) holds a match."""

    hits: list[dict[str, Any]]
    verdict: Verdict | None
    levels: dict[str, float] | None


def search(
    view: GalleryView, query: Query, *, payload_filter: PayloadFilter, judge: Judge | None = None
) -> SearchResult:
    """A page of hits. The decision is about the best hit of all, whatever page or threshold was asked for.

    `payload_filter`: of the release, without what is laid over it.
    """
    allowed = allowed_rows(view, query.space, query.condition, payload_filter=payload_filter)
    best, shown = _pages(query, Ranking(view, allowed, vector=query.vector, corrected=query.corrected))
    judgement = (
        judge.judge(
            shown.ordering,
            best=best.ordering,
            vector=query.vector,
            view=view,
            search=query.search,
            chosen_from=allowed.count,
        )
        if judge
        else None
    )
    relevance = judgement.relevance if judgement else [None] * len(shown.scores)
    describe = _image_hits if query.space == "images" else _text_hits
    hits = [
        {"id": hit.pop("id"), "score": round(score, 6), "relevance": likely, **hit}
        for hit, score, likely in zip(
            describe(view, shown.rows, query), shown.scores.tolist(), relevance, strict=True
        )
    ]
    if judgement is None:
        return SearchResult(hits, None, None)
    levels = {"likely": judgement.likely, "perhaps": judgement.perhaps}
    return SearchResult(hits, judgement.verdict, levels)


def _pages(query: Query, ranking: Ranking) -> tuple[Ranked, Ranked]:
    """What is judged, and what is shown."""
    excluded = query.excluded_item_row if query.space == "images" else None
    spare = excluded is not None  # it may be among them, and is left out
    end = query.offset + query.k
    page = slice(query.offset, end)
    best = ranking.best(max(end, JUDGED_HITS) + spare).without(excluded)
    judged = best.part(slice(JUDGED_HITS))
    least = query.score_threshold
    if least is None:
        return judged, best.part(page)
    passing = best.at_least(least)
    # Of corrected rows any may be under a threshold of cosine, so that how deep a page reaches is not known.
    if ranking.by_cosine or (len(passing.rows) >= end and not np.any(np.abs(best.scores - least) < ROUNDING)):
        return judged, passing.part(page)
    return judged, ranking.within(least).without(excluded).part(page)


def _image_hits(view: GalleryView, rows: NDArray[np.int64], query: Query) -> list[dict[str, Any]]:
    hits = view.described(rows, with_payload=query.with_payload)
    if query.with_vector:
        for hit, row in zip(hits, rows.tolist(), strict=True):
            hit["vector"] = view.vector(row)
    return hits


def _text_hits(view: GalleryView, rows: NDArray[np.int64], query: Query) -> list[dict[str, Any]]:
    """The ids of all their items are read at once."""
    items = [view.items_of_text(row) for row in rows.tolist()]
    named = [each[:MAX_ITEMS_OF_TEXT] for each in items]
    ids = iter(view.described(np.concatenate([_NO_ROWS, *named]), with_payload=False))
    hits = []
    for row, own, some in zip(rows.tolist(), items, named, strict=True):
        text, count = view.text(row), len(own)
        hit: dict[str, Any] = {
            "id": view.text_id(row),
            "text": text,
            "items": [each["id"] for each in islice(ids, len(some))],
            "item_count": count,
        }
        if query.with_payload:
            hit["payload"] = {"text": text, "item_count": count}
        if query.with_vector:
            hit["vector"] = view.text_vector(row)
        hits.append(hit)
    return hits
