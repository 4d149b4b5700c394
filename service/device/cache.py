"""Embeddings that were computed before, by a SHA-256 of what they were computed from.

A key holds all that changes the vector: what it is of, the encoder's fingerprint and precision, and the bytes
of the image, or the text and whether it may be cut: so a swap of encoders never finds the old one's. Whole
vectors are kept, and cut to `dimensions` when they are answered; errors are not. Equal inputs that come while
one is computed wait for that one.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from encoders.encoder import Encoder
from service.decoding.images import ImageSource, image_bytes
from service.device.texts import TextItem
from service.device.tickets import Embedded, Kind, Outcome
from service.errors import InvalidField
from service.watch.telemetry import Telemetry

ENTRY_BYTES = 320  # of an entry beside its vector: its key, its place in the table, objects; 308 measured
Compute = Callable[[list[int]], Awaitable[list[Outcome]]]
"""Positions in the request -> an outcome for each."""


class VectorCache:
    """Least recently used first out, bounded in bytes. Any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[bytes, Embedded] = OrderedDict()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def get(self, key: bytes) -> Embedded | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: bytes, embedded: Embedded) -> None:
        vector = embedded.vector.copy()  # a row of a batch would keep the whole batch
        vector.flags.writeable = False
        kept = Embedded(vector, embedded.truncated, embedded.tokens)
        with self._lock:
            if (before := self._kept.pop(key, None)) is not None:
                self._size_bytes -= _size_bytes(before)
            self._kept[key] = kept
            self._size_bytes += _size_bytes(kept)
            while self._size_bytes > self._limit_bytes:
                _, dropped = self._kept.popitem(last=False)
                self._size_bytes -= _size_bytes(dropped)


class EmbeddingCache:
    """The cache before the computation. Its coroutines belong to the event loop."""

    def __init__(self, limit_bytes: int, telemetry: Telemetry) -> None:
        self._vectors = VectorCache(limit_bytes)
        self._under_way: dict[bytes, asyncio.Future[Embedded | None]] = {}
        self._telemetry = telemetry
        telemetry.watch_cache(
            size_bytes=lambda: self._vectors.size_bytes,
            limit_bytes=limit_bytes,
            entries=lambda: len(self._vectors),
        )

    async def through(self, keys: Sequence[bytes | None], compute: Compute) -> list[Outcome]:
        """An outcome for each key; what is not known is computed, once for all who ask. None: never shared.

        Who waits for a computation that fails, or whose caller leaves, computes it himself. Raises what
        `compute` raises.
        """
        outcomes: list[Outcome | None] = [None] * len(keys)
        own: list[int] = []
        others: list[tuple[int, asyncio.Future[Embedded | None]]] = []
        begun: dict[bytes, asyncio.Future[Embedded | None]] = {}
        for position, key in enumerate(keys):
            found = self._vectors.get(key) if key else None
            outcomes[position] = found
            if found is None and key in self._under_way:
                others.append((position, self._under_way[key]))
            elif found is None:
                own.append(position)
                if key:
                    begun[key] = self._under_way[key] = asyncio.get_running_loop().create_future()
        self._count(hits=len(keys) - len(own), misses=len(own))
        await self._compute(keys, own, begun, compute, outcomes=outcomes)
        await self._take_over(others, compute, outcomes=outcomes)
        return cast("list[Outcome]", outcomes)

    async def _compute(
        self,
        keys: Sequence[bytes | None],
        own: list[int],
        begun: dict[bytes, "asyncio.Future[Embedded | None]"],
        compute: Compute,
        *,
        outcomes: list[Outcome | None],
    ) -> None:
        try:
            computed = await compute(own) if own else []
            for position, outcome in zip(own, computed, strict=True):
                outcomes[position] = outcome
                if (key := keys[position]) and isinstance(outcome, Embedded):
                    self._vectors.put(key, outcome)
                    begun[key].set_result(outcome)
        finally:
            for key, future in begun.items():
                del self._under_way[key]
                if not future.done():
                    future.set_result(None)

    async def _take_over(
        self,
        others: Sequence[tuple[int, "asyncio.Future[Embedded | None]"]],
        compute: Compute,
        *,
        outcomes: list[Outcome | None],
    ) -> None:
        """What others compute; what came to nothing there is computed here, waiting for nobody again."""
        failed: list[int] = []
        for position, future in others:
            await asyncio.wait((future,))  # not the future itself: it must outlive a caller that is cancelled
            outcomes[position] = future.result()
            if outcomes[position] is None:
                failed.append(position)
        if failed:
            self._count(hits=0, misses=len(failed))
            for position, outcome in zip(failed, await compute(failed), strict=True):
                outcomes[position] = outcome

    def _count(self, *, hits: int, misses: int) -> None:
        self._telemetry.cache("hit", count=hits)
        self._telemetry.cache("miss", count=misses)


def _size_bytes(embedded: Embedded) -> int:
    return int(embedded.vector.nbytes) + ENTRY_BYTES


INLINE_CHARACTERS = 4096  # hashed within 0.02 ms

Keys = list[bytes | None]
"""None: has no key, and will be refused when it is decoded."""


class Digests:
    """A thread that hashes what is large. Coroutines belong to the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")  # begins when something is hashed

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def of_texts(self, encoder: Encoder, items: Sequence[TextItem]) -> Keys:
        if sum(len(item.text) for item in items) <= INLINE_CHARACTERS:
            return _of_texts(encoder, items)
        return await asyncio.get_running_loop().run_in_executor(self._thread, _of_texts, encoder, items)

    async def of_images(
        self, encoder: Encoder, sources: Sequence[ImageSource]
    ) -> tuple[Keys, list[ImageSource]]:
        """And the sources, as bytes where they came as base64: one image has one key, however it was sent."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, _of_images, encoder, sources)


def key(encoder: Encoder, kind: Kind, form: str, content: bytes) -> bytes:
    """`form` tells apart what is done to the same content."""
    head = "\0".join((kind, encoder.fingerprint, encoder.precision, form)).encode()
    digest = hashlib.sha256(len(head).to_bytes(4, "little") + head)
    digest.update(content)
    return digest.digest()


def _of_texts(encoder: Encoder, items: Sequence[TextItem]) -> Keys:
    forms = {True: "cut", False: "whole"}
    return [
        key(encoder, "text", forms[item.may_be_cut], item.text.encode("utf-8", "surrogatepass"))
        for item in items
    ]


def _of_images(encoder: Encoder, sources: Sequence[ImageSource]) -> tuple[Keys, list[ImageSource]]:
    keys: Keys = []
    opened: list[ImageSource] = []
    for source in sources:
        try:
            data = image_bytes(source)
        except InvalidField:
            keys.append(None)
            opened.append(source)
        else:
            keys.append(key(encoder, "image", "", data))
            opened.append(data)
    return keys, opened
