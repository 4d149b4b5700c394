"""What holds for every operation, added to the API's own description: keys, and the refusals of the edge."""

from typing import Any

from service.access.access import OPEN_PATHS
from service.errors import BodyTooSlow, Forbidden, KeyLimit, Unauthorized
from service.routes.parts import answers
from service.wire.schemas import ErrorAnswer

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`python -m service keys create` makes keys"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "the same key"},
}


def document_access(path: str, operation: dict[str, Any], *, has_keys: bool) -> None:
    """Changes the description of an `operation` in place."""
    if path in OPEN_PATHS:
        return
    for status in _refusals(operation, has_keys=has_keys):
        operation["responses"].setdefault(str(status), _answer(status))
    if has_keys:
        operation["security"] = [{name: []} for name in SCHEMES]


def _refusals(operation: dict[str, Any], *, has_keys: bool) -> list[int]:
    found = [Forbidden.status]
    if has_keys:
        found += [Unauthorized.status, KeyLimit.status]
    if "requestBody" in operation:
        found.append(BodyTooSlow.status)
    return found


def _answer(status: int) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}
    description = answers(ErrorAnswer, status)[status]["description"]
    return {"description": description, "content": {"application/json": {"schema": reference}}}
