"""One call from beginning to end, retries and deadline included, without any I/O.

A generator says what to do (`Send`, `Pause`) and is told what came of it, so that the blocking and the
awaiting client differ in nothing but how they send and how they wait.
"""

import itertools
import random
import re
import time
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from twinlens.calls import Call, error_code
from twinlens.errors import BadAnswer, ConnectionFailed, DeadlineExceeded, TwinlensError, class_for

T = TypeVar("T")
RETRIED_STATUSES = frozenset({429, 503})
RETRIED_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 60.0  # a server that asks for more is not waited for
ANSWER_GRACE_SECONDS = 1.0  # after the deadline, so that the service's own 504 arrives
MAX_DEADLINE_SECONDS = 3600.0  # that the service may be told
_KEY = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Options:
    """How calls are made. `deadline_seconds` bounds one call with all its retries; None: the service's own."""

    key: str | None = field(default=None, repr=False)
    deadline_seconds: float | None = None
    timeout_seconds: float = 60.0
    retries: int = 3
    request_id: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and not _KEY.fullmatch(self.key):  # httpx would tell it in an error
            raise ValueError("that is no key: one holds no blanks, no ends of lines, and ASCII only")


@dataclass(frozen=True, slots=True)
class Send:
    """Send the call with these headers; tell the response, or httpx' error."""

    headers: dict[str, str]
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long; there is nothing to tell."""

    seconds: float


Told = httpx.Response | httpx.RequestError | None
Steps = Generator[Send | Pause, Told, T]


def exchange(call: Call[T], options: Options) -> Steps[T]:
    """The steps of a call; returns its answer, or raises TwinlensError."""
    request_id = options.request_id or uuid.uuid4().hex
    ends_at = None if options.deadline_seconds is None else time.monotonic() + options.deadline_seconds
    may_be_done = False  # by an attempt whose answer was lost
    for attempt in itertools.count():
        left = None if ends_at is None else ends_at - time.monotonic()
        told = yield _send(options, request_id, left)
        if isinstance(told, httpx.Response):
            if may_be_done and (answer := _read(call.read_again, told, request_id)) is not None:
                return answer
            if told.is_success or told.status_code in call.answers:
                return _read(call.read, told, request_id)
        may_be_done = may_be_done or _was_lost(told)
        problem = _failure(told, request_id)
        pause = _pause(told, attempt)
        late = ends_at is not None and time.monotonic() + (pause or 0.0) >= ends_at
        if pause is None or attempt >= options.retries or late:
            raise problem
        yield Pause(pause)
    raise AssertionError("unreachable")


def _send(options: Options, request_id: str, left: float | None) -> Send:
    headers = {"x-request-id": request_id, "accept": "*/*"}
    if options.key is not None:
        headers["authorization"] = f"Bearer {options.key}"
    if left is None:
        return Send(headers, options.timeout_seconds)
    headers["x-deadline-ms"] = str(max(1, round(min(left, MAX_DEADLINE_SECONDS) * 1e3)))
    return Send(headers, min(options.timeout_seconds, max(left, 0.0) + ANSWER_GRACE_SECONDS))


def _pause(told: Told, attempt: int) -> float | None:
    """Seconds until the next attempt; None: there is no use in one."""
    usual: float = FIRST_PAUSE_SECONDS * 2.0**attempt
    if isinstance(told, RETRIED_ERRORS):
        return usual * random.uniform(0.5, 1.5)
    if isinstance(told, httpx.Response) and told.status_code in RETRIED_STATUSES:
        asked = retry_after_seconds(told) or 0.0
        # Never sooner than asked; spread out, so that all who were refused do not return as one.
        pause = max(asked, usual) + random.uniform(0.0, 0.5) * usual
        return pause if asked <= MAX_PAUSE_SECONDS else None
    return None


def retry_after_seconds(response: httpx.Response) -> float | None:
    """Of the header `retry-after`, in seconds or as a date; None when it is missing or neither."""
    value = response.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _was_lost(told: Told) -> bool:
    """Whether the request may have been carried out: it left, and what came back was not the service's word."""
    if isinstance(told, httpx.Response):
        return error_code(told) is None  # a proxy's
    return not isinstance(told, httpx.ConnectError | httpx.ConnectTimeout)


def _read(read: Callable[[httpx.Response], T], response: httpx.Response, request_id: str) -> T:
    try:
        return read(response)
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer(
            f"{response.request.url} answers what no Twinlens service does: {error!r}",
            status=response.status_code,
            request_id=request_id,
        ) from error


def _failure(told: Told, request_id: str) -> TwinlensError:
    if isinstance(told, httpx.Response):
        return _refusal(told, request_id)
    late = isinstance(told, httpx.TimeoutException) and not isinstance(told, httpx.ConnectTimeout)
    kind = DeadlineExceeded if late else ConnectionFailed
    failure = kind(f"no answer: {told!r}", request_id=request_id)
    failure.__cause__ = told
    return failure


def _refusal(response: httpx.Response, request_id: str) -> TwinlensError:
    told: Any = {}
    try:
        told = response.json()["error"]
        message = str(told["message"])
    except (KeyError, TypeError, ValueError):  # of a proxy between us, for example
        message = f"{response.request.url} answers {response.status_code} and no reason"
    return class_for(response.status_code)(
        message,
        status=response.status_code,
        code=told.get("code", "") if isinstance(told, dict) else "",
        param=told.get("param") if isinstance(told, dict) else None,
        request_id=response.headers.get("x-request-id", request_id),
        retry_after_seconds=retry_after_seconds(response),
    )
