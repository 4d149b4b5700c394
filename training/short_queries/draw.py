"""Draw short queries that a set of captioned images holds, and ones that it does not, by what its captions say.

A noun is held where a caption names it, or a kind of it. It is absent where no caption names it, a kind of it,
or anything that it is itself a kind of (classes aside: "animal" says nothing of "zebra"). Captions leave much
of an image unsaid, so that right answers are counted as wrong: figures from such lists are lower bounds.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.short_queries.phrases import KINDS, Kind, Phrase, Vocabulary, natural_phrases, vocabulary

SHARES: Mapping[Kind, float] = {"noun": 0.5, "adjective noun": 0.35, "noun verb": 0.15}
MOST_OF_A_NOUN = 3  # with adjectives, in one list, while there are others

T = TypeVar("T")


@dataclass(frozen=True)
class QueryList:
    """What to ask a set: phrases that it holds, and phrases that it does not."""

    present: tuple[Phrase, ...]
    absent: tuple[Phrase, ...]


@dataclass(frozen=True, eq=False)
class Mentions:
    """What the captions of each image mention, in the order of the images."""

    of_image: tuple[frozenset[Phrase], ...]
    exact: frozenset[Phrase]
    """Phrases that stand word for word in some caption of the set that the images are of."""

    def part(self, rows: NDArray[np.int64]) -> "Mentions":
        """Those of some of the images."""
        return Mentions(tuple(self.of_image[row] for row in rows.tolist()), self.exact)

    def counts(self) -> Counter[Phrase]:
        """For each phrase, how many images mention it."""
        return Counter(phrase for phrases in self.of_image for phrase in phrases)

    def relevant(self, phrases: Sequence[Phrase]) -> NDArray[np.bool_]:
        """(phrases, images): whether a caption of the image answers the phrase."""
        rows = [[phrase in mentioned for mentioned in self.of_image] for phrase in phrases]
        return np.array(rows, dtype=np.bool_).reshape(len(phrases), len(self.of_image))


def mentions_of(captions: Iterable[Sequence[str]], words: Vocabulary | None = None) -> Mentions:
    """`captions`: those of each image."""
    known = words or vocabulary()
    of_image: list[frozenset[Phrase]] = []
    exact: set[Phrase] = set()
    for own in captions:
        of_image.append(frozenset[Phrase]().union(*(known.mentioned(caption) for caption in own)))
        for caption in own:
            exact |= known.exact(caption)
    return Mentions(tuple(of_image), frozenset(exact))


def present_phrases(mentions: Mentions, words: Vocabulary | None = None) -> list[Phrase]:
    """What the set holds of what people would ask, sorted: nouns, and phrases of these that are usual."""
    known, usual = words or vocabulary(), natural_phrases()
    return sorted(
        phrase
        for phrase in mentions.counts()
        if known.is_asked_for(phrase) and (phrase.kind == "noun" or phrase in usual or phrase in mentions.exact)
    )


def absent_phrases(mentions: Mentions, words: Vocabulary | None = None) -> list[Phrase]:
    """What the set does not hold, sorted: nouns, and usual phrases of these."""
    known = words or vocabulary()
    named = {phrase.noun for phrase in mentions.counts()}
    lexicon = known.lexicon

    def is_absent(noun: str) -> bool:
        doubtful = (other for other in lexicon.broader[noun] if not lexicon.nouns[other].is_class)
        return noun not in named and not any(other in named for other in doubtful)

    missing = {noun for noun in lexicon.asked_for if is_absent(noun)}
    usual = (phrase for phrase in natural_phrases() if phrase.noun in missing and known.is_asked_for(phrase))
    return sorted([*(Phrase("noun", noun) for noun in missing), *usual])


def draw(mentions: Mentions, *, count: int, seed: str) -> QueryList:
    """At most `count` of each, the likelier the more often they are spoken of; absent ones of the same kinds.

    `seed`: the same text draws the same queries.
    """
    chance = random.Random(seed)
    counts, usual = mentions.counts(), natural_phrases()
    present = _shares(
        _by_chance(present_phrases(mentions), lambda phrase: counts[phrase], chance), SHARES, count
    )
    kinds = Counter(phrase.kind for phrase in present)
    same = {kind: kinds[kind] / max(1, len(present)) for kind in KINDS}
    absent = _by_chance(absent_phrases(mentions), lambda phrase: usual.get(phrase, 0) + 1, chance)
    return QueryList(tuple(present), tuple(_shares(absent, same, count)))


def _by_chance(items: Sequence[T], weight: Callable[[T], float], chance: random.Random) -> list[T]:
    """All of them, in an order drawn without replacement by the roots of their weights."""
    keyed = [(chance.random() ** (1 / weight(item) ** 0.5), item) for item in items]
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0], reverse=True)]


def _shares(ordered: Sequence[Phrase], shares: Mapping[Kind, float], count: int) -> list[Phrase]:
    """The first of each kind, by its share of the count; what a kind lacks comes from the kinds before it."""
    chosen: list[Phrase] = []
    spare = 0
    for kind in reversed(KINDS):
        wanted = round(shares[kind] * count) + spare
        own = _few_of_a_noun([phrase for phrase in ordered if phrase.kind == kind])[:wanted]
        spare = wanted - len(own)
        chosen = [*own, *chosen]
    return chosen[:count]


def _few_of_a_noun(phrases: Sequence[Phrase]) -> list[Phrase]:
    """The same, those beyond the first few of a noun behind all others."""
    seen: Counter[str] = Counter()
    kept: list[Phrase] = []
    late: list[Phrase] = []
    for phrase in phrases:
        seen[phrase.noun] += 1
        (kept if seen[phrase.noun] <= MOST_OF_A_NOUN else late).append(phrase)
    return [*kept, *late]
