"""Golden inputs: what they prove, what they name when an encoder is broken, and what they cost."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from encoders.__main__ import app
from encoders.bundle import Bundle
from encoders.diagnosis import GoldenCheck, check_golden, diagnose
from encoders.encoder import Encoder, load_towers
from encoders.errors import CorruptBundle, ParityLost, ReferenceMismatch
from encoders.golden import GOLDEN_TENSORS, add_golden, read_golden
from encoders.golden_inputs import golden_images
from encoders.images import Preprocessing, decode_image, to_pixels
from encoders.reference import read_reference
from encoders.verifying import verify_bundle
from tests.conftest import make_tiny_bundle
from tests.encoders.broken_bundles import BREAKS, make_lively_bundle, rewrite


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_lively_bundle(tmp_path_factory.mktemp("golden") / "lively")


def checked(bundle: Bundle) -> GoldenCheck:
    golden = read_golden(bundle)
    assert golden is not None
    return check_golden(Encoder.load(bundle, device="cpu"), golden)


def test_a_sound_bundle_gives_its_golden_vectors_and_has_nothing_to_diagnose(lively: Bundle) -> None:
    check = checked(Bundle.open(lively.path))
    assert min(check.reproduced("images").min(), check.reproduced("texts").min()) > 0.999999
    assert min(check.spread("images"), check.spread("texts")) > 0.1  # else parity would be blind
    assert diagnose(check) == ()
    assert verify_bundle(lively.path).fingerprint == lively.fingerprint


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_bundle_is_told_from_a_sound_one_and_the_one_cause_is_named(
    lively: Bundle, tmp_path: Path, name: str
) -> None:
    make_broken, cause = BREAKS[name]
    broken = make_broken(lively, tmp_path / "broken")
    assert {finding.cause for finding in diagnose(checked(broken))} == {cause}
    with pytest.raises(ParityLost, match=f"embeds otherwise than when it was made: {cause}: "):
        verify_bundle(broken.path)


@pytest.mark.parametrize(
    ("changes", "causes"),
    [
        ({"interpolation": "nearest"}, {"interpolation"}),
        ({"resize": "shortest", "shortest_side": 36}, {"resize"}),
        ({"resize": "letterbox", "mean": (0.4, 0.5, 0.6)}, {"resize", "normalisation"}),
    ],
)
def test_other_faults_of_preprocessing_are_told_apart(
    lively: Bundle, tmp_path: Path, changes: dict[str, Any], causes: set[str]
) -> None:
    spec = lively.config.preprocessing.model_copy(update=changes)
    broken = rewrite(lively, tmp_path / "broken", preprocessing=spec)
    assert {finding.cause for finding in diagnose(checked(broken))} == causes


def test_rounded_weights_keep_the_vectors_of_the_weights_before_rounding(tmp_path: Path) -> None:
    rounded = make_lively_bundle(tmp_path / "rounded", weights="int8_rows")
    check = checked(rounded)
    assert check.golden.record.reference == "fp32"
    assert 0.5 < check.parity("images") < 0.9999
    assert check.reproduced("images").min() > 0.999999
    assert f"least {check.parity('images'):.6f} (images" in check.golden.record.meaning
    assert diagnose(check) == ()


def test_a_reference_that_is_not_the_bundles_own_is_refused(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle", weights="int8_rows")
    state = load_towers(make_tiny_bundle(tmp_path / "other", seed=1)).state_dict()
    with pytest.raises(ReferenceMismatch, match=r"\d+ of \d+ tensors differ, .* first"):
        add_golden(bundle, reference=state)
    with pytest.raises(ReferenceMismatch, match="already rounded"):
        read_reference(bundle.path, of=bundle)
    assert read_golden(Bundle.open(bundle.path)) is None


def test_the_command_takes_a_reference_as_training_keeps_it_and_verify_checks_it(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    bundle = make_tiny_bundle(tmp_path / "bundle", weights="int8_rows")
    exact = load_towers(make_tiny_bundle(tmp_path / "exact")).state_dict()
    kept = {f"model.{name}": tensor.clone() for name, tensor in exact.items()}
    save_file({**kept, "step": torch.ones(1)}, tmp_path / "best.safetensors")
    run = CliRunner()
    bare = run.invoke(app, ["golden", str(bundle.path)])
    assert (bare.exit_code, "name those before rounding with --reference" in bare.output) == (0, True)
    given = run.invoke(app, ["golden", str(bundle.path), "--reference", str(tmp_path / "best.safetensors")])
    assert (given.exit_code, "--reference" in given.output) == (0, False)
    golden = read_golden(Bundle.open(bundle.path))
    assert golden is not None
    assert golden.record.reference == "fp32"
    assert run.invoke(app, ["verify", str(bundle.path)]).exit_code == 0


def test_golden_files_that_do_not_fit_together_are_corrupt(lively: Bundle, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(lively.path, tmp_path / "bundle"))
    record = json.loads((bundle.path / "golden.json").read_text())
    fewer = bundle.with_file("golden.json", json.dumps(record | {"texts": record["texts"][1:]}).encode())
    with pytest.raises(CorruptBundle, match=r"texts does not have 10 rows"):
        read_golden(fewer)
    with pytest.raises(CorruptBundle, match="golden inputs cannot be read"):
        read_golden(fewer.with_file(GOLDEN_TENSORS, b"no tensors"))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (32, 32), (224, 224), (96, 160)])
def test_golden_images_of_the_towers_size_reach_it_untouched(height: int, width: int) -> None:
    spec = Preprocessing(height=height, width=width)
    drawn = golden_images(height, width)
    for golden in drawn:
        image = decode_image(golden.data)
        own = golden.shape == "own"
        assert own == (image.size == (width, height)) or (height, width) == (1, 1)
        if own:
            assert np.array_equal(to_pixels(image, spec), np.asarray(image))
        grey = np.ptp(np.asarray(image).astype(int), axis=2).max() == 0
        assert grey == (not golden.coloured) or (height, width) == (1, 1)
    assert sum(len(golden.data) for golden in drawn) < 60_000
