"""From what a caller wants put to changes that can be kept: checked, embedded, pictures on the disk.

Every item ends as a change or as its own error. Knows nothing of HTTP, nor of how changes are made.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from index.errors import BadItem, JournalFull, ReleaseError
from index.gallery import checked_id, clean_payload, even_text, texts_of
from index.live.pictures import PictureStore
from index.live.records import Put
from index.pictures import digest_of
from service.decoding.pictures import ImageSource, Picture, image_bytes
from service.decoding.pool import Decoders
from service.device.embedding import Embedder, TextItem
from service.device.tickets import Embedded, Outcome
from service.errors import InvalidField, QueueFull, StorageFull, TooLarge, Unavailable
from service.live.layers import Floats
from service.watch.telemetry import Timings
from service.wire.live import PutOptions

RENEWED_AT_ONCE = 16  # items, when another encoder comes: callers' own requests go between
PATIENCE_SECONDS = 600.0  # for so many
PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Wish:
    """An item to put, checked: exactly one of `image` and `vector` (dim,), a unit vector."""

    id: str
    payload: dict[str, Any]
    texts: tuple[str, ...]
    image: ImageSource | None = None
    vector: Floats | None = None


def wish(
    item_id: str,
    asked: PutOptions,
    *,
    max_payload_bytes: int,
    image: ImageSource | None = None,
    vector: Floats | None = None,
) -> Wish:
    """`vector`: a unit vector (dim,) of the encoder that is served. Raises InvalidField or TooLarge."""
    payload = _payload(asked.payload, max_payload_bytes)
    texts = texts_of(payload) if asked.texts is None else tuple(dict.fromkeys(map(even_text, asked.texts)))
    if any(not text for text in texts):
        raise InvalidField("texts holds an empty one: leave it out", param="texts", code="empty_text")
    if (image is None) == (vector is None):
        raise InvalidField("an item needs exactly one of image and vector", param="image")
    return Wish(good_id(item_id), payload, texts, image=image, vector=vector)


def good_id(item_id: str) -> str:
    """Raises InvalidField for what could not be an id in a gallery."""
    try:
        return checked_id(item_id)
    except BadItem as error:
        raise InvalidField(str(error), param="id", code="bad_id") from error


def _payload(payload: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    try:
        clean = clean_payload(payload)
    except (BadItem, RecursionError) as error:
        raise InvalidField(f"payload: {error}", param="payload") from error
    size_bytes = len(json.dumps(clean, ensure_ascii=False, separators=(",", ":")).encode())
    if size_bytes > max_bytes:
        raise TooLarge(f"payload has {size_bytes} bytes as JSON and {max_bytes} are taken", param="payload")
    return clean


@dataclass(frozen=True, slots=True)
class Putter:
    """What puts need of the running service; its coroutines belong to the event loop."""

    embedder: Embedder
    decoders: Decoders
    pictures: PictureStore
    pool: Executor

    @asynccontextmanager
    async def prepared(
        self, wishes: Sequence[Wish], encoder: Encoder, *, deadline: float, timings: Timings
    ) -> AsyncIterator[list[Put | TwinlensError]]:
        """A put or an error for each wish; their pictures are on the disk until the context is left.

        Raises QueueFull, or StorageFull when there is no room for the pictures.
        """
        puts = await self._embedded(wishes, encoder, deadline=deadline, timings=timings)
        loop = asyncio.get_running_loop()
        with ExitStack() as stack:
            pending = [(place, one) for place, one in enumerate(puts) if isinstance(one, _Pictured)]
            whole = await asyncio.gather(*(self._keepable(one, encoder) for _, one in pending))
            kept = [one for one in whole if isinstance(one, _Kept)]
            await loop.run_in_executor(self.pool, _keep, self.pictures, kept, stack)
            outcomes: list[Put | TwinlensError] = [
                one if not isinstance(one, _Pictured) else one.put for one in puts
            ]
            for (place, _), one in zip(pending, whole, strict=True):
                outcomes[place] = one.put if isinstance(one, _Kept) else one
            yield outcomes

    async def renewed(self, puts: Sequence[Put], encoder: Encoder) -> list[Put | TwinlensError]:
        """The same items by another encoder, from their kept pictures; an error where there is none."""
        outcomes: list[Put | TwinlensError] = []
        for start in range(0, len(puts), RENEWED_AT_ONCE):
            some = puts[start : start + RENEWED_AT_ONCE]
            wishes = [self._as_wish(put) for put in some]
            sound = [one for one in wishes if isinstance(one, Wish)]
            made = iter(await self._patiently(sound, encoder))
            for put, one in zip(some, wishes, strict=True):
                outcome = next(made) if isinstance(one, Wish) else one
                outcomes.append(_anew(put, outcome))
        return outcomes

    def _as_wish(self, put: Put) -> Wish | TwinlensError:
        if put.digest is None:
            return InvalidField(f"it was put as a vector of {put.fingerprint}, another encoder's: put it again")
        try:
            return Wish(put.id, put.payload, put.texts, image=self.pictures.read(put.digest))
        except TwinlensError as error:
            return error

    async def _patiently(
        self, wishes: Sequence[Wish], encoder: Encoder
    ) -> "list[_Pictured | Put | TwinlensError]":
        give_up = time.perf_counter() + PATIENCE_SECONDS
        while True:
            try:
                return await self._embedded(wishes, encoder, deadline=give_up, timings=Timings())
            except QueueFull:
                if time.perf_counter() > give_up:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def _embedded(
        self, wishes: Sequence[Wish], encoder: Encoder, *, deadline: float, timings: Timings
    ) -> "list[_Pictured | Put | TwinlensError]":
        images = [one.image for one in wishes if one.image is not None]
        texts = [TextItem(text, may_be_cut=True) for one in wishes for text in one.texts]
        by_image = iter(await self.embedder.images(encoder, images, deadline=deadline, timings=timings))
        by_text = iter(await self.embedder.texts(encoder, texts, deadline=deadline, timings=timings))
        outcomes: list[_Pictured | Put | TwinlensError] = []
        for one in wishes:
            own: Outcome = Embedded(one.vector) if one.vector is not None else next(by_image)
            outcomes.append(_put(one, own, [next(by_text) for _ in one.texts], encoder))
        return outcomes

    async def _keepable(self, one: "_Pictured", encoder: Encoder) -> "_Kept | TwinlensError":
        """The picture was decoded once already, in a process of its own: this time for what a gallery keeps."""
        try:
            picture, data = await asyncio.wrap_future(
                self.decoders.submit(_decoded, self.decoders, one.image, encoder)
            )
        except TwinlensError as error:
            return error
        put = replace(
            one.put,
            digest=digest_of(data),
            width_pixels=picture.width_pixels,
            height_pixels=picture.height_pixels,
        )
        return _Kept(put, data, picture.thumbnail)


@dataclass(frozen=True, slots=True)
class _Pictured:
    """A put whose picture has yet to be kept."""

    put: Put
    image: ImageSource


@dataclass(frozen=True, slots=True)
class _Kept:
    """A put with what is to be kept of its picture."""

    put: Put
    data: bytes
    thumbnail: bytes


def _put(
    one: Wish, vector: Outcome, texts: Sequence[Outcome], encoder: Encoder
) -> _Pictured | Put | TwinlensError:
    rows = []
    for outcome in (vector, *texts):
        if isinstance(outcome, TwinlensError):
            return outcome
        rows.append(outcome.vector)
    put = Put(
        id=one.id,
        payload=one.payload,
        vector=rows[0],
        fingerprint=encoder.fingerprint,
        texts=one.texts,
        text_vectors=np.array(rows[1:], dtype=np.float32).reshape(-1, encoder.dim),
    )
    return put if one.image is None else _Pictured(put, one.image)


def _anew(put: Put, outcome: _Pictured | Put | TwinlensError) -> Put | TwinlensError:
    if isinstance(outcome, TwinlensError):
        return outcome
    made = outcome.put if isinstance(outcome, _Pictured) else outcome
    return replace(put, vector=made.vector, text_vectors=made.text_vectors, fingerprint=made.fingerprint)


def _decoded(decoders: Decoders, image: ImageSource, encoder: Encoder) -> tuple[Picture, bytes]:
    return decoders.picture(image, encoder.preprocessing), image_bytes(image)


def _keep(pictures: PictureStore, kept: Sequence[_Kept], stack: ExitStack) -> None:
    try:
        for one in kept:
            stack.enter_context(pictures.kept(one.put.digest or b"", one.data, one.thumbnail))
    except JournalFull as error:
        words = "there is no room on the disk for the picture, and nothing was changed: free some"
        raise StorageFull(words) from error
    except ReleaseError as error:
        raise Unavailable("the disk takes no pictures; searches go on", code="journal_failed") from error
