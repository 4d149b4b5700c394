"""Batches across requests, on the one thread that owns the device.

Whenever the device is free it takes what is queued: there is no window to wait in. Images and texts have a
queue each and take turns. Where the device is not the CPU, a second thread puts the next batches together while
it is busy, up to the moment it is free; on a CPU that would only take cores from the encoder.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from service.device.admission import Admission, watch_queue
from service.device.batches import encode, fill, without_dead
from service.device.fair_scheduler import FairScheduler
from service.device.health import Health
from service.device.queues import Batch, Queue
from service.device.tickets import Embedded, Item, Kind, Outcome, Ticket
from service.errors import DeadlineExceeded, EncodingFailed, Unavailable, without_frames
from service.watch.telemetry import Telemetry

logger = logging.getLogger(__name__)
T = TypeVar("T")
PROBE_SECONDS = 1.0
GONE = "the deadline passed, or the caller left, before the device was free"


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """`ahead`: put the next batch together while the device is busy; `on_start`: first thing on its thread."""

    stall_seconds: float
    ahead: bool = False
    on_start: Callable[[], object] = lambda: None


class Device:
    """Owns the device thread. `admit` and `abandon` belong to the event loop; `put`, `fail` to any thread."""

    def __init__(
        self,
        queues: Sequence[Queue],
        *,
        probe: Callable[[Encoder], object],
        telemetry: Telemetry,
        settings: DeviceSettings,
    ) -> None:
        self._queues: dict[Kind, Queue] = {queue.kind: queue for queue in queues}
        self._rotation: deque[Queue] = deque(queues)
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._health = Health(probe, stall_seconds=settings.stall_seconds)
        self._telemetry = telemetry
        self._settings = settings
        self._stopping = False
        self._closed: TwinlensError | None = None  # what all are told, once there is nobody to do their work
        self._thread = threading.Thread(target=self._run, name="device", daemon=True)
        self._preparer = threading.Thread(target=self._prepare, name="prepare", daemon=True)
        self._admission = Admission(self._queues, telemetry)
        for queue in queues:
            watch_queue(queue, telemetry, lock=self._wake)

    def start(self) -> None:
        self._thread.start()
        if self._settings.ahead:
            self._preparer.start()

    def stop(self, *, timeout_seconds: float) -> None:
        """Finish the batch that runs, refuse what waits and what still comes, end the threads."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        for thread in (self._thread, self._preparer):
            if thread.ident is not None:
                thread.join(timeout_seconds)
        self._close(Unavailable("the service is shutting down", code="shutting_down", retry_after_seconds=1))

    def unhealthy_reason(self) -> str | None:
        """Say why nothing can be served just now; None while healthy."""
        if words := self._health.unhealthy_reason():
            return words
        return None if self._thread.is_alive() else "the device thread is not running"

    def unhealthy_seconds(self) -> float:
        """Measure how long nothing could be served; 0 while healthy."""
        return self._health.unhealthy_seconds()

    def adopt(self, encoder: Encoder) -> None:
        """`unhealthy_reason` is about this encoder from now on. Device thread only, through `call`."""
        self._health.adopt(encoder)

    def admit(self, kind: Kind, encoder: Encoder, *, size: int, deadline: float, size_bytes: int = 0) -> Ticket:
        """A ticket for `size` items that take `size_bytes` while they wait.

        Raises QueueFull when there is no room, or no hope before the deadline; TooLarge when there can never be
        room; Unavailable while the device is stuck: what would queue behind it would only pass its deadline.
        """
        if stuck := self._health.stuck():
            raise Unavailable(f"{stuck}: try again in 5 s", code="not_ready", retry_after_seconds=5)
        return self._admission.admit(kind, encoder, size=size, deadline=deadline, size_bytes=size_bytes)

    def put(self, ticket: Ticket, position: int, payload: object) -> None:
        """Queue one item of a ticket."""
        self.put_all(ticket, (Item(ticket, position, payload, time.perf_counter()),))

    def put_all(self, ticket: Ticket, items: Sequence[Item]) -> None:
        with self._wake:
            closed = self._closed
            if closed is None:
                self._queues[ticket.kind].scheduler.put(ticket, items)
                self._wake.notify_all()
        if closed is not None:
            self._settle((item, closed) for item in items)

    def fail(self, ticket: Ticket, position: int, error: TwinlensError) -> None:
        """Give one item its outcome without the device."""
        self._settle([(Item(ticket, position, None, 0.0), error)])

    def abandon(self, ticket: Ticket) -> None:
        """Nobody waits for this any more: what of it waits makes room at once."""
        ticket.abandoned = True
        with self._wake:
            dropped = self._queues[ticket.kind].scheduler.drop(ticket)
        self._settle((item, DeadlineExceeded(GONE)) for item in dropped)

    def call(self, work: Callable[[], T]) -> "Future[T]":
        """Run `work` on the device thread before the next batch."""
        future: Future[T] = Future()
        with self._wake:
            if self._closed is None:
                self._calls.append((work, future))
                self._wake.notify_all()
            else:
                future.set_exception(self._closed)
        return future

    def _run(self) -> None:
        """Work until `stop`. What ends it otherwise is survived some times: then something is badly wrong."""
        while not self._stopping:
            try:
                self._settings.on_start()
                while self._step():
                    pass
            except BaseException as error:
                logger.critical("the device thread was thrown out of its work", exc_info=True)
                if words := self._health.died(error):
                    self._close(Unavailable(words, code="not_ready", retry_after_seconds=5))
                    return

    def _step(self) -> bool:
        """One piece of work; False: stop. Nothing of it is held while the thread waits for the next one."""
        todo = self._next()
        if todo is None:
            return False
        try:
            todo()
        except Exception:  # the thread must outlive whatever one batch does to it
            logger.exception("the device thread met an error")
        finally:
            self._health.end()
        return True

    def _next(self) -> Callable[[], None] | None:
        """Wait for work: a call, else a batch, else (when the last batch failed) a probe; None: stop."""
        with self._wake:
            while not self._stopping:
                todo = self._todo()
                if todo is None:
                    suspect = self._health.suspect()
                    if self._wake.wait(PROBE_SECONDS if suspect else None) or suspect is None:
                        continue
                    todo = partial(self._health.check, suspect)
                self._health.begin()
                self._wake.notify_all()  # there is room for another batch ahead
                return todo
            return None

    def _todo(self) -> Callable[[], None] | None:
        if self._calls:
            return partial(_perform, *self._calls.popleft())
        for _ in range(len(self._rotation)):
            self._rotation.rotate(-1)
            queue = self._rotation[-1]
            if queue.has_work():
                batch, queue.ahead = queue.ahead, Batch()
                fresh, dead = queue.take(batch, time.perf_counter())
                return partial(self._serve, queue, batch, fresh=fresh, dead=dead)
        return None

    def _prepare(self) -> None:
        """Put batches together while the device is busy."""
        while queue := self._queue_to_fill():
            try:
                with self._wake:
                    fresh, dead = queue.take(queue.ahead, time.perf_counter())
                fill(queue, queue.ahead, fresh)
            finally:
                with self._wake:
                    queue.filling = False
                    self._wake.notify_all()
            self._settle((item, DeadlineExceeded(GONE)) for item in dead)
        if self._closed is not None:  # meanwhile: what was being put together was seen by nobody
            self._close(self._closed)

    def _queue_to_fill(self) -> Queue | None:
        """Wait until there is one, and claim it; None: stop."""
        with self._wake:
            while not self._stopping and self._closed is None:
                queue = next((queue for queue in self._queues.values() if queue.can_fill()), None)
                if queue is not None and self._health.is_busy:
                    queue.filling = True
                    return queue
                self._wake.wait()
        return None

    def _serve(self, queue: Queue, batch: Batch, *, fresh: list[Item], dead: list[Item]) -> None:
        outcomes: list[Outcome] = []
        try:
            fill(queue, batch, fresh)
            started = time.perf_counter()
            dead = dead + [item for item in batch.items if item.ticket.dead(started)]
            if dead:
                self._settle((item, DeadlineExceeded(GONE)) for item in dead)
                batch = without_dead(queue, batch, now=started)
            if batch.items and batch.encoder:
                outcomes = encode(queue, batch)
                self._account(queue, batch.items, started=started)
                if self._health.suspect() or not any(isinstance(outcome, Embedded) for outcome in outcomes):
                    self._health.check(batch.encoder)
        except BaseException as error:
            lost = EncodingFailed(f"the device thread met an error: {error!r}")
            self._settle((item, lost) for item in (*batch.items[len(outcomes) :], *dead))
            raise
        finally:
            self._settle(zip(batch.items, outcomes, strict=False))

    def _account(self, queue: Queue, items: list[Item], *, started: float) -> None:
        seconds = time.perf_counter() - started
        self._telemetry.batch(queue.kind, len(items), seconds=seconds)
        queue.measure(len(items), seconds=seconds)
        for item in items:
            ticket = item.ticket
            ticket.queue_seconds = max(ticket.queue_seconds, started - item.put_at)
            ticket.inference_seconds = max(ticket.inference_seconds, seconds)
            ticket.spans.note("queue", item.put_at, started)
            ticket.spans.note("inference", started, started + seconds)

    def _settle(self, settled: Iterable[tuple[Item, Outcome]]) -> None:
        """Hand outcomes to their tickets, and the tickets that are complete to their event loop, in one hop."""
        complete: list[Ticket] = []
        with self._wake:
            for item, outcome in settled:
                ticket = item.ticket
                if isinstance(outcome, TwinlensError):
                    without_frames(outcome)  # they hold the ticket
                if ticket.outcomes[item.position] is None:
                    ticket.outcomes[item.position] = outcome
                    ticket.missing -= 1
                    if ticket.missing == 0:
                        complete.append(ticket)
        if not complete:
            return
        loop = complete[0].done.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._admission.deliver, complete)

    def _close(self, error: TwinlensError) -> None:
        """Refuse all that waits, and whatever comes from now on."""
        waiting: list[Item] = []
        with self._wake:
            self._closed = error
            for queue in self._queues.values():
                waiting += [*queue.scheduler, *queue.ahead.items]
                queue.scheduler = FairScheduler()
            calls, self._calls = self._calls, deque()
            self._wake.notify_all()
        self._settle((item, error) for item in waiting)
        for _, future in calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)


def _perform(work: Callable[[], Any], future: "Future[Any]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:  # noqa: BLE001 - the caller's to handle, whatever it is
        future.set_exception(error)
