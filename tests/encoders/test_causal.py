"""A causal text tower gives the same rows without the padding behind its texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.encoder import Encoder
from encoders.importing.run import import_model
from tests.encoders.conftest import TEXT, VIT, open_clip_config, save_local_dir, save_transformers_clip

TEXTS = ["dog", "a red dog", "", "the cat and the car on a blue circle", "white " * 99]


def imported(folder: Path, **text: Any) -> Encoder:
    config = open_clip_config(VIT, {**TEXT, **text}, custom_text=bool(text))
    save_local_dir(folder / "published", config)
    bundle = import_model(f"local-dir:{folder / 'published'}", out=folder / "bundle", name="clip")
    return Encoder.load(bundle, device="cpu")


def rows_and_widths(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, list[int]]:
    """Of TEXTS one at a time; how many tokens the tower was given for each."""
    widths: list[int] = []
    run = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda ids, **rest: widths.append(ids.shape[1]) or run(ids, **rest))
    return np.concatenate([encoder.encode_texts([text]).vectors for text in TEXTS]), widths


def whole_context(encoder: Encoder) -> np.ndarray:
    """As open_clip itself embeds them."""
    with torch.inference_mode():
        features = encoder.model.encode_text(torch.from_numpy(encoder.tokenize(TEXTS).ids), normalize=True)
    return features.numpy()


@pytest.mark.parametrize("text", [{}, {"proj_bias": True}, {"pool_type": "eos", "eos_id": 49407}])
def test_texts_cost_their_own_length_and_embed_as_in_a_whole_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: dict[str, Any]
) -> None:
    encoder = imported(tmp_path, **text)
    rows, widths = rows_and_widths(encoder, monkeypatch)
    assert widths == [3, 5, 2, 11, 24]
    assert np.abs(rows - whole_context(encoder)).max() < 2e-6


def test_a_transformers_clip_whose_padding_is_its_end_of_text_is_cut_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = import_model(str(save_transformers_clip(tmp_path / "published")), out=tmp_path / "b", name="clip")
    encoder = Encoder.load(bundle, device="cpu")
    rows, widths = rows_and_widths(encoder, monkeypatch)
    assert min(widths) < 20 == max(widths)
    assert np.abs(rows - whole_context(encoder)).max() < 2e-6


@pytest.mark.parametrize("text", [{"pool_type": "last"}, {"no_causal_mask": True}])
def test_a_tower_that_sees_its_padding_gets_the_whole_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: dict[str, Any]
) -> None:
    encoder = imported(tmp_path, **text)
    rows, widths = rows_and_widths(encoder, monkeypatch)
    assert set(widths) == {24}
    assert np.abs(rows - whole_context(encoder)).max() < 2e-6
