"""`/items/{id}` and `/images/{id}`: what the gallery holds. Only ids of the release are ever looked up."""

import asyncio
import hashlib
import io
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from PIL import Image
from starlette.responses import Response

from index.errors import ImageMissing
from index.release import Release
from index.thumbnails import THUMBNAIL_SIDE_PIXELS
from service.answers import dump
from service.routes.parts import Responses, answers, json_answer, serving_of
from service.schemas import ItemAnswer

router = APIRouter(tags=["gallery"])
CACHE_CONTROL = "public, max-age=300"  # a picture's id may name another picture in the next release
_IMAGE_BODY: Responses = {200: {"content": {"image/webp": {}, "image/jpeg": {}, "image/png": {}}}}


@router.get("/items/{item_id:path}", responses=answers(ItemAnswer, 404, 503))
async def item(request: Request, item_id: str) -> Response:
    """The payload of an item."""
    release = serving_of(request).state.release
    row = release.items.row(item_id)
    width, height = release.items.size_pixels(row)
    answer = {"id": item_id, "payload": release.items.payload(row), "width": width, "height": height}
    return json_answer(dump(answer | {"release": release.id}))


@router.get(
    "/images/{item_id:path}",
    response_class=Response,
    responses={**answers(ItemAnswer, 404, 422, 503), **_IMAGE_BODY},
)
async def image(
    request: Request,
    item_id: str,
    side: Annotated[
        int | None,
        Query(ge=1, le=8192, description=f"up to {THUMBNAIL_SIDE_PIXELS}: the thumbnail; else the picture"),
    ] = None,
) -> Response:
    """The picture itself, or with `side` the smallest copy of it that has as many pixels on its long side."""
    serving = serving_of(request)
    release = serving.state.release
    row = release.items.row(item_id)
    read = partial(_picture, release, row, side)
    data, kind, etag = await asyncio.get_running_loop().run_in_executor(serving.pool, read)
    headers = {"etag": etag, "cache-control": CACHE_CONTROL}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)


def _picture(release: Release, row: int, side: int | None) -> tuple[bytes, str, str]:
    """Bytes, media type and etag. A copy of some size may fall back on the thumbnail; the original may not."""
    if side is not None and side <= THUMBNAIL_SIDE_PIXELS:
        return _described(release.thumbnail(row))
    try:
        return _described(release.open_image(row))
    except ImageMissing:
        if side is None:
            raise
        return _described(release.thumbnail(row))


def _described(data: bytes) -> tuple[bytes, str, str]:
    with Image.open(io.BytesIO(data)) as picture:  # reads the header only
        kind = picture.get_format_mimetype() or "application/octet-stream"
    return data, kind, f'"{hashlib.sha256(data).hexdigest()[:32]}"'
