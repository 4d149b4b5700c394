"""The outermost layer: what holds for every request, whatever its route.

Request ids, server timings, the deadline, the cap on bodies while they stream in, callers that leave,
refusal while shutting down, metrics, the access log, and an answer in our shape when anything breaks.
Knows no route and no model.
"""

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import cast

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from encoders.errors import TwinlensError
from service.errors import (
    CallerGone,
    DeadlineExceeded,
    ErrorReport,
    InvalidField,
    QueueFull,
    TooLarge,
    Unavailable,
    report,
)
from service.serving import Serving
from service.telemetry import Timings

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("service.access")
CONTEXT_KEY = "twinlens.context"
DISCARD_SECONDS = 5.0
SMALL_BODY_BYTES = 65_536  # taken even when the bodies in flight are too much: a query must get through
MAX_DEADLINE_MS = 3_600_000
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_DEADLINE_MS = re.compile(r"[1-9][0-9]{0,6}")
_SERVED_WHILE_DRAINING = ("/healthz", "/readyz", "/metrics")


@dataclass(slots=True)
class RequestContext:
    """What one request carries from end to end. `deadline` is in time.perf_counter() seconds."""

    request_id: str
    deadline: float
    timings: Timings = field(default_factory=Timings)
    status: int = 0
    cause: str = ""


def context_of(request: Request) -> RequestContext:
    return cast("RequestContext", request.scope[CONTEXT_KEY])


def error_response(problem: ErrorReport) -> Response:
    """The one shape of every error."""
    headers = {}
    if problem.retry_after_seconds is not None:
        headers["retry-after"] = str(problem.retry_after_seconds)
    content = orjson.dumps(problem.body())
    return Response(content, problem.status, headers=headers, media_type="application/json")


class Edge:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, *, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # HEAD is GET without its body, which the server leaves out: it looks at its own scope.
        handled = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        exchange = _Exchange(self._app, self._serving, handled, receive, send)
        self._serving.in_flight += 1
        try:
            await exchange.run()
        finally:
            self._serving.in_flight -= 1
            self._account(scope, exchange.context, route=getattr(handled.get("route"), "path", "unmatched"))

    def _account(self, scope: Scope, context: RequestContext, *, route: str) -> None:
        self._serving.telemetry.request(route, context.status, cause=context.cause, timings=context.timings)
        if self._serving.settings.access_log:
            fields = {
                "request_id": context.request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": context.status,
                "cause": context.cause,
                "milliseconds": round(context.timings.total * 1e3, 2),
            }
            access_logger.info("%s %s", scope["method"], scope["path"], extra={"fields": fields})


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: ASGIApp, serving: Serving, scope: Scope, receive: Receive, send: Send) -> None:
        self._app, self._serving = app, serving
        self._scope, self._receive, self._send = scope, receive, send
        self._headers = Headers(scope=scope)
        given_id = self._headers.get("x-request-id", "")
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else uuid.uuid4().hex
        self.context = RequestContext(request_id, time.perf_counter() + serving.settings.deadline_seconds)
        self._started = False
        self._body_bytes = 0
        self._body_begun = False
        self._body_ended = False
        self._watcher: asyncio.Task[None] | None = None
        self._caller_gone = False

    async def run(self) -> None:
        self._scope[CONTEXT_KEY] = self.context
        try:
            await self._guarded()
        except TwinlensError as error:
            await self._answer(report(error))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not (self._caller_gone and task):
                raise
            task.uncancel()
            self.context.status, self.context.cause = CallerGone.status, CallerGone.code
        except Exception:  # the last line of defence: whatever breaks, the caller gets an answer in our shape
            logger.exception("request %s failed", self.context.request_id)
            message = f"an internal error; the log has it under request id {self.context.request_id}"
            await self._answer(ErrorReport(500, "internal_error", message))
        finally:
            self._release_body()
            if self._watcher is not None:
                self._watcher.cancel()

    async def _guarded(self) -> None:
        try:
            self._refuse_when_draining()
            self._set_deadline()
            self._refuse_announced_size()
        except TwinlensError:
            await self._discard_body()
            raise
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout_at(loop.time() + self.context.deadline - time.perf_counter())
        try:
            async with limit:
                await self._app(self._scope, self._limited_receive, self._stamped_send)
        except TimeoutError:
            if not limit.expired():  # somebody else's, and no news of the deadline
                raise
            await self._answer(report(DeadlineExceeded("the deadline passed before there was an answer")))

    def _refuse_when_draining(self) -> None:
        if self._serving.draining and self._scope["path"] not in _SERVED_WHILE_DRAINING:
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

    def _refuse_announced_size(self) -> None:
        announced = self._headers.get("content-length", "0")
        limit = self._serving.settings.max_body_bytes
        if announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > limit):
            raise TooLarge(f"the body has {announced[:40]} bytes and {limit} are taken: send less at once")

    async def _discard_body(self) -> None:
        """Read and forget a while: closing while the caller still sends would cost it the answer."""
        self._release_body()
        if not self._body_begun and self._headers.get("expect", "").lower() == "100-continue":
            return  # it waits to be asked for the body
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while (await self._receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass

    def _release_body(self) -> None:
        self._serving.bodies_bytes -= self._body_bytes
        self._body_bytes = 0

    async def _limited_receive(self) -> Message:
        if self._body_ended:
            return await self._receive()
        self._body_begun = True
        message = await self._receive()
        if message["type"] != "http.request":
            raise CallerGone(f"the caller left after {self._body_bytes} bytes of the body")
        size = len(message.get("body", b""))
        self._body_bytes += size
        self._serving.bodies_bytes += size
        await self._refuse_too_much()
        if not message.get("more_body", False):
            self._body_ended = True
            self._watcher = asyncio.create_task(self._watch_caller(asyncio.current_task()))
        return message

    async def _refuse_too_much(self) -> None:
        settings = self._serving.settings
        if self._body_bytes > settings.max_body_bytes:
            await self._discard_body()
            raise TooLarge(
                f"the body exceeds the {settings.max_body_bytes} bytes that are taken: send less at once"
            )
        crowded = self._serving.bodies_bytes > settings.max_bodies_bytes
        if crowded and self._body_bytes > SMALL_BODY_BYTES:
            await self._discard_body()
            raise QueueFull(
                f"the requests in flight hold {settings.max_bodies_bytes} bytes already: send this again",
                code="bodies_full",
                retry_after_seconds=1,
            )

    async def _watch_caller(self, handler: "asyncio.Task[object] | None") -> None:
        """Once the body is in, the next thing to hear of the caller is that it left."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._started and handler is not None:
            self._caller_gone = True
            handler.cancel()

    async def _stamped_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            self.context.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.context.request_id
            headers["server-timing"] = self.context.timings.header()
            headers["x-content-type-options"] = "nosniff"
            if self._serving.draining or message["status"] == TooLarge.status:
                headers["connection"] = "close"
        await self._send(message)

    async def _answer(self, problem: ErrorReport) -> None:
        self.context.cause = problem.code
        if not self._started:
            await error_response(problem)(self._scope, self._receive, self._stamped_send)
