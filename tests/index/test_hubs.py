"""Releases of a bundle with a query bank: penalties for hubs in one more column, and nowhere else."""

import json

import faiss
import numpy as np
import pytest

from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from index.recall import recall_at
from index.release import Release
from index.vectors import VectorIndex, VectorWriter


def unit_rows(count, dim=16, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def only(releases):
    (path,) = (path for path in releases.iterdir() if (path / "manifest.json").exists())
    return path


@pytest.fixture(scope="module")
def bundle_with_bank(tmp_path_factory, make_bundle):
    plain = make_bundle(tmp_path_factory.mktemp("bank") / "tiny")
    rows = {"texts": unit_rows(30), "images": unit_rows(9, seed=1)}
    bank = QueryBank(rows=rows, fingerprint=plain.fingerprint, alpha=0.5, k=4)
    return plain.with_file(QUERY_BANK, query_bank_bytes(bank)), bank


@pytest.fixture(scope="module")
def corrected(tmp_path_factory, table, index_gallery, bundle_with_bank):
    releases = tmp_path_factory.mktemp("corrected")
    index_gallery(table, releases, bundle=bundle_with_bank[0].path)
    return releases


def test_rebuild_stores_alpha_times_the_mean_of_the_nearest_bank_queries(corrected, bundle_with_bank):
    release = Release.load(corrected)
    bank = bundle_with_bank[1].rows
    for index, queries in ((release.images, bank["texts"]), (release.texts, bank["images"])):
        ((_, rows),) = index.blocks()
        nearest = np.sort(rows @ queries.astype(np.float16).astype(np.float32).T, axis=1)[:, -4:]
        np.testing.assert_allclose(index.penalties, 0.5 * nearest.mean(axis=1), atol=1e-6)
    assert release.manifest.hubness.model_dump() == {
        "alpha": 0.5, "k": 4, "bank_queries": {"images": 30, "texts": 9},
    }  # fmt: skip


def test_vectors_given_out_never_carry_the_column(corrected, published):
    with_bank, without = Release.load(corrected), Release.load(published)
    stored = faiss.read_index(str(only(corrected) / "image_vectors.faiss"))
    assert (stored.d, with_bank.images.dim, with_bank.manifest.dim) == (17, 16, 16)
    np.testing.assert_allclose(with_bank.images.reconstruct(3), without.images.reconstruct(3), atol=1e-6)
    for one, other in zip(with_bank.texts.blocks(3), without.texts.blocks(3), strict=True):
        np.testing.assert_allclose(one[1], other[1], atol=1e-6)


def test_corrected_search_orders_by_score_less_penalty_and_reports_the_score(corrected):
    images, queries = Release.load(corrected).images, unit_rows(5, seed=7)
    ((_, rows),) = images.blocks()
    cosines = queries @ rows.T
    for flag, ordered in ((True, cosines - images.penalties), (False, cosines)):
        scores, found = images.search(queries, 12, corrected=flag)
        np.testing.assert_array_equal(found, np.argsort(-ordered, axis=1))
        np.testing.assert_allclose(scores, np.take_along_axis(cosines, found, axis=1), atol=1e-6)
        assert recall_at(images, queries, k=3, corrected=flag) == 1.0


def test_a_hub_that_came_up_for_everything_no_longer_does(tmp_path):
    """The hub is what all queries share; the bank's queries share it too, and are about other things."""
    shared, own, others = np.eye(41)[:1], np.eye(41)[1:21], np.eye(41)[21:]
    queries, bank_queries, answers = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        for rows in (shared + 1.5 * own, shared + 1.5 * others, 0.6 * shared + 0.8 * own)
    )
    bank = QueryBank(rows={"texts": bank_queries}, fingerprint="f" * 64, alpha=1.2, k=20)
    writer = VectorWriter(41, penalty=lambda rows: bank.penalty(rows, "images"))
    items = np.concatenate([answers, shared]).astype(np.float32)
    for start in range(0, 21, 4):
        writer.add(items[start : start + 4])
    assert len(writer) == 21
    writer.write(tmp_path / "v.faiss")
    index = VectorIndex.read(tmp_path / "v.faiss", penalised=True)
    plain, corrected = (index.search(queries, 3, corrected=flag)[1] for flag in (False, True))
    assert [int(np.sum(found == 20)) for found in (plain, corrected)] == [20, 0]
    assert plain[:, 0].tolist() == corrected[:, 0].tolist() == list(range(20))


def test_a_release_without_a_bank_is_of_the_format_it_always_was(published):
    manifest = json.loads((only(published) / "manifest.json").read_text())
    assert manifest["format_version"] == 1
    assert "hubness" not in manifest
    assert faiss.read_index(str(only(published) / "image_vectors.faiss")).d == 16
    assert Release.load(published).images.penalties is None


def test_a_release_with_a_bank_tells_earlier_versions_so(corrected):
    assert json.loads((only(corrected) / "manifest.json").read_text())["format_version"] == 2
