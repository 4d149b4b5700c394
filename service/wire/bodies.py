"""Request bodies to validated requests: JSON, raw images, multipart; one way in for each.

Large JSON is parsed off the event loop. The cap on bytes is the edge's. Knows nothing of what is done
with a request.
"""

import asyncio
import reprlib
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request

from service.decoding.pictures import ImageSource
from service.errors import InvalidField, InvalidJson, ServiceError, TooLarge, UnsupportedMediaType
from service.wire.ids import broken_id

M = TypeVar("M", bound=BaseModel)
MAX_FORM_FIELDS = 64
MAX_PLAIN_BYTES = 4 << 20  # of JSON without pictures: parsing it holds the interpreter's lock
INLINE_BYTES = 32_768  # parsed within 0.1 ms: a hop to another thread would cost as much
MAX_PARTS = 250_000  # lists, objects and their fields in one body: each takes hundreds of bytes once parsed
MAX_VALUES = 4_000_000  # the vectors of a thousand items
_SHORT = reprlib.Repr()  # reads no more of a value than it shows
_SHORT.maxstring = _SHORT.maxother = 80


def media_type(request: Request) -> str:
    """Of the body, lower case, without parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def read_json(
    request: Request, model: type[M], *, pool: Executor, max_bytes: int | None = MAX_PLAIN_BYTES
) -> M:
    """The body as a `model`. Raises UnsupportedMediaType, TooLarge, InvalidJson or InvalidField.

    `max_bytes` is None where pictures come as base64; their size is the edge's to bound.
    """
    kind = media_type(request)
    if not is_json(kind):
        raise UnsupportedMediaType(
            f"content-type {kind or 'missing'!r} is not taken here: send content-type: application/json"
        )
    body = await request.body()
    if max_bytes is not None and len(body) > max_bytes:
        raise TooLarge(f"the body has {len(body)} bytes and {max_bytes} are taken here: send less at once")
    if len(body) <= INLINE_BYTES:
        return parse(model, body)
    return await asyncio.get_running_loop().run_in_executor(pool, parse, model, body)


def parse(model: type[M], body: bytes) -> M:
    """JSON bytes as a `model`. Raises InvalidJson, InvalidField or TooLarge."""
    _refuse_crowded(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise broken_id(body) or explain(error) from error


def _refuse_crowded(body: bytes) -> None:
    """JSON of very many very small parts would take a hundred times its bytes. Raises TooLarge."""
    if len(body) <= MAX_PARTS:
        return
    parts, values = sum(body.count(sign) for sign in (b"[", b"{", b":")), body.count(b",")
    if parts > MAX_PARTS or values > MAX_VALUES:
        raise TooLarge(
            f"the JSON has about {parts} lists, objects and fields and {values} values, and {MAX_PARTS} and "
            f"{MAX_VALUES} are taken: send less at once"
        )


def read_query(request: Request, model: type[M], *, more: Mapping[str, str] | None = None) -> M:
    """Query parameters (and `more`, which they win over) as a `model`. Raises InvalidField or InvalidJson."""
    given: dict[str, Any] = {**(more or {}), **request.query_params}
    if isinstance(told := given.get("filter"), str):
        try:
            given["filter"] = from_json(told)
        except ValueError as error:
            raise InvalidJson(f"filter is not JSON: {error}", param="filter") from error
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise explain(error) from error


async def read_files(request: Request, name: str, *, limit: int) -> tuple[list[ImageSource], dict[str, str]]:
    """The files of a multipart field `name`, and the text fields. Raises InvalidField or TooLarge."""
    files: list[ImageSource] = []
    texts: dict[str, str] = {}
    # The parser stops one past the limit, and holds no more.
    try:
        async with request.form(max_files=limit, max_fields=MAX_FORM_FIELDS) as form:
            for field, value in form.multi_items():
                if isinstance(value, str):
                    texts[field] = value
                elif field == name:
                    files.append(await value.read())
                else:
                    raise InvalidField(f"file field {field!r} is not taken: send {name!r}", param=field)
    except HTTPException as error:
        if str(error.detail).startswith("Too many files"):
            raise _too_many(f"more than {limit}", limit, name) from error
        raise
    if not files:
        raise InvalidField(f"the form has no file in a field {name!r}", param=name)
    return files, texts


def check_count(count: int, limit: int, *, name: str) -> None:
    if count > limit:
        raise _too_many(str(count), limit, name)


def _too_many(count: str, limit: int, name: str) -> TooLarge:
    return TooLarge(
        f"{count} {name} in one request and {limit} are taken: send several requests",
        param=name,
        code="too_many_items",
    )


def explain(error: ValidationError) -> ServiceError:
    """The first problem of a validation, with its field and the value that was sent."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "json_invalid":
        return InvalidJson(f"the body is not JSON: {problem['msg'].removeprefix('Invalid JSON: ')}")
    param = ".".join(str(part) for part in problem["loc"] if _is_field(part)) or None
    words = problem["msg"]
    if problem["type"] == "extra_forbidden":
        words = "no such field is taken here"
    elif problem["type"] != "missing":
        words += f", not {_SHORT.repr(problem['input'])}"
    return InvalidField(f"{param or 'the body'}: {words}", param=param)


def _is_field(part: int | str) -> bool:
    """Pydantic also names the branch of a union it tried, as in texts.list[str].3."""
    return isinstance(part, int) or (part not in {"str", "int", "OpenAIItem"} and "[" not in part)
