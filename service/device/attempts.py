"""One batch through its tray, and what is done when that fails.

A batch that fails is halved until the failing input stands alone, so that only it pays. One that does not fit
into memory is tried again in smaller parts, and the lane's limit is halved with it. All of it is the device
thread's, but for `fill`. Knows no threads.
"""

import logging
from dataclasses import dataclass

from encoders.errors import TwinlensError
from service.device.lanes import Batch, Lane
from service.device.memory import free_memory, is_out_of_memory
from service.device.tickets import Item, Kind, Outcome
from service.errors import EncodingFailed, Unavailable

logger = logging.getLogger(__name__)


def encode(lane: Lane, batch: Batch) -> list[Outcome]:
    """An outcome for each item of a filled batch."""
    failure = _attempt(batch)
    if not isinstance(failure, _Failure):
        lane.limit.succeeded()
        return failure
    # The exception goes, and with it the frames that held the tensors of the failed batch.
    batch.tray = batch.spoiled = None
    logger.warning("a batch of %d %ss failed: %s", len(batch.items), lane.kind, failure.words)
    if failure.out_of_memory:
        lane.limit.shrink(len(batch.items))
        free_memory()
        logger.warning("out of memory: a batch of %ss holds %d for now", lane.kind, lane.limit.items)
    if len(batch.items) == 1:
        return [failure.error(lane.kind)]
    size = lane.limit.items if failure.out_of_memory else (len(batch.items) + 1) // 2
    outcomes: list[Outcome] = []
    while rest := batch.items[len(outcomes) :]:
        part = Batch(batch.encoder)
        fill(lane, part, rest[: min(size, lane.limit.items)])
        outcomes += encode(lane, part)
    return outcomes


@dataclass(frozen=True, slots=True)
class _Failure:
    words: str
    out_of_memory: bool

    def error(self, kind: Kind) -> TwinlensError:
        """What the one item is told whose batch it was."""
        if self.out_of_memory:
            words = f"the device has no memory left for this {kind}: {self.words}"
            return Unavailable(words, code="out_of_memory", retry_after_seconds=5)
        return EncodingFailed(f"the encoder failed on this {kind}: {self.words}")


def fill(lane: Lane, batch: Batch, fresh: list[Item]) -> None:
    """Items into a batch's tray; what goes wrong is found when the batch is encoded."""
    batch.items.extend(fresh)
    if not fresh or batch.spoiled or batch.encoder is None:
        return
    try:
        if batch.tray is None:
            batch.capacity = max(lane.limit.items, len(batch.items))
            batch.tray = lane.open_tray(batch.encoder, batch.capacity)
        batch.tray.add([item.payload for item in fresh])
    except Exception as error:  # noqa: BLE001 - as when encoding: only the input that causes it pays
        batch.spoiled = error.with_traceback(None)


def without_dead(lane: Lane, batch: Batch, *, now: float) -> Batch:
    alive = [item for item in batch.items if not item.ticket.dead(now)]
    if len(alive) == len(batch.items):
        return batch
    kept = Batch(batch.encoder)
    fill(lane, kept, alive)
    return kept


def _attempt(batch: Batch) -> "list[Outcome] | _Failure":
    try:
        if batch.spoiled or batch.tray is None:
            raise batch.spoiled or RuntimeError("the batch is empty")
        outcomes = list(batch.tray.encode())
        if len(outcomes) != len(batch.items):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(batch.items)} items")
    except Exception as error:  # noqa: BLE001 - whatever the device raises, only the input that causes it pays
        return _Failure(str(error) or repr(error), is_out_of_memory(error))
    return outcomes
