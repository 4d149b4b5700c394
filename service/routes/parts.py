"""What the endpoints share: the running service, a request's context, answers of bytes, documentation."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fastapi import Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from service.access.access import refuse_without
from service.access.keys import Scope
from service.access.origins import refuse_unasked
from service.edge.middleware import context_of
from service.serving import Serving
from service.wire.schemas import ErrorAnswer

T = TypeVar("T")
Responses = dict[int | str, dict[str, Any]]

_WORDS = {
    400: "The body is not JSON, or not an image",
    401: "A key is required, and missing, wrong or expired",
    403: "The key lacks the scope, or this host name or site is not let in",
    404: "No such item, model or path",
    408: "The body did not come in time",
    409: "A vector of another model",
    413: "Too many bytes, pixels or items",
    415: "A content type that is not taken",
    422: "A field out of range",
    429: "The queue is full, the deadline cannot be met, or the key has too much running; see retry-after",
    500: "The encoder failed",
    503: "Not ready, or shutting down; see retry-after",
    504: "The deadline passed",
    507: "No room to keep a change",
}


def serving_of(request: Request) -> Serving:
    return cast("Serving", request.app.state.serving)


def requires(scope: Scope) -> Any:
    """A dependency that refuses callers whose key lacks `scope`. Every key may read; writing takes more."""

    async def check(request: Request) -> None:
        refuse_without(context_of(request).caller, scope)
        if scope == "write" and request.method == "POST":
            refuse_unasked(request.headers)

    return Depends(check)


def json_answer(body: bytes) -> Response:
    return Response(body, media_type="application/json")


async def computed(serving: Serving, work: Callable[[], T], *, inline: bool) -> T:
    """`work` here when it is small, in the pool when it would hold up the event loop."""
    if inline:
        return work()
    return await asyncio.get_running_loop().run_in_executor(serving.pool, work)


def answers(model: type[BaseModel], *errors: int) -> Responses:
    """The documented answers of an endpoint: its own, and the errors it may give."""
    documented: Responses = {200: {"model": model}}
    for status in errors:
        documented[status] = {"model": ErrorAnswer, "description": _WORDS[status]}
    return documented


def takes_json(
    model: type[BaseModel], *, beside: type[BaseModel] | None = None, **others: dict[str, Any]
) -> dict[str, Any]:
    """The documented body of an endpoint that parses it itself; `others`: media type with __ for / -> what.

    `beside`: the options that go as query parameters with a body that is not JSON.
    """
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
    }
    content.update({name.replace("__", "/").replace("_", "-"): value for name, value in others.items()})
    body = {"requestBody": {"required": True, "content": content}}
    return body if beside is None else body | {"parameters": _query_parameters(beside)}


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The fields of `model`; what is an object goes as JSON."""
    found = []
    for name, schema in model.model_json_schema()["properties"].items():
        told = schema.pop("description", "")
        plain = {"type": "string"} if name == "filter" else schema
        words = f"{told}; with a body that is no JSON" if told else "with a body that is no JSON"
        words += ", as JSON itself" if name == "filter" else ""
        found.append({"name": name, "in": "query", "required": False, "schema": plain, "description": words})
    return found
