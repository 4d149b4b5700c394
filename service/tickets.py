"""What moves between requests and the device thread: items, their tickets, and the queues they wait in.

Knows nothing of threads or HTTP; who may touch what is said beside each field.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import TwinlensError

Kind = Literal["image", "text"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A unit vector (float32, dim); of a text also its length in tokens and whether it was cut."""

    vector: np.ndarray
    truncated: bool = False
    tokens: int = 0


Outcome = Embedded | TwinlensError
# The payloads of one batch -> an outcome each; runs on the device thread only.
Encode = Callable[[Encoder, Sequence[Any]], Sequence[Outcome]]


@dataclass(eq=False, slots=True)
class Ticket:
    """The items one request asked for; `done` resolves on the event loop when each has its outcome."""

    kind: Kind
    encoder: Encoder
    size: int
    deadline: float  # time.perf_counter() seconds
    done: "asyncio.Future[None]"
    outcomes: list[Outcome | None] = field(init=False)
    waiting: "deque[tuple[int, Any, float]]" = field(default_factory=deque)  # (position, payload, put at)
    missing: int = field(init=False)
    abandoned: bool = False
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.outcomes = [None] * self.size
        self.missing = self.size

    def dead(self, now: float) -> bool:
        return self.abandoned or now > self.deadline


@dataclass(eq=False, slots=True)
class Lane:
    """The queue of one kind of item. `pending` belongs to the event loop, `ready` to whoever has the lock."""

    kind: Kind
    encode: Encode
    batch_limit: int
    queue_limit: int
    pending: int = 0
    ready: "deque[Ticket]" = field(default_factory=deque)
    seconds_per_item: float = 0.0  # moving average, for admission by deadline


@dataclass(frozen=True, slots=True)
class Item:
    ticket: Ticket
    position: int
    payload: Any
    put_at: float


def take(lane: Lane) -> list[Item]:
    """Up to a batch of items for one encoder, one from each ticket in turn. The caller holds the lock."""
    batch: list[Item] = []
    others: list[Ticket] = []  # of another encoder: a release is being swapped
    while lane.ready and len(batch) < lane.batch_limit:
        ticket = lane.ready.popleft()
        if batch and ticket.encoder is not batch[0].ticket.encoder:
            others.append(ticket)
            continue
        batch.append(Item(ticket, *ticket.waiting.popleft()))
        if ticket.waiting:
            lane.ready.append(ticket)
    lane.ready.extendleft(reversed(others))
    return batch
