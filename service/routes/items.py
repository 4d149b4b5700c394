"""`PUT /items/{id}`, `DELETE /items/{id}` and `POST /items/batch`: a gallery that changes while it is searched.

No id can collide with a path here, whatever it is: only GET, PUT and DELETE name an item, and what POST names
is never one. An item called `batch` is `PUT /items/batch`. Off unless `live_changes` is set.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from encoders.errors import TwinlensError
from index.live.records import Change, Delete, Put
from service.decoding.pictures import ImageSource
from service.edge.edge import context_of
from service.errors import InvalidField, NotFound, Unavailable, report
from service.live.carrying import putter_of
from service.live.live import LiveChanges, StaleVector
from service.live.putting import Wish, good_id, wish
from service.routes.parts import answers, computed, json_answer, requires, serving_of, takes_json
from service.search.wanted import unit_vector
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
PICTURE = {"schema": {"type": "string", "format": "binary"}}
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
_REFUSALS = (400, 404, 409, 413, 415, 422, 429, 500, 503, 504, 507)
Made = Callable[[ServingState], Sequence[Wish | TwinlensError]]


@router.put(
    "/items/{item_id:path}",
    responses=answers(ChangeAnswer, *_REFUSALS),
    openapi_extra=takes_json(
        PutItemRequest,
        image__webp=PICTURE,
        image__jpeg=PICTURE,
        image__png=PICTURE,
        multipart__form_data=FORM,
    ),
)
async def put_item(request: Request, item_id: str) -> Response:
    """Add an item, or replace the one of that id. As body or form, payload and texts are JSON parameters."""
    serving = serving_of(request)
    live = _live(serving)
    image, asked = await _put_request(request, serving)

    def made(state: ServingState) -> list[Wish | TwinlensError]:
        return [_wish(item_id, asked, state, serving, image=image)]

    (outcome,) = await _change(request, live, made)
    return _told(request, outcome)


@router.delete("/items/{item_id:path}", responses=answers(ChangeAnswer, 404, 422, 503, 504, 507))
async def delete_item(request: Request, item_id: str) -> Response:
    """Take an item out. It stays out of every release to come until it is put again."""
    serving = serving_of(request)
    live = _live(serving)
    serving.state.holdings.row(good_id(item_id))
    (outcome,) = await _change(request, live, deletes=[item_id])
    return _told(request, outcome)


@router.post(
    "/items/batch",
    responses=answers(ChangeItemsAnswer, *_REFUSALS),
    openapi_extra=takes_json(ChangeItemsRequest),
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
    seen: set[str] = set()
    puts = await computed(serving, partial(_each_once, asked.put, seen), inline=False)
    deletes = [_deletable(item_id, seen, serving.state) for item_id in asked.delete]

    def made(state: ServingState) -> list[Wish | TwinlensError]:
        return [_wish_or_error(one, state, serving) for one in puts]

    outcomes = await _change(request, live, made, deletes=deletes)
    if not deletes:  # to find nothing to delete is an answer, and what a request that is sent again finds
        raise_when_all_failed(outcomes)
    names = [_name(raw.get("id", "")) for raw in asked.put] + [_name(item_id) for item_id in asked.delete]
    items = [_item(name, outcome) for name, outcome in zip(names, outcomes, strict=True)]
    return _answer(request, {"put": items[: len(puts)], "delete": items[len(puts) :]})


def _live(serving: Serving) -> LiveChanges:
    if serving.live is None:
        raise NotFound(
            "this service takes no changes: it was started without live_changes", code="no_live_changes"
        )
    return serving.live


async def _change(
    request: Request,
    live: LiveChanges,
    made: Made | None = None,
    *,
    deletes: Sequence[str | TwinlensError] = (),
) -> list[Change | TwinlensError]:
    """A change or an error for each wish, then for each delete; again if the encoder is replaced meanwhile."""
    serving, context = serving_of(request), context_of(request)
    putter = putter_of(serving, live)
    for _ in range(TRIES):
        state = serving.state
        # In the pool: looking through a payload, or a vector, may take as long as its sender likes.
        wishes = await computed(serving, partial(made, state), inline=False) if made else ()
        sound = [one for one in wishes if isinstance(one, Wish)]
        check_count(sum(len(one.texts) for one in sound), serving.settings.max_texts, name="texts")
        puts, held = await putter.prepared(
            sound, state.encoder, deadline=context.deadline, timings=context.timings
        )
        ready = iter(puts)
        outcomes: list[Put | str | TwinlensError] = [
            next(ready) if isinstance(one, Wish) else one for one in wishes
        ]
        with suppress(StaleVector):
            return await _committed(live, serving, [*outcomes, *deletes], held=held)
    raise Unavailable("releases are being swapped again and again: send this again", retry_after_seconds=5)


async def _committed(
    live: LiveChanges, serving: Serving, wanted: Sequence[Put | str | TwinlensError], *, held: ExitStack
) -> list[Change | TwinlensError]:
    changes = [
        Delete(one) if isinstance(one, str) else one for one in wanted if not isinstance(one, TwinlensError)
    ]
    done = iter(await live.commit(changes, serving=serving, held=held) if changes else ())
    return [one if isinstance(one, TwinlensError) else next(done) for one in wanted]


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


def _wish(
    item_id: str, asked: PutOptions, state: ServingState, serving: Serving, *, image: ImageSource | None = None
) -> Wish:
    own = asked if isinstance(asked, PutItemRequest) else PutItemRequest.model_construct()
    vector = None
    if own.vector is not None:
        if own.model_fingerprint is None:
            raise InvalidField(
                "a vector needs model_fingerprint: that of the encoder it is of, as /release tells it",
                param="model_fingerprint",
            )
        vector = unit_vector(own.vector, own.model_fingerprint, encoder=state.encoder)
    return wish(
        item_id,
        asked,
        max_payload_bytes=serving.settings.max_payload_bytes,
        image=own.image if image is None else image,
        vector=vector,
    )


def _wish_or_error(
    one: PutOneOfMany | TwinlensError, state: ServingState, serving: Serving
) -> Wish | TwinlensError:
    try:
        return one if isinstance(one, TwinlensError) else _wish(one.id, one, state, serving)
    except TwinlensError as error:
        return error


def _each_once(raw: Sequence[Mapping[str, Any]], seen: set[str]) -> list[PutOneOfMany | TwinlensError]:
    found: list[PutOneOfMany | TwinlensError] = []
    for fields in raw:
        try:
            one = validated(PutOneOfMany, fields)
            _check_once(one.id, seen)
            found.append(one)
        except TwinlensError as error:
            found.append(error)
    return found


def _deletable(item_id: str, seen: set[str], state: ServingState) -> str | TwinlensError:
    try:
        state.holdings.row(good_id(item_id))
        _check_once(item_id, seen)
    except TwinlensError as error:
        return error
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


def _told(request: Request, outcome: Change | TwinlensError) -> Response:
    if isinstance(outcome, TwinlensError):
        raise outcome
    return _answer(request, {"id": outcome.id, "sequence": outcome.sequence})


def _answer(request: Request, content: Mapping[str, Any]) -> Response:
    state = serving_of(request).state
    return json_answer(
        dump({**content, "release": state.release.id, "model_fingerprint": state.encoder.fingerprint})
    )
