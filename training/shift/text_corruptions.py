"""Typing errors in captions, at five severities: letters inserted, deleted, swapped, or hit beside their key.

A word is changed, in one letter, with the probability that the severity gives; the case is kept. Pure: texts
and a generator in, texts out.

Character-level kinds as in MMRobustness (Qiu et al. 2022).
"""

import string
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

Change: TypeAlias = Callable[[str, np.random.Generator], str]

WORD_RATES = (0.05, 0.1, 0.15, 0.2, 0.25)
"""Share of words changed, by severity."""

_KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def corrupt_texts(
    texts: Sequence[str], corruption: str, *, severity: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """The texts under a corruption of `TEXT_CORRUPTIONS` at a severity from 1 to 5; spacing stays."""
    if not 1 <= severity <= len(WORD_RATES):
        raise ValueError(f"severity is {severity}: it must be 1 to {len(WORD_RATES)}")
    if corruption not in TEXT_CORRUPTIONS:
        raise ValueError(f"no text corruption {corruption!r}: there are {', '.join(TEXT_CORRUPTIONS)}")
    change, rate = TEXT_CORRUPTIONS[corruption], WORD_RATES[severity - 1]
    return tuple(
        " ".join(change(word, rng) if rng.random() < rate else word for word in text.split(" "))
        for text in texts
    )


def _insert(word: str, rng: np.random.Generator) -> str:
    if not any(map(str.isalpha, word)):
        return word
    place = int(rng.integers(len(word) + 1))
    return word[:place] + string.ascii_lowercase[rng.integers(26)] + word[place:]


def _delete(word: str, rng: np.random.Generator) -> str:
    letters = _letters(word)
    if len(letters) < 2:
        return word
    place = letters[rng.integers(len(letters))]
    return word[:place] + word[place + 1 :]


def _swap(word: str, rng: np.random.Generator) -> str:
    """Two neighbouring letters that differ."""
    pairs = [at for at in range(len(word) - 1) if word[at : at + 2].isalpha() and word[at] != word[at + 1]]
    if not pairs:
        return word
    place = pairs[rng.integers(len(pairs))]
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def _mistype(word: str, rng: np.random.Generator) -> str:
    """A letter beside the right one on a QWERTY keyboard."""
    keys = [at for at, letter in enumerate(word) if letter.lower() in _BESIDE]
    if not keys:
        return word
    place = keys[rng.integers(len(keys))]
    beside = _BESIDE[word[place].lower()]
    typed = beside[rng.integers(len(beside))]
    return word[:place] + (typed.upper() if word[place].isupper() else typed) + word[place + 1 :]


def _letters(word: str) -> list[int]:
    return [at for at, letter in enumerate(word) if letter.isalpha()]


def _neighbours() -> dict[str, str]:
    """Key → the keys that touch it; each row lies half a key further right than the one above."""
    places = {key: (row, 2 * at + row) for row, keys in enumerate(_KEY_ROWS) for at, key in enumerate(keys)}
    return {
        key: "".join(
            other
            for other, (y, x) in places.items()
            if other != key and abs(y - row) <= 1 and abs(x - column) <= 2 - abs(y - row)
        )
        for key, (row, column) in places.items()
    }


_BESIDE = _neighbours()

TEXT_CORRUPTIONS: dict[str, Change] = {
    "text_insert": _insert,
    "text_delete": _delete,
    "text_swap": _swap,
    "text_keyboard": _mistype,
}
