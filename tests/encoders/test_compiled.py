"""Towers compiled by OpenVINO embed as PyTorch's do, at every batch size and length; else they are refused."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.bundle import DEFAULT_BUNDLE
from encoders.choices import check_engine
from encoders.compiled import Example, can_compile, compile_tower
from encoders.encoder import Encoder
from encoders.errors import EngineUnavailable
from encoders.importing.run import import_model
from tests.encoders.conftest import RESNET, TEXT, TIMM, VIT, open_clip_config, save_local_dir

pytestmark = pytest.mark.skipif(not can_compile(), reason="OpenVINO computes on x86 processors only")
TEXTS = ["dog", "", "a red dog on a blue square", "white " * 99, "the cat and the car"]


def bundle_of(folder: Path, vision: dict[str, Any], text: dict[str, Any]) -> Path:
    published = save_local_dir(folder / "published", open_clip_config(vision, text))
    import_model(f"local-dir:{published}", out=folder / "bundle", name="clip")
    return folder / "bundle"


@pytest.mark.parametrize("vision", [VIT, RESNET, TIMM], ids=["vit", "resnet", "timm"])
def test_compiled_towers_give_the_same_rows_whatever_the_batch(tmp_path: Path, vision: dict[str, Any]) -> None:
    bundle = bundle_of(tmp_path, vision, TEXT)
    torch_rows, compiled = (
        Encoder.load(bundle, device="cpu"),
        Encoder.load(bundle, device="cpu", engine="openvino"),
    )
    assert (torch_rows.engine, compiled.engine) == ("torch", "openvino")
    side = compiled.preprocessing.height
    for count in (1, 3, 17):
        pixels = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        assert (torch_rows.encode_pixels(pixels) * compiled.encode_pixels(pixels)).sum(axis=1).min() > 0.99999
    for texts in ([TEXTS[0]], TEXTS):
        ours, theirs = torch_rows.encode_texts(texts), compiled.encode_texts(texts)
        assert (ours.vectors * theirs.vectors).sum(axis=1).min() > 0.99999
    assert compiled.encode_texts([]).vectors.shape == (0, 32)


def test_the_encoder_that_ships_is_compiled_by_auto() -> None:
    encoder = Encoder.load(DEFAULT_BUNDLE, device="cpu", engine="auto", threads=1)
    assert encoder.engine == "openvino"
    expected = Encoder.load(DEFAULT_BUNDLE, device="cpu").encode_texts(TEXTS).vectors
    assert (encoder.encode_texts(TEXTS).vectors * expected).sum(axis=1).min() > 0.99999


GROWTH = """
import sys
from pathlib import Path
from encoders.encoder import Encoder

def mebibytes():
    (line,) = [line for line in Path("/proc/self/status").open() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1024

encoder = Encoder.load(Path(sys.argv[1]), device="cpu", engine="openvino", threads=1)
shapes = [(batch, words) for batch in range(1, 33) for words in range(1, 13)]
for batch, words in shapes[::5] + shapes:
    if (batch, words) == (1, 1):
        before = mebibytes()
    encoder.encode_texts(["dog " * words] * batch)
print(mebibytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_shapes_of_batches_are_not_kept_for_good(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path, VIT, TEXT)
    done = subprocess.run([sys.executable, "-c", GROWTH, bundle], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 4  # MiB that 384 shapes added; 30 when oneDNN kept each


class Halves(torch.nn.Module):
    """A trace takes the branch of its own example for all that come."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch if len(batch) == 2 else batch.flip(1)


def test_a_tower_that_a_trace_gets_wrong_is_refused() -> None:
    tower = Halves()
    example = Example(torch.eye(2, 4), torch.eye(3, 4), torch.eye(4), (-1, 4))
    with pytest.raises(EngineUnavailable, match=r"cosine of 0\.0+ to PyTorch's"):
        compile_tower(tower, tower, example, precision="fp32", threads=1)


def test_auto_falls_back_to_torch_and_says_why_where_openvino_was_asked_for_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = bundle_of(tmp_path, VIT, TEXT)
    monkeypatch.setattr("encoders.compiled.LEAST_COSINE", {"fp32": 1.5})  # more than any two rows can have
    with caplog.at_level(logging.WARNING):
        assert Encoder.load(bundle, device="cpu", engine="auto").engine == "torch"
    assert "PyTorch computes clip: OpenVINO's features have a cosine of 1.0" in caplog.text
    with pytest.raises(EngineUnavailable, match=r"not 1\.5"):
        Encoder.load(bundle, device="cpu", engine="openvino")


def test_an_unknown_engine_is_named_with_those_there_are() -> None:
    with pytest.raises(EngineUnavailable, match="'onnx' is not offered: use auto, torch or openvino"):
        check_engine("onnx")
