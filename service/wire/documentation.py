"""What holds for every operation, added to the API's own description: keys, and the refusals of the edge.

Knows no operation.
"""

from typing import Any

from service.access.access import OPEN_PATHS
from service.errors import BodyTooSlow, Forbidden, KeyLimit, Unauthorized
from service.routes.parts import answers
from service.wire.schemas import ErrorAnswer

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`python -m service keys create` makes keys"},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "the same key"},
}
_METHODS = frozenset({"get", "put", "post", "delete", "patch"})


def document_access(schema: dict[str, Any], *, has_keys: bool) -> None:
    """Changes the OpenAPI `schema` in place."""
    if has_keys:
        schema.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, entry in schema["paths"].items():
        for operation in (entry[method] for method in _METHODS & entry.keys()):
            is_open = path in OPEN_PATHS
            statuses = () if is_open else _refusals(operation, has_keys=has_keys)
            for status in statuses:
                operation["responses"].setdefault(str(status), _answer(status))
            if has_keys and not is_open:
                operation["security"] = [{name: []} for name in _SCHEMES]


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
