"""The queue of one kind of item: how much one batch takes of it, and how long what waits will take."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from encoders.encoder import Encoder
from service.device.fair_scheduler import FairScheduler, Waiting
from service.device.tickets import Item, Kind, Outcome, Ticket

GROW_AFTER_BATCHES = 16
TURN_SECONDS = (
    0.2  # a batch takes about so long at most: who comes just after it began waits no longer for his turn
)
LEAST_TURN_ITEMS = 4  # what the encoder takes at once on a CPU; turns are multiples of it
MEMORY_SECONDS = (
    1.0,
    10.0,
)  # how far back it looks: what slows down is seen at once, and not forgotten


class BatchBuilder(Protocol):
    """A batch that is being put together. Filled by one thread, then encoded by the device thread."""

    def add(self, payloads: Sequence[Any]) -> None: ...

    def encode(self) -> Sequence[Outcome]:
        """An outcome for each payload, in the order added."""
        ...


class NewBuilder(Protocol):
    """A builder for `capacity` items of an encoder."""

    def __call__(self, encoder: Encoder, capacity: int) -> BatchBuilder: ...


@dataclass(slots=True)
class BatchLimit:
    """How much one batch may hold: `items`, and their cost. Halved when memory runs out; grows back slowly."""

    most_items: int
    most_cost: int = 0  # 0: whatever the items cost
    items: int = field(init=False)
    _good_batches: int = 0

    def __post_init__(self) -> None:
        self.items = self.most_items

    @property
    def cost(self) -> int:
        return self.most_cost * self.items // self.most_items if self.most_cost else 2**62

    def shrink(self, failed_items: int) -> None:
        """A batch of so many did not fit into memory."""
        self.items = max(1, min(self.items, failed_items // 2))  # it may be of before the limit was halved
        self._good_batches = 0

    def succeeded(self) -> None:
        if self.items == self.most_items:
            return
        self._good_batches += 1
        if self._good_batches >= GROW_AFTER_BATCHES:
            self.items = min(self.most_items, self.items + max(1, self.items // 4))
            self._good_batches = 0


class Throughput:
    """Seconds an item takes while there is something to do, all included; the slower of late and of longer."""

    def __init__(self) -> None:
        self._sums = [[0.0, 0.0] for _ in MEMORY_SECONDS]  # seconds and items, fading

    def seconds_per_item(self) -> float:
        """0 while nothing was measured."""
        return max(seconds / items if items else 0.0 for seconds, items in self._sums)

    def note(self, items: int, seconds: float) -> None:
        for sums, memory_seconds in zip(self._sums, MEMORY_SECONDS, strict=True):
            kept = math.exp(-seconds / memory_seconds)
            sums[0] = sums[0] * kept + seconds
            sums[1] = sums[1] * kept + items


@dataclass(eq=False, slots=True)
class Batch:
    """What goes through the device together: `items` are all in the `builder`, or it is spoiled."""

    encoder: Encoder | None = None
    items: list[Item] = field(default_factory=list)
    cost: int = 0
    builder: BatchBuilder | None = None
    capacity: int = 0  # of the builder
    spoiled: Exception | None = None


@dataclass(eq=False, slots=True)
class Queue:
    """One kind's queue. Who may touch what, beside the lock's holder, who may everything:

    the event loop `tickets`, `pending`, `pending_bytes`, `throughput`, `busy_from`, `promised_until`; the
    device thread `limit` and `device_seconds_per_item`; whoever set `filling` the batch `ahead`.
    """

    kind: Kind
    new_builder: NewBuilder
    limit: BatchLimit
    queue_limit: int
    queue_bytes: int = 2**62
    tickets: dict[Ticket, None] = field(default_factory=dict)  # admitted, not answered; in the order they came
    pending: int = 0
    pending_bytes: int = 0
    throughput: Throughput = field(default_factory=Throughput)
    busy_from: float = 0.0  # when `pending` was last 0, or an answer last left
    device_seconds_per_item: float = 0.0  # moving average of what the device alone takes
    scheduler: FairScheduler = field(default_factory=FairScheduler)
    promised_until: float = 0.0  # when all who were refused will have been served, if they come as told
    ahead: Batch = field(default_factory=Batch)  # put together while the device is busy with another
    filling: bool = False

    def turn_items(self) -> int:
        """Most items in a batch: the limit, or what the device does in a turn where that is slow.

        So the kinds waiting its time, and not its batches: those of 32 images took a CPU four times as long as
        those of 64 texts, and left the texts a fifth of it.
        """
        if not self.device_seconds_per_item:
            return self.limit.items
        in_turn = int(TURN_SECONDS / self.device_seconds_per_item) // LEAST_TURN_ITEMS * LEAST_TURN_ITEMS
        return min(self.limit.items, max(LEAST_TURN_ITEMS, in_turn))

    def room(self, batch: Batch) -> int:
        """Most items that `batch` may come to: its builder was opened when the limit may have been another."""
        return self.turn_items() if batch.builder is None else min(self.turn_items(), batch.capacity)

    def has_work(self) -> bool:
        """Whether there is a batch for the device now."""
        return not self.filling and bool(self.scheduler or self.ahead.items)

    def can_fill(self) -> bool:
        """Whether something waits that has room in the batch ahead."""
        batch = self.ahead
        room = len(batch.items) < self.room(batch) and batch.cost < self.limit.cost
        return room and bool(self.scheduler) and not self.filling and not batch.spoiled

    def take(self, batch: Batch, now: float) -> tuple[list[Item], list[Item]]:
        """What comes into `batch` next, within the limit and for its one encoder; and what is not worth it.

        Of dead tickets everything is given as not worth it. The first item comes in whatever it costs.
        """
        fresh: list[Item] = []
        dead: list[Item] = []
        others: list[Waiting] = []  # of another encoder: a release is being swapped
        most = self.room(batch)
        while self.scheduler and len(batch.items) + len(fresh) < most:
            waiting = self.scheduler.first()
            if waiting.ticket.dead(now):
                dead.extend(waiting.items)
                waiting.items.clear()
                self.scheduler.back(waiting)
                continue
            if waiting.ticket.encoder is not (batch.encoder or waiting.ticket.encoder):
                others.append(waiting)
                continue
            cost = batch.cost + waiting.items[0].cost
            if batch.cost and cost > self.limit.cost:
                self.scheduler.front(waiting)
                break
            batch.encoder, batch.cost = waiting.ticket.encoder, cost
            waiting.ticket.begun = True
            fresh.append(waiting.items.popleft())
            self.scheduler.back(waiting)
        for waiting in reversed(others):
            self.scheduler.front(waiting)
        return fresh, dead

    def measure(self, items: int, *, seconds: float) -> None:
        """What the device took for a batch."""
        before, now = self.device_seconds_per_item, seconds / items
        self.device_seconds_per_item = before + (now - before) * (0.2 if before else 1.0)


def seconds_until_done(queue: Queue, items: int, *, others: Iterable[Queue]) -> float:
    """How long the next `items` of a queue will take, while the other queues take their turns.

    The longer of two estimates: at the throughput of late; and by what the device took for each item,
    with as many batches of the others between as there are of these (or as much as there is of them).
    """
    turns = math.ceil(items / queue.turn_items())
    between = sum(
        min(other.pending, turns * other.turn_items()) * other.device_seconds_per_item for other in others
    )
    return max(items * queue.throughput.seconds_per_item(), items * queue.device_seconds_per_item + between)
