"""Texts to token ids on their way to the device, and short queries to the sentences of the bundle.

Few short texts are tokenized where they come in: a hop to another thread would cost as much. More go to one
of their own, a part at a time, so that a long request takes turns with the others.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.short_queries import PLACE, ShortQueries
from encoders.texts import TokenRow
from service.device.batching import Device
from service.device.tickets import Embedded, Item, Outcome, Ticket
from service.errors import DeadlineExceeded, EncodingFailed, InvalidField, TextTooLong

MAX_RUN = 500  # merging byte pairs in Python is quadratic in a word's length: 4,000 letters take seconds
INLINE_CHARACTERS = 256  # tokenized within 0.1 ms
PART_CHARACTERS = 16_384
_RUNS = re.compile(r"[^\W\d_]+|(?:[^\w\s]|_)+")


@dataclass(frozen=True, slots=True)
class TextItem:
    """expanded: a short query, to be asked in the sentences of the bundle."""

    text: str
    may_be_cut: bool
    expanded: bool = False


class Tokenizing:
    """The tokenizing thread. `begin` belongs to the event loop."""

    def __init__(self, device: Device, *, max_characters: int) -> None:
        self._device = device
        self._max_characters = max_characters
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenize")

    def begin(self, ticket: Ticket, items: Sequence[TextItem]) -> None:
        """Each item of the ticket will be queued for the device, or fail."""
        if sum(len(item.text) for item in items) <= INLINE_CHARACTERS:
            self._tokenize(ticket, list(enumerate(items)))
        else:
            self._thread.submit(self._go_on, ticket, list(enumerate(items)))

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _go_on(self, ticket: Ticket, items: list[tuple[int, TextItem]]) -> None:
        """One part now; the rest behind the other requests that wait here."""
        if ticket.dead(time.perf_counter()):
            self._fail(ticket, items, DeadlineExceeded("the deadline passed before tokenizing"))
            return
        count, characters = 0, 0
        while count < len(items) and characters < PART_CHARACTERS:
            characters += len(items[count][1].text)
            count += 1
        self._tokenize(ticket, items[:count])
        if rest := items[count:]:
            try:
                self._thread.submit(self._go_on, ticket, rest)
            except RuntimeError:  # the service stops
                self._fail(ticket, rest, EncodingFailed("the service is shutting down"))

    def _tokenize(self, ticket: Ticket, items: list[tuple[int, TextItem]]) -> None:
        try:
            self._queue(ticket, items)
        except Exception as error:  # noqa: BLE001 - no text may cost another request its answer
            self._fail(ticket, items, EncodingFailed(f"the texts could not be tokenized: {error!r}"))

    def _queue(self, ticket: Ticket, items: list[tuple[int, TextItem]]) -> None:
        encoder = ticket.encoder
        good: list[tuple[int, TextItem]] = []
        for position, item in items:
            if problem := self._problem(item.text, encoder):
                self._device.fail(ticket, position, problem)
            else:
                good.append((position, item))
        if not good:
            return
        rows = encoder.tokenize([item.text for _, item in good]).rows()
        now = time.perf_counter()
        fitting: list[Item] = []
        for (position, item), row in zip(good, rows, strict=True):
            if row.truncated and not item.may_be_cut:
                self._device.fail(ticket, position, _too_long(encoder, item.text, row))
            else:
                fitting.append(Item(ticket, position, row, now, len(row)))
        if fitting:
            self._device.put_all(ticket, fitting)

    def _problem(self, text: str, encoder: Encoder) -> InvalidField | None:
        if len(text) > self._max_characters:
            return TextTooLong(
                f"the text has {len(text)} characters and {self._max_characters} are taken: send less"
            )
        if not text.strip():
            return InvalidField("the text is empty: an embedding of nothing means nothing", code="empty_text")
        if encoder.bundle.config.tokenizer.kind == "clip_bpe" and (run := longest_run(text)) > MAX_RUN:
            return TextTooLong(
                f"the text has {run} letters or signs on end and {MAX_RUN} are taken: break it up"
            )
        return None

    def _fail(self, ticket: Ticket, items: Sequence[tuple[int, TextItem]], error: TwinlensError) -> None:
        for position, _ in items:
            self._device.fail(ticket, position, error)


def longest_run(text: str) -> int:
    """Letters, or signs, without a break: what CLIP's tokenizer takes as one word."""
    return max(map(len, _RUNS.findall(text)), default=0) if len(text) > MAX_RUN else len(text)


def _too_long(encoder: Encoder, text: str, row: TokenRow) -> TextTooLong:
    limit = encoder.context_length
    return TextTooLong(
        f"the text has {row.full_length} tokens ({len(text)} characters) and the encoder reads {limit}: "
        'shorten it, or send truncate: "end" to have it cut'
    )


REMEMBERED = 2048  # 4 KiB each at 512 dimensions
Compute = Callable[[Sequence[TextItem]], Awaitable[list[Outcome]]]
Key = tuple[str, str, str]


class Expanding:
    """Its coroutine belongs to the event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Embedded] = OrderedDict()

    async def through(self, encoder: Encoder, items: Sequence[TextItem], compute: Compute) -> list[Outcome]:
        """An outcome for each item; `compute` embeds texts as they are. An expanded item needs templates."""
        short = encoder.short_queries
        found: list[Outcome | None] = [self._remembered(encoder, item) for item in items]
        wanted = [
            () if known is not None else _sentences(item, short)
            for item, known in zip(items, found, strict=True)
        ]
        made = await compute([sentence for sentences in wanted for sentence in sentences])
        start = 0
        parts: dict[int, list[Embedded]] = {}
        for place, sentences in enumerate(wanted):
            own, start = made[start : start + len(sentences)], start + len(sentences)
            embedded = [one for one in own if isinstance(one, Embedded)]
            if len(embedded) < len(own):
                found[place] = next(one for one in own if isinstance(one, TwinlensError))
            elif items[place].expanded and embedded:
                parts[place] = embedded
            elif embedded:
                found[place] = embedded[0]
        if parts and short is not None:
            for place, combined in zip(parts, _combined(short, list(parts.values())), strict=True):
                found[place] = combined
                self._remember(encoder, items[place], combined)
        return [one for one in found if one is not None]

    def _remembered(self, encoder: Encoder, item: TextItem) -> Embedded | None:
        if not item.expanded:
            return None
        key = _key(encoder, item)
        if (known := self._known.get(key)) is not None:
            self._known.move_to_end(key)
        return known

    def _remember(self, encoder: Encoder, item: TextItem, made: Embedded) -> None:
        if made.truncated:  # whether it may be cut differs from one request to the next
            return
        self._known[_key(encoder, item)] = made
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def _key(encoder: Encoder, item: TextItem) -> Key:
    return encoder.fingerprint, encoder.precision, item.text


def _sentences(item: TextItem, short: ShortQueries | None) -> tuple[TextItem, ...]:
    if not item.expanded or short is None:
        return (item,)
    return tuple(TextItem(text, item.may_be_cut) for text in short.texts_for(item.text))


def _combined(short: ShortQueries, parts: Sequence[Sequence[Embedded]]) -> list[Embedded]:
    """One for the sentences of each query."""
    vectors = short.combined(np.stack([[one.vector for one in own] for own in parts]))
    typed = short.templates.index(PLACE) if PLACE in short.templates else None
    return [
        Embedded(
            vector,
            truncated=any(one.truncated for one in own),
            tokens=sum(one.tokens for one in own),
            typed=None if typed is None else own[typed].vector,
        )
        for vector, own in zip(vectors, parts, strict=True)
    ]
