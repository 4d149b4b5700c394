"""`/search/batch`: many queries of any kind at once. One bad query never fails the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from service.decoding.images import ImageSource
from service.device.embedding import TextItem, embed_mixed
from service.device.tickets import Embedded
from service.edge.middleware import RequestContext, context_of
from service.errors import InvalidField, TooLarge, report, without_frames
from service.routes.parts import answers, computed, json_answer, serving_of, takes_json
from service.routes.search_requests import SearchRequest, find_some, note_failure, unit_vector
from service.search.filters import parse_filter
from service.search.hits import SearchResult
from service.search.phrasing import phrasing_of
from service.serving import Serving
from service.settings import Settings
from service.state import ServingState
from service.wire.answers import INLINE_NUMBERS, count_numbers, dump_answers, raise_when_all_failed
from service.wire.bodies import MANY, check_count, is_small, read_json, validated
from service.wire.schemas import SearchBatchAnswer, SearchBatchQuery, SearchBatchRequest

router = APIRouter(prefix="/search", tags=["search"])
MAX_RESULTS = 10_000  # of all queries together: what ten searches may give
INLINE_QUERIES = 8  # are checked within 0.5 ms


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """A sound query, and what has yet to be embedded for it, if anything."""

    requested: SearchRequest
    source: ImageSource | TextItem | None = None


@router.post(
    "/batch",
    responses=answers(SearchBatchAnswer, 400, 404, 409, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=takes_json(SearchBatchRequest),
)
async def search_batch(request: Request) -> Response:
    """Several queries (texts, images, vectors, items), each with its own answer or error, in order."""
    serving, context = serving_of(request), context_of(request)
    state = serving.state
    batch = await read_json(request, SearchBatchRequest, pool=serving.pool, max_bytes=None, bounds=MANY)
    check_count(len(batch.queries), serving.settings.max_queries, name="queries")
    ask = partial(_ask_all, batch, encoder=state.encoder)
    few = len(batch.queries) <= INLINE_QUERIES and is_small(request)
    asked = await computed(serving, ask, inline=few)
    _check_totals(asked, serving.settings)
    requested = await _embedded(serving, state, asked, context)
    raise_when_all_failed(requested)
    found = await _found(serving, state, requested, context)
    raise_when_all_failed(found)
    return await _answer(serving, state, requested, found)


def _ask_all(batch: SearchBatchRequest, *, encoder: Encoder) -> list[ParsedQuery | TwinlensError]:
    """Each query with the batch's options where it has none of its own, or what is wrong with it."""
    common = {name: getattr(batch, name) for name in batch.model_fields_set - {"queries"}}
    return [_ask_or_error(raw, common, encoder=encoder) for raw in batch.queries]


def _ask_or_error(raw: object, common: Mapping[str, Any], *, encoder: Encoder) -> ParsedQuery | TwinlensError:
    try:
        own = validated(SearchBatchQuery, raw)
        missing = common.keys() - own.model_fields_set
        return _ask(own.model_copy(update={name: common[name] for name in missing}), encoder=encoder)
    except TwinlensError as error:
        return without_frames(error)


def _ask(query: SearchBatchQuery, *, encoder: Encoder) -> ParsedQuery:
    """Raises InvalidField for a filter or a vector, WrongModel."""
    plain = SearchRequest(query, parse_filter(query.filter))
    if query.text is not None:
        phrasing = phrasing_of(query.text, expand=query.expand, space=query.space, encoder=encoder)
        source = TextItem(query.text, query.truncate == "end", expanded=phrasing.templates is not None)
        return ParsedQuery(replace(plain, asked_by="texts", phrasing=phrasing), source)
    if query.image is not None:
        return ParsedQuery(replace(plain, asked_by="images"), query.image)
    if query.id is not None:
        return ParsedQuery(replace(plain, asked_by="images", like_item=query.id))
    if query.model_fingerprint is None:
        raise InvalidField(
            "a vector needs model_fingerprint: that of the encoder it is of, as /release tells it",
            param="model_fingerprint",
        )
    return ParsedQuery(
        replace(plain, vector=unit_vector(query.vector or (), query.model_fingerprint, encoder=encoder))
    )


def _check_totals(asked: Sequence[ParsedQuery | TwinlensError], settings: Settings) -> None:
    """Raises TooLarge for more than one request may ask of the device, or have written."""
    sound = [one for one in asked if isinstance(one, ParsedQuery)]
    texts = sum(isinstance(one.source, TextItem) for one in sound)
    images = sum(one.source is not None for one in sound) - texts
    check_count(images, settings.max_images, name="images")
    check_count(texts, settings.max_texts, name="texts")
    results = sum(one.requested.options.k for one in sound)
    if results > MAX_RESULTS:
        raise TooLarge(
            f"the queries ask for {results} results and {MAX_RESULTS} are given at once: lower k or send fewer",
            param="k",
            code="too_many_items",
        )


async def _embedded(
    serving: Serving, state: ServingState, asked: Sequence[ParsedQuery | TwinlensError], context: RequestContext
) -> list[SearchRequest | TwinlensError]:
    """What to search for; all images and all texts are embedded as one batch each."""
    sources = {
        place: one.source
        for place, one in enumerate(asked)
        if isinstance(one, ParsedQuery) and one.source is not None
    }
    outcomes = await embed_mixed(
        serving.embedder,
        state.encoder,
        list(sources.values()),
        deadline=context.deadline,
        timings=context.timings,
    )
    requested = [one.requested if isinstance(one, ParsedQuery) else one for one in asked]
    for place, outcome in zip(sources, outcomes, strict=True):
        plain = requested[place]
        if isinstance(plain, SearchRequest) and isinstance(outcome, Embedded):
            requested[place] = plain.embedded(outcome)
        elif isinstance(plain, SearchRequest) and isinstance(outcome, TwinlensError):
            note_failure(state, plain.options, outcome)
            requested[place] = outcome
    return requested


async def _found(
    serving: Serving,
    state: ServingState,
    requested: Sequence[SearchRequest | TwinlensError],
    context: RequestContext,
) -> list[SearchResult | TwinlensError]:
    """In one go where that is quick, else in slices: others' searches must not wait for all of a batch."""
    found: list[SearchResult | TwinlensError] = []
    while len(found) < len(requested):
        search = partial(find_some, state, requested[len(found) :], deadline=context.deadline)
        found += await serving.searcher.run(search, timings=context.timings)
    return found


async def _answer(
    serving: Serving,
    state: ServingState,
    requested: Sequence[SearchRequest | TwinlensError],
    found: Sequence[SearchResult | TwinlensError],
) -> Response:
    items = [_item(index, *both) for index, both in enumerate(zip(requested, found, strict=True))]
    rest = {"release": state.release.id, "model_fingerprint": state.encoder.fingerprint}
    hits = [hit for one in found if isinstance(one, SearchResult) for hit in one.hits]
    with_vectors = any(isinstance(one, SearchRequest) and one.options.with_vector for one in requested)
    numbers = count_numbers(hits, dim=state.encoder.dim if with_vectors else 0)
    written = partial(dump_answers, items, rest)
    return json_answer(await computed(serving, written, inline=numbers <= INLINE_NUMBERS))


def _item(
    index: int, requested: SearchRequest | TwinlensError, found: SearchResult | TwinlensError
) -> dict[str, Any]:
    if isinstance(found, TwinlensError):
        problem = report(found)
        return {"index": index, "error": {"code": problem.code, "message": problem.message}}
    told = requested.told(found) if isinstance(requested, SearchRequest) else {}
    return {"index": index, "results": found.hits, **told}
