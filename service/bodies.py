"""Request bodies to validated requests: JSON, raw images, multipart; one way in for each.

Large JSON is parsed off the event loop. The cap on bytes is the edge's. Knows nothing of what is done
with a request.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from service.decoding import ImageSource
from service.errors import InvalidField, InvalidJson, ServiceError, TooLarge, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)
INLINE_BYTES = 32_768  # parsed within 0.1 ms: a hop to another thread would cost as much


def media_type(request: Request) -> str:
    """Of the body, lower case, without parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(kind: str) -> bool:
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


async def read_json(request: Request, model: type[M], *, pool: Executor) -> M:
    """The body as a `model`. Raises UnsupportedMediaType, InvalidJson or InvalidField."""
    kind = media_type(request)
    if not is_json(kind):
        raise UnsupportedMediaType(
            f"content-type {kind or 'missing'!r} is not taken here: send content-type: application/json"
        )
    body = await request.body()
    if len(body) <= INLINE_BYTES:
        return parse(model, body)
    return await asyncio.get_running_loop().run_in_executor(pool, parse, model, body)


def parse(model: type[M], body: bytes) -> M:
    """JSON bytes as a `model`. Raises InvalidJson or InvalidField."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise explain(error) from error


def read_query(request: Request, model: type[M], *, more: Mapping[str, str] | None = None) -> M:
    """Query parameters (and `more`, which they win over) as a `model`. Raises InvalidField."""
    given: dict[str, Any] = {**(more or {}), **request.query_params}
    if isinstance(given.get("filter"), str):
        given["filter"] = parse(_AnyObject, b'{"value": %s}' % given["filter"].encode()).value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise explain(error) from error


class _AnyObject(BaseModel):
    value: Any


async def read_files(request: Request, name: str, *, limit: int) -> tuple[list[ImageSource], dict[str, str]]:
    """The files of a multipart field `name`, and the text fields. Raises InvalidField or TooLarge."""
    # Past the limit so that a few too many get our own words; the parser's own cap bounds the rest.
    async with request.form(max_files=4 * limit, max_fields=64) as form:
        files: list[ImageSource] = []
        texts: dict[str, str] = {}
        for field, value in form.multi_items():
            if isinstance(value, str):
                texts[field] = value
            elif field == name:
                files.append(await _content(value))
            else:
                raise InvalidField(f"file field {field!r} is not taken: send {name!r}", param=field)
    check_count(len(files), limit, name=name)
    if not files:
        raise InvalidField(f"the form has no file in a field {name!r}", param=name)
    return files, texts


async def _content(upload: UploadFile) -> bytes:
    return await upload.read()


def check_count(count: int, limit: int, *, name: str) -> None:
    if count > limit:
        raise TooLarge(
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
        words += f", not {_shortened(problem['input'])}"
    return InvalidField(f"{param or 'the body'}: {words}", param=param)


def _is_field(part: int | str) -> bool:
    """Pydantic also names the branch of a union it tried, as in texts.list[str].3."""
    return isinstance(part, int) or (part not in {"str", "int", "OpenAIItem"} and "[" not in part)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
