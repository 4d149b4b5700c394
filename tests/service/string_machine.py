"""An encoder of strings behind the real device thread: it can be held, be slow, break, or run out of memory."""

import asyncio
import math
import threading
import time
from collections.abc import Iterator, Sequence

import torch

from service.device.batching import Device, DeviceSettings
from service.device.queues import BatchLimit, Queue, Throughput
from service.device.tickets import CALLER, Embedded, Item, Ticket
from service.watch.telemetry import Telemetry

POISON, DEATH, SPOILS = (
    "poison",
    "death",
    "spoils",
)  # an encoder's errors: it fails, its thread dies, no batch
ENCODER = object()  # the device only hands it on


class _Unhurried(Throughput):
    def note(self, items: int, seconds: float) -> None:
        """How long a test took to let go of the device tells nothing of its throughput."""


class _Untimed(Queue):
    def measure(self, items: int, *, seconds: float) -> None:
        """As above."""


class Machine:
    """An encoder of strings that can be held, and that breaks on POISON; it notes every batch it is given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()
        self.entered = threading.Event()
        self.broken = False
        self.seconds_per_item = 0.0
        self.fits: int | None = None  # items into memory
        self.filled = threading.Semaphore(0)  # once for each time something was put into a builder

    def encode(self, payloads: Sequence[str]) -> list[Embedded]:
        self.batches.append(list(payloads))
        self.entered.set()
        assert self.free.wait(10)
        time.sleep(self.seconds_per_item * len(payloads))
        if self.fits is not None and len(payloads) > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if DEATH in payloads:
            raise SystemExit("the driver gave up")
        if self.broken or POISON in payloads:
            raise RuntimeError("no good")
        return [Embedded(payload) for payload in payloads]

    def probe(self, encoder: object) -> None:
        if self.broken and encoder is ENCODER:
            raise RuntimeError("no good at all")

    def device(
        self, *, queue_limit: int = 100, stall_seconds: float = 30.0, timed: bool = False, **more: object
    ) -> Device:
        """`timed`: batches and admission depend on how fast the device is, as they do in a service."""
        limits = {"cost": 0, "queue_bytes": 1000, "ahead": False} | more
        queues = [
            (Queue if timed else _Untimed)(
                kind,
                lambda encoder, capacity: Plate(self, capacity),
                BatchLimit(8, most_cost=limits["cost"]),
                queue_limit,
                limits["queue_bytes"],
                throughput=Throughput() if timed else _Unhurried(),
            )
            for kind in ("image", "text")
        ]
        settings = DeviceSettings(stall_seconds, ahead=limits["ahead"])
        device = Device(queues, probe=self.probe, telemetry=Telemetry(), settings=settings)
        if not timed:
            device._admission._looked_at = math.inf  # nothing is taken back
        return device


class Plate:
    """A builder of strings; of one that says so it breaks."""

    def __init__(self, machine: Machine, capacity: int) -> None:
        self._machine, self._capacity = machine, capacity
        self._payloads: list[str] = []

    def add(self, payloads: Sequence[str]) -> None:
        assert len(self._payloads) + len(payloads) <= self._capacity
        if SPOILS in payloads:
            raise ValueError("cannot be put together")
        self._payloads.extend(payloads)
        self._machine.filled.release()

    def encode(self) -> list[Embedded]:
        return self._machine.encode(self._payloads)


def started(device: Device) -> Iterator[Device]:
    device.start()
    device.call(lambda: device.adopt(ENCODER)).result(10)
    yield device
    device.stop(timeout_seconds=10)


def submit(
    device: Device,
    *payloads: str,
    kind: str = "image",
    encoder: object = ENCODER,
    seconds: float = 10,
    caller: str = "",
    cost: int = 1,
) -> Ticket:
    CALLER.set(caller)
    ticket = device.admit(
        kind,
        encoder,
        size=len(payloads),
        deadline=time.perf_counter() + seconds,
        size_bytes=sum(map(len, payloads)),
    )
    now = time.perf_counter()
    device.put_all(
        ticket, [Item(ticket, position, payload, now, cost) for position, payload in enumerate(payloads)]
    )
    return ticket


async def hold(device: Device, machine: Machine) -> Ticket:
    """Occupy the device with one item, so that what comes now must queue."""
    machine.free.clear()
    machine.entered.clear()
    ticket = submit(device, "first")
    await asyncio.to_thread(machine.entered.wait, 10)
    return ticket


def vectors(ticket: Ticket) -> list[object]:
    return [outcome.vector if isinstance(outcome, Embedded) else type(outcome) for outcome in ticket.outcomes]
