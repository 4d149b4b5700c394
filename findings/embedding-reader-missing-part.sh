#!/usr/bin/env bash
# embedding-reader 1.8.1 gives every image the metadata of another one once a single part is missing.
#
# It reads what clip-retrieval writes: img_emb/img_emb_N.npy beside metadata/metadata_N.parquet. The two lists of
# files are sorted and zipped; the numbers in the names are not compared. With one metadata part lost (a job that was
# killed, a copy that was cut short) all later parts move up by one: the captions and addresses of wrong images,
# and the last embeddings without a word left out. Nothing is raised, `count` is plausible.
#
# Seen, each part holding its own number:
#     all parts, (embedding, metadata): (0, 0) (0, 0) (1, 1) (1, 1) (2, 2) (2, 2) (3, 3) (3, 3) (4, 4) (4, 4)
#     without metadata_1.parquet:       (0, 0) (0, 0) (1, 2) (1, 2) (2, 3) (2, 3) (3, 4) (3, 4)

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq embedding-reader==1.8.1 numpy==2.4.6 pandas==2.3.3 pyarrow==26.0.1 fsspec==2026.9.0
cd "$work"
venv/bin/python - <<'PY'
from pathlib import Path

import numpy as np
import pandas as pd
from embedding_reader import EmbeddingReader

for folder in ("img_emb", "metadata"):
    Path(folder).mkdir()
for part in range(5):
    np.save(f"img_emb/img_emb_{part}.npy", np.full((2, 8), part, np.float16))
    pd.DataFrame({"part": [part, part]}).to_parquet(f"metadata/metadata_{part}.parquet")


def pairs() -> list[tuple[int, int]]:
    reader = EmbeddingReader("img_emb", "parquet_npy", metadata_folder="metadata", meta_columns=["part"])
    return [
        (int(row[0]), int(part))
        for rows, metadata in reader(batch_size=4, show_progress=False)
        for row, part in zip(rows, metadata["part"], strict=True)
    ]


complete = pairs()
Path("metadata/metadata_1.parquet").unlink()
lacking = pairs()
print("all parts, (embedding, metadata):", *complete)
print("without metadata_1.parquet:      ", *lacking)
assert all(embedding == metadata for embedding, metadata in complete)
assert lacking == [(0, 0)] * 2 + [(1, 2)] * 2 + [(2, 3)] * 2 + [(3, 4)] * 2, "the names are compared now"
PY
