"""The outermost layer: what holds for every request, whatever its route.

Request ids, server timings, who calls and what they may have, the deadline, callers that leave, refusal while
shutting down, metrics, the access log, safe headers, and an answer in our shape when anything breaks.
"""

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encoders.errors import TwinlensError
from service.access.access import Caller
from service.device.tickets import CALLER
from service.edge.request_body import RequestBody
from service.edge.request_head import check_head
from service.errors import (
    BodyTooSlow,
    CallerGone,
    DeadlineExceeded,
    ErrorReport,
    InvalidField,
    InvalidHttp,
    TooLarge,
    Unauthorized,
    Unavailable,
    report,
    without_frames,
)
from service.serving import Serving
from service.watch.telemetry import ROUTES_TIMED_APART, Timings

if TYPE_CHECKING:
    from service.watch.tracing import Traces

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("service.access")
CONTEXT_KEY = "twinlens.context"
MAX_DEADLINE_MS = 3_600_000
SAFE_HEADERS = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
# The page says in its own <meta> what it may load, and the API's description loads Swagger UI from elsewhere.
# Nothing else is a document: opened as one, it may load and run nothing. (The browser's own view of an image
# or of JSON is styled inline.)
_PAGE_POLICY = "frame-ancestors 'none'"
_DATA_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_DEADLINE_MS = re.compile(r"[1-9][0-9]{0,6}")
_BODY_UNREAD = frozenset({TooLarge.status, BodyTooSlow.status})
_SERVED_WHILE_DRAINING = ("/healthz", "/readyz", "/metrics")


@dataclass(slots=True)
class RequestContext:
    """What one request carries from end to end. `deadline` is in time.perf_counter() seconds."""

    request_id: str
    deadline: float
    timings: Timings = field(default_factory=Timings)
    status: int = 0
    cause: str = ""
    caller: Caller = field(default_factory=partial(Caller, ""))


def context_of(request: Request) -> RequestContext:
    return cast("RequestContext", request.scope[CONTEXT_KEY])


def error_response(problem: ErrorReport) -> Response:
    """The one shape of every error."""
    headers = {}
    if problem.status == Unauthorized.status:
        wrong = "" if problem.code == Unauthorized.code else ', error="invalid_token"'
        headers["www-authenticate"] = f'Bearer realm="twinlens"{wrong}'
    if problem.retry_after_seconds is not None:
        headers["retry-after"] = str(problem.retry_after_seconds)
    content = orjson.dumps(problem.body())
    return Response(content, problem.status, headers=headers, media_type="application/json")


class RequestMiddleware:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        handled = _as_routes_see_it(scope, root_path=self._serving.settings.root_path)
        exchange = _Exchange(self._app, self._serving, handled, receive, send)
        self._serving.in_flight += 1
        try:
            await exchange.run()
        finally:
            self._serving.in_flight -= 1
            self._account(scope, exchange, route=getattr(handled.get("route"), "path", "unmatched"))

    def _account(self, scope: Scope, exchange: "_Exchange", *, route: str) -> None:
        context, traces = exchange.context, self._serving.traces
        self._serving.telemetry.request(route, context.status, cause=context.cause, timings=context.timings)
        if traces is not None and route not in ROUTES_TIMED_APART:
            exchange.note(traces, method=scope["method"], route=route)
        if self._serving.settings.access_log:
            fields = {
                "request_id": context.request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": context.status,
                "cause": context.cause,
                "caller": context.caller.name,
                "milliseconds": round(context.timings.total * 1e3, 2),
            }
            access_logger.info("%s %s", scope["method"], scope["path"], extra={"fields": fields})


