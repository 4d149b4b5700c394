"""Request bodies to validated requests: JSON, raw images, multipart; one way in for each.

Nothing that grows with what a caller sends is done on the event loop, and nothing holds the interpreter's lock
for long meanwhile (`python -m benchmarks.faults.stalls`). The cap on bytes is the edge's.
"""

import asyncio
import reprlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from service.decoding.images import ImageSource
from service.errors import InvalidField, InvalidJson, ServiceError, TooLarge
from service.wire.content_types import ContentType
from service.wire.forms import parse_form, too_many
from service.wire.ids import broken_id
from service.wire.large_json import Bounds, parse_large
from service.wire.schemas import MAX_FIELDS

M = TypeVar("M", bound=BaseModel)
MAX_PLAIN_BYTES = 4 << 20  # of JSON without images
INLINE_BYTES = 32_768  # parsed within 0.1 ms: a hop to another thread would cost as much
JOINED_BYTES = 65_536  # what comes in smaller pieces is put together: each would take 50 bytes besides
PLAIN = Bounds(values=100_000, parts=20_000)
MANY = Bounds(values=2_500_000, parts=250_000)  # a thousand items with vectors
MAX_NAME = 80  # characters of a field's name that are told


class _Short(reprlib.Repr):
    """Reads no more of a value than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """As elsewhere, but for many keys, which would be sorted first."""
        return super().repr_dict(x, level) if len(x) <= MAX_FIELDS else f"an object of {len(x)} fields"


short = _Short().repr
"""A value in a few words, however large it is."""


async def read_json(
    request: Request,
    model: type[M],
    *,
    pool: Executor,
    max_bytes: int | None = MAX_PLAIN_BYTES,
    bounds: Bounds = PLAIN,
) -> M:
    """The body as a `model`. Raises UnsupportedMediaType, TooLarge, InvalidJson or InvalidField.

    `max_bytes` is None where images come as base64; their size is the edge's to bound.
    """
    kind = ContentType.of(request.headers)
    if not kind.is_json:
        raise kind.refusal(taken="content-type: application/json")
    chunks = await _chunks(request)
    size = sum(map(len, chunks))
    if max_bytes is not None and size > max_bytes:
        raise TooLarge(f"the body has {size} bytes and {max_bytes} are taken here: send less at once")
    if size <= INLINE_BYTES:
        return parse(model, b"".join(chunks))
    work = partial(_parse_chunks, model, chunks, bounds)
    return await asyncio.get_running_loop().run_in_executor(pool, work)


async def read_body(request: Request, *, pool: Executor) -> bytes:
    """All of it; what is large is put together in the pool."""
    chunks = await _chunks(request)
    if len(chunks) <= 1:
        return chunks[0] if chunks else b""
    return await asyncio.get_running_loop().run_in_executor(pool, b"".join, chunks)


def is_small(request: Request) -> bool:
    """Whether the body was announced to be what is looked through on the event loop."""
    announced = request.headers.get("content-length", "")
    return announced.isdecimal() and int(announced) <= INLINE_BYTES


async def _chunks(request: Request) -> list[bytes]:
    """In pieces of at least JOINED_BYTES but for the last, however small they come."""
    chunks: list[bytes] = []
    pending = bytearray()
    async for chunk in request.stream():
        if not pending and len(chunk) >= JOINED_BYTES:
            chunks.append(chunk)
            continue
        pending += chunk
        if len(pending) >= JOINED_BYTES:
            chunks.append(bytes(pending))
            pending.clear()
    if pending:
        chunks.append(bytes(pending))
    return chunks


def parse(model: type[M], body: bytes) -> M:
    """A small JSON body as a `model`. Raises InvalidJson or InvalidField."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise broken_id(body) or explain(error) from error


def parse_text(text: str | bytes, what: str, *, bounds: Bounds = PLAIN, param: str | None = None) -> Any:
    """JSON of any size. Raises InvalidJson, which says that `what` is none, or TooLarge."""
    data = text.encode() if isinstance(text, str) else text
    try:
        return from_json(data) if len(data) <= INLINE_BYTES else parse_large(data, bounds=bounds)
    except ValueError as error:
        raise broken_id(data) or InvalidJson(f"{what} is not JSON: {error}", param=param) from error


def validated(model: type[M], given: object) -> M:
    """What was parsed already as a `model`. Raises InvalidField."""
    if isinstance(given, dict) and len(given) > MAX_FIELDS:
        raise InvalidField(f"{len(given)} fields stand together, and no more than {MAX_FIELDS} are taken")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise explain(error) from error


def _parse_chunks(model: type[M], chunks: list[bytes], bounds: Bounds) -> M:
    body = b"".join(chunks)
    chunks.clear()
    return validated(model, parse_text(body, "the body", bounds=bounds))


async def read_options(
    given: Mapping[str, str], model: type[M], *, pool: Executor, of_json: tuple[str, ...] = ("filter",)
) -> M:
    """Query parameters or form fields as a `model`; `of_json`: those that hold JSON.

    Raises InvalidField, InvalidJson or TooLarge.
    """
    work = partial(_parse_options, given, model, of_json)
    if sum(map(len, given.values())) <= INLINE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(pool, work)


def _parse_options(given: Mapping[str, str], model: type[M], of_json: tuple[str, ...]) -> M:
    parsed = {name: parse_text(given[name], name, param=name) for name in of_json if name in given}
    return validated(model, {**given, **parsed})


async def read_files(
    request: Request, name: str, *, boundary: bytes, limit: int, pool: Executor
) -> tuple[list[ImageSource], dict[str, str]]:
    """The files of a multipart field `name`, and the text fields.

    Raises InvalidForm, InvalidField, TooLarge or UnsupportedMediaType.
    """
    chunks = await _chunks(request)
    work = partial(parse_form, _drained(chunks), boundary, name=name, limit=limit)
    form = await asyncio.get_running_loop().run_in_executor(pool, work)
    if not form.files:
        raise InvalidField(f"the form has no file in a field {name!r}", param=name)
    return list(form.files), form.texts


def _drained(chunks: list[bytes]) -> Iterator[bytes]:
    """One after the other; each is let go of when the next is asked for."""
    chunks.reverse()
    while chunks:
        yield chunks.pop()


def check_count(count: int, limit: int, *, name: str) -> None:
    if count > limit:
        raise too_many(str(count), limit, name)


def explain(error: ValidationError) -> ServiceError:
    """The first problem of a validation, with its field and the value that was sent."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "json_invalid":
        return InvalidJson(f"the body is not JSON: {problem['msg'].removeprefix('Invalid JSON: ')}")
    param = ".".join(str(part)[:MAX_NAME] for part in problem["loc"] if _is_field(part)) or None
    words = problem["msg"]
    if problem["type"] == "extra_forbidden":
        words = "no such field is taken here"
    elif problem["type"] != "missing":
        words += f", not {short(problem['input'])}"
    return InvalidField(f"{param or 'the body'}: {words}", param=param)


def _is_field(part: int | str) -> bool:
    """Pydantic also names the branch of a union it tried, as in texts.list[str].3."""
    return isinstance(part, int) or (part not in {"str", "int", "OpenAIItem"} and "[" not in part)
