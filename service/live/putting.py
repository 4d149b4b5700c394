"""From what a caller wants put to changes that can be kept: checked, embedded, pictures on the disk.

Every item ends as a change or as its own error. Knows nothing of HTTP, nor of how changes are made.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
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
from service.device.embedding import Embedder, TextItem
from service.device.tickets import Embedded, Outcome
from service.errors import InvalidField, QueueFull, StorageFull, TooLarge, Unavailable
from service.live.layers import Floats
from service.watch.telemetry import Timings
from service.wire.live import MAX_TEXTS, PutOptions

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
    if len(texts) > MAX_TEXTS:
        raise InvalidField(
            f"the payload's captions are {len(texts)} texts and {MAX_TEXTS} are taken: name some as texts",
            param="texts",
        )
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
    if _outgrows(payload, max_bytes):
        raise TooLarge(f"payload has more than the {max_bytes} bytes as JSON that are taken", param="payload")
    try:
        clean = clean_payload(payload)
    except (BadItem, RecursionError) as error:
        raise InvalidField(f"payload: {error}", param="payload") from error
    size_bytes = len(json.dumps(clean, ensure_ascii=False, separators=(",", ":")).encode())
    if size_bytes > max_bytes:
        raise TooLarge(f"payload has {size_bytes} bytes as JSON and {max_bytes} are taken", param="payload")
    return clean


def _outgrows(payload: dict[str, Any], max_bytes: int) -> bool:
    """Whether it cannot but have more bytes as JSON; looks no further than that, however much more it has."""
    count, left = 0, [payload]
    while left and count <= max_bytes:
        part: Any = left.pop()
        if isinstance(part, str):
            count += len(part)
        elif isinstance(part, dict):
            count += sum(map(len, part)) + 2 * len(part)
            left.extend(part.values())
        elif isinstance(part, list):
            count += len(part)
            left.extend(part)
    return count > max_bytes


@dataclass(frozen=True, slots=True)
class Putter:
    """What puts need of the running service; its coroutines belong to the event loop."""

    embedder: Embedder
    pictures: PictureStore
    pool: Executor

    async def prepared(
        self, wishes: Sequence[Wish], encoder: Encoder, *, deadline: float, timings: Timings
    ) -> tuple[list[Put | TwinlensError], ExitStack]:
        """A put or an error for each wish; their pictures stay on the disk at least until the stack is closed.

        Raises QueueFull, or StorageFull when there is no room for the pictures.
        """
        images = [one.image for one in wishes if one.image is not None]
        seen = await self.embedder.pictures(encoder, images, deadline=deadline, timings=timings)
        by_image = [outcome for outcome, _ in seen]
        puts = await self._puts(wishes, by_image, encoder, deadline=deadline, timings=timings)
        if not images:
            return puts, ExitStack()
        decoded = iter([picture for _, picture in seen])
        pictures = [None if one.image is None else next(decoded) for one in wishes]
        whole = list(zip(wishes, puts, pictures, strict=True))
        return await asyncio.get_running_loop().run_in_executor(self.pool, _keep, self.pictures, whole)

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

    async def _patiently(self, wishes: Sequence[Wish], encoder: Encoder) -> list[Put | TwinlensError]:
        images = [one.image for one in wishes if one.image is not None]
        give_up = time.perf_counter() + PATIENCE_SECONDS
        while True:
            try:
                made = await self.embedder.images(encoder, images, deadline=give_up, timings=Timings())
                return await self._puts(wishes, made, encoder, deadline=give_up, timings=Timings())
            except QueueFull:
                if time.perf_counter() > give_up:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def _puts(
        self,
        wishes: Sequence[Wish],
        by_image: Sequence[Outcome],
        encoder: Encoder,
        *,
        deadline: float,
        timings: Timings,
    ) -> list[Put | TwinlensError]:
        """With their texts embedded too; `by_image`: what came of the wishes that have a picture, in order."""
        texts = [TextItem(text, may_be_cut=True) for one in wishes for text in one.texts]
        by_text = iter(await self.embedder.texts(encoder, texts, deadline=deadline, timings=timings))
        images = iter(by_image)
        puts: list[Put | TwinlensError] = []
        for one in wishes:
            own: Outcome = Embedded(one.vector) if one.vector is not None else next(images)
            puts.append(_put(one, own, [next(by_text) for _ in one.texts], encoder))
        return puts


def _put(one: Wish, vector: Outcome, texts: Sequence[Outcome], encoder: Encoder) -> Put | TwinlensError:
    rows = []
    for outcome in (vector, *texts):
        if isinstance(outcome, TwinlensError):
            return outcome
        rows.append(outcome.vector)
    return Put(
        id=one.id,
        payload=one.payload,
        vector=rows[0],
        fingerprint=encoder.fingerprint,
        texts=one.texts,
        text_vectors=np.array(rows[1:], dtype=np.float32).reshape(-1, encoder.dim),
    )


def _anew(put: Put, outcome: Put | TwinlensError) -> Put | TwinlensError:
    if isinstance(outcome, TwinlensError):
        return outcome
    return replace(
        put, vector=outcome.vector, text_vectors=outcome.text_vectors, fingerprint=outcome.fingerprint
    )


def _keep(
    store: PictureStore, whole: Sequence[tuple[Wish, Put | TwinlensError, Picture | None]]
) -> tuple[list[Put | TwinlensError], ExitStack]:
    """The puts, with their pictures on the disk; what lets go of those. Raises StorageFull or Unavailable."""
    try:
        with ExitStack() as stack:
            return [_kept(store, *one, stack) for one in whole], stack.pop_all()
    except JournalFull as error:
        words = "there is no room on the disk for the picture, and nothing was changed: free some"
        raise StorageFull(words) from error
    except ReleaseError as error:
        raise Unavailable("the disk takes no pictures; searches go on", code="journal_failed") from error


def _kept(
    store: PictureStore, one: Wish, put: Put | TwinlensError, picture: Picture | None, stack: ExitStack
) -> Put | TwinlensError:
    if isinstance(put, TwinlensError) or one.image is None or picture is None:
        return put
    data = image_bytes(one.image)
    digest = digest_of(data)  # here, and not by whoever decoded a stranger's file
    stack.enter_context(store.kept(digest, data, picture.thumbnail))
    width, height = picture.width_pixels, picture.height_pixels
    return replace(put, digest=digest, width_pixels=width, height_pixels=height)
