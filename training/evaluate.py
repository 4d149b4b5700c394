"""How well a bundle retrieves: sets of pairs through an encoder to a RetrievalReport.

Ties the parts together: embedding, ranks, metrics, health, leakage. It does NOT know formats of files, nor
how a report is shown.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

from training.captions import group_captions
from training.collapse import health_warnings, measure_health
from training.embedding import EmbeddedPairs, Embedder, OnProgress, embed_pairs, silent
from training.errors import EvaluationError
from training.leakage import Leak, find_leaks
from training.metrics import DEFAULT_KS, Summary, fold_recall, summarise
from training.pairs import PairSet
from training.ranks import Direction, Ints, rank_pairs
from training.report import DatasetReport, RetrievalReport

__all__ = ["DatasetReport", "EvaluationOptions", "RetrievalReport", "evaluate", "leaks_into"]

Leaks: TypeAlias = dict[str, tuple[Leak, ...]]

COCO_TEST_IMAGES = 5000
COCO_FOLDS = 5


@dataclass(frozen=True)
class EvaluationOptions:
    """batch: images embedded at a time; cache: a folder for embeddings; the rest is the bootstrap's."""

    ks: tuple[int, ...] = DEFAULT_KS
    batch: int = 32
    cache: Path | None = None
    bootstrap_samples: int = 1000
    seed: int = 0


def evaluate(
    encoder: Embedder,
    pair_sets: Sequence[PairSet],
    *,
    options: EvaluationOptions = EvaluationOptions(),
    leaks: Mapping[str, Leaks] | None = None,
    on_progress: OnProgress = silent,
) -> RetrievalReport:
    """Retrieval both ways on each set. `leaks` are `leaks_into`'s, to stand in the report.

    Broken images are named in the report and drop out with their captions. Raises EvaluationError where
    nothing is left of a set, two sets share a name, or a vector is not finite.
    """
    names = [pairs.name for pairs in pair_sets]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise EvaluationError(f"two sets are called {repeated!r}: name one, by ?name=… in its spec")
    return RetrievalReport(
        bundle=encoder.name,
        fingerprint=encoder.fingerprint,
        device=str(encoder.device),
        precision=encoder.precision,
        bootstrap_samples=options.bootstrap_samples,
        datasets=tuple(
            _evaluate_set(encoder, pairs, options=options, on_progress=on_progress).model_copy(
                update={"leaks": None if leaks is None else leaks[pairs.name]}
            )
            for pairs in pair_sets
        ),
    )


def leaks_into(
    test_sets: Sequence[PairSet], train_sets: Sequence[PairSet], *, on_progress: OnProgress = silent
) -> dict[str, Leaks]:
    """Test set → training set → the test images that (nearly) stand in it."""
    found: dict[str, Leaks] = {test.name: {} for test in test_sets}
    for done, (test, train) in enumerate(product(test_sets, train_sets), 1):
        found[test.name][train.name] = tuple(find_leaks(train, test))
        on_progress("leaks", done, len(test_sets) * len(train_sets))
    return found


def _evaluate_set(
    encoder: Embedder, pairs: PairSet, *, options: EvaluationOptions, on_progress: OnProgress
) -> DatasetReport:
    start = time.perf_counter()
    embedded = embed_pairs(encoder, pairs, batch=options.batch, cache=options.cache, on_progress=on_progress)
    group = group_captions(embedded.captions)
    retrieval = rank_pairs(
        embedded.image_vectors,
        embedded.caption_vectors,
        caption_image=embedded.caption_image,
        caption_group=group,
    )
    figures = summarise(retrieval, ks=options.ks, samples=options.bootstrap_samples, seed=options.seed)
    health = measure_health(
        embedded.image_vectors,
        embedded.caption_vectors,
        caption_image=embedded.caption_image,
        tied_share=_tied_share(figures),
        cut_share=float(embedded.cut.mean()),
    )
    return DatasetReport(
        name=pairs.name,
        spec=pairs.spec,
        digest=pairs.digest,
        images=len(embedded.image_ids),
        captions=len(embedded.captions),
        cut_captions=int(embedded.cut.sum()),
        missing=pairs.missing,
        broken=embedded.broken,
        figures=figures,
        fold_recall=_coco_folds(embedded, group, ks=options.ks),
        health=health,
        warnings=health_warnings(health),
        seconds=round(time.perf_counter() - start, 3),
    )


def _tied_share(figures: dict[Direction, Summary]) -> float:
    return sum(s.tied_queries for s in figures.values()) / sum(s.queries for s in figures.values())


def _coco_folds(
    embedded: EmbeddedPairs, group: Ints, *, ks: tuple[int, ...]
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
        ks=ks,
    )
