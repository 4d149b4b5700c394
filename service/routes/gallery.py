"""`/fields`, `/items/{id}`, `/images/{id}`: what the gallery holds. Only ids of the release are looked up."""

import asyncio
import io
import logging
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from PIL import Image
from starlette.responses import Response

from index.errors import ImageMissing
from index.release import Release
from index.thumbnails import THUMBNAIL_SIDE_PIXELS
from service.answers import dump
from service.errors import NotFound
from service.routes.parts import Responses, answers, json_answer, serving_of
from service.schemas import FieldsAnswer, ItemAnswer

logger = logging.getLogger(__name__)
router = APIRouter(tags=["gallery"])
CACHE_CONTROL = "public, max-age=300"  # a picture's id may name another picture in the next release
_IMAGE_BODY: Responses = {200: {"content": {"image/webp": {}, "image/jpeg": {}, "image/png": {}}}}


@router.get("/fields", responses=answers(FieldsAnswer, 503))
async def fields(request: Request) -> Response:
    """What there is to filter by: the payloads' fields, with their common values and ranges."""
    serving = serving_of(request)
    state = serving.state
    etag = f'"{state.release.id}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if _is_held(etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    found = await state.fields.get(serving.pool)
    return Response(
        dump({"release": state.release.id, **found}), media_type="application/json", headers=headers
    )


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
    small = side is not None and side <= THUMBNAIL_SIDE_PIXELS
    held = request.headers.get("if-none-match", "")
    wanted = _etag(release, row, small=small)
    if _is_held(wanted, held):  # and not even the file is read
        return Response(status_code=304, headers=_caching(wanted))
    read = partial(_picture, release, row, small=small, or_thumbnail=side is not None)
    data, kind, is_thumbnail = await asyncio.get_running_loop().run_in_executor(serving.pool, read)
    found = _etag(release, row, small=is_thumbnail)
    if _is_held(found, held):
        return Response(status_code=304, headers=_caching(found))
    return Response(data, media_type=kind, headers=_caching(found))


def _caching(etag: str) -> dict[str, str]:
    return {"etag": etag, "cache-control": CACHE_CONTROL}


def _etag(release: Release, row: int, *, small: bool) -> str:
    return f'"{release.items.digest(row).hex()[:32]}{"t" if small else ""}"'


def _is_held(etag: str, if_none_match: str) -> bool:
    return if_none_match.strip() == "*" or etag in if_none_match


def _picture(release: Release, row: int, *, small: bool, or_thumbnail: bool) -> tuple[bytes, str, bool]:
    """Bytes, media type, and whether it is the thumbnail. Raises NotFound when the original is not there."""
    if not small:
        try:
            data = release.open_image(row)
            return data, media_type_of(data), False
        except ImageMissing as error:
            logger.warning("an original picture cannot be had: %s", error)  # its path is no caller's business
            if not or_thumbnail:
                raise NotFound(
                    f"the picture of {release.items.id(row)!r} has moved or changed since release {release.id} "
                    "was built; ?side=256 gives its thumbnail",
                    code="image_missing",
                ) from error
    return release.thumbnail(row), "image/webp", True


def media_type_of(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as picture:  # reads the header only
        if picture.format == "MPO":  # a JPEG with more pictures behind it, as phones write; browsers know JPEG
            return "image/jpeg"
        return picture.get_format_mimetype() or "application/octet-stream"
