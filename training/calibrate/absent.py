"""Queries about what a set does not hold: a list of captions, or galleries without a word of the query's own.

Says which captions may be used with a set, by words alone.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.errors import CalibrationError, MissingFile

DEFAULT_ABSENT = Path(__file__).parent.parent / "absent" / "dev.txt"
MEASURED_ABSENT = DEFAULT_ABSENT.with_name("flickr8k.txt")
"""Of other subjects: for what is measured, not fitted."""
_WORD = re.compile(r"[^\W\d_]+")
# Two captions may share these and speak of different things.
_PLAIN = """
    a an and another are around as at away back be behind being beside between black blue brown by
    dark down each few for four from front gray green grey has have her him his in inside into is it
    its large light like little long look looking looks many near next of off old on one onto orange
    other others out outside over pink purple red several she side small some stand standing stands
    that the their them there they this three through to together top toward towards two under up
    very wear wearing wears white who while with yellow young
"""
PLAIN_WORDS = frozenset(_PLAIN.split())


@dataclass(frozen=True)
class AbsentQuery:
    """A caption, and the words of its subject; without words, every content word counts."""

    caption: str
    subject: tuple[str, ...] = ()


def read_absent(path: Path) -> list[AbsentQuery]:
    """One query a line: the caption, or the caption, a tab and its subject's words; # starts a comment line.

    Raises MissingFile, or CalibrationError where it is not UTF-8, names no query, or names one twice.
    """
    if not path.is_file():
        raise MissingFile(f"no list of absent queries at {path}: one caption a line")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path}: the absent queries are not UTF-8: {error}") from error
    queries = [_parsed(line) for line in lines if line and not line.startswith("#")]
    if not queries:
        raise CalibrationError(f"{path} names no query: one caption a line")
    counts = Counter(query.caption for query in queries)
    if twice := next((caption for caption, count in counts.items() if count > 1), None):
        raise CalibrationError(f"{path} names {twice!r} twice: every query counts once")
    return queries


def without_present(
    queries: Sequence[AbsentQuery], captions: Sequence[str]
) -> tuple[list[AbsentQuery], list[AbsentQuery]]:
    """Those of whose subject no caption speaks, and those that may be present after all."""
    spoken = {form for caption in captions for form in _forms(_WORD.findall(caption.lower()))}
    text = "\n".join(captions).lower()
    kept: list[AbsentQuery] = []
    dropped: list[AbsentQuery] = []
    for query in queries:
        (dropped if _stands_in(query, spoken, text) else kept).append(query)
    return kept, dropped


def disjoint_captions(captions: Sequence[str], image_of: NDArray[np.int64], images: int) -> NDArray[np.bool_]:
    """(images, captions): True where the caption shares no content word with any caption of the image.

    A gallery of only those holds nothing that the image shows: absence without a list of it.
    """
    vocabulary: dict[str, int] = {}
    words = [
        sorted({vocabulary.setdefault(w, len(vocabulary)) for w in content_words(text)}) for text in captions
    ]
    uses = np.zeros((len(captions), max(1, len(vocabulary))), dtype=np.float32)
    for row, numbers in enumerate(words):
        uses[row, numbers] = 1.0
    of_image = np.zeros((images, uses.shape[1]), dtype=np.float32)
    np.maximum.at(of_image, image_of, uses)
    shared: NDArray[np.bool_] = of_image @ uses.T == 0
    return shared


def content_words(text: str) -> set[str]:
    """The words that say what a caption is about, in the singular as far as an s makes the plural."""
    return {
        _singular(word) for word in _WORD.findall(text.lower()) if word not in PLAIN_WORDS and len(word) > 1
    }


def _parsed(line: str) -> AbsentQuery:
    caption, _, subject = line.partition("\t")
    return AbsentQuery(
        caption.strip(), tuple(word.strip().lower() for word in subject.split(",") if word.strip())
    )


def _stands_in(query: AbsentQuery, spoken: set[str], text: str) -> bool:
    subject = query.subject or tuple(content_words(query.caption))
    return any(
        (re.search(rf"\b{re.escape(word)}s?\b", text) is not None)
        if _WORD.fullmatch(word) is None
        else bool(_forms([word]) & spoken)
        for word in subject
    )


def _forms(words: Sequence[str]) -> set[str]:
    return {_singular(word) for word in words}


def _singular(word: str) -> str:
    for ending, kept in (("ies", "y"), ("sses", "ss"), ("ches", "ch"), ("shes", "sh"), ("xes", "x")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word[: -len(ending)] + kept
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word
