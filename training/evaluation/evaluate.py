"""How well a bundle retrieves, clean and under shift: sets of pairs through an encoder to a RetrievalReport.

Ties the parts together: embedding, ranks, metrics, health, leakage.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeAlias

from encoders.query_bank import QueryBank
from training.data.captions import group_captions
from training.data.leakage import Leak, find_leaks
from training.data.pairs import PairSet
from training.errors import EvaluationError
from training.evaluation.collapse import health_warnings, measure_health
from training.evaluation.embedding import EmbeddedPairs, Embedder, Embedding, InputSize, OnProgress, silent
from training.evaluation.hits import Hits, hits_of
from training.evaluation.metrics import DEFAULT_KS, Summary, fold_recall, summarise
from training.evaluation.ranks import Direction, Ints, Retrieval, rank_pairs
from training.evaluation.report import DatasetReport, RetrievalReport
from training.evaluation.short_queries import ShortQueryFigures, measure_short_queries
from training.seen.exposure import Exposure
from training.shift.condition import Condition

__all__ = [
    "DatasetReport",
    "EvaluationOptions",
    "Measurement",
    "Ranked",
    "RetrievalReport",
    "evaluate",
    "leaks_into",
    "measure",
]

Leaks: TypeAlias = dict[str, tuple[Leak, ...]]

COCO_TEST_IMAGES = 5000
COCO_FOLDS = 5


@dataclass(frozen=True)
class EvaluationOptions:
    """batch: images embedded at a time; cache: a folder for embeddings; the rest is the bootstrap's.

    bank: whether to rank with the bundle's query bank, as a release of it does.
    """

    ks: tuple[int, ...] = DEFAULT_KS
    batch: int = 32
    cache: Path | None = None
    bootstrap_samples: int = 1000
    seed: int = 0
    bank: bool = True


@dataclass(frozen=True, eq=False)
class Ranked:
    """One set as a bundle embedded and ranked it, by its `bank`; `group` (captions,) numbers the texts."""

    dataset: str
    condition: Condition | None
    embedded: EmbeddedPairs
    group: Ints
    retrieval: Retrieval
    bank: QueryBank | None = None


OnRanked: TypeAlias = Callable[[Ranked], None]


def unheard(ranked: Ranked) -> None:
    """An `OnRanked` that does nothing."""


@dataclass(frozen=True)
class Measurement:
    """What one bundle did: the report, and the hits of every image, for paired comparisons."""

    report: RetrievalReport
    hits: tuple[Hits, ...]


def evaluate(
    encoder: Embedder,
    pair_sets: Sequence[PairSet],
    *,
    options: EvaluationOptions = EvaluationOptions(),
    leaks: Mapping[str, Leaks] | None = None,
    on_progress: OnProgress = silent,
) -> RetrievalReport:
    """Retrieval both ways on each set, as it is. See `measure`."""
    return measure(encoder, pair_sets, options=options, leaks=leaks, on_progress=on_progress).report


def measure(
    encoder: Embedder,
    pair_sets: Sequence[PairSet],
    *,
    conditions: Sequence[Condition] = (),
    sized: Mapping[InputSize, Embedder] | None = None,
    options: EvaluationOptions = EvaluationOptions(),
    leaks: Mapping[str, Leaks] | None = None,
    exposures: Mapping[str, Exposure] | None = None,
    on_ranked: OnRanked = unheard,
    on_progress: OnProgress = silent,
) -> Measurement:
    """Retrieval both ways on each set: clean, under each of the conditions, and at each size of `sized`.

    `leaks` are `leaks_into`'s and `exposures`, by set, the bundle's, to stand in the report. `on_ranked` hears
    of every set and condition while its vectors are still there. An encoder with a query bank is ranked as a
    release with that bank searches. Broken images are named in the report of the clean set and drop out with
    their captions. Raises EvaluationError where nothing is left of a set, two sets share a name, or a vector is
    not finite.
    """
    names = [pairs.name for pairs in pair_sets]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise EvaluationError(f"two sets are called {repeated!r}: name one, by ?name=… in its spec")
    every = (*conditions, *(Condition(input_size=size) for size in sized or ()))
    measured = []
    for pairs in pair_sets:
        embedding = Embedding(
            encoder, pairs, batch=options.batch, cache=options.cache, sized=sized, on_progress=on_progress
        )
        found = None if leaks is None else leaks[pairs.name]
        ranking = _Ranking(encoder.query_bank, options, on_ranked)
        clean, *shifted = _measure_set(embedding, pairs, conditions=every, ranking=ranking, leaks=found)
        told = {
            "exposure": None if exposures is None else exposures[pairs.name],
            "short_queries": _short_queries(encoder, embedding.clean, pairs.name, ranking),
        }
        measured += [(clean[0].model_copy(update=told), clean[1]), *shifted]
    report = RetrievalReport(
        bundle=encoder.name,
        fingerprint=encoder.fingerprint,
        device=str(encoder.device),
        precision=encoder.precision,
        bootstrap_samples=options.bootstrap_samples,
        query_bank="none" if encoder.query_bank is None else "used" if options.bank else "left out",
        datasets=tuple(dataset for dataset, _ in measured),
    )
    return Measurement(report, tuple(hits for _, hits in measured))


def leaks_into(
    test_sets: Sequence[PairSet], train_sets: Sequence[PairSet], *, on_progress: OnProgress = silent
) -> dict[str, Leaks]:
    """Test set → training set → the test images that (nearly) stand in it."""
    found: dict[str, Leaks] = {test.name: {} for test in test_sets}
    for done, (test, train) in enumerate(product(test_sets, train_sets), 1):
        found[test.name][train.name] = tuple(find_leaks(train, test))
        on_progress("leaks", done, len(test_sets) * len(train_sets))
    return found


@dataclass(frozen=True)
class _Ranking:
    """own: the bundle's query bank, used or not."""

    own: QueryBank | None
    options: EvaluationOptions
    on_ranked: OnRanked

    @property
    def bank(self) -> QueryBank | None:
        return self.own if self.options.bank else None


