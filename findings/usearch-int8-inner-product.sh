#!/usr/bin/env bash
# usearch 2.26.6 drops the vectors' lengths when an inner-product index stores int8: it ranks by cosine instead.
#
# Inner product is chosen where length counts: a model whose vectors are not unit, a popularity prior in the length, a
# penalty in an extra dimension. With dtype="i8" every vector is scaled to unit length before it is rounded, also with
# metric="ip", so the order is that of the cosine. The distances are no approximation of 1 - ip either, but the raw
# sum of products of integers, and ten times the vector has the same one.
#
# Seen, for the query (1, 0, 0, 0):
#     f32: nearest first [(2, -8.0), (1, 0.1), (0, 0.5)]
#     i8: nearest first [(0, -16128.0), (2, -9651.0), (1, -9651.0)]

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq usearch==2.26.6 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import numpy as np
from usearch.index import Index

# Inner products .5, .9 and 9 with the query; cosines 1, .6 and .6.
rows = np.array([[0.5, 0, 0, 0], [0.9, 1.2, 0, 0], [9, 12, 0, 0]], dtype=np.float32)
query = np.array([1, 0, 0, 0], dtype=np.float32)
found = {}
for dtype in ("f32", "i8"):
    index = Index(ndim=4, metric="ip", dtype=dtype)
    index.add(np.arange(3), rows)
    matches = index.search(query, 3)
    found[dtype] = dict(zip(matches.keys.tolist(), matches.distances.tolist(), strict=True))
    print(f"{dtype}: nearest first", [(key, round(distance, 2)) for key, distance in found[dtype].items()])
assert list(found["f32"]) == [2, 1, 0]
assert next(iter(found["i8"])) == 0, "the longest vector wins now"
assert found["i8"][1] == found["i8"][2] < -1000, "distances tell vectors of other lengths apart now"
PY
