"""Who may queue, and when to come again: bounds in items and bytes, and the deadline. Event loop only.

Refuses at once what would not be served in time, by the pace that answers leave at; and when the pace falls,
what was admitted and has not begun, as soon as that is seen. Knows no threads, no HTTP.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from encoders.encoder import Encoder
from service.access.shares import Shares
from service.device.lanes import Lane, seconds_until_done
from service.device.tickets import CALLER, Kind, Ticket
from service.errors import QueueFull, TooLarge
from service.watch.telemetry import Telemetry

MAX_RETRY_SECONDS = 60
LOOK_SECONDS = 0.1  # between two looks at what was admitted
MARGIN = 2.0  # the pace may halve: what is admitted and then passes its deadline was encoded for nobody


class Admission:
    """Counts what was admitted and is not yet answered."""

    def __init__(self, lanes: Mapping[Kind, Lane], telemetry: Telemetry) -> None:
        self._lanes = lanes
        self._telemetry = telemetry
        self._shares = {kind: Shares() for kind in lanes}  # of the items pending
        self._looked_at = 0.0

    def admit(self, kind: Kind, encoder: Encoder, *, size: int, deadline: float, size_bytes: int) -> Ticket:
        """Raises QueueFull or TooLarge, as Device.admit says."""
        lane, now, caller = self._lanes[kind], time.perf_counter(), CALLER.get()
        try:
            self._check_room(lane, size, size_bytes)
            self._check_share(lane, size, caller)
            self._check_deadline(lane, size, deadline - now)
        except (QueueFull, TooLarge) as refusal:
            self._telemetry.admission(kind, refusal.code, size=size)
            raise
        self._telemetry.admission(kind, "admitted", size=size)
        if not lane.pending:
            lane.busy_from = now
        lane.pending += size
        lane.pending_bytes += size_bytes
        self._shares[kind].take(caller, size)
        done = asyncio.get_running_loop().create_future()
        ticket = Ticket(kind, encoder, size, deadline, done, size_bytes, caller)
        lane.tickets[ticket] = None
        return ticket

    def deliver(self, tickets: Sequence[Ticket]) -> None:
        """Each item of these has its outcome."""
        now = time.perf_counter()
        for ticket in tickets:
            lane = self._lanes[ticket.kind]
            lane.tickets.pop(ticket, None)
            lane.pending -= ticket.size
            lane.pending_bytes -= ticket.size_bytes
            self._shares[ticket.kind].give_back(ticket.caller, ticket.size)
            if not ticket.abandoned:  # what nobody waited for took no time
                lane.pace.note(ticket.size, now - lane.busy_from)
                lane.busy_from = now
            if not ticket.done.done():
                ticket.done.set_result(None)
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            for lane in self._lanes.values():
                self._take_back(lane, now)

    def _check_room(self, lane: Lane, size: int, size_bytes: int) -> None:
        if size > lane.queue_limit:
            raise TooLarge(
                f"these {size} {lane.kind}s are more than a queue of {lane.queue_limit}: send fewer at once",
                code="too_many_items",
            )
        if size_bytes > lane.queue_bytes:
            raise TooLarge(
                f"these {size} {lane.kind}s take {size_bytes} bytes while they wait, and the queue holds "
                f"{lane.queue_bytes}: send fewer in one request"
            )
        excess = lane.pending + size - lane.queue_limit
        excess_bytes = lane.pending_bytes + size_bytes - lane.queue_bytes
        if excess <= 0 and excess_bytes <= 0:
            return
        by_bytes = math.ceil(lane.pending * excess_bytes / lane.pending_bytes) if excess_bytes > 0 else 0
        seconds = self._promise(lane, size, self._wait(lane, max(excess, by_bytes)))
        bound = f"{lane.queue_limit}" if excess > 0 else f"{lane.queue_bytes} bytes"
        raise QueueFull(
            f"{lane.pending} {lane.kind}s wait and the queue takes {bound}: "
            f"send these {size} again in {seconds} s",
            retry_after_seconds=seconds,
        )

    def _check_share(self, lane: Lane, size: int, caller: str) -> None:
        shares, free = self._shares[lane.kind], lane.queue_limit - lane.pending
        excess = shares.excess(caller, size, free=free)
        if not excess:
            return
        seconds = self._promise(lane, size, self._wait(lane, excess))
        raise QueueFull(
            f"{shares.held(caller)} {lane.kind}s of {caller} wait, and it leaves others as much room ({free}): "
            f"send these {size} again in {seconds} s",
            code="key_share",
            retry_after_seconds=seconds,
        )

    def _check_deadline(self, lane: Lane, size: int, allowed_seconds: float) -> None:
        """Where nothing waits it is tried, whatever it may take."""
        wait = MARGIN * self._wait(lane, lane.pending + size)
        if not lane.pending or wait <= allowed_seconds:
            return
        own = MARGIN * self._wait(lane, size)
        seconds = self._promise(lane, size, wait - max(allowed_seconds, own))
        raise QueueFull(
            f"what waits and this takes about {wait:.1f} s and the request's deadline leaves "
            f"{max(0.0, allowed_seconds):.1f} s: send it again in {seconds} s, or with a longer x-deadline-ms",
            code="deadline_unreachable",
            retry_after_seconds=seconds,
        )

    def _take_back(self, lane: Lane, now: float) -> None:
        """Refuse what was admitted and will be late: its caller is told now, and the device is for the others.

        What has begun is left to end.
        """
        before = 0
        for ticket in list(lane.tickets):
            if ticket.done.done():  # its caller left; it is on its way out
                continue
            wait = self._wait(lane, before + ticket.missing)
            if ticket.begun or not before or now + wait <= ticket.deadline:
                before += ticket.missing
                continue
            del lane.tickets[ticket]
            self._telemetry.admission(lane.kind, "taken_back", size=ticket.size)
            seconds = self._promise(lane, ticket.size, wait)
            refusal = QueueFull(
                f"what waits has become slower: this would take {wait:.1f} s more and its deadline leaves "
                f"{max(0.0, ticket.deadline - now):.1f} s: send it again in {seconds} s",
                code="deadline_unreachable",
                retry_after_seconds=seconds,
            )
            ticket.done.set_exception(refusal)

    def _promise(self, lane: Lane, size: int, seconds: float) -> int:
        """When to come again: in so many seconds, and after all who were refused before and come as told."""
        now = time.perf_counter()
        at = min(max(now + seconds, lane.promised_until), now + MAX_RETRY_SECONDS)
        lane.promised_until = at + self._wait(lane, size)
        return max(1, math.ceil(at - now))

    def _wait(self, lane: Lane, items: int) -> float:
        others = [other for other in self._lanes.values() if other is not lane]
        return seconds_until_done(lane, items, others=others)


def watch_lane(lane: Lane, telemetry: Telemetry, *, lock: AbstractContextManager[object]) -> None:
    """Gauges of one queue; `lock` is held while the waiting items are looked at."""

    def oldest_seconds() -> float:
        with lock:
            put_at = lane.turns.oldest_at()
        return 0.0 if put_at is None else time.perf_counter() - put_at

    telemetry.watch_queue(
        lane.kind, depth=lambda: lane.pending, limit=lane.queue_limit, oldest_seconds=oldest_seconds
    )
    words = f"Most {lane.kind}s in one batch just now; fewer than set after memory ran out"
    telemetry.watch(f"batch_limit_{lane.kind}s", words, lambda: lane.limit.items)
