import itertools

import numpy as np
import pytest

from training.evaluation.zero_shot import class_accuracies, classify, most_confused, top_accuracies


def literal_top_k(images: np.ndarray, classes: np.ndarray, image_class: np.ndarray, k: int) -> np.ndarray:
    """The share of all orders of the classes in which a stable sort by score has the right one in the top k."""
    orders = list(itertools.permutations(range(len(classes))))
    hits = np.zeros(len(images))
    for row, image in enumerate(images):
        scores = classes @ image
        for order in orders:
            ranked = sorted(order, key=lambda c: -scores[c])
            hits[row] += int(image_class[row]) in ranked[:k]
    return hits / len(orders)


def test_top_k_is_what_sorting_by_score_in_every_order_of_the_classes_gives() -> None:
    rng = np.random.default_rng(3)
    images = rng.integers(-2, 3, (40, 3)).astype(np.float32)  # whole numbers: no rounding hides or makes a tie
    classes = rng.integers(-1, 2, (5, 3)).astype(np.float32)
    classes[4] = classes[1]  # two names, one vector: a tie in every image
    image_class = rng.integers(0, 5, 40)
    ranks = classify(images, classes, image_class=image_class).ranks
    assert ranks.tied_queries > 5
    for k in (1, 2, 4):
        assert ranks.hit_probability(k) == pytest.approx(literal_top_k(images, classes, image_class, k))
    top = top_accuracies(ranks, classes=5, tops=(1, 5), samples=200)
    assert list(top) == [1]  # a top-5 of five classes says nothing
    assert top[1].value == pytest.approx(literal_top_k(images, classes, image_class, 1).mean())
    assert top[1].low < top[1].value < top[1].high


def test_a_collapsed_encoder_gets_chance() -> None:
    same = np.full((30, 4), 0.5, dtype=np.float32)
    result = classify(same, same[:10], image_class=np.arange(30) % 10)
    assert top_accuracies(result.ranks, classes=10)[1].value == pytest.approx(0.1)
    assert top_accuracies(result.ranks, classes=10)[5].value == pytest.approx(0.5)
    assert [each.top1 for each in class_accuracies(result.guesses, list("abcdefghij"))] == pytest.approx(
        [0.1] * 10
    )


def test_mistakes_are_counted_by_class_and_the_most_frequent_come_first() -> None:
    classes = np.eye(4, dtype=np.float32)
    seen_as = {0: [0, 0, 0, 1], 1: [1, 2, 2], 2: [2]}  # no image of class 3
    pairs = [(own, taken) for own, all_taken in seen_as.items() for taken in all_taken]
    images = classes[[taken for _, taken in pairs]]
    guesses = classify(images, classes, image_class=np.array([own for own, _ in pairs])).guesses
    names = ["cat", "dog", "fox", "owl"]
    accuracies = {each.name: each for each in class_accuracies(guesses, names)}
    assert list(accuracies) == ["cat", "dog", "fox"]
    assert (accuracies["dog"].images, accuracies["dog"].guessed) == (3, 2)
    assert [each.top1 for each in accuracies.values()] == pytest.approx([3 / 4, 1 / 3, 1])
    assert [(each.name, each.taken_for, each.images) for each in most_confused(guesses, names)] == [
        ("dog", "fox", 2),
        ("cat", "dog", 1),
    ]
    assert most_confused(guesses, names)[0].share == pytest.approx(2 / 3)
