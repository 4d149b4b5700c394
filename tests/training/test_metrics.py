"""The metrics against a literal reading of EVALUATION's words: every order of tied items, enumerated."""

from itertools import permutations

import numpy as np
import pytest

from training.evaluation.metrics import (
    bootstrap_differences,
    bootstrap_draws,
    bootstrap_means,
    fold_recall,
    images_for,
    summarise,
)
from training.evaluation.ranks import DIRECTIONS, rank_pairs


def literal_expectations(scores: list[float], positives: set[int]) -> dict[str, float]:
    """Mean over all orders of the gallery, stably sorted by score: hits, first rank, AP@R."""
    totals = {"hit1": 0.0, "hit2": 0.0, "hit3": 0.0, "rank": 0.0, "precision": 0.0}
    orders = list(permutations(range(len(scores))))
    for order in orders:
        ranking = sorted(order, key=lambda item: -scores[item])
        found = [place for place, item in enumerate(ranking, 1) if item in positives]
        for k in (1, 2, 3):
            totals[f"hit{k}"] += found[0] <= k
        totals["rank"] += found[0]
        inside = [place for place in found if place <= len(positives)]
        totals["precision"] += sum(nth / place for nth, place in enumerate(inside, 1)) / len(positives)
    return {name: total / len(orders) for name, total in totals.items()}


