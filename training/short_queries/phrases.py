"""The short queries that a text answers: its nouns, also with an adjective before or a verb behind them."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from encoders.lexicon import Lexicon, Mention, words_of

FOLDER = Path(__file__).parent
Kind: TypeAlias = Literal["noun", "adjective noun", "noun verb"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOVING_SECTIONS = frozenset({"animals", "people", "vehicles"})
"""Of the lexicon: what people look for doing something."""
_ACTIVITY_SECTION = "sports and play"
_WORDS_BEFORE = 3  # between an adjective and its noun: "black and white dog"
_TITLE_WORDS = 8  # of which a title has at most: behind the comma of a sentence stands anything
_WORDS_BEHIND = 5  # in which a verb follows its noun: "dog in the snow running"
_NO_THINGS = frozenset({"rain", "snow", "subway", "airport", "wedding", "rodeo"})


@dataclass(frozen=True, order=True)
class Phrase:
    """A query of one to four words. `modifier`: the adjective before, or the verb behind, the noun."""

    kind: Kind
    noun: str
    modifier: str = ""

    def __str__(self) -> str:
        if self.kind == "adjective noun":
            return f"{self.modifier} {self.noun}"
        return f"{self.noun} {self.modifier}" if self.kind == "noun verb" else self.noun

    @property
    def number(self) -> int:
        """The same for all phrases of a noun: these stay together where queries are parted or drawn."""
        return zlib.crc32(self.noun.encode())


class Vocabulary:
    """Nouns, adjectives and verbs, and what a text says by them."""

    def __init__(self, lexicon: Lexicon, adjectives: Iterable[str], verbs: Mapping[str, str]) -> None:
        """`verbs`: every form of a verb → the form that queries have it in."""
        self.lexicon = lexicon
        self._adjectives = frozenset(adjectives)
        self._verbs = dict(verbs)

    def mentioned(self, text: str) -> frozenset[Phrase]:
        """All phrases that the text answers; a terrier that jumps is a dog jumping, too."""
        words = words_of(text)
        found: set[Phrase] = set()
        for mention in self.lexicon.mentions(words):
            found |= {Phrase("noun", name) for name in mention.names}
            found |= self._described(mention, words, _adjacent(text, words, mention))
            for word in words[mention.end : mention.end + _WORDS_BEHIND]:
                if word in self._verbs:
                    found |= {Phrase("noun verb", name, self._verbs[word]) for name in mention.names}
        return frozenset(found)

    def exact(self, text: str) -> frozenset[Phrase]:
        """Adjectives and verbs right beside a noun in its own name: phrases that people would say."""
        words = words_of(text)
        found: set[Phrase] = set()
        for mention in self.lexicon.mentions(words):
            before = words[mention.start - 1 : mention.start] if mention.start else []
            behind = words[mention.end : mention.end + 2]
            found |= {
                Phrase("adjective noun", n, a) for n in mention.exact for a in before if a in self._adjectives
            }
            found |= {
                Phrase("noun verb", n, self._verbs[v])
                for n in mention.exact
                for v in behind
                if v in self._verbs
            }
        return frozenset(phrase for phrase in found if self.is_asked_for(phrase))

    def is_asked_for(self, phrase: Phrase) -> bool:
        """Whether people would ask so: for a red car, not a red skiing; a dog running, not a lamp running."""
        noun = self.lexicon.nouns[phrase.noun]
        if not noun.is_asked_for:
            return False
        if phrase.kind == "adjective noun":
            return noun.section != _ACTIVITY_SECTION and noun.name not in _NO_THINGS
        return phrase.kind == "noun" or noun.section in MOVING_SECTIONS

    def _described(self, mention: Mention, words: list[str], after: list[str]) -> set[Phrase]:
        near = [*words[max(0, mention.start - _WORDS_BEFORE) : mention.start], *after]
        return {
            Phrase("adjective noun", name, word)
            for word in near
            if word in self._adjectives
            for name in mention.names
        }


def _adjacent(text: str, words: list[str], mention: Mention) -> list[str]:
    """Words behind the comma of a title: "Wing chair, light green"."""
    title, comma, described = text.partition(",")
    if not comma or mention.end > len(words_of(title)) or len(words) > _TITLE_WORDS:
        return []
    return words_of(described)


@cache
def vocabulary() -> Vocabulary:
    """The words beside this module."""
    verbs = {}
    for line in _lines("verbs.txt"):
        name, _, others = line.partition(":")
        verbs.update({form.strip(): name.strip() for form in (name, *others.split(",")) if form.strip()})
    lexicon = Lexicon((FOLDER / "nouns.txt").read_text("utf-8"))
    return Vocabulary(lexicon, _lines("adjectives.txt"), verbs)


@cache
def natural_phrases() -> dict[Phrase, int]:
    """Phrases that occur in captions of photos and titles of things, and how often (`phrases.txt`)."""
    found = {}
    for line in _lines("phrases.txt"):
        kind, noun, modifier, count = line.split("\t")
        if kind not in KINDS:
            raise ValueError(f"phrases.txt names the kind {kind!r}: there are {', '.join(KINDS)}")
        found[Phrase(kind, noun, modifier)] = int(count)
    return found


def _lines(name: str) -> list[str]:
    lines = (line.rstrip("\n") for line in (FOLDER / name).read_text("utf-8").splitlines())
    return [line for line in lines if line.strip() and not line.startswith("#")]
