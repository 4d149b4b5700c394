"""What a caller wants put, as changes that can be committed: checked and embedded, each with its image.

Every item ends as a change or as its own error.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from index.errors import BadItem
from index.gallery import checked_id, clean_payload, even_text, texts_of
from index.image_files import digest_of
from index.journal.changes import NewImage, Upsert
from index.journal.images import ImageStore
from service.decoding.images import ImageSource, WholeImage, image_bytes
from service.device.embedding import Embedder, TextItem
from service.device.tickets import Embedded, Outcome
from service.errors import InvalidField, QueueFull, TooLarge, without_frames
from service.search.delta import Floats
from service.watch.telemetry import Timings
from service.wire.live import MAX_TEXTS, PutOptions

RENEWED_AT_ONCE = 16  # items, when another encoder comes: callers' own requests go between
PATIENCE_SECONDS = 600.0  # for so many
PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class UpsertRequest:
    """An item to put, checked: exactly one of `image` and `vector` (dim,), a unit vector."""

    id: str
    payload: dict[str, Any]
    texts: tuple[str, ...]
    image: ImageSource | None = None
    vector: Floats | None = None


def upsert_request(
    item_id: str,
    asked: PutOptions,
    *,
    max_payload_bytes: int,
    image: ImageSource | None = None,
    vector: Floats | None = None,
) -> UpsertRequest:
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
    return UpsertRequest(good_id(item_id), payload, texts, image=image, vector=vector)


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
class Prepared:
    """An upsert, and its image where it has one."""

    upsert: Upsert
    image: NewImage | None = None


@dataclass(frozen=True, slots=True)
class Upserter:
    """What upserts need of the running service; its coroutines belong to the event loop."""

    embedder: Embedder
    images: ImageStore
    pool: Executor

    async def prepared(
        self, requests: Sequence[UpsertRequest], encoder: Encoder, *, deadline: float, timings: Timings
    ) -> list[Prepared | TwinlensError]:
        """An upsert with its image, or an error, for each request. Raises QueueFull."""
        images = [one.image for one in requests if one.image is not None]
        seen = await self.embedder.whole_images(encoder, images, deadline=deadline, timings=timings)
        by_image = [outcome for outcome, _ in seen]
        upserts = await self._upserts(requests, by_image, encoder, deadline=deadline, timings=timings)
        whole = iter([decoded for _, decoded in seen])
        decoded_images = [None if one.image is None else next(whole) for one in requests]
        attach = partial(_with_images, list(zip(requests, upserts, decoded_images, strict=True)))
        return await asyncio.get_running_loop().run_in_executor(self.pool, attach) if images else attach()

    async def renewed(self, upserts: Sequence[Upsert], encoder: Encoder) -> list[Upsert | TwinlensError]:
        """The same items by another encoder, from their kept images; an error where there is none."""
        outcomes: list[Upsert | TwinlensError] = []
        for start in range(0, len(upserts), RENEWED_AT_ONCE):
            some = upserts[start : start + RENEWED_AT_ONCE]
            requests = [self._as_request(upsert) for upsert in some]
            sound = [one for one in requests if isinstance(one, UpsertRequest)]
            made = iter(await self._patiently(sound, encoder))
            for upsert, one in zip(some, requests, strict=True):
                outcome = next(made) if isinstance(one, UpsertRequest) else one
                outcomes.append(_anew(upsert, outcome))
        return outcomes

    def _as_request(self, upsert: Upsert) -> UpsertRequest | TwinlensError:
        if upsert.digest is None:
            return InvalidField(
                f"it was put as a vector of {upsert.fingerprint}, another encoder's: put it again"
            )
        try:
            image = self.images.read(upsert.digest)
        except TwinlensError as error:
            return without_frames(error)
        return UpsertRequest(upsert.id, upsert.payload, upsert.texts, image=image)

    async def _patiently(
        self, requests: Sequence[UpsertRequest], encoder: Encoder
    ) -> list[Upsert | TwinlensError]:
        images = [one.image for one in requests if one.image is not None]
        give_up = time.perf_counter() + PATIENCE_SECONDS
        while True:
            try:
                made = await self.embedder.images(encoder, images, deadline=give_up, timings=Timings())
                return await self._upserts(requests, made, encoder, deadline=give_up, timings=Timings())
            except QueueFull:
                if time.perf_counter() > give_up:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)

    async def _upserts(
        self,
        requests: Sequence[UpsertRequest],
        by_image: Sequence[Outcome],
        encoder: Encoder,
        *,
        deadline: float,
        timings: Timings,
    ) -> list[Upsert | TwinlensError]:
        """With their texts embedded too; `by_image`: what came of the requests that have an image, in order."""
        texts = [TextItem(text, may_be_cut=True) for one in requests for text in one.texts]
        by_text = iter(await self.embedder.texts(encoder, texts, deadline=deadline, timings=timings))
        images = iter(by_image)
        upserts: list[Upsert | TwinlensError] = []
        for one in requests:
            own: Outcome = Embedded(one.vector) if one.vector is not None else next(images)
            upserts.append(_upsert(one, own, [next(by_text) for _ in one.texts], encoder))
        return upserts


def _upsert(
    one: UpsertRequest, vector: Outcome, texts: Sequence[Outcome], encoder: Encoder
) -> Upsert | TwinlensError:
    rows = []
    for outcome in (vector, *texts):
        if isinstance(outcome, TwinlensError):
            return outcome
        rows.append(outcome.vector)
    return Upsert(
        id=one.id,
        payload=one.payload,
        vector=rows[0],
        fingerprint=encoder.fingerprint,
        texts=one.texts,
        text_vectors=np.array(rows[1:], dtype=np.float32).reshape(-1, encoder.dim),
    )


def _anew(upsert: Upsert, outcome: Upsert | TwinlensError) -> Upsert | TwinlensError:
    if isinstance(outcome, TwinlensError):
        return outcome
    return replace(
        upsert, vector=outcome.vector, text_vectors=outcome.text_vectors, fingerprint=outcome.fingerprint
    )


def _with_images(
    whole: Sequence[tuple[UpsertRequest, Upsert | TwinlensError, WholeImage | None]],
) -> list[Prepared | TwinlensError]:
    return [_with_image(*one) for one in whole]


def _with_image(
    one: UpsertRequest, upsert: Upsert | TwinlensError, image: WholeImage | None
) -> Prepared | TwinlensError:
    if isinstance(upsert, TwinlensError):
        return upsert
    if one.image is None or image is None:
        return Prepared(upsert)
    data = image_bytes(one.image)
    digest = digest_of(data)  # here, and not by whoever decoded a stranger's file
    width, height = image.width_pixels, image.height_pixels
    whole = replace(upsert, digest=digest, width_pixels=width, height_pixels=height)
    return Prepared(whole, NewImage(data, image.thumbnail))
