from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from training.data.pairs import ImageSource
from training.fit.step.hard_negatives import gathered, nearest
from training.fit.step.mixture import Example
from training.fit.views.views import TrainingImage

TOPICS = 25
EACH = 8


def example(number: int) -> Example:
    image = TrainingImage(ImageSource(Path(f"{number}.png")), number.to_bytes(32, "big"), flippable=True)
    return Example(image, ("a caption",), 0, number)


def world() -> tuple[list[Example], np.ndarray]:
    """200 examples of 25 topics, shuffled; those of one topic lie near each other."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.standard_normal((TOPICS, 16)), EACH, axis=0)
    vectors = centres + 0.1 * rng.standard_normal(centres.shape)
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return [example(int(number)) for number in rng.permutation(TOPICS * EACH)], nearest(unit, EACH - 1)


def together(order: list[Example], batch: int) -> float:
    """Mean number of others of its own topic that an example has in its batch."""
    topics = [one.number // EACH for one in order]
    batches = [topics[start : start + batch] for start in range(0, len(topics), batch)]
    return float(np.mean([part.count(topic) - 1 for part in batches for topic in part]))


def test_the_nearest_are_found_block_by_block_and_no_row_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((50, 6)).astype(np.float32)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    expected = np.argsort(-scores, axis=1)[:, :5]
    np.testing.assert_array_equal(nearest(vectors, 5), expected)
    monkeypatch.setattr("training.fit.step.hard_negatives.BLOCK_SCORES", 7 * 50)
    np.testing.assert_array_equal(nearest(vectors, 5), expected)
    assert nearest(vectors[:3], 16).shape == (3, 2)


def test_a_share_of_each_batch_are_neighbours_and_an_epoch_sees_the_same_images_as_often() -> None:
    order, near = world()
    order += order[:40]  # a source of a weight above 1
    arranged = gathered(order, near, 0, 0, 0, batch=20, share=0.5)
    assert Counter(one.number for one in arranged) == Counter(one.number for one in order)
    assert together(arranged, 20) > 2 * together(order, 20)
    assert together(gathered(order, near, 0, 0, 0, batch=20, share=0.8), 20) > together(arranged, 20)


def test_no_share_leaves_the_order_as_it_is() -> None:
    order, near = world()
    assert gathered(order, near, 0, 0, 0, batch=20, share=0.0) == order


def test_the_order_depends_on_its_key_alone() -> None:
    order, near = world()
    first = gathered(order, near, 3, 0, 1, batch=20, share=0.5)
    assert gathered(order, near, 3, 0, 1, batch=20, share=0.5) == first
    assert gathered(order, near, 3, 0, 2, batch=20, share=0.5) != first
