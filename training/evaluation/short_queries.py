"""How well short queries are answered: P@1, a right image among the first five, and mean average precision.

An image is right where a caption of it answers the query. Captions leave much of an image unsaid, so that the
figures are lower bounds; between bundles and ways of asking they are fair.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from encoders.query_bank import QueryBank, penalty_of
from encoders.short_queries import ShortQueries
from training.evaluation.metrics import Estimate, bootstrap_means
from training.evaluation.ranks import Floats, QueryRanks, rank_queries
from training.short_queries.draw import Mentions, draw, mentions_of
from training.short_queries.phrases import Phrase

LEAST_QUERIES = 30
"""Fewer say little."""
FIRST_HITS = 5

Encode = Callable[[Sequence[str]], Floats]
"""Texts to unit rows (n, d)."""
Ask = Callable[[Sequence[Phrase]], Floats]
"""Short queries to unit rows (n, d)."""


class ShortQueryFigures(BaseModel):
    """Of queries that a set holds; shares from 0 to 1 with 95% intervals over the nouns asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queries: int
    templates: tuple[str, ...]
    """How they were asked; "{}" is the query as it was typed."""
    memory: bool
    """Whether they were moved by what training showed of such words."""
    precision_at_1: Estimate
    hit_at_5: Estimate
    mean_average_precision: Estimate


def ask(phrases: Sequence[Phrase], short: ShortQueries | None, encode: Encode) -> Floats:
    """(n, d) unit rows of short queries, asked as the bundle asks them; bare where it says nothing of it."""
    texts = [str(phrase) for phrase in phrases]
    if short is None:
        return encode(texts)
    rows = encode([sentence for text in texts for sentence in short.texts_for(text)])
    return short.combined(rows.reshape(len(texts), len(short.templates), -1))


def rank_phrases(
    queries: Floats, phrases: Sequence[Phrase], images: Floats, mentions: Mentions, bank: QueryBank | None
) -> QueryRanks:
    """Where the images stand that answer each phrase; `mentions` are those of the images' captions."""
    relevant = mentions.relevant(phrases)
    nouns = np.array([phrase.number for phrase in phrases], dtype=np.int64)
    return rank_queries(
        queries,
        images,
        positives=lambda query: np.flatnonzero(relevant[query]),
        group=nouns,
        penalty=penalty_of(bank, "images"),
    )


def measure_short_queries(
    images: Floats,
    captions: Sequence[Sequence[str]],
    *,
    name: str,
    short: ShortQueries | None,
    encode: Encode,
    bank: QueryBank | None,
    samples: int = 1000,
) -> ShortQueryFigures | None:
    """Figures of queries drawn from the captions of each image (n); None where these hold too few.

    `name`: the set's, by which `python -m training queries` draws the same.
    """
    mentions = mentions_of(captions)
    present = draw(mentions, count=200, seed=f"{name} 0").present
    if len(present) < LEAST_QUERIES:
        return None
    ranks = rank_phrases(ask(present, short, encode), present, images, mentions, bank)
    return short_query_figures(ranks, short, samples=samples)


def short_query_figures(ranks: QueryRanks, short: ShortQueries | None, *, samples: int) -> ShortQueryFigures:
    values: list[NDArray[np.float64]] = [*quality(ranks)]
    first, five, precision = bootstrap_means(values, [ranks.image] * len(values), samples=samples)
    return ShortQueryFigures(
        queries=len(ranks),
        templates=short.templates if short else ("{}",),
        memory=short is not None and short.memory is not None,
        precision_at_1=first,
        hit_at_5=five,
        mean_average_precision=precision,
    )


def quality(ranks: QueryRanks) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each query: whether the first hit is right, one of the first five, and its average precision."""
    return ranks.hit_probability(1), ranks.hit_probability(FIRST_HITS), ranks.average_precision
