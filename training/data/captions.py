"""When two captions count as the same text: identical captions are positives for each other's images."""

import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

CLOSING = ".,;:!?。、"


def normalise_caption(text: str) -> str:
    """The caption without what does not change its meaning: case, width, spacing, outer punctuation.

    "A dog , running ." and "a dog, running" are one text; "C#" and "C" are two, so only punctuation that
    stands alone or ends a word goes. Whatever is nothing but punctuation stays as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    words = (word.rstrip(CLOSING) for word in folded.split())
    return " ".join(word for word in words if word) or " ".join(folded.split())


def group_captions(texts: Iterable[str]) -> NDArray[np.int64]:
    """A number (captions,) for each caption, equal for captions that are the same text; from 0, dense."""
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(normalise_caption(text), len(numbers)) for text in texts], dtype=np.int64
    )
