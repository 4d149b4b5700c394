#!/usr/bin/env bash
# safetensors 0.8.0 saves a transposed NumPy array under its own shape with the values in another order.
#
# `safetensors.numpy.save` writes the array's memory as it lies and takes no notice of strides. Embeddings that were
# transposed (or come column by column from a solver or a data frame) are saved with the right shape and type and the
# wrong values, and load without an error. The same library's `safetensors.torch` refuses such a tensor.
# What helps: np.ascontiguousarray before saving.
#
# Seen:
#     given:    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#     as it is: [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
#     copied:   [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq safetensors==0.8.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import numpy as np
from safetensors.numpy import load_file, save_file

by_dimension = np.arange(6, dtype=np.float32).reshape(2, 3)  # 2 dimensions of 3 images
embeddings = by_dimension.T  # 3 images, 2 dimensions
save_file({"as it is": embeddings, "copied": np.ascontiguousarray(embeddings)}, "embeddings.safetensors")
loaded = load_file("embeddings.safetensors")
print("given:   ", embeddings.tolist())
print("as it is:", loaded["as it is"].tolist())
print("copied:  ", loaded["copied"].tolist())
assert np.array_equal(loaded["copied"], embeddings)
assert loaded["as it is"].shape == embeddings.shape
assert not np.array_equal(loaded["as it is"], embeddings), "it saves what it is given now"
PY