def random_case(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Small integers, so that products are exact and ties are many; some texts shared, some images bare."""
    images, captions = int(rng.integers(1, 6)), int(rng.integers(1, 7))
    dim, reach = int(rng.integers(1, 4)), int(rng.integers(1, 3))
    return (
        rng.integers(-reach, reach + 1, (images, dim)),
        rng.integers(-reach, reach + 1, (captions, dim)),
        rng.integers(images, size=captions),
        rng.integers(int(rng.integers(1, 7)), size=captions),
    )


@pytest.mark.parametrize("seed", range(60))
def test_every_figure_equals_its_mean_over_all_orders_of_tied_items(seed: int) -> None:
    images, captions, owner, group = random_case(np.random.default_rng(seed))
    scores = captions @ images.T
    retrieval = rank_pairs(images, captions, caption_image=owner, caption_group=group)
    bearers = {int(g): {int(i) for i in owner[group == g]} for g in group}
    expected = {
        "text_to_image": [
            literal_expectations(row, bearers[int(g)]) for row, g in zip(scores.tolist(), group, strict=True)
        ],
        "image_to_text": [
            literal_expectations(
                scores[:, i].tolist(), {c for c, g in enumerate(group) if int(i) in bearers[int(g)]}
            )
            for i in np.unique(owner)
        ],
    }
    for direction in DIRECTIONS:
        ranks, literal = retrieval.direction(direction), expected[direction]
        for k in (1, 2, 3):
            assert ranks.hit_probability(k) == pytest.approx([case[f"hit{k}"] for case in literal])
        assert ranks.expected_rank == pytest.approx([case["rank"] for case in literal])
        assert ranks.average_precision == pytest.approx([case["precision"] for case in literal])


def test_a_collapsed_model_gets_chance_and_every_query_counts_as_tied() -> None:
    images, captions = np.ones((100, 8)), np.ones((500, 8))
    retrieval = rank_pairs(images, captions, caption_image=np.repeat(np.arange(100), 5))
    figures = summarise(retrieval, samples=50)
    assert figures["text_to_image"].recall[10].value == pytest.approx(10 / 100)
    assert figures["text_to_image"].median_rank == pytest.approx(50.5)
    assert figures["image_to_text"].recall[1].value == pytest.approx(5 / 500)
    assert figures["text_to_image"].tied_queries == 500
    assert figures["image_to_text"].tied_queries == 100


def test_identical_rows_tie_to_the_bit_wherever_the_matrix_product_puts_them() -> None:
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((3, 517)).astype(np.float32)
    images = distinct[np.arange(997) % 3]
    ranks = rank_pairs(images, distinct, caption_image=np.arange(3)).text_to_image
    copies = np.bincount(np.arange(997) % 3)
    assert (ranks.tied == copies).all()


def test_captions_of_one_group_are_positives_for_all_the_images_that_bear_them() -> None:
    images = np.eye(3)
    captions = np.array([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])  # the first belongs to image 0
    apart = rank_pairs(images, captions, caption_image=[0, 1, 2]).text_to_image
    together = rank_pairs(images, captions, caption_image=[0, 1, 2], caption_group=[7, 7, 9]).text_to_image
    assert apart.hit_probability(1).tolist() == [0, 1, 1]
    assert together.hit_probability(1).tolist() == [1, 1, 1]


def test_blocks_of_any_size_give_the_same_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    images, captions = rng.integers(-2, 3, (40, 6)), rng.integers(-2, 3, (120, 6))
    owner = rng.integers(40, size=120)
    whole = rank_pairs(images, captions, caption_image=owner)
    monkeypatch.setattr("training.evaluation.ranks.BLOCK_SCORES", 100)
    blocked = rank_pairs(images, captions, caption_image=owner)
    for direction in DIRECTIONS:
        for field in ("above", "tied", "tied_positives", "average_precision", "image"):
            assert (
                getattr(whole.direction(direction), field) == getattr(blocked.direction(direction), field)
            ).all()


def test_the_bootstrap_interval_has_the_width_that_theory_gives_and_repeats_by_seed() -> None:
    hits = np.random.default_rng(2).random(400) < 0.3
    image = np.arange(400)
    [estimate] = bootstrap_means([hits.astype(float)], [image], samples=4000, seed=5)
    error = np.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    assert estimate.value == pytest.approx(hits.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.08)
    precision = np.random.default_rng(3).random(400)  # hits are too coarse for two seeds to differ by
    assert bootstrap_means([precision], [image], seed=5) == bootstrap_means([precision], [image], seed=5)
    assert bootstrap_means([precision], [image], seed=5) != bootstrap_means([precision], [image], seed=6)


def test_the_bootstrap_draws_images_so_five_equal_captions_do_not_narrow_the_interval() -> None:
    hits = (np.random.default_rng(3).random(200) < 0.5).astype(float)
    [single] = bootstrap_means([hits], [np.arange(200)], seed=1)
    [fivefold] = bootstrap_means([np.repeat(hits, 5)], [np.repeat(np.arange(200), 5)], seed=1)
    assert (fivefold.low, fivefold.high) == pytest.approx((single.low, single.high), abs=0.011)


@pytest.mark.parametrize(("images", "least"), [(40, 0.02), (80, 0.01), (1000, 0.0005)])
def test_nothing_missed_or_nothing_differing_is_no_certainty(images: int, least: float) -> None:
    found, owners = np.ones(5 * images), np.repeat(np.arange(images), 5)
    [all_found] = bootstrap_means([found], [owners])
    [none_found] = bootstrap_means([0 * found], [owners])
    [same] = bootstrap_differences([found], [found], [owners])
    assert (all_found.high, none_found.low) == (1, 0)
    assert all_found.low <= 1 - least
    assert none_found.high >= least
    assert same.low <= -least / 2
    assert same.high >= least / 2


def test_a_mean_over_conditions_is_no_surer_of_an_unseen_image_than_one() -> None:
    sums, counts = np.ones((60, 9)), np.ones((60, 9))
    together, apart = (
        bootstrap_draws(sums, counts, kinds=kinds).mean(axis=1).min() for kinds in ([0] * 9, None)
    )
    assert together < apart


def test_fold_recall_is_the_mean_of_each_fold_ranked_alone() -> None:
    rng = np.random.default_rng(4)
    images, captions = rng.standard_normal((20, 4)), rng.standard_normal((60, 4))
    owner = np.tile(np.arange(20), 3)
    folded = fold_recall(images, captions, caption_image=owner, folds=5, ks=(1,))
    alone = [
        rank_pairs(
            images[4 * f : 4 * f + 4],
            captions[owner // 4 == f],
            caption_image=owner[owner // 4 == f] - 4 * f,
        )
        for f in range(5)
    ]
    assert folded["text_to_image"][1] == pytest.approx(
        np.mean([fold.text_to_image.hit_probability(1).mean() for fold in alone])
    )
    with pytest.raises(ValueError, match="20 images do not divide into 3"):
        fold_recall(images, captions, caption_image=owner, folds=3)


@pytest.mark.parametrize(
    ("images", "captions", "owner", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), [0, 1], "images have 3 dimensions, captions 4"),
        (np.ones((0, 3)), np.ones((2, 3)), [0, 1], "at least one row"),
        (np.array([[1.0], [np.nan]]), np.ones((1, 1)), [0], "image_vectors row 1 is not finite"),
        (np.ones((2, 3)), np.ones((2, 3)), [0, 2], "rows 0 to 2 of 2 images"),
        (np.ones((2, 3)), np.ones((2, 3)), [0], "must be 2 row numbers"),
    ],
)
def test_inputs_that_do_not_fit_together_are_refused_with_their_values(
    images: np.ndarray, captions: np.ndarray, owner: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        rank_pairs(images, captions, caption_image=owner)


def test_how_many_images_an_interval_needs_grows_with_its_square() -> None:
    assert images_for(40, 0.1, 0.1) == 40
    assert images_for(79, 0.05, 0.02) == 500  # 493.75
    assert images_for(100, 0.2, 0.05) == 1600
