"""`Client` and `AsyncClient`: the calls of `calls`, sent with httpx. All they differ in is how to wait."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from twinlens import calls
from twinlens.calls import Call
from twinlens.exchange import Options, Pause, Send, Told, exchange

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(build: Callable[P, Call[T]]) -> Callable[Concatenate["Client", P], T]:
    """A method of `Client` that performs the call."""

    @wraps(build)
    def method(client: "Client", /, *args: P.args, **options: P.kwargs) -> T:
        return client._perform(build(*args, **options))

    return method


def _awaited(build: Callable[P, Call[T]]) -> Callable[Concatenate["AsyncClient", P], Awaitable[T]]:
    """A method of `AsyncClient` that performs the call."""

    @wraps(build)
    async def method(client: "AsyncClient", /, *args: P.args, **options: P.kwargs) -> T:
        # In a thread: a call may have a file to read, and pictures to write as base64.
        return await client._perform(await asyncio.to_thread(build, *args, **options))

    return method


class _Configured:
    """Where to send and how; the copy that `with_options` makes shares the connections."""

    def __init__(self, url: str, options: Options, *, owns_http: bool) -> None:
        self._url = url.rstrip("/")
        self._options = options
        self._owns_http = owns_http

    def with_options(
        self,
        *,
        deadline_seconds: float | None = None,
        retries: int | None = None,
        request_id: str | None = None,
    ) -> Self:
        """The same client with other options, on the same connections: `client.with_options(…).search(…)`.

        `deadline_seconds` bounds a call with all its retries; `request_id` is what the service's log calls it.
        """
        now = self._options
        other = copy(self)
        other._options = replace(
            now,
            deadline_seconds=now.deadline_seconds if deadline_seconds is None else deadline_seconds,
            retries=now.retries if retries is None else retries,
            request_id=request_id or now.request_id,
        )
        other._owns_http = False
        return other

    def _request(self, step: Send, call: Call[T]) -> dict[str, Any]:
        """What both kinds of httpx client are given."""
        where = {"method": call.method, "url": self._url + call.path}
        return {**where, "headers": step.headers, "timeout": step.timeout_seconds, **call.body}


class Client(_Configured):
    """Blocking; safe to share between threads. A context manager, or `close()` it."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        deadline_seconds: float | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        http: httpx.Client | None = None,
    ) -> None:
        """`http`: your own httpx client, for proxies or certificates; it stays yours to close."""
        super().__init__(url, Options(key, deadline_seconds, timeout_seconds, retries), owns_http=http is None)
        self._http = http or httpx.Client()

    embed_images = _blocking(calls.embed_images)
    embed_texts = _blocking(calls.embed_texts)
    search = _blocking(calls.search)
    search_batch = _blocking(calls.search_batch)
    item = _blocking(calls.item)
    picture = _blocking(calls.picture)
    fields = _blocking(calls.fields)
    duplicates = _blocking(calls.duplicates)
    put_item = _blocking(calls.put_item)
    delete_item = _blocking(calls.delete_item)
    change_items = _blocking(calls.change_items)
    release = _blocking(calls.release)
    reload = _blocking(calls.reload)
    drift = _blocking(calls.drift)
    ready = _blocking(calls.ready)

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _perform(self, call: Call[T]) -> T:
        steps = exchange(call, self._options)
        told: Told = None
        try:
            while True:
                told = self._do(steps.send(told), call)
        except StopIteration as done:
            answer: T = done.value
            return answer

    def _do(self, step: Send | Pause, call: Call[T]) -> Told:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        try:
            return self._http.request(**self._request(step, call))
        except httpx.RequestError as error:
            return error


class AsyncClient(_Configured):
    """The same to await, in one event loop. An async context manager, or `await close()`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        deadline_seconds: float | None = None,
        timeout_seconds: float = 60.0,
        retries: int = 3,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """`http`: your own httpx client, for proxies or certificates; it stays yours to close."""
        super().__init__(url, Options(key, deadline_seconds, timeout_seconds, retries), owns_http=http is None)
        self._http = http or httpx.AsyncClient()

    embed_images = _awaited(calls.embed_images)
    embed_texts = _awaited(calls.embed_texts)
    search = _awaited(calls.search)
    search_batch = _awaited(calls.search_batch)
    item = _awaited(calls.item)
    picture = _awaited(calls.picture)
    fields = _awaited(calls.fields)
    duplicates = _awaited(calls.duplicates)
    put_item = _awaited(calls.put_item)
    delete_item = _awaited(calls.delete_item)
    change_items = _awaited(calls.change_items)
    release = _awaited(calls.release)
    reload = _awaited(calls.reload)
    drift = _awaited(calls.drift)
    ready = _awaited(calls.ready)

    async def close(self) -> None:
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _perform(self, call: Call[T]) -> T:
        steps = exchange(call, self._options)
        told: Told = None
        try:
            while True:
                told = await self._do(steps.send(told), call)
        except StopIteration as done:
            answer: T = done.value
            return answer

    async def _do(self, step: Send | Pause, call: Call[T]) -> Told:
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return None
        try:
            return await self._http.request(**self._request(step, call))
        except httpx.RequestError as error:
            return error
