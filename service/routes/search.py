"""`/search/text`, `/search/image`, `/search/vector` and `/search/item`."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from encoders.errors import TwinlensError
from service.decoding.images import ImageSource
from service.device.embedding import TextItem
from service.device.tickets import Embedded, Outcome
from service.edge.middleware import context_of
from service.routes.parts import answers, computed, json_answer, serving_of, takes_json
from service.routes.search_requests import SearchRequest, find, note_failure, unit_vector
from service.search.filters import parse_filter
from service.search.phrasing import phrasing_of
from service.serving import Serving
from service.state import ServingState
from service.wire.answers import INLINE_NUMBERS, count_numbers, dump, dump_hits
from service.wire.bodies import read_body, read_files, read_json, read_options
from service.wire.content_types import IMAGES_TAKEN, MULTIPART, ContentType
from service.wire.ids import check_query
from service.wire.schemas import (
    SearchAnswer,
    SearchImageRequest,
    SearchItemRequest,
    SearchOptions,
    SearchTextRequest,
    SearchVectorRequest,
)

router = APIRouter(prefix="/search", tags=["search"])
IMAGE = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}},
    }
}


@router.post(
    "/text",
    responses=answers(SearchAnswer, 400, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=takes_json(SearchTextRequest),
)
async def search_text(request: Request) -> Response:
    """What fits a text: images, or texts with `in: texts`."""
    serving, context = serving_of(request), context_of(request)
    state = serving.state
    asked = await read_json(request, SearchTextRequest, pool=serving.pool)
    condition = parse_filter(asked.filter)
    phrasing = phrasing_of(asked.query, expand=asked.expand, space=asked.space, encoder=state.encoder)
    item = TextItem(asked.query, may_be_cut=asked.truncate == "end", expanded=phrasing.templates is not None)
    outcomes = await serving.embedder.texts(
        state.encoder, [item], deadline=context.deadline, timings=context.timings
    )
    requested = SearchRequest(asked, condition, asked_by="texts", phrasing=phrasing)
    return await _answer(request, state, requested.embedded(_only(outcomes)))


@router.post(
    "/image",
    responses=answers(SearchAnswer, 400, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=takes_json(
        SearchImageRequest,
        beside=SearchOptions,
        image__webp=IMAGE,
        image__jpeg=IMAGE,
        image__png=IMAGE,
        multipart__form_data=FORM,
    ),
)
async def search_image(request: Request) -> Response:
    """What fits an image: images, or texts with `in: texts`. As body or form, options are query parameters."""
    check_query(request)
    serving, context = serving_of(request), context_of(request)
    state = serving.state
    source, options = await _image_request(request, serving)
    condition = parse_filter(options.filter)
    outcomes = await serving.embedder.images(
        state.encoder, [source], deadline=context.deadline, timings=context.timings
    )
    note_failure(state, options, outcomes[0])
    vector = _only(outcomes).vector
    return await _answer(request, state, SearchRequest(options, condition, vector=vector, asked_by="images"))


@router.post(
    "/vector",
    responses=answers(SearchAnswer, 400, 409, 415, 422, 429, 503, 504),
    openapi_extra=takes_json(SearchVectorRequest),
)
async def search_vector(request: Request) -> Response:
    """What fits a vector of the very encoder that is served."""
    serving = serving_of(request)
    state = serving.state
    asked = await read_json(request, SearchVectorRequest, pool=serving.pool)
    vector = unit_vector(asked.vector, asked.model_fingerprint, encoder=state.encoder)
    return await _answer(request, state, SearchRequest(asked, parse_filter(asked.filter), vector=vector))


@router.post(
    "/item",
    responses=answers(SearchAnswer, 400, 404, 415, 422, 429, 503, 504),
    openapi_extra=takes_json(SearchItemRequest),
)
async def search_item(request: Request) -> Response:
    """More like an item of the gallery, which itself is left out."""
    serving = serving_of(request)
    state = serving.state
    asked = await read_json(request, SearchItemRequest, pool=serving.pool)
    requested = SearchRequest(asked, parse_filter(asked.filter), like_item=asked.id, asked_by="images")
    return await _answer(request, state, requested)


async def _image_request(request: Request, serving: Serving) -> tuple[ImageSource, SearchOptions]:
    kind, pool = ContentType.of(request.headers), serving.pool
    if kind.is_image:
        body = await read_body(request, pool=pool)
        return body, await read_options(request.query_params, SearchOptions, pool=pool)
    if kind.name == MULTIPART:
        files, fields = await read_files(request, "image", boundary=kind.boundary, limit=1, pool=pool)
        return files[0], await read_options({**fields, **request.query_params}, SearchOptions, pool=pool)
    if not kind.is_json:
        raise kind.refusal(taken=IMAGES_TAKEN)
    asked = await read_json(request, SearchImageRequest, pool=serving.pool, max_bytes=None)
    return asked.image, asked


def _only(outcomes: list[Outcome]) -> Embedded:
    (outcome,) = outcomes
    if isinstance(outcome, TwinlensError):
        raise outcome
    return outcome


async def _answer(request: Request, state: ServingState, requested: SearchRequest) -> Response:
    serving, options = serving_of(request), requested.options
    found = await serving.searcher.run(partial(find, state, requested), timings=context_of(request).timings)
    answer: dict[str, Any] = {
        "results": found.hits,
        "release": state.release.id,
        "model_fingerprint": state.encoder.fingerprint,
        **requested.told(found),
    }
    numbers = count_numbers(found.hits, dim=state.encoder.dim if options.with_vector else 0)
    if numbers <= INLINE_NUMBERS:
        return json_answer(dump(answer))
    return json_answer(await computed(serving, partial(dump_hits, answer), inline=False))
