"""One batch through its builder, and what is done when that fails.

A batch that fails is halved until the failing input stands alone, so that only it pays. One that does not fit
into memory is tried again in smaller parts, and the queue's limit is halved with it. All of it is the device
thread's, but for `fill`.
"""

import logging
from dataclasses import dataclass

from encoders.errors import TwinlensError
from service.device.memory import free_memory, is_out_of_memory
from service.device.queues import Batch, Queue
from service.device.tickets import Item, Kind, Outcome
from service.errors import EncodingFailed, Unavailable

logger = logging.getLogger(__name__)


def encode(queue: Queue, batch: Batch) -> list[Outcome]:
    """An outcome for each item of a filled batch."""
    failure = _attempt(batch)
    if not isinstance(failure, _Failure):
        queue.limit.succeeded()
        return failure
    # The exception goes, and with it the frames that held the tensors of the failed batch.
    batch.builder = batch.spoiled = None
    logger.warning("a batch of %d %ss failed: %s", len(batch.items), queue.kind, failure.words)
    if failure.out_of_memory:
        queue.limit.shrink(len(batch.items))
        free_memory()
        logger.warning("out of memory: a batch of %ss holds %d for now", queue.kind, queue.limit.items)
    if len(batch.items) == 1:
        return [failure.error(queue.kind)]
    size = queue.limit.items if failure.out_of_memory else (len(batch.items) + 1) // 2
    outcomes: list[Outcome] = []
    while rest := batch.items[len(outcomes) :]:
        part = Batch(batch.encoder)
        fill(queue, part, rest[: min(size, queue.limit.items)])
        outcomes += encode(queue, part)
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


def fill(queue: Queue, batch: Batch, fresh: list[Item]) -> None:
    """Items into a batch's builder; what goes wrong is found when the batch is encoded."""
    batch.items.extend(fresh)
    if not fresh or batch.spoiled or batch.encoder is None:
        return
    try:
        if batch.builder is None:
            batch.capacity = max(queue.limit.items, len(batch.items))
            batch.builder = queue.new_builder(batch.encoder, batch.capacity)
        batch.builder.add([item.payload for item in fresh])
    except Exception as error:  # noqa: BLE001 - as when encoding: only the input that causes it pays
        batch.spoiled = error.with_traceback(None)


def without_dead(queue: Queue, batch: Batch, *, now: float) -> Batch:
    alive = [item for item in batch.items if not item.ticket.dead(now)]
    if len(alive) == len(batch.items):
        return batch
    kept = Batch(batch.encoder)
    fill(queue, kept, alive)
    return kept


def _attempt(batch: Batch) -> "list[Outcome] | _Failure":
    try:
        if batch.spoiled or batch.builder is None:
            raise batch.spoiled or RuntimeError("the batch is empty")
        outcomes = list(batch.builder.encode())
        if len(outcomes) != len(batch.items):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(batch.items)} items")
    except Exception as error:  # noqa: BLE001 - whatever the device raises, only the input that causes it pays
        return _Failure(str(error) or repr(error), is_out_of_memory(error))
    return outcomes
