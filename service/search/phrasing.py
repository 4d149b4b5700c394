"""How a text query is asked: as it was typed, or by the templates of the encoder's bundle; and who judges it.

The bundle's calibration of short queries speaks for queries of a few words that are asked as the bundle asks
them, that of sentences for all others as they were typed. For any other way of asking none was fitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from encoders.calibration import Search
from encoders.encoder import Encoder
from encoders.lexicon import words_of
from encoders.short_queries import is_short_query
from service.errors import InvalidField
from service.wire.schemas import Expand, Space

MOST_LOOKED_AT = 8  # words of a query, in 0.2 ms
SHORT_WORD = 3  # letters
NO_WORD = "\ue000"  # of private use: what a tokenizer gives for what it does not know


@dataclass(frozen=True, slots=True)
class Phrasing:
    """templates: that the query is asked by, None: as it was typed; search: whose calibration judges it.

    unknown_words: the query's words where the encoder knows none of them, else none: nothing was fitted for
    these either.
    """

    templates: tuple[str, ...] | None = None
    search: Search | None = None
    unknown_words: tuple[str, ...] = ()


AS_TYPED = Phrasing()


def phrasing_of(text: str, *, expand: Expand, space: Space, encoder: Encoder) -> Phrasing:
    """Raises InvalidField where templates are asked for and the bundle has none."""
    short = encoder.short_queries
    if expand == "templates" and short is None:
        raise InvalidField(
            f"expand is templates, and {encoder.name} has none: use auto or off, or give the bundle some "
            "(python -m training short-queries)",
            param="expand",
        )
    unknown = unknown_words(text, encoder)
    if space != "images":  # templates and calibrations are for images
        return Phrasing(unknown_words=unknown)
    is_short = is_short_query(text)
    by_templates = short is not None and (expand == "templates" or (expand == "auto" and is_short))
    as_fitted = not unknown and (short is None or by_templates == is_short)
    search: Search = "words_to_image" if is_short else "sentence_to_image"
    return Phrasing(
        short.templates if short is not None and by_templates else None, search if as_fitted else None, unknown
    )


def unknown_words(text: str, encoder: Encoder) -> tuple[str, ...]:
    """The words of a query of a few words, where the text tower learned none of them; else none.

    It learned what its tokenizer has a token for, and the nouns of the bundle's lexicon. Short words count for
    little: "der" and "la" are in many a vocabulary.
    """
    words = words_of(text)
    if len(words) > MOST_LOOKED_AT:
        return ()
    if not words:
        bare = text.strip()
        return (bare,) if bare and not any(each.isascii() for each in bare) else ()
    short = encoder.short_queries
    if short is not None and short.lexicon is not None and short.lexicon.mentioned(text):
        return ()
    known = _known(words, encoder)
    telling = [word for word in words if len(word) > SHORT_WORD] or words
    if any(known[word] for word in telling) or 2 * sum(known[word] for word in words) > len(words):
        return ()
    return tuple(telling)


def _known(words: Sequence[str], encoder: Encoder) -> dict[str, bool]:
    """Whether each of them is one token, and not that of what the tokenizer does not know."""
    tokens = encoder.tokenize(["", NO_WORD, *words])
    empty, nothing, *lengths = tokens.lengths.tolist()
    _, unknown, *ids = tokens.ids.tolist()
    return {
        word: length - empty == 1 and not (length == nothing and own[:length] == unknown[:nothing])
        for word, length, own in zip(words, lengths, ids, strict=True)
    }
