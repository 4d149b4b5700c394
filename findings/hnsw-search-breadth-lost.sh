#!/usr/bin/env bash
# hnswlib 0.8.0, usearch 2.26.6 and Voyager 2.2.3 save an HNSW index without its search breadth: recall falls on loading.
#
# How many candidates a search follows (ef, expansion_search) is tuned once, on the index that was built. All three
# keep the graph's own parameters in the file and forget this one: the loaded index searches with 10, 64 and 10
# candidates again, as a new one would. The vectors are right, no error is raised, and results are worse than measured.
# What helps: store the figure beside the file and set it after every load. (hnswlib needs a C++ compiler to install.)
#
# Seen (recall@10 of 5,000 random vectors with a thin graph; the last digits differ from run to run):
#     hnswlib: breadth 400, recall 0.97 when saved; 10, 0.19 when loaded
#     usearch: breadth 400, recall 0.97 when saved; 64, 0.59 when loaded
#     voyager: breadth 400, recall 0.97 when saved; 10, 0.17 when loaded

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq hnswlib==0.8.0 usearch==2.26.6 voyager==2.2.3 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import hnswlib
import numpy as np
import voyager
from usearch.index import Index

DIM, WIDE = 64, 400
rng = np.random.default_rng(0)
rows, queries = (rng.standard_normal((n, DIM), dtype=np.float32) for n in (5000, 100))
rows, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, queries))
truth = np.argsort(-queries @ rows.T, axis=1)[:, :10]


def recall(found: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def with_hnswlib():
    built = hnswlib.Index("cosine", DIM)
    built.init_index(len(rows), M=6, ef_construction=100)
    built.add_items(rows, num_threads=1)
    built.set_ef(WIDE)
    built.save_index("hnswlib")
    loaded = hnswlib.Index("cosine", DIM)
    loaded.load_index("hnswlib")
    return [(index.ef, recall(index.knn_query(queries, 10)[0])) for index in (built, loaded)]


def with_usearch():
    built = Index(ndim=DIM, metric="cos", dtype="f32", connectivity=6, expansion_search=WIDE)
    built.add(np.arange(len(rows)), rows, threads=1)
    built.save("usearch")
    loaded = Index.restore("usearch")
    return [(index.expansion_search, recall(index.search(queries, 10).keys)) for index in (built, loaded)]


def with_voyager():
    built = voyager.Index(voyager.Space.Cosine, DIM, M=6, ef_construction=100)
    built.add_items(rows, num_threads=1)
    built.ef = WIDE
    built.save("voyager.voy")
    loaded = voyager.Index.load("voyager.voy")
    return [(index.ef, recall(index.query(queries, 10)[0])) for index in (built, loaded)]


for use, fresh in ((with_hnswlib, 10), (with_usearch, 64), (with_voyager, 10)):
    (breadth, before), (kept, after) = use()
    print(f"{use.__name__[5:]}: breadth {breadth}, recall {before:.2f} when saved; {kept}, {after:.2f} when loaded")
    assert (breadth, kept) == (WIDE, fresh), "the breadth is kept now, or another one is the default"
    assert after < before - 0.05
PY
