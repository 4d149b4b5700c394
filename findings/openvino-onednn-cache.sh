#!/usr/bin/env bash
# OpenVINO 2026.4.1: memory grows with every new input shape, whatever CPU_RUNTIME_CACHE_CAPACITY says.
#
# A model with dynamic shapes prepares kernels for each shape it meets. CPU_RUNTIME_CACHE_CAPACITY bounds how many of
# those the CPU plugin keeps, and reads as if it bounded all; but oneDNN below it has a cache of its own, of 1,024
# primitives, that the plugin neither sets nor reports. A service that embeds texts of any length and number grows by
# 50 to 100 kB a shape for its first thousand shapes, which looks like a leak for hours. oneDNN's environment variable
# ONEDNN_PRIMITIVE_CACHE_CAPACITY bounds it, if it is set before the first model is compiled.
#
# Seen, MiB that 400 shapes added after the first 40, with CPU_RUNTIME_CACHE_CAPACITY=8 in both:
#     ONEDNN_PRIMITIVE_CACHE_CAPACITY as it is: 22.4
#     ONEDNN_PRIMITIVE_CACHE_CAPACITY=16:       -0.2

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq openvino==2026.4.1 numpy==2.4.6
cat > "$work/grow.py" <<'PY'
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

chance = np.random.default_rng(0)
width = 256
inputs = ops.parameter([-1, -1, width], np.float32, name="x")
value = inputs
for _ in range(6):  # layers of self-attention and products with constants, as a text tower has them
    weights = [ops.constant((chance.standard_normal((width, width)) / 16).astype(np.float32)) for _ in range(3)]
    query, key, content = (ops.matmul(value, each, False, False) for each in weights)
    attention = ops.softmax(ops.matmul(query, key, False, True), -1)
    value = ops.tanh(ops.matmul(attention, content, False, False))
model = ov.Core().compile_model(ov.Model([value], [inputs]), "CPU", {"CPU_RUNTIME_CACHE_CAPACITY": 8})


def mebibytes() -> float:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024


shapes = [(batch, length) for batch in range(1, 12) for length in range(1, 41)]
chance.shuffle(shapes)
for batch, length in shapes[:40]:
    model(np.zeros((batch, length, width), np.float32))
before = mebibytes()
for batch, length in shapes[40:]:
    model(np.zeros((batch, length, width), np.float32))
print(round(mebibytes() - before, 1))
PY
plain=$("$work/venv/bin/python" "$work/grow.py")
bounded=$(ONEDNN_PRIMITIVE_CACHE_CAPACITY=16 "$work/venv/bin/python" "$work/grow.py")
echo "MiB that 400 shapes added: $plain; with ONEDNN_PRIMITIVE_CACHE_CAPACITY=16: $bounded"
"$work/venv/bin/python" -c "import sys; sys.exit(not (float(sys.argv[1]) > 10 and float(sys.argv[1]) > 4 * float(sys.argv[2])))" \
    "$plain" "$bounded"
