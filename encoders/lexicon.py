"""Find what a text mentions: the nouns of a lexicon, singular or plural, their synonyms and kinds included.

A lexicon is a text with one noun a line; behind the colon stand words that show the same thing or a kind of it:

    # animals                  starts a section
    dog: puppy, terrier        a puppy is a dog; whoever mentions a terrier mentions a dog
    *animal: dog, cat          a class: that a caption names one says little about what else an image shows
    -rocking horse:            not asked for: a phrase that hides the nouns in it
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_KEPT_PLURALS = frozenset(
    ("binoculars", "fireworks", "glasses", "jeans", "pants", "scissors", "stairs", "sunglasses")
)
_IRREGULAR = {
    "buses": "bus",
    "calves": "calf",
    "children": "child",
    "feet": "foot",
    "firemen": "fireman",
    "geese": "goose",
    "heels": "heel",
    "headphones": "headphone",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "men": "man",
    "mice": "mouse",
    "noodles": "noodle",
    "oxen": "ox",
    "people": "person",
    "policemen": "policeman",
    "shelves": "shelf",
    "teeth": "tooth",
    "wolves": "wolf",
    "women": "woman",
}
_ENDINGS = (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"))


def words_of(text: str) -> list[str]:
    """Lower-case words without possessive endings and bare numbers, in their order."""
    return [word for word in _WORD.findall(text.lower().replace("'s", "")) if not word.isdecimal()]


def singular(word: str) -> str:
    """A lower-case English word in the singular, as far as its ending tells."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _KEPT_PLURALS:
        return word
    for ending, kept in _ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + kept
    keeps_s = len(word) <= 3 or word.endswith(("ss", "us", "is"))
    return word[:-1] if word.endswith("s") and not keeps_s else word


@dataclass(frozen=True)
class Noun:
    """A line of the lexicon: see the module."""

    name: str
    others: tuple[str, ...]
    section: str
    is_class: bool
    only_hides: bool

    @property
    def forms(self) -> frozenset[tuple[str, ...]]:
        """All its words, each as a row of singular words."""
        return frozenset(_form(phrase) for phrase in (self.name, *self.others))

    @property
    def is_asked_for(self) -> bool:
        return not (self.is_class or self.only_hides)


@dataclass(frozen=True, slots=True)
class Mention:
    """Words `start` to `end` of a text name these nouns; `exact`: in their own name, not by a synonym."""

    start: int
    end: int
    names: frozenset[str]
    exact: frozenset[str]


class Lexicon:
    """The nouns that people look for, and how texts mention them."""

    def __init__(self, text: str) -> None:
        """Raises ValueError, naming the line, where the text is no lexicon."""
        self.text = text
        self.nouns: dict[str, Noun] = {noun.name: noun for noun in _parsed(text)}
        self._named: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for noun in self.nouns.values():
            for form in noun.forms:
                self._named[form].add(noun.name)
        self._lengths: dict[str, int] = defaultdict(int)  # first word → of the longest form that begins so
        for form in self._named:
            self._lengths[form[0]] = max(self._lengths[form[0]], len(form))

    @cached_property
    def asked_for(self) -> tuple[str, ...]:
        """The nouns that a query may be, in the order of the file."""
        return tuple(noun.name for noun in self.nouns.values() if noun.is_asked_for)

    @cached_property
    def broader(self) -> dict[str, frozenset[str]]:
        """For each noun those of which it is a kind, over any number of steps."""
        direct = {name: self._named[_form(name)] - {name} for name in self.nouns}
        return {name: _reachable(name, direct) for name in self.nouns}

    def mentions(self, words: Sequence[str]) -> Iterator[Mention]:
        """What the words of a text (see `words_of`) name; longer phrases hide what stands inside them.

        "hot dog" mentions no dog, "police car" mentions a car: it is a kind of one.
        """
        single = [singular(word) for word in words]
        found = [
            (start, start + length, names)
            for start, word in enumerate(single)
            for length in range(1, min(self._lengths.get(word, 0), len(single) - start) + 1)
            if (names := self._named.get(tuple(single[start : start + length])))
        ]
        for start, end, names in found:
            if any(self._hides(outer, (start, end, names)) for outer in found):
                continue
            form = tuple(single[start:end])
            every = names.union(*(self.broader[name] for name in names))
            yield Mention(
                start,
                end,
                frozenset(every),
                frozenset(name for name in names if _form(name) == form),
            )

    def mentioned(self, text: str) -> frozenset[str]:
        """All nouns that the text names, broader ones included."""
        return frozenset().union(*(mention.names for mention in self.mentions(words_of(text))))

    def _hides(self, outer: tuple[int, int, set[str]], inner: tuple[int, int, set[str]]) -> bool:
        contains = outer[0] <= inner[0] and inner[1] <= outer[1] and outer[1] - outer[0] > inner[1] - inner[0]
        if not contains:
            return False
        related = outer[2].union(*(self.broader[name] for name in outer[2]))
        return not related & inner[2]


def _form(phrase: str) -> tuple[str, ...]:
    return tuple(singular(word) for word in words_of(phrase))


def _parsed(text: str) -> Iterator[Noun]:
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("#"):
            section = line[1:].strip()
        elif line:
            marked, colon, others = line.partition(":")
            name = marked.lstrip("*-").strip()
            if not (colon and words_of(name)):
                raise ValueError(f"line {number} of the lexicon is {line!r}: expected `noun: other, words`")
            yield Noun(
                name,
                tuple(word.strip() for word in others.split(",") if words_of(word)),
                section,
                is_class=marked.startswith("*"),
                only_hides=marked.startswith("-"),
            )


def _reachable(name: str, direct: dict[str, set[str]]) -> frozenset[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        fresh = direct[waiting.pop()] - found - {name}
        found |= fresh
        waiting.extend(fresh)
    return frozenset(found)
