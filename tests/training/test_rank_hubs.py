"""Ranking with a query bank: as a release with that bank searches."""

import numpy as np
import pytest

from encoders.query_bank import QueryBank
from training.ranks import rank_pairs

# Three captions, their images near them, and a fourth image that is nearer to all of them: the hub.
CAPTIONS = np.eye(4, dtype=np.float32)[:3]
IMAGES = np.array(
    [[0.5, 0, 0, 0.87], [0, 0.5, 0, 0.87], [0, 0, 0.5, 0.87], [0.577, 0.577, 0.577, 0]], np.float32
)


def ranks(**bank):
    made = QueryBank(rows={"texts": CAPTIONS}, fingerprint="f" * 64, **bank) if bank else None
    return rank_pairs(IMAGES, CAPTIONS, caption_image=[0, 1, 2], bank=made)


def test_a_bank_demotes_the_hub_below_the_right_images():
    assert ranks().text_to_image.above.tolist() == [1, 1, 1]
    assert ranks(alpha=1.0, k=3).text_to_image.above.tolist() == [0, 0, 0]


def test_a_bank_of_texts_leaves_the_search_of_texts_alone():
    assert ranks(alpha=1.0, k=3).image_to_text.above.tolist() == ranks().image_to_text.above.tolist()


@pytest.mark.parametrize("copies", [1, 3])
def test_identical_images_still_tie_to_the_bit(copies):
    images = np.concatenate([IMAGES] * copies)
    bank = QueryBank(rows={"texts": CAPTIONS}, fingerprint="f" * 64, alpha=0.7, k=2)
    found = rank_pairs(images, CAPTIONS, caption_image=[0, 1, 2], bank=bank)
    assert found.text_to_image.tied.tolist() == [copies] * 3
