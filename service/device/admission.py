"""Who may queue, and when to come again: bounds in items and bytes, and the deadline. Event loop only.

Refuses at once what would not be served in time, by the throughput of late; and when that falls, what
was admitted and has not begun, as soon as it is seen.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from encoders.encoder import Encoder
from service.access.quotas import Quotas
from service.device.queues import Queue, seconds_until_done
from service.device.tickets import CALLER, Kind, Ticket
from service.errors import QueueFull, TooLarge
from service.watch.telemetry import Telemetry

MAX_RETRY_SECONDS = 60
LOOK_SECONDS = 0.1  # between two looks at what was admitted
MARGIN = 2.0  # the throughput may halve: what is admitted and then passes its deadline was encoded for nobody


class Admission:
    """Counts what was admitted and is not yet answered."""

    def __init__(self, queues: Mapping[Kind, Queue], telemetry: Telemetry) -> None:
        self._queues = queues
        self._telemetry = telemetry
        self._quotas = {kind: Quotas() for kind in queues}  # of the items pending
        self._looked_at = 0.0

    def admit(self, kind: Kind, encoder: Encoder, *, size: int, deadline: float, size_bytes: int) -> Ticket:
        """Raises QueueFull or TooLarge, as Device.admit says."""
        queue, now, caller = self._queues[kind], time.perf_counter(), CALLER.get()
        try:
            self._check_room(queue, size, size_bytes)
            self._check_share(queue, size, caller)
            self._check_deadline(queue, size, deadline - now)
        except (QueueFull, TooLarge) as refusal:
            self._telemetry.admission(kind, refusal.code, size=size)
            raise
        self._telemetry.admission(kind, "admitted", size=size)
        if not queue.pending:
            queue.busy_from = now
        queue.pending += size
        queue.pending_bytes += size_bytes
        self._quotas[kind].take(caller, size)
        done = asyncio.get_running_loop().create_future()
        ticket = Ticket(kind, encoder, size, deadline, done, size_bytes, caller)
        queue.tickets[ticket] = None
        return ticket

    def deliver(self, tickets: Sequence[Ticket]) -> None:
        """Each item of these has its outcome."""
        now = time.perf_counter()
        for ticket in tickets:
            queue = self._queues[ticket.kind]
            queue.tickets.pop(ticket, None)
            queue.pending -= ticket.size
            queue.pending_bytes -= ticket.size_bytes
            self._quotas[ticket.kind].give_back(ticket.caller, ticket.size)
            if not ticket.abandoned:  # what nobody waited for took no time
                queue.throughput.note(ticket.size, now - queue.busy_from)
                queue.busy_from = now
            if not ticket.done.done():
                ticket.done.set_result(None)
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            for queue in self._queues.values():
                self._take_back(queue, now)

    def _check_room(self, queue: Queue, size: int, size_bytes: int) -> None:
        if size > queue.queue_limit:
            raise TooLarge(
                f"these {size} {queue.kind}s are more than a queue of {queue.queue_limit}: send fewer at once",
                code="too_many_items",
            )
        if size_bytes > queue.queue_bytes:
            raise TooLarge(
                f"these {size} {queue.kind}s take {size_bytes} bytes while they wait, and the queue holds "
                f"{queue.queue_bytes}: send fewer in one request"
            )
        excess = queue.pending + size - queue.queue_limit
        excess_bytes = queue.pending_bytes + size_bytes - queue.queue_bytes
        if excess <= 0 and excess_bytes <= 0:
            return
        by_bytes = math.ceil(queue.pending * excess_bytes / queue.pending_bytes) if excess_bytes > 0 else 0
        seconds = self._promise(queue, size, self._wait(queue, max(excess, by_bytes)))
        bound = f"{queue.queue_limit}" if excess > 0 else f"{queue.queue_bytes} bytes"
        raise QueueFull(
            f"{queue.pending} {queue.kind}s wait and the queue takes {bound}: "
            f"send these {size} again in {seconds} s",
            retry_after_seconds=seconds,
        )

    def _check_share(self, queue: Queue, size: int, caller: str) -> None:
        quotas, free = self._quotas[queue.kind], queue.queue_limit - queue.pending
        excess = quotas.excess(caller, size, free=free)
        if not excess:
            return
        seconds = self._promise(queue, size, self._wait(queue, excess))
        raise QueueFull(
            f"{quotas.held(caller)} {queue.kind}s of {caller} wait, and others keep as much room ({free}): "
            f"send these {size} again in {seconds} s",
            code="key_share",
            retry_after_seconds=seconds,
        )

    def _check_deadline(self, queue: Queue, size: int, allowed_seconds: float) -> None:
        """Where nothing waits it is tried, whatever it may take."""
        wait = MARGIN * self._wait(queue, queue.pending + size)
        if not queue.pending or wait <= allowed_seconds:
            return
        own = MARGIN * self._wait(queue, size)
        seconds = self._promise(queue, size, wait - max(allowed_seconds, own))
        raise QueueFull(
            f"what waits and this takes about {wait:.1f} s and the request's deadline leaves "
            f"{max(0.0, allowed_seconds):.1f} s: send it again in {seconds} s, or with a longer x-deadline-ms",
            code="deadline_unreachable",
            retry_after_seconds=seconds,
        )

    def _take_back(self, queue: Queue, now: float) -> None:
        """Refuse what was admitted and will be late: its caller is told now, and the device is for the others.

        What has begun is left to end.
        """
        before = 0
        for ticket in list(queue.tickets):
            if ticket.done.done():  # its caller left; it is on its way out
                continue
            wait = self._wait(queue, before + ticket.missing)
            if ticket.begun or not before or now + wait <= ticket.deadline:
                before += ticket.missing
                continue
            del queue.tickets[ticket]
            self._telemetry.admission(queue.kind, "taken_back", size=ticket.size)
            seconds = self._promise(queue, ticket.size, wait)
            refusal = QueueFull(
                f"what waits has become slower: this would take {wait:.1f} s more and its deadline leaves "
                f"{max(0.0, ticket.deadline - now):.1f} s: send it again in {seconds} s",
                code="deadline_unreachable",
                retry_after_seconds=seconds,
            )
            ticket.done.set_exception(refusal)

    def _promise(self, queue: Queue, size: int, seconds: float) -> int:
        """When to come again: in so many seconds, and after all who were refused before and come as told."""
        now = time.perf_counter()
        at = min(max(now + seconds, queue.promised_until), now + MAX_RETRY_SECONDS)
        queue.promised_until = at + self._wait(queue, size)
        return max(1, math.ceil(at - now))

    def _wait(self, queue: Queue, items: int) -> float:
        others = [other for other in self._queues.values() if other is not queue]
        return seconds_until_done(queue, items, others=others)


def watch_queue(queue: Queue, telemetry: Telemetry, *, lock: AbstractContextManager[object]) -> None:
    """Gauges of one queue; `lock` is held while the waiting items are looked at."""

    def oldest_seconds() -> float:
        with lock:
            put_at = queue.scheduler.oldest_at()
        return 0.0 if put_at is None else time.perf_counter() - put_at

    telemetry.watch_queue(
        queue.kind, depth=lambda: queue.pending, limit=queue.queue_limit, oldest_seconds=oldest_seconds
    )
    words = f"Most {queue.kind}s in one batch just now; fewer than set after memory ran out"
    telemetry.watch(f"batch_limit_{queue.kind}s", words, lambda: queue.limit.items)
