"""`GET /duplicates`: images of the gallery that are nearly the same."""

import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from service.edge.middleware import context_of
from service.errors import InvalidField
from service.routes.parts import answers, computed, json_answer, serving_of
from service.search.duplicates import Scan, Twins
from service.search.gallery_view import GalleryView
from service.wire.answers import dump
from service.wire.live import DuplicatesAnswer

router = APIRouter(tags=["gallery"])
SHARE_OF_DEADLINE = 0.5  # a page may take, before it stops where it is
MAX_SECONDS = 10.0
_CURSOR = re.compile(r"([0-9A-Za-z-]{1,64})\.(\d{1,12})")


@router.get("/duplicates", responses=answers(DuplicatesAnswer, 422, 429, 503, 504))
async def list_duplicates(
    request: Request,
    min_score: Annotated[float, Query(ge=0.5, le=1, description="least cosine of a pair")] = 0.95,
    limit: Annotated[int, Query(ge=1, le=1000, description="pairs, about")] = 100,
    cursor: Annotated[str | None, Query(max_length=80, description="`next` of the page before")] = None,
) -> Response:
    """Pairs that look the same, each named once. A page may be empty, and yet not the last."""
    serving, context = serving_of(request), context_of(request)
    view = serving.state.view
    first_row = _first_row(cursor, view)
    now = time.perf_counter()
    until = now + min(MAX_SECONDS, SHARE_OF_DEADLINE * (context.deadline - now))
    scan = Scan(view, min_score=min_score)
    page = await scan.page(first_row, serving.searcher, limit=limit, until=until)

    def answer() -> bytes:
        release = view.release.id
        return dump(
            {
                "results": [_described(one, view) for one in page.found],
                "scanned": scan.row_count if page.next_row is None else page.next_row,
                "total": scan.row_count,
                "next": None if page.next_row is None else f"{release}.{page.next_row}",
                "release": release,
            }
        )

    return json_answer(await computed(serving, answer, inline=len(page.found) <= 1))


def _first_row(cursor: str | None, view: GalleryView) -> int:
    if cursor is None:
        return 0
    parts = _CURSOR.fullmatch(cursor)
    if parts is None:
        raise InvalidField(f"cursor {cursor!r} is none that an answer gave as next", param="cursor")
    release, row = parts.groups()
    if release != view.release.id:
        raise InvalidField(
            f"cursor is of release {release}, and {view.release.id} is served: begin again without it",
            param="cursor",
            code="stale_cursor",
        )
    return int(row)


def _described(twins: Twins, view: GalleryView) -> dict[str, Any]:
    own = view.digest(twins.row)
    pairs = zip(twins.rows.tolist(), twins.scores.tolist(), strict=True)
    duplicates = [
        {"id": view.id(row), "score": round(min(score, 1.0), 6), "identical": view.digest(row) == own}
        for row, score in pairs
    ]
    return {"id": view.id(twins.row), "duplicates": duplicates, "count": twins.count}