def _as_routes_see_it(scope: Scope, *, root_path: str) -> Scope:
    """HEAD is GET without its body, which the server leaves out (it looks at its own scope).

    A proxy may take its prefix off the path or leave it on; ASGI has it on, and mounted files insist.
    """
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    path = scope["path"]
    if root_path and not path.startswith(root_path + "/"):
        path = root_path + path
    return {**scope, "method": method, "path": path, "root_path": root_path}


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: ASGIApp, serving: Serving, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._serving = app, serving
        self._scope, self._send = scope, send
        self._headers = Headers(scope=scope)
        given_id = self._headers.get("x-request-id", "")
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else uuid.uuid4().hex
        self.context = RequestContext(request_id, time.perf_counter() + serving.settings.deadline_seconds)
        self._body = RequestBody(receive, self._headers, serving=serving)

    def note(self, traces: "Traces", *, method: str, route: str) -> None:
        """Once answered; the trace of a caller who sent one goes on."""
        context, names = self.context, ("traceparent", "tracestate")
        traces.note(
            method,
            route,
            status=context.status,
            cause=context.cause,
            request_id=context.request_id,
            began=context.timings.started,
            spans=context.timings.spans,
            parent={name: self._headers[name] for name in names if name in self._headers},
        )

    async def run(self) -> None:
        self._scope[CONTEXT_KEY] = self.context
        try:
            await self._guarded()
        except TwinlensError as error:
            await self._answer(report(without_frames(error)))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not (self._body.caller_gone and task):
                raise
            task.uncancel()
            self.context.status, self.context.cause = CallerGone.status, CallerGone.code
        except Exception as error:  # the last line of defence: whatever breaks, there is an answer in our shape
            logger.exception("request %s failed", self.context.request_id)
            without_frames(error)
            message = f"an internal error; the log has it under request id {self.context.request_id}"
            await self._answer(ErrorReport(500, "internal_error", message))
        finally:
            self._body.close()

    async def _guarded(self) -> None:
        try:
            check_head(self._scope)
            self._refuse_when_draining()
            self._set_deadline()
            self._body.refuse_announced_size()
            caller = self.context.caller = self._serving.access.enter(self._scope, self._headers)
            CALLER.set(caller.name)
        except TwinlensError:
            await self._body.discard()
            raise
        try:
            await self._in_time()
        finally:
            self._serving.access.leave(caller, seconds=self.context.timings.total)

    async def _in_time(self) -> None:
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout_at(loop.time() + self.context.deadline - time.perf_counter())
        try:
            async with limit:
                await self._app(self._scope, self._body.receive, self._stamped_send)
        except TimeoutError:
            if not limit.expired():  # somebody else's, and no news of the deadline
                raise
            await self._answer(report(DeadlineExceeded("the deadline passed before there was an answer")))

    def _refuse_when_draining(self) -> None:
        path = self._scope["path"].removeprefix(self._scope["root_path"])
        if self._serving.draining and path not in _SERVED_WHILE_DRAINING:
            raise Unavailable(
                "the service is shutting down: send this again",
                code="shutting_down",
                retry_after_seconds=1,
            )

    def _set_deadline(self) -> None:
        value = self._headers.get("x-deadline-ms")
        if value is None:
            return
        if not (_DEADLINE_MS.fullmatch(value) and int(value) <= MAX_DEADLINE_MS):
            raise InvalidField(
                f"x-deadline-ms is {value[:40]!r}: expected whole milliseconds from 1 to {MAX_DEADLINE_MS}",
                param="x-deadline-ms",
            )
        self.context.deadline = self.context.timings.started + int(value) / 1e3

    async def _stamped_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._body.answered = True
            self.context.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.context.request_id
            headers["server-timing"] = self.context.timings.header()
            headers.update(SAFE_HEADERS)
            if message["status"] != HTTPStatus.NOT_MODIFIED:  # which has no type; what is stored has its policy
                is_page = headers.get("content-type", "").startswith("text/html")
                headers["content-security-policy"] = _PAGE_POLICY if is_page else _DATA_POLICY
            if self._serving.access.has_keys and headers.get("cache-control", "").startswith("public"):
                headers["cache-control"] = headers["cache-control"].replace("public", "private", 1)
            hanging = message["status"] in _BODY_UNREAD or self._body.awaits_continue
            hanging = hanging or self.context.cause == InvalidHttp.code
            if self._serving.draining or hanging:
                headers["connection"] = "close"
        await self._send(message)

    async def _answer(self, problem: ErrorReport) -> None:
        self.context.cause = problem.code
        if not self._body.answered:
            await error_response(problem)(self._scope, self._body.receive, self._stamped_send)
