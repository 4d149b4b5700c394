"""The API's description: what FastAPI finds in the routes, and what it cannot find there.

The bodies that endpoints parse themselves, headers and refusals that every operation has, keys, examples.
Made anew when another release is served, whose examples are others. Knows the layout of OpenAPI 3.1.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.edge.middleware import MAX_DEADLINE_MS
from service.openapi.examples import ANSWERS, change_examples, path_examples, request_examples
from service.openapi.operations import SCHEMES, document_access
from service.routes.parts import answers
from service.serving import Serving
from service.state import ServingState
from service.wire.live import ChangeItemsRequest, PutItemRequest, PutOneOfMany
from service.wire.schemas import (
    EmbedImageRequest,
    EmbedTextRequest,
    ErrorAnswer,
    OpenAIItem,
    OpenAIRequest,
    SearchBatchQuery,
    SearchBatchRequest,
    SearchImageRequest,
    SearchItemRequest,
    SearchTextRequest,
    SearchVectorRequest,
)

Json = dict[str, Any]
METHODS = ("get", "put", "post", "delete", "patch")
SERVED_ALWAYS = ("/healthz", "/metrics")
BODIES: tuple[type[BaseModel], ...] = (
    ChangeItemsRequest,
    EmbedImageRequest,
    EmbedTextRequest,
    OpenAIItem,
    OpenAIRequest,
    PutItemRequest,
    PutOneOfMany,
    SearchBatchQuery,
    SearchBatchRequest,
    SearchImageRequest,
    SearchItemRequest,
    SearchTextRequest,
    SearchVectorRequest,
)
TAGS = [
    {"name": "search", "description": "By text, image, vector or item; one query or many; with filters"},
    {"name": "embed", "description": "Texts and images to unit vectors of one space"},
    {"name": "OpenAI", "description": "Embeddings in OpenAI's shape, so that its clients work unchanged"},
    {"name": "gallery", "description": "What is searched: items, their payloads, their images"},
    {
        "name": "live changes",
        "description": "Put and delete items while serving; 404 unless `live_changes` is set",
    },
    {"name": "operation", "description": "Probes, metrics, and the release that is served"},
]
DESCRIPTION = """
Image-text retrieval: a text finds images, an image finds texts, and the two other ways.

Every answer carries `x-request-id` (yours, or a new one) and `server-timing`. Every error has the one shape
`{"error": {"code", "message", "param", "type"}}`. `x-deadline-ms` says how long you will wait: what cannot be
done in that time is refused at once (429, with `retry-after`). No URL is ever fetched.
"""
_HEADERS = {
    "x-request-id": {"description": "the caller's, or a new one", "schema": {"type": "string"}},
    "server-timing": {"description": "milliseconds by stage", "schema": {"type": "string"}},
}
_RETRY_AFTER = {"retry-after": {"description": "seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}}}
_PARAMETERS = [
    {
        "name": "x-deadline-ms",
        "in": "header",
        "required": False,
        "description": "how long the caller will wait, in milliseconds",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DEADLINE_MS},
    },
    {
        "name": "x-request-id",
        "in": "header",
        "required": False,
        "description": "what answer and log shall call this request; printable ASCII without blanks",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    },
]


def operation_id(route: APIRoute) -> str:
    """The endpoint's own name: generated clients call it so."""
    return route.name


def describe(app: FastAPI, serving: Serving) -> None:
    """From now on `/openapi.json` is complete, and its examples are true of what is served."""
    app.description, app.openapi_tags = DESCRIPTION, TAGS
    generate = app.openapi
    described: dict[str, Json] = {}  # by release; one at most

    def complete() -> Json:
        state = serving.state
        if state.release.id not in described:
            app.openapi_schema = None
            described.clear()
            described[state.release.id] = _completed(generate(), serving, state)
        return described[state.release.id]

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _completed(schema: Json, serving: Serving, state: ServingState) -> Json:
    _, found = models_json_schema(
        [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
    )
    schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
    has_keys, item = serving.access.has_keys, _item_to_show(serving, state)
    if has_keys:
        schema["components"]["securitySchemes"] = SCHEMES
    bodies = {**request_examples(state, item), **(change_examples(state, item) if serving.live else {})}
    for path, operation in _operations(schema):
        _add_edge(path, operation)
        _add_examples(operation, bodies.get(operation["operationId"], {}))
        _add_path_example(operation, path_examples(state, item))
        document_access(path, operation, has_keys=has_keys)
        for status, answer in operation["responses"].items():
            retried = _RETRY_AFTER if status in {"429", "503"} else {}
            answer["headers"] = {**answer.get("headers", {}), **_HEADERS, **retried}
    return schema


def _item_to_show(serving: Serving, state: ServingState) -> str | None:
    """An id for the examples; none where keys are needed, which this description is not."""
    items = state.release.items
    return None if serving.access.has_keys or not len(items) else items.id(0)


def _operations(schema: Json) -> Iterator[tuple[str, Json]]:
    for path, entry in schema["paths"].items():
        yield from ((path, entry[method]) for method in METHODS if method in entry)


def _add_edge(path: str, operation: Json) -> None:
    """What the edge takes and answers, whatever the operation."""
    operation["parameters"] = [*operation.get("parameters", ()), *_PARAMETERS]
    statuses = {413, 422, 500, 504} | (set() if path in SERVED_ALWAYS else {503})
    statuses |= {400, 408, 415, 429} if "requestBody" in operation else set()
    reference = {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}
    for status in sorted(statuses):
        words = answers(ErrorAnswer, status)[status]["description"]
        content = {"application/json": {"schema": reference}}
        # FastAPI documents a 422 of its own shape, which this service never answers.
        operation["responses"][str(status)] = {"description": words, "content": content}


def _add_examples(operation: Json, bodies: Mapping[str, Any]) -> None:
    """`bodies`: what a request shows -> its JSON."""
    name = operation["operationId"]
    if bodies:
        content = operation["requestBody"]["content"]["application/json"]
        content["examples"] = {words: {"summary": words, "value": body} for words, body in bodies.items()}
    if name in ANSWERS:
        operation["responses"]["200"]["content"]["application/json"]["example"] = ANSWERS[name]


def _add_path_example(operation: Json, values: Mapping[str, str]) -> None:
    value = values.get(operation["operationId"])
    for parameter in operation["parameters"]:
        if parameter["in"] == "path" and value is not None:
            parameter["example"] = value
