"""Images and texts of one request to outcomes: decode or tokenize, then encode on the device, in order.

Every item ends as an `Embedded` or as its own error.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.choices import choose_device
from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.images import Preprocessing
from index.cores import available_cores
from service.decoding.decoders import Decoders
from service.decoding.images import ImageSource, WholeImage
from service.device.batches import PixelBatchBuilder, TokenBatchBuilder, probe
from service.device.batching import Device, DeviceSettings
from service.device.cache import Digests, EmbeddingCache
from service.device.fair_scheduler import FairScheduler
from service.device.queues import BatchLimit, Queue
from service.device.texts import Expanding, TextItem, Tokenizing
from service.device.tickets import Embedded, Item, Outcome, Ticket
from service.errors import DeadlineExceeded, EncodingFailed, report
from service.settings import Settings
from service.watch.telemetry import Telemetry, Timings

__all__ = ["Embedder", "TextItem"]


@dataclass(slots=True, eq=False)
class _Whole:
    """An image of which more is wanted than its pixels."""

    source: ImageSource
    image: WholeImage | None = None  # once it is decoded


class Embedder:
    """Joins the decoders, the tokenizer and the device. Its coroutines belong to the event loop."""

    def __init__(self, settings: Settings, *, decoders: Decoders, telemetry: Telemetry) -> None:
        self._decoders = decoders
        self._telemetry = telemetry
        self._undecoded = FairScheduler()
        self._decoding = threading.Lock()  # of `_undecoded`
        images = BatchLimit(settings.image_batch)
        texts = BatchLimit(settings.text_batch, most_cost=settings.text_batch_tokens)
        self.device = Device(
            (
                Queue("image", PixelBatchBuilder, images, settings.image_queue, settings.queue_bytes),
                Queue("text", TokenBatchBuilder, texts, settings.text_queue, settings.queue_bytes),
            ),
            probe=probe,
            telemetry=telemetry,
            settings=DeviceSettings(
                settings.stall_seconds,
                ahead=choose_device(settings.device).type != "cpu",
                on_start=partial(torch.set_num_threads, settings.torch_threads or available_cores()),
            ),
        )
        self._tokenizing = Tokenizing(self.device, max_characters=settings.max_text_characters)
        self._expanding = Expanding()
        self._digests = Digests()
        self._cache = EmbeddingCache(settings.cache_bytes, telemetry) if settings.cache_bytes else None

    def stop(self, *, timeout_seconds: float) -> None:
        """Finish the batch that runs, refuse what waits."""
        self._tokenizing.stop()
        self._digests.stop()
        self.device.stop(timeout_seconds=timeout_seconds)

    async def images(
        self, encoder: Encoder, sources: Sequence[ImageSource], *, deadline: float, timings: Timings
    ) -> list[Outcome]:
        """An outcome for each source. Raises QueueFull before anything is decoded."""
        compute = partial(self._images, encoder, deadline=deadline, timings=timings)
        if self._cache is None or not sources:
            return await compute(sources)
        keys, opened = await self._digests.of_images(encoder, sources)
        return await self._cache.through(keys, lambda rows: compute([opened[row] for row in rows]))

    async def whole_images(
        self, encoder: Encoder, sources: Sequence[ImageSource], *, deadline: float, timings: Timings
    ) -> list[tuple[Outcome, WholeImage | None]]:
        """An outcome for each source with all that its decoding gave; None where it could not be decoded.

        Raises QueueFull before anything is decoded.
        """
        whole = [_Whole(source) for source in sources]
        outcomes = await self._images(encoder, whole, deadline=deadline, timings=timings)
        return [(outcome, one.image) for outcome, one in zip(outcomes, whole, strict=True)]

    async def texts(
        self, encoder: Encoder, items: Sequence[TextItem], *, deadline: float, timings: Timings
    ) -> list[Outcome]:
        """An outcome for each text. Raises QueueFull."""
        if any(item.expanded for item in items):
            plain = partial(self.texts, encoder, deadline=deadline, timings=timings)
            return await self._expanding.through(encoder, items, plain)
        compute = partial(self._texts, encoder, deadline=deadline, timings=timings)
        if self._cache is None or not items:
            return await compute(items)
        keys = await self._digests.of_texts(encoder, items)
        return await self._cache.through(keys, lambda rows: compute([items[row] for row in rows]))

    async def _images(
        self, encoder: Encoder, sources: Sequence[ImageSource | _Whole], *, deadline: float, timings: Timings
    ) -> list[Outcome]:
        if not sources:
            return []
        spec = encoder.preprocessing
        size_bytes = len(sources) * spec.height * spec.width * 3
        ticket = self.device.admit(
            "image", encoder, size=len(sources), deadline=deadline, size_bytes=size_bytes
        )
        now = time.perf_counter()
        with self._decoding:
            self._undecoded.put(ticket, [Item(ticket, *entry, now) for entry in enumerate(sources)])
        for _ in sources:
            self._decoders.submit(self._decode_next)
        return await self._wait(ticket, timings)

    async def _texts(
        self, encoder: Encoder, items: Sequence[TextItem], *, deadline: float, timings: Timings
    ) -> list[Outcome]:
        if not items:
            return []
        size_bytes = sum(len(item.text) for item in items)
        ticket = self.device.admit("text", encoder, size=len(items), deadline=deadline, size_bytes=size_bytes)
        self._tokenizing.begin(ticket, items)
        return await self._wait(ticket, timings)

    def _decode_next(self) -> None:
        """The image whose turn it is; one call for each that was queued, fewer where callers left."""
        with self._decoding:
            item = self._undecoded.next_item()
        if item is None:
            return
        ticket, started = item.ticket, time.perf_counter()
        if ticket.dead(started):
            self.device.fail(ticket, item.position, DeadlineExceeded("the deadline passed before decoding"))
            return
        try:
            pixels = self._pixels(item.payload, ticket.encoder.preprocessing)
        except TwinlensError as error:
            self.device.fail(ticket, item.position, error)
        except Exception as error:  # noqa: BLE001 - a hostile file costs its own item, whatever it makes Pillow do
            problem = EncodingFailed(f"the image could not be decoded: {error!r}")
            self.device.fail(ticket, item.position, problem)
        else:
            decoded = time.perf_counter()
            ticket.decode_seconds = max(ticket.decode_seconds, decoded - started)
            ticket.spans.note("decode", started, decoded)
            self.device.put(ticket, item.position, pixels)

    def _pixels(self, payload: ImageSource | _Whole, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        if not isinstance(payload, _Whole):
            return self._decoders.pixels(payload, preprocessing)
        payload.image = self._decoders.image(payload.source, preprocessing)
        return payload.image.pixels

    async def _wait(self, ticket: Ticket, timings: Timings) -> list[Outcome]:
        try:
            await ticket.done
        finally:
            if ticket.missing:
                self._abandon(ticket)
            timings.queue = max(timings.queue, ticket.queue_seconds)
            timings.decode = max(timings.decode, ticket.decode_seconds)
            timings.inference = max(timings.inference, ticket.inference_seconds)
            for stage, span in ticket.spans.items():
                timings.spans.note(stage, *span)
        outcomes = cast("list[Outcome]", ticket.outcomes)
        for outcome in outcomes:
            code = "ok" if isinstance(outcome, Embedded) else report(outcome).code
            self._telemetry.item(ticket.kind, code)
        return outcomes

    def _abandon(self, ticket: Ticket) -> None:
        """Its caller left, or its deadline passed: what waits of it makes room for others at once."""
        self.device.abandon(ticket)
        with self._decoding:
            undecoded = self._undecoded.drop(ticket)
        for item in undecoded:
            self.device.fail(ticket, item.position, DeadlineExceeded("the caller left before decoding"))


async def embed_mixed(
    embedder: Embedder,
    encoder: Encoder,
    inputs: Sequence[ImageSource | TextItem],
    *,
    deadline: float,
    timings: Timings,
) -> list[Outcome]:
    """An outcome for each input, in order; texts are encoded while images are decoded. Raises QueueFull."""
    texts = [(index, item) for index, item in enumerate(inputs) if isinstance(item, TextItem)]
    images = [(index, item) for index, item in enumerate(inputs) if not isinstance(item, TextItem)]
    kinds = (
        embedder.images(encoder, [item for _, item in images], deadline=deadline, timings=timings),
        embedder.texts(encoder, [item for _, item in texts], deadline=deadline, timings=timings),
    )
    tasks = [asyncio.ensure_future(kind) for kind in kinds]
    try:
        found = await asyncio.gather(*tasks)
    finally:
        for task in tasks:  # where one kind was refused, nobody waits for the other
            task.cancel()
    places = [index for index, _ in (*images, *texts)]
    outcomes = dict(zip(places, (*found[0], *found[1]), strict=True))
    return [outcomes[index] for index in range(len(inputs))]
