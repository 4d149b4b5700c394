"""Batches across requests, on the one thread that owns the device.

Whenever the device is free it takes what is queued: there is no window to wait in. Images and texts
have a queue each and take turns; within a queue requests take turns too, item by item. A batch that
fails is halved until the failing input stands alone. Knows nothing of HTTP, bytes or releases.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from service.errors import DeadlineExceeded, EncodingFailed, QueueFull, Unavailable
from service.telemetry import Telemetry
from service.tickets import Item, Kind, Lane, Outcome, Ticket, take

logger = logging.getLogger(__name__)
T = TypeVar("T")
PROBE_SECONDS = 1.0


class Device:
    """Owns the device thread. `admit` and tickets belong to the event loop; `put` and `fail` to any thread."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        probe: Callable[[Encoder], object],
        telemetry: Telemetry,
        stall_seconds: float,
    ) -> None:
        self._lanes: dict[Kind, Lane] = {lane.kind: lane for lane in lanes}
        self._turns: deque[Lane] = deque(lanes)
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._probe = probe
        self._telemetry = telemetry
        self._stall_seconds = stall_seconds
        self._stopping = False
        self._busy_since: float | None = None
        self._fault: str | None = None
        self._adopted: Encoder | None = None
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        for lane in lanes:
            telemetry.watch_depth(lane.kind, lambda lane=lane: lane.pending)  # type: ignore[misc]

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout_seconds: float) -> None:
        """Finish the batch that runs, refuse what waits, end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_seconds)

    def trouble(self) -> str | None:
        """Why nothing can be served just now, or None."""
        since, fault = self._busy_since, self._fault
        if not self._thread.is_alive():
            return "the device thread is not running"
        if since is not None and time.perf_counter() - since > self._stall_seconds:
            return f"a batch has been on the device for {time.perf_counter() - since:.0f} s"
        return fault

    def adopt(self, encoder: Encoder) -> None:
        """`trouble` is about this encoder from now on. Device thread only, through `call`."""
        self._adopted = encoder
        self._check(encoder)

    def admit(self, kind: Kind, encoder: Encoder, *, size: int, deadline: float) -> Ticket:
        """A ticket for `size` items, or QueueFull when there is no room, or no hope before the deadline."""
        lane = self._lanes[kind]
        wait = sum(other.pending * other.seconds_per_item for other in self._lanes.values())
        retry_after = max(1, min(30, math.ceil(wait)))
        if lane.pending + size > lane.queue_limit:
            raise QueueFull(
                f"{lane.pending} {kind}s wait and the queue takes {lane.queue_limit}: "
                f"send these {size} again in {retry_after} s",
                retry_after_seconds=retry_after,
            )
        if lane.pending and time.perf_counter() + wait > deadline:
            raise QueueFull(
                f"what waits takes about {wait:.1f} s, longer than this request's deadline allows",
                code="deadline_unreachable",
                retry_after_seconds=retry_after,
            )
        lane.pending += size
        return Ticket(kind, encoder, size, deadline, asyncio.get_running_loop().create_future())

    def put(self, ticket: Ticket, position: int, payload: object) -> None:
        """Queue one item of a ticket."""
        self.put_all(ticket, ((position, payload),))

    def put_all(self, ticket: Ticket, items: Sequence[tuple[int, object]]) -> None:
        now = time.perf_counter()
        with self._wake:
            if not ticket.waiting:
                self._lanes[ticket.kind].ready.append(ticket)
            ticket.waiting.extend((position, payload, now) for position, payload in items)
            self._wake.notify()

    def fail(self, ticket: Ticket, position: int, error: TwinlensError) -> None:
        """Give one item its outcome without the device."""
        self._settle([(Item(ticket, position, None, 0.0), error)])

    def call(self, work: Callable[[], T]) -> "Future[T]":
        """Run `work` on the device thread before the next batch."""
        future: Future[T] = Future()
        with self._wake:
            self._calls.append((work, future))
            self._wake.notify()
        return future

    def _run(self) -> None:
        while self._step():
            pass
        self._refuse_all()

    def _step(self) -> bool:
        """One piece of work; False: stop. Nothing of it is held while the thread waits for the next one."""
        todo = self._next()
        if todo is None:
            return False
        self._busy_since = time.perf_counter()
        try:
            todo()
        except Exception:  # the thread must outlive whatever one batch does to it
            logger.exception("the device thread met an error")
        finally:
            self._busy_since = None
        return True

    def _next(self) -> Callable[[], None] | None:
        """Wait for work: a call, else a batch, else (when the last batch failed) a probe; None: stop."""
        with self._wake:
            while not self._stopping:
                if self._calls:
                    work, future = self._calls.popleft()
                    return lambda: _perform(work, future)
                for _ in range(len(self._turns)):
                    self._turns.rotate(-1)
                    lane = self._turns[-1]
                    if batch := take(lane):
                        return lambda lane=lane, batch=batch: self._serve(lane, batch)  # type: ignore[misc]
                notified = self._wake.wait(PROBE_SECONDS if self._fault else None)
                if not notified and self._fault and self._adopted:
                    encoder = self._adopted
                    return lambda: self._check(encoder)
            return None

    def _serve(self, lane: Lane, batch: list[Item]) -> None:
        started = time.perf_counter()
        alive = [item for item in batch if not item.ticket.dead(started)]
        gone = DeadlineExceeded("the deadline passed, or the caller left, before the device was free")
        settled: list[tuple[Item, Outcome]] = [(i, gone) for i in batch if i.ticket.dead(started)]
        if alive:
            encoder = alive[0].ticket.encoder
            outcomes = self._encode(lane, encoder, alive)
            seconds = time.perf_counter() - started
            settled.extend(zip(alive, outcomes, strict=True))
            self._account(lane, alive, started=started, seconds=seconds)
            if self._fault or all(isinstance(outcome, EncodingFailed) for outcome in outcomes):
                self._check(self._adopted or encoder)
        self._settle(settled)

    def _encode(self, lane: Lane, encoder: Encoder, items: list[Item]) -> list[Outcome]:
        try:
            return list(lane.encode(encoder, [item.payload for item in items]))
        except Exception as error:  # noqa: BLE001 - whatever the device raises, only the input that causes it pays
            logger.warning("a batch of %d %ss failed: %s", len(items), lane.kind, error)
            if len(items) == 1:
                return [EncodingFailed(f"the encoder failed on this {lane.kind}: {error}")]
        half = len(items) // 2
        return self._encode(lane, encoder, items[:half]) + self._encode(lane, encoder, items[half:])

    def _check(self, encoder: Encoder) -> None:
        """Encode something known to be good: is it the input that was bad, or the device?"""
        try:
            self._probe(encoder)
        except Exception as error:  # any failure of a known good input is the same news
            logger.exception("the encoder fails on a known good input")
            self._fault = f"the encoder fails on a known good input: {error}"
        else:
            self._fault = None

    def _account(self, lane: Lane, items: list[Item], *, started: float, seconds: float) -> None:
        self._telemetry.batch(lane.kind, len(items), seconds=seconds)
        per_item = seconds / len(items)
        lane.seconds_per_item += (per_item - lane.seconds_per_item) * (0.2 if lane.seconds_per_item else 1.0)
        for item in items:
            ticket = item.ticket
            ticket.queue_seconds = max(ticket.queue_seconds, started - item.put_at)
            ticket.inference_seconds = max(ticket.inference_seconds, seconds)

    def _settle(self, settled: Sequence[tuple[Item, Outcome]]) -> None:
        """Hand outcomes to their tickets, and the tickets that are complete to their event loop, in one hop."""
        complete: list[Ticket] = []
        with self._wake:
            for item, outcome in settled:
                ticket = item.ticket
                ticket.outcomes[item.position] = outcome
                ticket.missing -= 1
                if ticket.missing == 0:
                    complete.append(ticket)
        if not complete:
            return
        loop = complete[0].done.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, complete)

    def _deliver(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            self._lanes[ticket.kind].pending -= ticket.size
            if not ticket.done.done():
                ticket.done.set_result(None)

    def _refuse_all(self) -> None:
        error = Unavailable("the service is shutting down", code="shutting_down", retry_after_seconds=1)
        with self._wake:
            items = [
                Item(ticket, position, payload, put_at)
                for lane in self._lanes.values()
                for ticket in lane.ready
                for position, payload, put_at in ticket.waiting
            ]
        self._settle([(item, error) for item in items])


def _perform(work: Callable[[], Any], future: "Future[Any]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the caller's to handle, whatever it is
        future.set_exception(error)
