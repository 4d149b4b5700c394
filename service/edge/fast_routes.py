"""The requests that come by the thousand go to their endpoints past the framework's routing.

An endpoint that takes the request alone and makes the response itself needs nothing of what FastAPI does for
each request: matching routes one after the other, two stacks of clean-ups, resolving no dependencies. That took
a fifth of the event loop's time for one text. FastAPI documents these endpoints, and answers all other methods.

Sits inside the edge, which answers their errors.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Route:
    """What the edge asks of a route: the name it goes by in metrics."""

    path: str


class FastRoutes:
    """ASGI middleware: a POST to one of these paths, without its root path, is its endpoint's."""

    def __init__(self, app: ASGIApp, *, endpoints: Mapping[str, Endpoint]) -> None:
        self._app = app
        self._endpoints = {path: (_Route(path), endpoint) for path, endpoint in endpoints.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = None
        if scope["type"] == "http" and scope["method"] == "POST":
            found = self._endpoints.get(scope["path"].removeprefix(scope["root_path"]))
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], endpoint = found
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
