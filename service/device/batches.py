"""How a batch is built and encoded: by one thread, then by the one that owns the device.

A batch that fails is halved until the failing input stands alone, so that only it pays. One that does not fit
into memory is tried again in smaller parts, and the queue's limit is halved with it.
"""

import gc
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.texts import TokenRow
from service.device.queues import Batch, Queue
from service.device.tickets import Embedded, Item, Kind, Outcome
from service.errors import EncodingFailed, Unavailable


class PixelBatchBuilder:
    """(height, width, 3) images; on CUDA their copy to the device begins as soon as they are added."""

    def __init__(self, encoder: Encoder, capacity: int) -> None:
        self._encoder = encoder
        self._stage = encoder.stage_pixels(capacity)

    def add(self, payloads: Sequence[NDArray[np.uint8]]) -> None:
        self._stage.add(payloads)

    def encode(self) -> list[Outcome]:
        return [_checked(vector) for vector in self._encoder.encode_staged(self._stage)]


class TokenBatchBuilder:
    """Texts as token ids; padded at the end, when it is known which go through together."""

    def __init__(self, encoder: Encoder, capacity: int) -> None:  # noqa: ARG002 - ids need no room made for them
        self._encoder = encoder
        self._rows: list[TokenRow] = []

    def add(self, payloads: Sequence[TokenRow]) -> None:
        self._rows.extend(payloads)

    def encode(self) -> list[Outcome]:
        vectors = self._encoder.encode_rows(self._rows)
        return [
            _checked(vector, truncated=row.truncated, tokens=len(row))
            for vector, row in zip(vectors, self._rows, strict=True)
        ]


def probe(encoder: Encoder) -> None:
    """Run both towers on a known good input; raises when either fails. Device thread only."""
    spec = encoder.preprocessing
    blank = np.full((1, spec.height, spec.width, 3), 128, dtype=np.uint8)
    vectors = np.concatenate([encoder.encode_pixels(blank), encoder.encode_texts(["a photo"]).vectors])
    if not np.isfinite(vectors).all():
        raise EncodingFailed("the encoder gives embeddings that are not finite")


def _checked(vector: NDArray[np.float32], *, truncated: bool = False, tokens: int = 0) -> Outcome:
    if not np.isfinite(vector).all():
        return EncodingFailed("the encoder gives an embedding that is not finite for this input")
    return Embedded(vector, truncated, tokens)


_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch says it in several ways: its own type, a RuntimeError of the CPU's allocator or of cuBLAS."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def free_memory() -> None:
    """Give back what is kept for reuse: blocks of other sizes than the next batch will ask for."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
