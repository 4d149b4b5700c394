"""`/fields`, `/items/{id}`, `/images/{id}`: what the gallery holds. Only ids of the release are looked up."""

import asyncio
import logging
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from encoders.reading import errno_behind
from index.errors import ImageMissing
from index.thumbnails import THUMBNAIL_SIDE_PIXELS
from service.decoding.media_types import media_type_of
from service.errors import NotFound, ServiceError, Unavailable
from service.routes.parts import Responses, answers, json_answer, serving_of
from service.search.gallery_view import GalleryView
from service.serving import Serving
from service.wire.answers import dump
from service.wire.ids import ItemId
from service.wire.schemas import FieldsAnswer, ItemAnswer

logger = logging.getLogger(__name__)
router = APIRouter(tags=["gallery"])
ASK_EACH_TIME = "no-cache"  # kept, and used while its ETag holds: with live changes an item may go any moment
CACHE_CONTROL = "public, max-age=300"  # an image's id may name another image in the next release
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_SAME = {"description": "What the caller holds (if-none-match) still holds"}
_IMAGE_BODY: Responses = {
    200: {"description": "The image", "content": {"image/*": _BYTES}},
    304: _SAME,
}


@router.get("/fields", responses={**answers(FieldsAnswer, 503), 304: _SAME})
async def fields(request: Request) -> Response:
    """What there is to filter by: the payloads' fields, with their common values and ranges, as of now."""
    serving = serving_of(request)
    state = serving.state
    etag = f'"{state.release.id}.{state.delta.sequence}"'
    headers = {"etag": etag, "cache-control": "no-cache"}
    if _is_held(etag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    found = await state.fields.get(serving.pool)
    return Response(
        dump({"release": state.release.id, **found}), media_type="application/json", headers=headers
    )


@router.get("/items/{item_id:id}", responses=answers(ItemAnswer, 404, 422, 503))
async def get_item(request: Request, item_id: ItemId) -> Response:
    """The payload of an item."""
    view = serving_of(request).state.view
    row = view.row(item_id)
    width, height = view.size_pixels(row) or (None, None)
    answer = {"id": item_id, "payload": view.payload(row), "width": width, "height": height}
    return json_answer(dump(answer | {"release": view.release.id}))


@router.get(
    "/images/{item_id:id}",
    response_class=Response,
    responses={**answers(ItemAnswer, 404, 422, 503), **_IMAGE_BODY},
)
async def get_image(
    request: Request,
    item_id: ItemId,
    side: Annotated[
        int | None,
        Query(ge=1, le=8192, description=f"up to {THUMBNAIL_SIDE_PIXELS}: the thumbnail; else the image"),
    ] = None,
) -> Response:
    """The image itself, or with `side` the smallest copy of it that has as many pixels on its long side."""
    serving = serving_of(request)
    view = serving.state.view
    row = view.row(item_id)
    try:
        return await _image_answer(request, serving, view, row, side=side)
    except NotFound:
        now = serving.state.view
        if now.digest(now.row(item_id)) == view.digest(row):
            raise
    # It was put again while its earlier image was looked for.
    return await get_image(request, item_id, side)


async def _image_answer(
    request: Request, serving: Serving, view: GalleryView, row: int, *, side: int | None
) -> Response:
    may_change = serving.settings.live_changes
    small = side is not None and side <= THUMBNAIL_SIDE_PIXELS
    held = request.headers.get("if-none-match", "")
    wanted = _etag(view, row, small=small)
    if _is_held(wanted, held):  # and not even the file is read
        return Response(status_code=304, headers=_caching(wanted, may_change=may_change))
    read = partial(_image, view, row, small=small, or_thumbnail=side is not None)
    data, kind, is_thumbnail = await asyncio.get_running_loop().run_in_executor(serving.pool, read)
    found = _etag(view, row, small=is_thumbnail)
    if _is_held(found, held):
        return Response(status_code=304, headers=_caching(found, may_change=may_change))
    return Response(data, media_type=kind, headers=_caching(found, may_change=may_change))


def _caching(etag: str, *, may_change: bool) -> dict[str, str]:
    return {"etag": etag, "cache-control": ASK_EACH_TIME if may_change else CACHE_CONTROL}


def _etag(view: GalleryView, row: int, *, small: bool) -> str:
    return f'"{view.digest(row).hex()[:32]}{"t" if small else ""}"'


def _is_held(etag: str, if_none_match: str) -> bool:
    return if_none_match.strip() == "*" or etag in if_none_match


def _image(view: GalleryView, row: int, *, small: bool, or_thumbnail: bool) -> tuple[bytes, str, bool]:
    """Bytes, media type, and whether it is the thumbnail. Raises NotFound when the original is not there."""
    if not small:
        try:
            data = view.open_image(row)
            return data, media_type_of(data), False
        except ImageMissing as error:
            logger.warning("an original image cannot be had: %s", error)  # its path is no caller's business
            if not or_thumbnail:
                raise _missing(view, row, error) from error
    try:
        return view.thumbnail(row), "image/webp", True
    except ImageMissing as error:
        raise _missing(view, row, error) from error


def _missing(view: GalleryView, row: int, error: ImageMissing) -> ServiceError:
    if errno_behind(error):
        words = f"the image of {view.id(row)!r} cannot be read just now: send this again"
        return Unavailable(words, code="image_unreadable", retry_after_seconds=5)
    if error.code == "no_image":
        return NotFound(
            f"the item {view.id(row)!r} was put as a vector, without an image", code="image_missing"
        )
    return NotFound(
        f"the image of {view.id(row)!r} has moved or changed since release {view.release.id} "
        "was built; ?side=256 gives its thumbnail",
        code="image_missing",
    )
