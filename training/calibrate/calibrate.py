"""A calibration from held-out pairs: cosines of queries with and without an answer to logistic weights.

Queries about what a set does not hold are a list of captions (text → image), and galleries without a word of
the query's own (both ways): the former are plainly absent, the latter are asked as people ask there. Sets of
several kinds of pictures in one fit keep it from taking one kind's cosines for all. It knows vectors and words,
neither pictures nor files.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.calibration import Calibration, Decision, Direction, DirectionCalibration, Figures, Weights
from training.calibrate.absent import AbsentQuery, disjoint_captions, without_present
from training.calibrate.draws import Answers, Queries, draw_answers, prior_of, sizes_up_to
from training.calibrate.figures import best_threshold, decide, reliability
from training.calibrate.logistic import fit_logistic
from training.errors import CalibrationError
from training.evaluate.embedding import EmbeddedPairs

MINIMUM_ABSENT = 30
"""Queries about nothing in the set: fewer say little about where "nothing matches" begins."""
MINIMUM_IMAGES = 20
MOST_QUERIES = 1000
MOST_ITEMS = 10_000
DRAWS_OF_ABSENT = 5
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Asked:
    """One direction: queries that have an answer among `items` (n, d), and queries that have none."""

    items: NDArray[np.float32]
    present: Queries
    absent: Queries


def calibrate(
    sets: Mapping[str, EmbeddedPairs],
    absent: Sequence[AbsentQuery],
    *,
    encode: Callable[[Sequence[str]], NDArray[np.float32]],
    fingerprint: str,
) -> Calibration:
    """Fit both directions on held-out pairs, sets by name; `encode` embeds the absent captions (n, d).

    Absent captions of whose subject a caption of the set speaks are left out of it. A direction of a set with
    fewer than `MINIMUM_ABSENT` queries about nothing is left out. Raises CalibrationError when none remains.
    """
    asked: dict[Direction, list[Asked]] = {}
    digest = hashlib.sha256()
    for embedded in sets.values():
        kept, _ = without_present(absent, embedded.captions)
        vectors = encode([query.caption for query in kept]) if kept else None
        for direction, each in directions_asked(embedded, vectors).items():
            asked.setdefault(direction, []).append(each)
        if (lonely := texts_without_words(embedded)) is not None:
            asked.setdefault("text_to_image", []).append(lonely)
        told = [*embedded.image_ids, *embedded.captions, *(query.caption for query in kept)]
        digest.update("\n".join(told).encode())
    name = ", ".join(sets)
    if not asked:
        raise CalibrationError(
            f"{name}: {', '.join(str(len(each.image_ids)) for each in sets.values())} images, and too few of "
            f"{len(absent)} absent queries of whose subject no caption speaks: a calibration takes at least "
            f"{MINIMUM_IMAGES} and {MINIMUM_ABSENT}"
        )
    return Calibration(
        fingerprint=fingerprint,
        directions={direction: fit_direction(each, measured_on=name) for direction, each in asked.items()},
        fitted_on=name,
        digest=digest.hexdigest(),
    )


def directions_asked(
    embedded: EmbeddedPairs, absent_vectors: NDArray[np.float32] | None
) -> Mapping[Direction, Asked]:
    """The directions that this set can calibrate or measure."""
    images, captions = len(embedded.image_ids), len(embedded.captions)
    if images < MINIMUM_IMAGES:
        return {}
    asked: dict[Direction, Asked] = {}
    if absent_vectors is not None and len(absent_vectors) >= MINIMUM_ABSENT:
        nothing = np.array([], dtype=np.int64)
        asked["text_to_image"] = Asked(
            embedded.image_vectors,
            Queries(
                embedded.caption_vectors, [row[None] for row in embedded.caption_image], embedded.caption_image
            ),
            Queries(absent_vectors, [nothing] * len(absent_vectors), np.arange(len(absent_vectors))),
        )
    if captions <= MOST_ITEMS and (lonely := _images_without_words(embedded)) is not None:
        own = [np.flatnonzero(embedded.caption_image == image) for image in range(images)]
        asked["image_to_text"] = Asked(
            embedded.caption_vectors, Queries(embedded.image_vectors, own, np.arange(images)), lonely
        )
    return asked


def texts_without_words(embedded: EmbeddedPairs) -> Asked | None:
    """Captions that have their picture, and captions in galleries that share no content word with them."""
    images, captions = len(embedded.image_ids), len(embedded.captions)
    if images < MINIMUM_IMAGES or captions > MOST_ITEMS:
        return None
    allowed = disjoint_captions(embedded.captions, embedded.caption_image, images).T
    says_something = ~allowed[np.arange(captions), embedded.caption_image]
    rows = np.flatnonzero(says_something & (allowed.sum(axis=1) >= MINIMUM_IMAGES))
    if len(rows) < MINIMUM_ABSENT:
        return None
    rows = rows[:: -(-len(rows) // MOST_QUERIES)]
    nothing = np.array([], dtype=np.int64)
    owner, vectors = embedded.caption_image, embedded.caption_vectors
    return Asked(
        embedded.image_vectors,
        Queries(vectors, [row[None] for row in owner], owner),
        Queries(vectors[rows], [nothing] * len(rows), owner[rows], allowed[rows]),
    )


def _images_without_words(embedded: EmbeddedPairs) -> Queries | None:
    """Images, each in a gallery of the captions that share no content word with its own."""
    images = len(embedded.image_ids)
    allowed = disjoint_captions(embedded.captions, embedded.caption_image, images)
    rows = np.flatnonzero(allowed.sum(axis=1) >= MINIMUM_IMAGES)
    if len(rows) < MINIMUM_ABSENT:
        return None
    nothing = np.array([], dtype=np.int64)
    return Queries(embedded.image_vectors[rows], [nothing] * len(rows), rows, allowed[rows])


def fit_direction(asked: Sequence[Asked], *, measured_on: str, seed: int = 0) -> DirectionCalibration:
    """Weights for one direction, with figures from folds that a query's group never shares with the fit."""
    rng = np.random.default_rng(seed)
    mean, spread = np.mean([prior_of(each.present, each.items) for each in asked], axis=0)
    prior = (float(mean), float(spread))
    drawn = [(each, size) for each in asked for size in sizes_up_to(len(each.items))]
    sizes = tuple(sorted({size for _, size in drawn}))
    pairs = [_draw_pair(each, size, prior=prior, rng=rng) for each, size in drawn]
    whole = [number for number, (each, size) in enumerate(drawn) if size == len(each.items)]
    fitted = _fit(pairs, prior=prior, sizes=sizes)
    held_out = [_held_out(pairs, fold, prior=prior, sizes=sizes) for fold in range(FOLDS)]
    bins, error = reliability(
        np.concatenate([fold.fits for part in held_out for fold in part]),
        np.concatenate([fold.others for part in held_out for fold in part]),
    )
    present, absent = (np.concatenate([pairs[number][kind].best for number in whole]) for kind in (0, 1))
    figures = Figures(
        measured_on=f"{measured_on}, {FOLDS} folds",
        gallery_items=sizes[-1],
        reliability=bins,
        expected_calibration_error=error,
        decision=decide(
            np.concatenate([part[number].present for part in held_out for number in whole]),
            np.concatenate([part[number].absent for part in held_out for number in whole]),
            threshold=fitted.threshold,
        ),
        flat_cutoff=best_threshold(present, absent),
        flat_decision=_flat_decision([pairs[number] for number in whole]),
    )
    return fitted.model_copy(update={"figures": figures})


