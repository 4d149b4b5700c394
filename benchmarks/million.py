"""Search over a million vectors: the real service over HTTP on a release of generated ones, and faiss alone on
the very file, in turns. What is compared is the p50 of one client's searches.

faiss alone is `IndexFlatIP.search` on the memory-mapped file: with as many threads as there are cores, and with
one; the faster is the measure. Vectors are random unit rows: nothing depends on an encoder but the dimension.
"""

import http.client
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np

from benchmarks.comparison import quantile
from benchmarks.http import BenchmarkFailed, post_json, serving
from benchmarks.machine import MEBIBYTE, own_cpu_seconds
from encoders.bundle import Bundle
from index import catalog
from index.image_files import ImageSource, digest_of
from index.items import ITEM_SCHEMA, TEXT_SCHEMA, ItemRecord, TableWriter
from index.manifest import PLAIN_FORMAT_VERSION, Counts, GallerySource, Manifest
from index.publish import describe_files, new_release_id, publish, rebuild_lock, staging_folder
from index.staging import stage_bundle
from index.vectors import VectorWriter

RELEASES = "million"
QUERIES = 64
FIRST_FILTER_SECONDS = 300.0
CATEGORIES = 10
YEARS = range(1900, 2000)
ROWS_PER_BLOCK = 16_384
WAYS: dict[str, dict[str, Any]] = {
    "10 results": {"k": 10, "with_payload": False},
    "10 results with payload": {"k": 10},
    "1,000 results with payload": {"k": 1000},
    "10 of a tenth, by a filter": {
        "k": 10,
        "filter": {"must": [{"key": "category", "match": {"value": "category 3"}}]},
    },
    "10 of nine tenths, by a filter": {
        "k": 10,
        "filter": {"must_not": [{"key": "category", "match": {"value": "category 3"}}]},
    },
}


@dataclass(frozen=True)
class MillionRow:
    """Medians over rounds: p50 in ms, and its ratio to faiss alone; the same of the CPU time of a search."""

    what: str
    p50_milliseconds: float
    ratio: float
    cpu_milliseconds: float
    cpu_ratio: float


@dataclass(frozen=True)
class Million:
    """Search over `vectors` of `dim`; `alone`: p50 and CPU time in ms of faiss alone, by number of threads."""

    vectors: int
    dim: int
    alone: dict[int, tuple[float, float]]
    rows: list[MillionRow]
    service_peak_mebibytes: float
    vectors_mebibytes: float


def search_million(
    bundle: Path, workplace: Path, *, vectors: int, rounds: int, seconds: float, say: Callable[[str], None]
) -> Million:
    """Needs 4 · dim bytes a vector on the disk, and again in memory. Raises BenchmarkFailed."""
    releases = workplace / RELEASES
    say(f"the making of a release of {vectors:,} vectors")
    path, fingerprint, dim = make_release(releases, bundle, vectors)
    queries = unit_rows(np.random.default_rng(1), QUERIES, dim)
    alone: dict[int, list[tuple[float, float]]] = {}
    served: dict[str, list[tuple[float, float]]] = {}
    with serving(releases, workplace, dict(os.environ)) as service:
        for number in range(rounds):
            say(f"search over {vectors:,} vectors, round {number + 1} of {rounds}")
            for threads in sorted({1, os.cpu_count() or 1}):
                found = faiss_alone(
                    path / catalog.IMAGE_VECTORS_NAME, queries, threads=threads, seconds=seconds
                )
                alone.setdefault(threads, []).append(found)
            for what, options in WAYS.items():
                requests = [
                    post_json("/search/vector", {"vector": row, "model_fingerprint": fingerprint, **options})
                    for row in queries.tolist()
                ]
                if not number:
                    _read_payloads(service.port, options.get("filter"), queries[0], fingerprint)
                load = service.put_load(requests, clients=1, warm_up_seconds=1.0, seconds=seconds)
                cpu = load.server_cpu * load.wall_seconds / load.answers
                served.setdefault(what, []).append((quantile(load.latencies_seconds, 0.5) * 1e3, cpu * 1e3))
        peak = service.peak_memory_mebibytes()
    # Of each round the best in either figure, though one thread may give the one and several the other.
    fastest = [
        (min(p50 for p50, _ in each), min(cpu for _, cpu in each)) for each in zip(*alone.values(), strict=True)
    ]
    rows = [_row(what, found, fastest) for what, found in served.items()]
    own = {threads: _medians(found) for threads, found in alone.items()}
    return Million(vectors, dim, own, rows, peak, 4 * dim * vectors / MEBIBYTE)


