"""Adapted bundles: what moves an embedding is in the fingerprint; the query bank is beside it."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from encoders.adaptation import ADAPTATION, AffineMap, adaptation_bytes, read_adaptation
from encoders.bundle import MANIFEST, Bundle, read_files, write_bundle
from encoders.encoder import Encoder, load_towers
from encoders.errors import CorruptBundle
from encoders.query_bank import QUERY_BANK, QueryBank, hubness, query_bank_bytes, read_query_bank

DIM = 16


def adapted(tiny_bundle, path, adaptation):
    parent = Bundle.open(tiny_bundle)
    return write_bundle(
        path,
        config=parent.config.model_copy(update={"adaptation": "affine"}),
        state=load_towers(parent).state_dict(),
        files={**read_files(parent), ADAPTATION: adaptation_bytes(adaptation)},
    )


def units(count, *, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bank(fingerprint, **changes):
    return QueryBank(**{"rows": {"texts": units(20)}, "fingerprint": fingerprint, **changes})


def test_each_modality_goes_through_its_own_map_and_comes_out_as_unit_rows(tiny_bundle, tmp_path):
    mean, weight = torch.linspace(-0.2, 0.3, DIM), torch.eye(DIM).roll(1, 0) * 2.0
    made = adapted(tiny_bundle, tmp_path / "a", {"images": AffineMap(mean, weight), "texts": AffineMap(-mean)})
    plain, encoder = Encoder.load(tiny_bundle, device="cpu"), Encoder.load(made.path, device="cpu")
    image, text = [Image.new("RGB", (40, 40), (200, 20, 90))], ["a red dog"]
    moved = (plain.encode_images(image) - mean.numpy()) @ weight.numpy().T
    np.testing.assert_allclose(encoder.encode_images(image), moved / np.linalg.norm(moved), atol=1e-6)
    shifted = plain.encode_texts(text).vectors + mean.numpy()
    np.testing.assert_allclose(encoder.encode_texts(text).vectors, shifted / np.linalg.norm(shifted), atol=1e-6)


def test_an_adaptation_is_part_of_the_fingerprint_and_of_format_2(tiny_bundle, tmp_path):
    small = adapted(tiny_bundle, tmp_path / "a", {"images": AffineMap(torch.full((DIM,), 0.01))})
    large = adapted(tiny_bundle, tmp_path / "b", {"images": AffineMap(torch.full((DIM,), 0.02))})
    assert len({Bundle.open(tiny_bundle).fingerprint, small.fingerprint, large.fingerprint}) == 3
    assert json.loads((small.path / MANIFEST).read_text())["format"] == 2
    with pytest.raises(ValueError, match="part of what the fingerprint covers"):
        small.with_file(ADAPTATION, b"")


def test_a_bundle_without_an_adaptation_is_written_as_before(tiny_bundle):
    manifest = json.loads((tiny_bundle / MANIFEST).read_text())
    assert manifest["format"] == 1
    assert "adaptation" not in manifest


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"images.mean": torch.zeros(DIM - 1)}, r"images.mean has shape \(15,\)"),
        ({"images.slope": torch.zeros(DIM)}, "images.slope"),
        ({"texts.mean": torch.full((DIM,), torch.nan)}, "texts.mean holds numbers that are not finite"),
    ],
)
def test_a_misshapen_adaptation_is_refused_by_its_tensors_name(tmp_path, tensors, complaint):
    (tmp_path / ADAPTATION).write_bytes(save(tensors))
    with pytest.raises(CorruptBundle, match=complaint):
        read_adaptation(tmp_path / ADAPTATION, dim=DIM)


def test_the_mean_itself_becomes_zero_not_nan():
    mean = torch.tensor([0.6, 0.8])
    assert AffineMap(mean)(torch.tensor([[0.6, 0.8], [0.8, 0.6]])).isfinite().all()


def test_an_item_near_all_queries_has_the_largest_bias():
    queries = units(50)
    hub = queries.mean(axis=0) / np.linalg.norm(queries.mean(axis=0))
    items = np.concatenate([units(30, seed=1), hub[None]]).astype(np.float32)
    nearest = np.sort(items @ queries.T, axis=1)
    np.testing.assert_allclose(hubness(items, queries, k=5), nearest[:, -5:].mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(hubness(items, queries, k=999), nearest.mean(axis=1), atol=1e-6)
    assert hubness(items, queries, k=50).argmax() == 30


def test_a_bank_changes_no_fingerprint_and_comes_back_as_written(make_bundle, tmp_path):
    plain = make_bundle(tmp_path / "bundle")
    with_bank = plain.with_file(QUERY_BANK, query_bank_bytes(bank(plain.fingerprint, alpha=0.5, k=7)))
    found = Encoder.load(with_bank.path, device="cpu").query_bank
    assert with_bank.fingerprint == plain.fingerprint
    assert found is not None
    assert (found.alpha, found.k) == (0.5, 7)
    assert found.corrects("images")
    assert not found.corrects("texts")
    np.testing.assert_allclose(found.rows["texts"], units(20), atol=1e-3)
    np.testing.assert_array_equal(found.penalty(units(3), "texts"), 0)


def test_another_encoders_bank_is_refused_with_both_fingerprints(tmp_path):
    (tmp_path / QUERY_BANK).write_bytes(query_bank_bytes(bank("f" * 64)))
    with pytest.raises(CorruptBundle, match=f"(?s){'f' * 64}.*{'e' * 64}"):
        read_query_bank(tmp_path, fingerprint="e" * 64, dim=DIM)
    with pytest.raises(CorruptBundle, match=r"expected \(n, 8\)"):
        read_query_bank(tmp_path, fingerprint="f" * 64, dim=8)
    (tmp_path / QUERY_BANK).write_bytes(b"no safetensors")
    with pytest.raises(CorruptBundle, match="no readable query bank"):
        read_query_bank(tmp_path, fingerprint="f" * 64, dim=DIM)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"k": 0}, "k is 0"),
        ({"rows": {}}, "holds no query"),
        ({"rows": {"texts": units(2) * 3}}, "length 3"),
        ({"rows": {"texts": units(2) * np.nan}}, "length nan"),
    ],
)
def test_a_bank_that_could_not_be_used_is_not_written(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        query_bank_bytes(dataclasses.replace(bank("f" * 64), **changes))
