"""Ranking with a query bank: as a release with that bank searches."""

import numpy as np
import pytest

from encoders.encoder import Encoder
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from training.data.captions import group_captions
from training.data.pairs import read_pairs
from training.evaluation.embedding import embed_pairs
from training.evaluation.evaluate import measure
from training.evaluation.ranks import rank_pairs

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


def test_evaluate_ranks_by_the_bundles_bank(make_bundle, coloured_pairs, tmp_path):
    plain, pairs = make_bundle(tmp_path / "bundle"), read_pairs(coloured_pairs(tmp_path / "data"))
    encoder = Encoder.load(plain, device="cpu")
    embedded = embed_pairs(encoder, pairs)
    bank = QueryBank(rows={"texts": embedded.image_vectors[:1]}, fingerprint=plain.fingerprint, alpha=5.0, k=1)
    with_bank = make_bundle(tmp_path / "with bank").with_file(QUERY_BANK, query_bank_bytes(bank))
    ranked = []
    for each in (plain, with_bank):
        measure(Encoder.load(each, device="cpu"), [pairs], on_ranked=ranked.append)
    expected = rank_pairs(
        embedded.image_vectors,
        embedded.caption_vectors,
        caption_image=embedded.caption_image,
        caption_group=group_captions(embedded.captions),
        bank=Encoder.load(with_bank, device="cpu").query_bank,
    )
    before, after = (each.retrieval for each in ranked)
    assert after.text_to_image.above.tolist() == expected.text_to_image.above.tolist()
    assert after.text_to_image.above.tolist() != before.text_to_image.above.tolist()
    assert after.image_to_text.above.tolist() == before.image_to_text.above.tolist()
