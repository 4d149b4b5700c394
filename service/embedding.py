"""Images and texts of one request to outcomes: decode in the pool, encode on the device, in order.

Every item ends as an `Embedded` or as its own error. Knows nothing of HTTP.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from service.batching import Device
from service.decoding import ImageSource
from service.decoding_pool import Decoders
from service.errors import DeadlineExceeded, EncodingFailed, InvalidField, TextTooLong
from service.settings import Settings
from service.telemetry import Telemetry, Timings
from service.tickets import Embedded, Lane, Outcome, Ticket

MAX_RUN = 500  # merging byte pairs in Python is quadratic in a word's length: 4,000 letters take seconds
_RUNS = re.compile(r"[^\W\d_]+|(?:[^\w\s]|_)+")


@dataclass(frozen=True, slots=True)
class TextItem:
    text: str
    may_be_cut: bool


class Embedder:
    """Joins the decoders and the device. Its coroutines belong to the event loop."""

    def __init__(self, settings: Settings, *, decoders: Decoders, telemetry: Telemetry) -> None:
        self._decoders = decoders
        self._telemetry = telemetry
        self._max_text_characters = settings.max_text_characters
        self.device = Device(
            (
                Lane("image", encode_images, settings.image_batch, settings.image_queue),
                Lane("text", encode_texts, settings.text_batch, settings.text_queue),
            ),
            probe=probe,
            telemetry=telemetry,
            stall_seconds=settings.stall_seconds,
        )

    async def images(
        self, encoder: Encoder, sources: Sequence[ImageSource], *, deadline: float, timings: Timings
    ) -> list[Outcome]:
        """An outcome for each source. Raises QueueFull before anything is decoded."""
        if not sources:
            return []
        ticket = self.device.admit("image", encoder, size=len(sources), deadline=deadline)
        for position, source in enumerate(sources):
            self._decoders.submit(self._decode, ticket, position, source, timings)
        return await self._wait(ticket, timings)

    async def texts(
        self, encoder: Encoder, items: Sequence[TextItem], *, deadline: float, timings: Timings
    ) -> list[Outcome]:
        """An outcome for each text. Raises QueueFull."""
        if not items:
            return []
        ticket = self.device.admit("text", encoder, size=len(items), deadline=deadline)
        good: list[tuple[int, object]] = []
        for position, item in enumerate(items):
            if problem := self._text_problem(item.text, encoder):
                self.device.fail(ticket, position, problem)
            else:
                good.append((position, item))
        if good:
            self.device.put_all(ticket, good)
        return await self._wait(ticket, timings)

    def _text_problem(self, text: str, encoder: Encoder) -> InvalidField | None:
        if not text.strip():
            return InvalidField("the text is empty: an embedding of nothing means nothing", code="empty_text")
        if len(text) > self._max_text_characters:
            return TextTooLong(
                f"the text has {len(text)} characters and {self._max_text_characters} are taken: send less"
            )
        if encoder.bundle.config.tokenizer.kind == "clip_bpe" and (run := longest_run(text)) > MAX_RUN:
            return TextTooLong(
                f"the text has {run} letters or signs on end and {MAX_RUN} are taken: break it up"
            )
        return None

    def _decode(self, ticket: Ticket, position: int, source: ImageSource, timings: Timings) -> None:
        started = time.perf_counter()
        if ticket.dead(started):
            self.device.fail(ticket, position, DeadlineExceeded("the deadline passed before decoding"))
            return
        try:
            pixels = self._decoders.pixels(source, ticket.encoder.preprocessing)
        except TwinlensError as error:
            self.device.fail(ticket, position, error)
        except Exception as error:  # noqa: BLE001 - a hostile file costs its own item, whatever it makes Pillow do
            self.device.fail(ticket, position, EncodingFailed(f"the image could not be decoded: {error!r}"))
        else:
            timings.decode = max(timings.decode, time.perf_counter() - started)
            self.device.put(ticket, position, pixels)

    async def _wait(self, ticket: Ticket, timings: Timings) -> list[Outcome]:
        try:
            await ticket.done
        finally:
            ticket.abandoned = True  # when the wait was cut short; harmless once it is done
            timings.queue = max(timings.queue, ticket.queue_seconds)
            timings.inference = max(timings.inference, ticket.inference_seconds)
        outcomes = cast("list[Outcome]", ticket.outcomes)
        for outcome in outcomes:
            self._telemetry.item(ticket.kind, "ok" if isinstance(outcome, Embedded) else "failed")
        return outcomes


def longest_run(text: str) -> int:
    """Letters, or signs, without a break: what CLIP's tokenizer takes as one word."""
    return max(map(len, _RUNS.findall(text)), default=0) if len(text) > MAX_RUN else len(text)


def encode_images(encoder: Encoder, pixels: Sequence[NDArray[np.uint8]]) -> list[Outcome]:
    """A batch of (height, width, 3) images; device thread only."""
    return [_checked(vector) for vector in encoder.encode_pixels(np.stack(pixels))]


def encode_texts(encoder: Encoder, items: Sequence[TextItem]) -> list[Outcome]:
    """A batch of texts; those that do not fit and may not be cut fail alone. Device thread only."""
    tokens = encoder.tokenize([item.text for item in items])
    vectors = encoder.encode_tokens(tokens)
    outcomes: list[Outcome] = []
    for row, item in enumerate(items):
        cut, length = bool(tokens.truncated[row]), int(tokens.lengths[row])
        if cut and not item.may_be_cut:
            outcomes.append(_too_long(encoder, item.text, int(tokens.full_lengths[row])))
        else:
            outcomes.append(_checked(vectors[row], truncated=cut, tokens=length))
    return outcomes


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


def _too_long(encoder: Encoder, text: str, length: int) -> TextTooLong:
    limit = encoder.context_length
    return TextTooLong(
        f"the text has {length} tokens ({len(text)} characters) and the encoder reads {limit}: "
        'shorten it, or send truncate: "end" to have it cut'
    )