@dataclass(frozen=True, eq=False)
class Measured:
    """Relevances of hits that fit and that do not; chances of present and absent answers."""

    fits: NDArray[np.float64]
    others: NDArray[np.float64]
    present: NDArray[np.float64]
    absent: NDArray[np.float64]


def measure(direction: DirectionCalibration, present: Answers, absent: Answers) -> Measured:
    """What a calibration says of answers whose truth is known."""
    return Measured(
        direction.hit.probability(_hit_features(present)),
        direction.hit.probability(_hit_features(absent)),
        direction.answer.probability(_answer_features(present)),
        direction.answer.probability(_answer_features(absent)),
    )


def _draw_pair(
    asked: Asked, size: int, *, prior: tuple[float, float], rng: np.random.Generator
) -> tuple[Answers, Answers]:
    count = len(asked.present.own)
    some = asked.present
    if count > MOST_QUERIES:
        some = asked.present.part(np.sort(rng.choice(count, size=MOST_QUERIES, replace=False)))
    absent = asked.absent
    if asked.absent.allowed is None and size < len(asked.items):
        absent = asked.absent.part(np.tile(np.arange(len(asked.absent.own)), DRAWS_OF_ABSENT))
    return (
        draw_answers(some, asked.items, size=size, prior=prior, rng=rng),
        draw_answers(absent, asked.items, size=size, prior=prior, rng=rng),
    )


