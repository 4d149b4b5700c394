"""Exact search over vectors, and what it refuses."""

import threading
import time
from pathlib import Path

import faiss
import numpy as np
import pytest

from encoders.errors import DeviceUnavailable
from index import vectors as vectors_module
from index.errors import BadQuery, CorruptRelease
from index.recall import measure_recall, recall_at
from index.vectors import VectorIndex, VectorWriter


def unit_rows(count, dim=8, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def saved(tmp_path):
    def save(rows):
        writer = VectorWriter(rows.shape[1])
        for start in range(0, len(rows), 7):
            writer.add(rows[start : start + 7])
        writer.write(tmp_path / "v.faiss")
        return tmp_path / "v.faiss"

    return save


def test_search_finds_what_comparing_everything_finds(saved):
    rows, queries = unit_rows(100), unit_rows(5, seed=1)
    index = VectorIndex.read(saved(rows))
    scores, found = index.search(queries, 10)
    exact = queries @ rows.T
    assert (len(index), index.dim, index.device) == (100, 8, "cpu")
    np.testing.assert_array_equal(found, np.argsort(-exact, axis=1)[:, :10])
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :10], atol=1e-6)


def test_rows_come_back_one_by_one_and_in_blocks(saved):
    rows = unit_rows(20)
    index = VectorIndex.read(saved(rows))
    np.testing.assert_array_equal(index.reconstruct(19), rows[19])
    np.testing.assert_array_equal(np.concatenate([block for _, block in index.blocks(8)]), rows)
    assert [start for start, _ in index.blocks(8)] == [0, 8, 16]
    for outside in (-1, 20):
        with pytest.raises(IndexError):
            index.reconstruct(outside)


@pytest.mark.parametrize("count", [0, 3])
def test_asking_for_more_than_there_is_pads_with_row_minus_one(saved, count):
    scores, rows = VectorIndex.read(saved(unit_rows(count))).search(unit_rows(2), 5)
    assert (rows[:, count:] == -1).all()
    assert np.isneginf(scores[:, count:]).all()
    assert (rows[:, :count] >= 0).all()


def test_no_query_finds_nothing(saved):
    scores, rows = VectorIndex.read(saved(unit_rows(3))).search(np.empty((0, 8), np.float32), 2)
    assert scores.shape == rows.shape == (0, 2)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.ones((1, 7), np.float32), 1, r"\(1, 7\).*\(n, 8\)"),
        (np.ones(8, np.float32), 1, r"\(8,\)"),
        (np.ones((1, 8), np.float32), 0, "k is 0"),
        (np.array([[0.0] * 8, [np.nan] * 8]), 1, "query 1"),
        (np.full((1, 8), np.inf, np.float32), 1, "query 0"),
        (np.full((1, 8), 1e300), 1, "query 0"),
    ],
)
def test_query_that_cannot_be_searched_with_says_why(saved, queries, k, message):
    with pytest.raises(BadQuery, match=message):
        VectorIndex.read(saved(unit_rows(3))).search(queries, k)


