"""How short queries are best asked: templates, and how strongly a memory moves them, by held-out sets.

A way of asking is judged by four figures on every held-out set, which count alike: P@1, a right image among the
first five, mean average precision, and how well the best score tells queries that the set holds from queries
that it does not (area under the ROC curve). Templates within one standard error of the best are as good: the
first of the list among them is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.query_bank import QueryBank
from encoders.short_queries import PhraseMemory, ShortQueries
from training.errors import ShortQueriesError
from training.evaluation.embedding import EmbeddedPairs
from training.evaluation.ranks import Floats
from training.evaluation.short_queries import LEAST_QUERIES, Encode, ask, quality, rank_phrases
from training.query_expansion.memory import of_strength
from training.short_queries.draw import Mentions, QueryList, draw, mentions_of

TEMPLATE_SETS: tuple[tuple[str, ...], ...] = (
    ("{}", "a {}", "a photo of a {}"),
    ("a photo of a {}",),
    ("{}",),
    ("a {}",),
    ("{}", "a {}", "There is a {} ."),
    (
        "a {}",
        "a photo of a {}",
        "a picture of a {}",
        "a photo of the {}",
        "a close up of a {}",
        "there is a {}",
        "{}",
    ),
)
STRENGTHS = (0.0, 0.35, 0.7, 1.0, 1.5)
QUERIES = 200
SAMPLES = 200

Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A set that nothing was fitted on: image vectors (n, d), what its captions mention, and queries."""

    name: str
    images: Floats
    mentions: Mentions
    queries: QueryList

    @classmethod
    def of(cls, name: str, embedded: EmbeddedPairs) -> "HeldOut":
        """Raises ShortQueriesError where it holds, or lacks, too few queries."""
        mentions = mentions_of(embedded.captions_by_image())
        queries = draw(mentions, count=QUERIES, seed=f"{name} 0")
        if min(len(queries.present), len(queries.absent)) < LEAST_QUERIES:
            raise ShortQueriesError(
                f"{name}: its captions hold {len(queries.present)} short queries in English and lack "
                f"{len(queries.absent)}; to choose by it takes {LEAST_QUERIES} of each"
            )
        return cls(name, embedded.image_vectors, mentions, queries)


@dataclass(frozen=True)
class Trial:
    """A way of asking, its score, the score's standard error, and the four figures of each set."""

    title: str
    score: float
    error: float
    figures: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class Judge:
    """Held-out sets, and how an encoder asks and ranks there."""

    sets: Sequence[HeldOut]
    encode: Encode
    bank: QueryBank | None

    def judge(self, short: ShortQueries, *, title: str) -> Trial:
        values = [self._values(each, short) for each in self.sets]
        figures = [_figures(present, absent) for present, absent in values]
        rng = np.random.default_rng(0)
        drawn = [np.mean([_figures(*_drawn(*each, rng=rng)) for each in values]) for _ in range(SAMPLES)]
        return Trial(title, float(np.mean(figures)), float(np.std(drawn)), tuple(figures))

    def _values(self, held: HeldOut, short: ShortQueries) -> tuple[Doubles, Doubles]:
        """(present, 4): first right, right in five, average precision, best score; (absent,) best scores."""
        present, absent = (
            ask(phrases, short, self.encode) for phrases in (held.queries.present, held.queries.absent)
        )
        ranks = rank_phrases(present, held.queries.present, held.images, held.mentions, self.bank)
        penalties = 0.0 if self.bank is None else self.bank.penalty(held.images, "images")
        best = [
            (queries @ held.images.T - penalties).max(axis=1).astype(np.float64)
            for queries in (present, absent)
        ]
        return np.column_stack([*quality(ranks), best[0]]), best[1]


def choose_templates(judge: Judge, fingerprint: str) -> tuple[tuple[str, ...], list[Trial]]:
    """The first of TEMPLATE_SETS that is within one standard error of the best, and how all of them did."""
    trials = [
        judge.judge(ShortQueries(templates, fingerprint), title=" | ".join(templates))
        for templates in TEMPLATE_SETS
    ]
    best = max(trials, key=lambda trial: trial.score)
    good = [trial.score >= best.score - best.error for trial in trials]
    return TEMPLATE_SETS[good.index(True)], trials


def choose_strength(
    judge: Judge, asked: ShortQueries, memory: PhraseMemory
) -> tuple[PhraseMemory | None, list[Trial]]:
    """The memory at the strength of the highest score, None where it is best without; and how all did."""
    tried = [of_strength(memory, strength) for strength in STRENGTHS]
    trials = [
        judge.judge(
            ShortQueries(asked.templates, asked.fingerprint, each), title=f"memory at strength {strength:g}"
        )
        for strength, each in zip(STRENGTHS, tried, strict=True)
    ]
    best = max(range(len(trials)), key=lambda place: trials[place].score)
    return tried[best], trials


def auc(present: Doubles, absent: Doubles) -> float:
    """How often one of `present` (n,) is above one of `absent` (m,); ties count half."""
    below = np.searchsorted(np.sort(absent), present, side="left") + np.searchsorted(
        np.sort(absent), present, side="right"
    )
    return float(below.mean() / (2 * len(absent)))


def _figures(present: Doubles, absent: Doubles) -> tuple[float, ...]:
    return (*map(float, present[:, :3].mean(axis=0)), auc(present[:, 3], absent))


def _drawn(present: Doubles, absent: Doubles, *, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
    return (
        present[rng.integers(len(present), size=len(present))],
        absent[rng.integers(len(absent), size=len(absent))],
    )
