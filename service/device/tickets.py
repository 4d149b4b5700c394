"""What moves between requests and the device thread: items, and the tickets they belong to."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from service.watch.telemetry import Spans

Kind = Literal["image", "text"]

CALLER: ContextVar[str] = ContextVar("caller", default="")
"""Whose request it is that runs just now; empty: nobody in particular. Callers take turns in the queues."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A unit vector (float32, dim); of a text also its length in tokens and whether it was cut.

    typed: of a short query that was asked in several sentences, the vector of what was typed.
    """

    vector: np.ndarray
    truncated: bool = False
    tokens: int = 0
    typed: np.ndarray | None = None


Outcome = Embedded | TwinlensError


@dataclass(frozen=True, slots=True)
class Item:
    """One image or text that waits. `cost` is in what its queue counts: images, or tokens."""

    ticket: "Ticket"
    position: int
    payload: Any
    put_at: float  # time.perf_counter() seconds
    cost: int = 1


@dataclass(eq=False, slots=True)
class Ticket:
    """The items one request asked for; `done` resolves on the event loop when each has its outcome."""

    kind: Kind
    encoder: Encoder
    size: int
    deadline: float  # time.perf_counter() seconds
    done: "asyncio.Future[None]"
    size_bytes: int = 0  # of all its payloads, while they wait
    caller: str = ""
    outcomes: list[Outcome | None] = field(init=False)
    missing: int = field(init=False)
    begun: bool = False  # something of it has come into a batch
    abandoned: bool = False
    queue_seconds: float = 0.0  # of the slowest item, as are the next two
    decode_seconds: float = 0.0
    inference_seconds: float = 0.0
    spans: Spans = field(default_factory=Spans)  # of all items together, for traces

    def __post_init__(self) -> None:
        self.outcomes = [None] * self.size
        self.missing = self.size

    def dead(self, now: float) -> bool:
        return self.abandoned or now > self.deadline
