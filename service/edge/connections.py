"""uvicorn's HTTP protocol with limits on what it leaves open: slow heads, large heads, idle and stuck callers.

uvicorn waits for ever for a request's head to end, for a body nobody reads any more, and for a caller that does
not take its answer; it has no bound on bytes of headers, and beyond a number of connections it can only refuse
all. Here each of these has a clock, and when too many connections are open the one that has been silent longest
gives way, so that callers who open sockets and say nothing lock nobody out.

How slow a body may come is the business of `service.edge.request_body`, which can answer.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NoReturn, cast

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import ErrorReport
from service.settings import Settings

UNREAD_SECONDS = 10.0  # that the rest of a body may still come once the request was answered without it
PARTING_SECONDS = 0.9  # in which a connection that was just opened may still ask, once the server stops
LEAST_TAKEN_BYTES = 65_536  # of an answer in `send_seconds`, or the rest of it
MAX_AHEAD = 256  # requests sent ahead of their answers; each that is read takes 6 µs and some memory
FRAMING_PER_BYTE = 8  # a body in chunks of one byte each has five bytes of framing for each of its own


class _Phase(Enum):
    BETWEEN = "nothing of a request has come"
    HEAD = "its head is coming"
    BODY = "its body is coming"


@dataclass(slots=True)
class ConnectionTracker:
    """The connections of one server that have not sent a whole request, the longest silent first."""

    settings: Settings
    turned_away: Callable[[str], None]  # told why a connection was closed or refused
    waiting: dict["Connection", None] = field(default_factory=dict)

    def protocol(self) -> type[asyncio.Protocol]:
        """What uvicorn calls for each connection."""

        def make(**arguments: Any) -> Connection:
            return Connection(self, **arguments)

        return cast("type[asyncio.Protocol]", make)  # uvicorn only ever calls it


class Connection(HttpToolsProtocol):
    """One socket. Everything here runs on the event loop."""

    def __init__(self, tracker: ConnectionTracker, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._tracker, self._settings = tracker, tracker.settings
        self._phase = _Phase.BETWEEN
        self._head_bytes = 0  # of the request line and the headers, and of trailers
        self._received_bytes = self._body_bytes = 0  # since the request began; of those its body
        self._pieces: list[bytes] = []  # of the body, from one reading of the socket
        self._untaken_bytes = 0  # of answers, when the clock for them was started
        self._problem: ErrorReport | None = None
        self._clocks: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        if len(self.connections) > self._settings.max_connections and not self._make_room():
            self._turn_away(
                ErrorReport(
                    503,
                    "too_many_connections",
                    f"{self._settings.max_connections} connections are open and busy: send this again in 1 s",
                    retry_after_seconds=1,
                )
            )
            return
        self._tracker.waiting[self] = None
        self._close_when_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        for name in tuple(self._clocks):
            self._stop(name)
        self._unset_keepalive_if_required()
        self._tracker.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._problem is not None or self.parser is None:
            return
        if self._phase is not _Phase.BODY:
            self._start("head", self._settings.header_seconds, self._head_is_late)
        self._received_bytes += len(data)
        super().data_received(data)
        self._pass_on()
        self._await_next()
        framing = self._received_bytes - self._body_bytes * (1 + FRAMING_PER_BYTE)
        if self._problem is None and self._phase is not _Phase.BETWEEN and framing > self._room_for_head():
            self._turn_away(self._head_too_large())

    def _await_next(self) -> None:
        """The rest of a body that was answered before it came stopped the clock of idle connections."""
        idle = self._phase is _Phase.BETWEEN and self.cycle is not None and self.cycle.response_complete
        if idle and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._close_when_idle()

    def _pass_on(self) -> None:
        """What came of the body, at once: a reading may hold forty thousand chunks of a byte each."""
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            super().on_body(b"".join(pieces))

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_AHEAD:
            self._refuse(
                ErrorReport(
                    400,
                    "too_many_ahead",
                    f"{MAX_AHEAD} requests were sent ahead of their answers: wait for some before the next",
                )
            )
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._head_bytes = self._received_bytes = self._body_bytes = 0
        self._start("head", self._settings.header_seconds, self._head_is_late)

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + len(": \r\n"))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop("head")
        super().on_headers_complete()
        self._phase = _Phase.BODY
        self._tracker.waiting.pop(self, None)
        self._tracker.waiting[self] = None  # heard just now

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._stop("unread")
        self._phase = _Phase.BETWEEN
        self._tracker.waiting.pop(self, None)  # from here on it waits for us
        self._pass_on()
        super().on_message_complete()
        if self.cycle.response_complete:  # answered before it had sent everything
            self._tracker.waiting[self] = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_taking()
            return
        if not self.cycle.response_complete:  # one that was sent ahead is being worked on
            return
        self._tracker.waiting[self] = None
        if self._phase is _Phase.BODY:
            self._start("unread", UNREAD_SECONDS, self._close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._stop("send")
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        self._close()

    def shutdown(self) -> None:
        """The server stops. Who has just connected, or has begun to ask, gets to the end of it and an answer.

        A proxy opens a connection for each request by then, and what it sent would be lost without a word.
        """
        unheard = self._phase is not _Phase.BETWEEN and self.cycle is not None and self.cycle.response_complete
        if self.cycle is None or unheard:
            self._start("parting", PARTING_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's way out of whatever the parser, or a callback of it, refuses."""
        self._turn_away(self._problem or ErrorReport(400, "invalid_http", f"this is not HTTP/1.1: {msg}"))

    def _make_room(self) -> bool:
        """Close the connection that has been silent longest; False: all are busy."""
        silent = next(iter(self._tracker.waiting), None)
        if silent is None:
            return False
        self._tracker.waiting.pop(silent)
        self._tracker.turned_away("made_room")
        silent.transport.abort()
        return True

    def _room_for_head(self) -> int:
        return self._settings.max_header_bytes

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._room_for_head():
            self._refuse(self._head_too_large())

    def _refuse(self, problem: ErrorReport) -> NoReturn:
        """From a callback of the parser, which stops then, and uvicorn asks for a 400."""
        self._problem = problem
        raise ValueError(problem.message)

    def _head_too_large(self) -> ErrorReport:
        return ErrorReport(
            431,
            "headers_too_large",
            f"the request line and headers exceed the {self._room_for_head()} bytes that are taken: send less",
        )

    def _head_is_late(self) -> None:
        if self.flow.read_paused or (self.cycle is not None and not self.cycle.response_complete):
            # Requests sent ahead of their answers: it is we who do not read on.
            self._start("head", self._settings.header_seconds, self._head_is_late)
            return
        seconds = self._settings.header_seconds
        self._turn_away(
            ErrorReport(
                408, "headers_too_slow", f"the head of the request was not complete after {seconds:g} s"
            )
        )

    def _watch_taking(self) -> None:
        """Until the answer is gone, or the connection."""
        if "send" not in self._clocks:
            self._untaken_bytes = self.transport.get_write_buffer_size()
        self._start("send", self._settings.send_seconds, self._check_taken)

    def _check_taken(self) -> None:
        """A large answer on a thin line takes its time; one that is hardly taken is given up."""
        if self._untaken_bytes - self.transport.get_write_buffer_size() >= LEAST_TAKEN_BYTES:
            self._watch_taking()
            return
        self._tracker.turned_away("answer_untaken")
        self.transport.abort()

    def _turn_away(self, problem: ErrorReport) -> None:
        """Answer in the one shape, where that is possible, and close; whole requests are answered before."""
        self._problem = problem
        self._stop("head")
        self._tracker.waiting.pop(self, None)
        self._tracker.turned_away(problem.code)
        if not self._owes_another() and not self.pipeline:
            self.transport.write(_plain_answer(problem))
        elif self._phase is not _Phase.BODY:
            self.cycle.keep_alive = False  # the last whole one; nothing that comes now is read
            return
        self._close()

    def _owes_another(self) -> bool:
        """Whether an answer would land in the middle of another one, or be taken for it."""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return self.cycle.response_started or self._phase is not _Phase.BODY

    def _close_when_idle(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
        self._watch_taking()

    def _start(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """Start a clock unless it is running."""
        if name not in self._clocks:
            self._clocks[name] = self.loop.call_later(seconds, self._ring, name, action)

    def _ring(self, name: str, action: Callable[[], None]) -> None:
        self._clocks.pop(name, None)
        action()

    def _stop(self, name: str) -> None:
        clock = self._clocks.pop(name, None)
        if clock is not None:
            clock.cancel()


def _plain_answer(problem: ErrorReport) -> bytes:
    body = orjson.dumps(problem.body())
    retry = f"retry-after: {problem.retry_after_seconds}\r\n" if problem.retry_after_seconds else ""
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{retry}"
        "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return STATUS_LINE[problem.status] + head.encode("ascii") + body