def _measure_set(
    embedding: Embedding,
    pairs: PairSet,
    *,
    conditions: Sequence[Condition],
    ranking: "_Ranking",
    leaks: Leaks | None,
) -> Iterator[tuple[DatasetReport, Hits]]:
    """Clean first. Captions that are one text when clean stay positives for each other when corrupted."""
    start = time.perf_counter()
    group = group_captions(embedding.clean.captions)
    dataset, hits = _measure_one(lambda: embedding.clean, pairs, group=group, ranking=ranking)
    folds = _coco_folds(embedding.clean, group, ranking=ranking)
    clean = {
        "fold_recall": folds,
        "missing": pairs.missing,
        "broken": embedding.clean.broken,
        "leaks": leaks,
        "seconds": round(time.perf_counter() - start, 3),
    }
    yield dataset.model_copy(update=clean), hits
    for condition in conditions:
        yield _measure_one(
            partial(embedding.under, condition), pairs, group=group, ranking=ranking, condition=condition
        )


def _measure_one(
    embed: Callable[[], EmbeddedPairs],
    pairs: PairSet,
    *,
    group: Ints,
    ranking: "_Ranking",
    condition: Condition | None = None,
) -> tuple[DatasetReport, Hits]:
    start, options = time.perf_counter(), ranking.options
    embedded = embed()
    retrieval = rank_pairs(
        embedded.image_vectors,
        embedded.caption_vectors,
        caption_image=embedded.caption_image,
        caption_group=group,
        bank=ranking.bank,
    )
    ranking.on_ranked(Ranked(pairs.name, condition, embedded, group, retrieval, ranking.bank))
    figures = summarise(retrieval, ks=options.ks, samples=options.bootstrap_samples, seed=options.seed)
    health = measure_health(
        embedded.image_vectors,
        embedded.caption_vectors,
        caption_image=embedded.caption_image,
        tied_share=_tied_share(figures),
        cut_share=float(embedded.cut.mean()),
        bank=ranking.own,
    )
    images = len(embedded.image_ids)
    report = DatasetReport(
        name=pairs.name,
        condition=condition,
        spec=pairs.spec,
        digest=pairs.digest,
        images=images,
        captions=len(embedded.captions),
        cut_captions=int(embedded.cut.sum()),
        figures=figures,
        health=health,
        warnings=health_warnings(health),
        seconds=round(time.perf_counter() - start, 3),
    )
    return report, hits_of(retrieval, images, dataset=pairs.name, condition=condition, ks=options.ks)


def _short_queries(
    encoder: Embedder, embedded: EmbeddedPairs, name: str, ranking: _Ranking
) -> ShortQueryFigures | None:
    """Asked as the bundle asks them, ranked as everything else."""
    return measure_short_queries(
        embedded.image_vectors,
        embedded.captions_by_image(),
        name=name,
        short=encoder.short_queries,
        encode=lambda texts: encoder.encode_texts(texts).vectors,
        bank=ranking.bank,
        samples=ranking.options.bootstrap_samples,
    )


def _tied_share(figures: dict[Direction, Summary]) -> float:
    return sum(s.tied_queries for s in figures.values()) / sum(s.queries for s in figures.values())


def _coco_folds(
    embedded: EmbeddedPairs, group: Ints, *, ranking: _Ranking
) -> dict[Direction, dict[int, float]] | None:
    """COCO's "1K" beside its 5K; None for sets of any other size."""
    if len(embedded.image_ids) != COCO_TEST_IMAGES:
        return None
    return fold_recall(
        embedded.image_vectors,
        embedded.caption_vectors,
        caption_image=embedded.caption_image,
        caption_group=group,
        folds=COCO_FOLDS,
        ks=ranking.options.ks,
        bank=ranking.bank,
    )
