"""Short queries to vectors, by the sentences that the bundle asks them in.

What was asked lately is remembered: the vector of a short query costs a pass over several sentences.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from encoders.encoder import Encoder
from encoders.errors import TwinlensError
from encoders.short_queries import PLACE, ShortQueries
from service.device.tickets import Embedded, Outcome
from service.device.tokenizing import TextItem

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
