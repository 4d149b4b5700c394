"""Requests of many kinds, no two alike, and what each deserves for an answer."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.faults.trial import get
from benchmarks.http import post, post_json
from benchmarks.inputs import Inputs

OK = frozenset({200})
REFUSED = frozenset(range(400, 429))


@dataclass(frozen=True)
class Kind:
    """Requests of one kind: how many in a hundred, how one is made, and the statuses it deserves."""

    name: str
    share: int
    make: Callable[[random.Random], bytes]
    statuses: frozenset[int] = OK
    leaves: bool = False


class _Words:
    """Sentences of the gallery's words; every one is another, so that nothing of the one before may be kept."""

    def __init__(self, inputs: Inputs) -> None:
        self._words = sorted({word for title in inputs.titles for word in title.split()})
        self._numbers = itertools.count()

    def __call__(self, chance: random.Random, length: int = 8) -> str:
        words = chance.choices(self._words, k=chance.randint(1, length))
        return " ".join([*words, str(next(self._numbers))])


def mixture(inputs: Inputs, item_ids: Sequence[str]) -> list[Kind]:
    """Shares add up to a hundred."""
    images, words = [(each.data, each.media_type) for each in inputs.images], _Words(inputs)

    def image(chance: random.Random) -> bytes:
        data, media_type = chance.choice(images)
        return post("/embed/image", data, media_type=media_type)

    def spoiled(chance: random.Random) -> bytes:
        data, media_type = chance.choice(images)
        return post("/embed/image", data[: chance.randrange(16, 200)], media_type=media_type)

    def texts(chance: random.Random) -> bytes:
        return post_json("/embed/text", {"texts": [words(chance, 40) for _ in range(16)]})

    return [
        Kind("image", 14, image),
        Kind("text", 24, lambda chance: post_json("/embed/text", {"texts": words(chance)})),
        Kind("16 texts", 6, texts),
        Kind("OpenAI's text", 8, lambda chance: post_json("/v1/embeddings", {"input": [words(chance)]})),
        Kind("search by text", 18, lambda chance: _search(words(chance), chance.randint(1, 50))),
        Kind("search by item", 6, lambda chance: post_json("/search/item", {"id": chance.choice(item_ids)})),
        Kind("metrics and probes", 3, lambda chance: get(chance.choice(("/metrics", "/readyz")))),
        Kind("spoiled image", 5, spoiled, REFUSED),
        Kind("bad request", 10, lambda chance: _bad(words(chance), chance), REFUSED),
        Kind("leaves with texts", 3, texts, leaves=True),
        Kind("leaves with an image", 3, image, leaves=True),
    ]


def _search(query: str, k: int) -> bytes:
    return post_json("/search/text", {"query": query, "k": k})


def _bad(words: str, chance: random.Random) -> bytes:
    return chance.choice(
        (
            post("/embed/text", b'{"texts": [', media_type="application/json"),
            post_json("/embed/text", {"texts": [" "]}),
            post_json("/embed/text", {"texts": "many words " * 2000, "truncate": "none"}),
            post_json("/search/item", {"id": words}),
            post("/embed/image", b"GIF89a", media_type="text/plain"),
            get(f"/nothing/{chance.random()}"),
            _search(words, 0),
        )
    )