@pytest.mark.parametrize("kept_bytes", [0, 3, 20, 60, -4])
def test_cut_file_is_refused_by_name(saved, kept_bytes):
    path = saved(unit_rows(10))
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(CorruptRelease, match=r"v\.faiss"):
        VectorIndex.read(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk_is_said_with_the_file():
    writer = VectorWriter(8)
    writer.add(unit_rows(10_000))
    with pytest.raises(OSError, match=r"/dev/full cannot be written: .*No space left"):
        writer.write(Path("/dev/full"))


def test_index_of_another_metric_is_refused(tmp_path):
    faiss.write_index(faiss.IndexFlatL2(4), str(tmp_path / "v.faiss"))
    with pytest.raises(CorruptRelease, match="inner-product"):
        VectorIndex.read(tmp_path / "v.faiss")


def test_each_searching_thread_gets_the_threads_it_was_given(saved):
    """OpenMP keeps the number per thread: setting it once, elsewhere, would do nothing here."""
    index = VectorIndex.read(saved(unit_rows(10)), threads=3)
    seen = []

    def search():
        index.search(unit_rows(32), 1)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == [3]


@pytest.mark.parametrize("rows_per_slice", [1, 7, 10_000])
@pytest.mark.parametrize("penalised", [False, True])
def test_slices_and_chosen_rows_give_what_comparing_everything_gives(monkeypatch, rows_per_slice, penalised):
    monkeypatch.setattr(vectors_module, "ONE_SLICE_NUMBERS", rows_per_slice * 8)
    rows, queries = unit_rows(60), unit_rows(3, seed=5)
    penalties = np.random.default_rng(1).random(60).astype(np.float32) * penalised
    stored = np.concatenate([rows, -penalties[:, None]], axis=1) if penalised else rows
    flat = faiss.IndexFlatIP(stored.shape[1])
    flat.add(stored)
    index = VectorIndex(flat, threads=4, penalised=penalised)
    for among in (None, np.arange(60), np.arange(1, 60, 3), np.array([59]), np.empty(0, dtype=np.int64)):
        chosen = np.arange(60) if among is None else among
        scores, found = index.search(queries, 5, corrected=penalised, among=among)
        for query, row_scores, row_found in zip(queries, scores, found, strict=True):
            exact = rows[chosen] @ query
            best = chosen[np.argsort(penalties[chosen] - exact, kind="stable")][:5]
            assert row_found[: len(best)].tolist() == best.tolist()
            assert (row_found[len(best) :] == -1).all()
            np.testing.assert_allclose(row_scores[: len(best)], rows[best] @ query, atol=1e-6)
        bound = float((rows[7] @ queries[0]).round(3))
        for query, (kept_scores, kept) in zip(queries, index.within(queries, bound, among=among), strict=True):
            exact = rows[chosen] @ query
            assert kept.tolist() == chosen[exact >= bound].tolist()
            np.testing.assert_allclose(kept_scores, exact[exact >= bound], atol=1e-6)
        less = index.within(queries, bound, corrected=penalised, among=among)
        for query, (kept_scores, kept) in zip(queries, less, strict=True):
            exact = rows[chosen] @ query
            enough = exact - penalties[chosen] >= bound
            assert kept.tolist() == chosen[enough].tolist()
            np.testing.assert_allclose(kept_scores, exact[enough], atol=1e-6)


def test_a_threshold_takes_in_what_lies_on_it():
    flat = faiss.IndexFlatIP(2)
    flat.add(np.array([[1.0, 0.0], [0.5, 0.0], [0.25, 0.0]], dtype=np.float32))
    ((scores, rows),) = VectorIndex(flat).within(np.array([[1.0, 0.0]], dtype=np.float32), 0.5)
    assert (scores.tolist(), rows.tolist()) == ([1.0, 0.5], [0, 1])


def test_recall_is_one_for_exact_search_and_less_for_an_index_that_misses(saved):
    rows = unit_rows(50)
    index = VectorIndex.read(saved(rows))
    measured = measure_recall(index, index, queries="images", query_count=20)
    assert (measured.recall, measured.k, measured.query_count) == (1.0, 10, 20)

    class Lossy(VectorIndex):
        def search(self, queries, k, **how):
            scores, found = super().search(queries, k, **how)
            found[:, : k // 2] = found[:, :1]  # the same best row again and again
            return scores, found

    assert recall_at(Lossy(faiss.read_index(str(saved(rows)))), unit_rows(20, seed=1), k=10) == pytest.approx(
        0.6
    )


def test_recall_counts_equal_scores_as_equally_right(saved):
    rows = np.repeat(unit_rows(4), 25, axis=0)
    index = VectorIndex.read(saved(rows))
    assert recall_at(index, unit_rows(5, seed=2), k=10) == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="no GPU")
def test_gpu_search_agrees_with_the_cpu_at_any_depth(saved):
    rows, queries = unit_rows(5000, dim=64), unit_rows(16, dim=64, seed=1)
    path = saved(rows)
    on_gpu, on_cpu = VectorIndex.read(path, device="gpu"), VectorIndex.read(path, device="cpu")
    assert on_gpu.device == "gpu"
    for k in (1, 100, 3000):  # the last is deeper than a GPU selects
        np.testing.assert_allclose(on_gpu.search(queries, k)[0], on_cpu.search(queries, k)[0], atol=1e-5)


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="there is a GPU")
def test_gpu_that_is_not_there_is_refused_when_insisted_on(saved):
    path = saved(unit_rows(3))
    assert VectorIndex.read(path, device="auto").device == "cpu"
    with pytest.raises(DeviceUnavailable, match="faiss sees none"):
        VectorIndex.read(path, device="gpu")


def test_a_threshold_among_very_many_rows_takes_no_longer_than_reading_them():
    """faiss asks of each row whether it is chosen, and reads an array of those through each time."""
    flat = faiss.IndexFlatIP(2)
    flat.add(np.ones((200_000, 2), dtype=np.float32))
    among, started = np.arange(0, 200_000, 2), time.perf_counter()
    ((_, rows),) = VectorIndex(flat).within(np.ones((1, 2), dtype=np.float32), 1.0, among=among)
    assert time.perf_counter() - started < 1.0
    np.testing.assert_array_equal(rows, among)
