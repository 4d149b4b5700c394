"""`PUT /items/{id}`, `DELETE /items/{id}` and `POST /items/batch`: a gallery that changes while it is searched.

No id can collide with a path here, whatever it is: only GET, PUT and DELETE name an item, and what POST names
is never one. An item called `batch` is `PUT /items/batch`. Off unless `live_changes` is set.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from encoders.errors import TwinlensError
from index.journal.changes import Change, ChangeSet, Committed, Delete, RequestKey
from service.decoding.images import ImageSource
from service.edge.middleware import context_of
from service.errors import InvalidField, NotFound, Unavailable, report, without_frames
from service.live.commits import LiveChanges, StaleVector
from service.live.upserts import Prepared, UpsertRequest, good_id, upsert_request
from service.routes.parts import answers, computed, json_answer, requires, serving_of, takes_json
from service.routes.search_requests import unit_vector
from service.serving import Serving
from service.state import ServingState
from service.wire.answers import dump, raise_when_all_failed
from service.wire.bodies import (
    MANY,
    check_count,
    read_body,
    read_files,
    read_json,
    read_options,
    short,
    validated,
)
from service.wire.content_types import IMAGES_TAKEN, MULTIPART, ContentType
from service.wire.idempotency import HEADER, REPLAYED_HEADER, idempotency_key, request_key
from service.wire.ids import ItemId
from service.wire.live import (
    MAX_CHANGES,
    ChangeAnswer,
    ChangeItemsAnswer,
    ChangeItemsRequest,
    PutItemRequest,
    PutOneOfMany,
    PutOptions,
)

router = APIRouter(tags=["live changes"], dependencies=[requires("write")])
TRIES = 4  # to embed for the encoder that is served, when releases are swapped meanwhile
IMAGE = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "schema": {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "string", "format": "binary"},
            "payload": {"type": "string", "description": "a JSON object"},
            "texts": {"type": "string", "description": "a JSON list"},
        },
    }
}
TAKES_KEY = {
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "schema": {"type": "string", "maxLength": 257},
            "description": "a new one for each change: sent again with it, a request is carried out once",
        }
    ]
}
_REFUSALS = (400, 404, 409, 413, 415, 422, 429, 500, 503, 504, 507)
Requests = Callable[[ServingState], Sequence[UpsertRequest | TwinlensError]]
Told = Callable[[Sequence[Change | TwinlensError]], dict[str, Any]]
"""Makes the answer from a change or an error for each upsert and then each delete; raises what fails all."""


@router.put(
    "/items/{item_id:id}",
    responses=answers(ChangeAnswer, *_REFUSALS),
    openapi_extra=takes_json(
        PutItemRequest,
        image__webp=IMAGE,
        image__jpeg=IMAGE,
        image__png=IMAGE,
        multipart__form_data=FORM,
    )
    | TAKES_KEY,
)
async def put_item(request: Request, item_id: ItemId) -> Response:
    """Add an item, or replace the one of that id. As body or form, payload and texts are JSON parameters."""
    serving = serving_of(request)
    live = _live(serving)
    image, asked = await _put_request(request, serving)
    key = await _key(request, "PUT", item_id, image, asked)
    if key and (kept := await live.answer_to(key)):
        return _replayed(kept)

    def requests(state: ServingState) -> list[UpsertRequest | TwinlensError]:
        return [_upsert_request(item_id, asked, state, serving, image=image)]

    return await _carry_out(request, live, _one, requests, key=key)


@router.delete(
    "/items/{item_id:id}", responses=answers(ChangeAnswer, 404, 422, 503, 504, 507), openapi_extra=TAKES_KEY
)
async def delete_item(request: Request, item_id: ItemId) -> Response:
    """Take an item out. It stays out of every release to come until it is put again."""
    serving = serving_of(request)
    live = _live(serving)
    key = await _key(request, "DELETE", good_id(item_id))
    if key and (kept := await live.answer_to(key)):
        return _replayed(kept)
    serving.state.view.row(item_id)
    return await _carry_out(request, live, _one, deletes=[item_id], key=key)


@router.post(
    "/items/batch",
    responses=answers(ChangeItemsAnswer, *_REFUSALS),
    openapi_extra=takes_json(ChangeItemsRequest) | TAKES_KEY,
)
async def change_items(request: Request) -> Response:
    """Put and delete many at once. One bad item never fails the others; the good ones are in together."""
    serving = serving_of(request)
    live = _live(serving)
    asked = await read_json(request, ChangeItemsRequest, pool=serving.pool, max_bytes=None, bounds=MANY)
    if not asked.put and not asked.delete:
        raise InvalidField("there is nothing to put and nothing to delete", param="put")
    check_count(len(asked.put) + len(asked.delete), MAX_CHANGES, name="changes")
    check_count(sum("image" in raw for raw in asked.put), serving.settings.max_images, name="images")
    key = await _key(request, "POST", asked.put, asked.delete)
    if key and (kept := await live.answer_to(key)):
        return _replayed(kept)
    seen: set[str] = set()
    puts = await computed(serving, partial(_each_once, asked.put, seen), inline=False)
    deletes = [_deletable(item_id, seen, serving.state) for item_id in asked.delete]

    def requests(state: ServingState) -> list[UpsertRequest | TwinlensError]:
        return [_request_or_error(one, state, serving) for one in puts]

    def told(outcomes: Sequence[Change | TwinlensError]) -> dict[str, Any]:
        if not deletes:  # to find nothing to delete is an answer, and what a request that is sent again finds
            raise_when_all_failed(outcomes)
        names = [_name(raw.get("id", "")) for raw in asked.put] + [_name(item_id) for item_id in asked.delete]
        items = [_item(name, outcome) for name, outcome in zip(names, outcomes, strict=True)]
        return {"put": items[: len(puts)], "delete": items[len(puts) :]}

    return await _carry_out(request, live, told, requests, deletes=deletes, key=key)


def _live(serving: Serving) -> LiveChanges:
    if serving.live is None:
        raise NotFound(
            "this service takes no changes: it was started without live_changes", code="no_live_changes"
        )
    return serving.live


async def _key(request: Request, *content: object) -> RequestKey | None:
    """What tells this request from others, where it bears an idempotency key. Raises InvalidField."""
    key = idempotency_key(request.headers)
    if key is None:
        return None
    known = [b"" if part is None else part for part in content]
    work = partial(request_key, key, context_of(request).caller, *known)
    return await computed(serving_of(request), work, inline=False)


async def _carry_out(
    request: Request,
    live: LiveChanges,
    told: Told,
    requests: Requests | None = None,
    *,
    deletes: Sequence[str | TwinlensError] = (),
    key: RequestKey | None = None,
) -> Response:
    """Embed, commit and answer; again if the encoder is replaced meanwhile."""
    serving = serving_of(request)
    for _ in range(TRIES):
        wanted = [*(await _prepared(request, live, requests) if requests else ()), *deletes]
        answer = partial(_answer, serving, told, wanted)
        sound = [one for one in wanted if not isinstance(one, TwinlensError)]
        if not sound:
            return json_answer(answer(()))
        images = {
            one.upsert.digest: one.image
            for one in sound
            if isinstance(one, Prepared) and one.upsert.digest and one.image
        }
        changes = [Delete(one) if isinstance(one, str) else one.upsert for one in sound]
        with suppress(StaleVector):
            change_set = ChangeSet(changes, images, key=key, answer=answer)
            committed = await live.commit(change_set, holder=serving)
            return _replayed(committed) if committed.replayed else json_answer(answer(committed.changes))
    raise Unavailable("releases are being swapped again and again: send this again", retry_after_seconds=5)


async def _prepared(request: Request, live: LiveChanges, requests: Requests) -> list[Prepared | TwinlensError]:
    serving, context = serving_of(request), context_of(request)
    state = serving.state
    # In the pool: looking through a payload, or a vector, may take as long as its sender likes.
    asked = await computed(serving, partial(requests, state), inline=False)
    sound = [one for one in asked if isinstance(one, UpsertRequest)]
    check_count(sum(len(one.texts) for one in sound), serving.settings.max_texts, name="texts")
    upserter = serving.upserter(live)
    made = await upserter.prepared(sound, state.encoder, deadline=context.deadline, timings=context.timings)
    ready = iter(made)
    return [next(ready) if isinstance(one, UpsertRequest) else one for one in asked]


def _answer(
    serving: Serving,
    told: Told,
    wanted: Sequence[Prepared | str | TwinlensError],
    done: Sequence[Change],
) -> bytes:
    """The body, from what was wanted and the changes that were made of it, with their numbers."""
    ready, state = iter(done), serving.state
    outcomes = [one if isinstance(one, TwinlensError) else next(ready) for one in wanted]
    return dump(
        {
            **told(outcomes),
            "release": state.release.id,
            "model_fingerprint": state.encoder.fingerprint,
        }
    )


def _replayed(kept: Committed) -> Response:
    response = json_answer(kept.answer or b"")
    response.headers[REPLAYED_HEADER] = "true"
    return response


async def _put_request(request: Request, serving: Serving) -> tuple[ImageSource | None, PutOptions]:
    kind, pool = ContentType.of(request.headers), serving.pool
    if kind.is_image:
        return await read_body(request, pool=pool), await _options(request.query_params, serving)
    if kind.name == MULTIPART:
        files, fields = await read_files(request, "image", boundary=kind.boundary, limit=1, pool=pool)
        return files[0], await _options({**fields, **request.query_params}, serving)
    if not kind.is_json:
        raise kind.refusal(taken=IMAGES_TAKEN)
    return None, await read_json(request, PutItemRequest, pool=pool, max_bytes=None, bounds=MANY)


async def _options(given: Mapping[str, str], serving: Serving) -> PutOptions:
    """Raises InvalidField, InvalidJson or TooLarge."""
    return await read_options(given, PutOptions, pool=serving.pool, of_json=("payload", "texts"))


def _upsert_request(
    item_id: str, asked: PutOptions, state: ServingState, serving: Serving, *, image: ImageSource | None = None
) -> UpsertRequest:
    own = asked if isinstance(asked, PutItemRequest) else PutItemRequest.model_construct()
    vector = None
    if own.vector is not None:
        if own.model_fingerprint is None:
            raise InvalidField(
                "a vector needs model_fingerprint: that of the encoder it is of, as /release tells it",
                param="model_fingerprint",
            )
        vector = unit_vector(own.vector, own.model_fingerprint, encoder=state.encoder)
    return upsert_request(
        item_id,
        asked,
        max_payload_bytes=serving.settings.max_payload_bytes,
        image=own.image if image is None else image,
        vector=vector,
    )


def _request_or_error(
    one: PutOneOfMany | TwinlensError, state: ServingState, serving: Serving
) -> UpsertRequest | TwinlensError:
    try:
        return one if isinstance(one, TwinlensError) else _upsert_request(one.id, one, state, serving)
    except TwinlensError as error:
        return without_frames(error)


def _each_once(raw: Sequence[Mapping[str, Any]], seen: set[str]) -> list[PutOneOfMany | TwinlensError]:
    found: list[PutOneOfMany | TwinlensError] = []
    for fields in raw:
        try:
            one = validated(PutOneOfMany, fields)
            _check_once(one.id, seen)
            found.append(one)
        except TwinlensError as error:
            found.append(without_frames(error))
    return found


def _deletable(item_id: str, seen: set[str], state: ServingState) -> str | TwinlensError:
    try:
        state.view.row(good_id(item_id))
        _check_once(item_id, seen)
    except TwinlensError as error:
        return without_frames(error)
    return item_id


def _check_once(item_id: str, seen: set[str]) -> None:
    """Of two changes of one item in a request, who could tell which is meant to come last?"""
    if item_id in seen:
        raise InvalidField(f"the id {item_id!r} comes twice in this request", param="id", code="repeated_id")
    seen.add(item_id)


def _name(item_id: object) -> str:
    """What an answer calls an item by, also where its id is none."""
    return item_id[:1024] if isinstance(item_id, str) else short(item_id)


def _item(name: str, outcome: Change | TwinlensError) -> dict[str, Any]:
    if isinstance(outcome, TwinlensError):
        problem = report(outcome)
        return {"id": name, "error": {"code": problem.code, "message": problem.message}}
    return {"id": outcome.id, "sequence": outcome.sequence}


def _one(outcomes: Sequence[Change | TwinlensError]) -> dict[str, Any]:
    (outcome,) = outcomes
    if isinstance(outcome, TwinlensError):
        raise outcome
    return {"id": outcome.id, "sequence": outcome.sequence}