def _read_payloads(port: int, condition: object, query: np.ndarray, fingerprint: str) -> None:
    """The first filter on a key has all payloads read, however long that takes: it is not what is measured."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FIRST_FILTER_SECONDS)
    body = {"vector": query.tolist(), "model_fingerprint": fingerprint, "filter": condition}
    headers = {"content-type": "application/json", "x-deadline-ms": f"{FIRST_FILTER_SECONDS * 1000:.0f}"}
    try:
        connection.request("POST", "/search/vector", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != HTTPStatus.OK:
            raise BenchmarkFailed(f"the first search with a filter: {answer.read().decode()}")
    finally:
        connection.close()


def _row(what: str, found: Sequence[tuple[float, float]], alone: Sequence[tuple[float, float]]) -> MillionRow:
    (p50, cpu), pairs = _medians(found), list(zip(found, alone, strict=True))
    ratio, cpu_ratio = _medians([(own[0] / best[0], own[1] / best[1]) for own, best in pairs])
    return MillionRow(what, p50, ratio, cpu, cpu_ratio)


def _medians(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(first for first, _ in pairs), median(second for _, second in pairs)


def faiss_alone(path: Path, queries: np.ndarray, *, threads: int, seconds: float) -> tuple[float, float]:
    """p50 and CPU time in ms of one query at a time for its ten nearest."""
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    faiss.omp_set_num_threads(threads)
    index.search(queries[:1], 10)
    latencies: list[float] = []
    started, cpu_before = time.perf_counter(), own_cpu_seconds()
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        index.search(queries[len(latencies) % len(queries)][None], 10)
        latencies.append(time.perf_counter() - before)
    cpu = (own_cpu_seconds() - cpu_before) / len(latencies)
    return quantile(sorted(latencies), 0.5) * 1e3, cpu * 1e3


def make_release(releases: Path, bundle: Path, vectors: int) -> tuple[Path, str, int]:
    """A whole release without texts or thumbnails; its folder, fingerprint and dimension."""
    with rebuild_lock(releases), staging_folder(releases) as staging:
        staged = stage_bundle(bundle, staging / catalog.BUNDLE_NAME, releases=releases)
        dim = staged.config.towers.embed_dim
        _write_vectors(staging, vectors, dim)
        _write_items(staging, vectors)
        manifest = _manifest(releases, staging, staged, vectors)
        return publish(releases, staging, manifest=manifest), staged.fingerprint, dim


def unit_rows(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    rows = rng.standard_normal((count, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _write_vectors(staging: Path, vectors: int, dim: int) -> None:
    rng, writer = np.random.default_rng(0), VectorWriter(dim)
    for start in range(0, vectors, ROWS_PER_BLOCK):
        writer.add(unit_rows(rng, min(ROWS_PER_BLOCK, vectors - start), dim))
    writer.write(staging / catalog.IMAGE_VECTORS_NAME)
    VectorWriter(dim).write(staging / catalog.TEXT_VECTORS_NAME)


def _write_items(staging: Path, vectors: int) -> None:
    digest = digest_of(b"")
    with TableWriter(staging / catalog.ITEMS_NAME, ITEM_SCHEMA) as table:
        for row in range(vectors):
            name = f"folder {row % 100}/image {row}.webp"
            payload = {
                "title": f"An image of thing number {row}",
                "category": f"category {row % CATEGORIES}",
                "year": YEARS[row * 7 % len(YEARS)],
            }
            record = ItemRecord(name, digest, ImageSource(name), 640, 480, (0, 0), payload)
            table.append(record.as_row())
    with TableWriter(staging / catalog.TEXTS_NAME, TEXT_SCHEMA):
        pass
    for name in (catalog.THUMBNAILS_NAME, catalog.FAILURES_NAME):
        (staging / name).touch()


def _manifest(releases: Path, staging: Path, bundle: Bundle, vectors: int) -> Manifest:
    files = describe_files(staging)
    release_id, created = new_release_id(releases, files)
    return Manifest(
        format_version=PLAIN_FORMAT_VERSION,
        id=release_id,
        created=created,
        fingerprint=bundle.fingerprint,
        bundle=bundle.name,
        dim=bundle.config.towers.embed_dim,
        precision="fp32",
        gallery=GallerySource(kind="generated", source="generated", root=str(releases)),
        counts=Counts(images=vectors, texts=0, failed=0),
        recall={},
        files=files,
    )
