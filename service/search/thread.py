"""The one thread that owns the vector indexes."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.access.quotas import Quotas
from service.device.queues import Throughput
from service.device.tickets import CALLER
from service.errors import QueueFull
from service.search.columns import NotGathered
from service.watch.telemetry import Telemetry, Timings

T = TypeVar("T")
GATHERINGS = 4  # for one request, when others push out what was gathered for it
MAX_RETRY_SECONDS = 60


class Searcher:
    """The search thread, with a bound on what waits for it and an eye on what it is busy with."""

    def __init__(self, *, queue_limit: int, telemetry: Telemetry, stall_seconds: float) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._gatherer = ThreadPoolExecutor(1, thread_name_prefix="gather")
        self._queue_limit = queue_limit
        self._stall_seconds = stall_seconds
        self._telemetry = telemetry
        self._pending = 0
        self._quotas = Quotas()
        self._throughput = Throughput()  # that searches leave at
        self._left_at = 0.0  # when the last one left, or the first one came
        self._promised_until = 0.0  # when all who were refused will have been served, if they come as told
        self._busy_since: float | None = None
        self.scanning = asyncio.Lock()  # held by what goes over the whole gallery, one slice at a time
        telemetry.watch_queue("search", depth=lambda: self._pending, limit=queue_limit)

    async def run(self, work: Callable[[], T], *, timings: Timings) -> T:
        """`work` on the search thread; raises QueueFull."""
        caller = CALLER.get()
        self._check_room(caller)
        self._telemetry.admission("search", "admitted")
        self._quotas.take(caller, 1)
        started = time.perf_counter()
        try:
            return await self._gathered(work)
        finally:
            self._quotas.give_back(caller, 1)
            ended = time.perf_counter()
            timings.search += ended - started
            timings.spans.note("search", started, ended)

    async def _gathered(self, work: Callable[[], T]) -> T:
        """`work`, again once what its filter needs was read on a thread that no search waits for."""
        for _ in range(GATHERINGS):
            try:
                return await self.call(work)
            except NotGathered as missing:
                await asyncio.get_running_loop().run_in_executor(self._gatherer, missing.gather)
        raise QueueFull(
            "filters on very many different keys are asked for at once: try again in 1 s", retry_after_seconds=1
        )

    def call(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """`work` on the search thread, however many wait: for the service's own."""
        if not self._pending:
            self._left_at = time.perf_counter()
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._perform, work)
        future.add_done_callback(self._done)
        return future

    def unhealthy_reason(self) -> str | None:
        """Say why nothing can be searched just now; None while healthy."""
        if (seconds := self.busy_seconds()) > self._stall_seconds:
            return f"a search has been running for {seconds:.3g} s"
        return None

    def busy_seconds(self) -> float:
        """How long the search that runs has been running; 0 when none does."""
        since = self._busy_since
        return 0.0 if since is None else time.perf_counter() - since

    def stop(self) -> None:
        for pool in (self._pool, self._gatherer):
            pool.shutdown(wait=False, cancel_futures=True)

    def _check_room(self, caller: str) -> None:
        free = self._queue_limit - self._pending
        refusal = None
        if free <= 0:
            seconds = self._promise(1 - free)
            refusal = QueueFull(
                f"{self._pending} searches wait and the queue takes {self._queue_limit}: "
                f"send this again in {seconds} s",
                retry_after_seconds=seconds,
            )
        elif excess := self._quotas.excess(caller, 1, free=free):
            seconds = self._promise(excess)
            refusal = QueueFull(
                f"{self._quotas.held(caller)} searches of {caller} wait, and it leaves others as much room "
                f"({free}): send this again in {seconds} s",
                code="key_share",
                retry_after_seconds=seconds,
            )
        if refusal is not None:
            self._telemetry.admission("search", refusal.code)
            raise refusal

    def _promise(self, searches: int) -> int:
        """When to come again: when so many have left, after all who were refused before and come as told."""
        now, each = time.perf_counter(), self._throughput.seconds_per_item()
        at = min(max(now + searches * each, self._promised_until), now + MAX_RETRY_SECONDS)
        self._promised_until = at + each
        return max(1, math.ceil(at - now))

    def _perform(self, work: Callable[[], T]) -> T:
        self._busy_since = time.perf_counter()
        try:
            return work()
        finally:
            self._busy_since = None

    def _done(self, future: "asyncio.Future[T]") -> None:
        self._pending -= 1
        if not future.cancelled():  # what nobody waited for took no time
            now = time.perf_counter()
            self._throughput.note(1, now - self._left_at)
            self._left_at = now