def _fit(
    pairs: Sequence[tuple[Answers, Answers]], *, prior: tuple[float, float], sizes: tuple[int, ...]
) -> DirectionCalibration:
    hit = _weights([(_hit_features(p), _hit_features(a)) for p, a in pairs])
    answer = _weights([(_answer_features(p), _answer_features(a)) for p, a in pairs])
    return DirectionCalibration(
        hit=hit,
        answer=answer,
        threshold=0.5,
        prior_mean=prior[0],
        prior_spread=prior[1],
        gallery_sizes=sizes,
    )


def _held_out(
    pairs: Sequence[tuple[Answers, Answers]], fold: int, *, prior: tuple[float, float], sizes: tuple[int, ...]
) -> list[Measured]:
    """Of each size, what a fit to the other folds says of this one."""
    kept = [(p.part(p.group % FOLDS != fold), a.part(a.group % FOLDS != fold)) for p, a in pairs]
    fitted = _fit(kept, prior=prior, sizes=sizes)
    return [measure(fitted, p.part(p.group % FOLDS == fold), a.part(a.group % FOLDS == fold)) for p, a in pairs]


def _flat_decision(pairs: Sequence[tuple[Answers, Answers]]) -> Decision:
    """What a cosine cutoff gets right in each fold, chosen on the others: the same test that the fit has."""
    above: tuple[list[NDArray[np.float64]], ...] = ([], [])
    for fold in range(FOLDS):
        cutoff = best_threshold(
            *(
                np.concatenate([pair[kind].best[pair[kind].group % FOLDS != fold] for pair in pairs])
                for kind in (0, 1)
            )
        )
        for kind in (0, 1):
            above[kind].extend(pair[kind].best[pair[kind].group % FOLDS == fold] - cutoff for pair in pairs)
    return decide(np.concatenate(above[0]), np.concatenate(above[1]), threshold=0.0)


def _weights(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Weights:
    """Every size of gallery counts the same, and in each of them both kinds."""
    pairs = [(fits, others) for fits, others in pairs if len(fits) and len(others)]
    features = np.concatenate([rows for pair in pairs for rows in pair])
    truth = np.concatenate(
        [np.full(len(rows), truth) for pair in pairs for rows, truth in zip(pair, (1.0, 0.0), strict=True)]
    )
    weight = np.concatenate([np.full(len(rows), 1.0 / len(rows)) for pair in pairs for rows in pair])
    intercept, (score, mean, spread, best) = fit_logistic(features, truth, weight=weight)
    if score <= 0:
        raise CalibrationError(
            f"a higher cosine does not make a match likelier (its weight is {score:.3g}): the bundle's "
            "vectors say nothing about these pairs"
        )
    return Weights(intercept=intercept, score=score, mean=mean, spread=spread, best_unrelated=best)


def _answer_features(answers: Answers) -> NDArray[np.float64]:
    return np.column_stack([answers.best, answers.background])


def _hit_features(answers: Answers) -> NDArray[np.float64]:
    rows, columns = np.nonzero(~np.isnan(answers.hits))
    return np.column_stack([answers.hits[rows, columns], answers.background[rows]])
