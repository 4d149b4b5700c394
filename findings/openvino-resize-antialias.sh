#!/usr/bin/env bash
# OpenVINO 2026.4.1 reads an ONNX Resize with antialias=1 and computes it without antialiasing.
#
# Image encoders are exported with their resizing inside, so that client and server cannot differ. ONNX has had the
# attribute `antialias` since opset 18; with it (and cubic_coeff_a=-0.5, exclude_outside=1) ONNX Runtime 1.32.0 gives
# what Pillow 13.0.0 gives. OpenVINO compiles the same file without a word and gives, to the bit, the result of
# antialias=0: other pixels, other embeddings. Precision is no part of it: both compute float32.
#
# Seen, as the greatest difference to Pillow over values from 0 to 1:
#     cubic, antialias=1: ONNX Runtime 0.000000, OpenVINO 0.53
#     linear, antialias=1: ONNX Runtime 0.000000, OpenVINO 0.37

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 pillow==13.0.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import numpy as np
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

image = np.random.default_rng(0).random((1, 1, 64, 64), dtype=np.float32)
FILTERS = {"cubic": Image.Resampling.BICUBIC, "linear": Image.Resampling.BILINEAR}


def resize_model(mode: str, antialias: int) -> bytes:
    node = helper.make_node(
        "Resize", ["image", "", "", "sizes"], ["small"], mode=mode, antialias=antialias,
        cubic_coeff_a=-0.5, exclude_outside=1, coordinate_transformation_mode="half_pixel",
    )
    graph = helper.make_graph(
        [node], "resize",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 64, 64])],
        [helper.make_tensor_value_info("small", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([1, 1, 24, 24], np.int64), "sizes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString()


def by_openvino(model: bytes) -> np.ndarray:
    read = openvino.Core().read_model(model)
    return openvino.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0][0, 0]


for mode, resample in FILTERS.items():
    pillow = np.asarray(Image.fromarray(image[0, 0]).resize((24, 24), resample))
    runtime = onnxruntime.InferenceSession(resize_model(mode, 1)).run(None, {"image": image})[0][0, 0]
    vino = by_openvino(resize_model(mode, 1))
    of_runtime, of_vino = np.abs(runtime - pillow).max(), np.abs(vino - pillow).max()
    print(f"{mode}, antialias=1: ONNX Runtime {of_runtime:.6f}, OpenVINO {of_vino:.2f}")
    assert of_runtime < 1e-5 < 0.1 < of_vino
    assert np.array_equal(vino, by_openvino(resize_model(mode, 0))), "the attribute changes something now"
PY
