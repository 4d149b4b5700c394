"""State dicts come back from disk: to the bit in fp32, within a stated bound in the small encodings."""

from pathlib import Path

import pytest
import torch

from encoders.errors import CorruptBundle
from encoders.weights import load_weights, save_weights


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(40, 96, generator=generator) * torch.logspace(-4, 2, 40)[:, None]
    return {
        "linear.weight": rows,
        "conv.weight": torch.randn(8, 16, 3, 3, generator=generator),
        "depthwise.weight": torch.randn(16, 1, 5, 5, generator=generator),
        "norm.weight": torch.randn(96, generator=generator),
        "zeros.weight": torch.zeros(4, 96),
        "norm.num_batches_tracked": torch.tensor(17),
        "logit_scale": torch.tensor(2.66),
        "empty": torch.zeros(0, 96),
    }


def stored(state: dict[str, torch.Tensor], path: Path, encoding: str) -> dict[str, torch.Tensor]:
    save_weights(state, path / f"{encoding}.safetensors", encoding=encoding)
    loaded = load_weights(path / f"{encoding}.safetensors")
    assert loaded.keys() == state.keys()
    assert all(loaded[name].shape == tensor.shape for name, tensor in state.items())
    assert all(loaded[name].dtype == tensor.dtype for name, tensor in state.items())
    return loaded


def test_fp32_comes_back_to_the_bit(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    loaded = stored(state, tmp_path, "fp32")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_fp16_rounds_matrices_and_keeps_the_small_tensors(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    loaded = stored(state, tmp_path, "fp16")
    for name in ("depthwise.weight", "norm.weight", "norm.num_batches_tracked", "logit_scale"):
        assert torch.equal(loaded[name], state[name])
    for name in ("linear.weight", "conv.weight"):
        assert torch.equal(loaded[name], state[name].half().float())


def test_int8_rows_err_by_at_most_half_a_step_of_their_row(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    loaded = stored(state, tmp_path, "int8_rows")
    for name in ("linear.weight", "conv.weight", "zeros.weight"):
        rows, back = state[name].flatten(1), loaded[name].flatten(1)
        step = rows.abs().amax(dim=1) / 127.0
        assert bool(((back - rows).abs().amax(dim=1) <= 0.5001 * step).all()), name
    for name in ("depthwise.weight", "norm.weight", "logit_scale", "norm.num_batches_tracked"):
        assert torch.equal(loaded[name], state[name])
    sizes = {kind: (tmp_path / f"{kind}.safetensors").stat().st_size for kind in ("int8_rows",)}
    save_weights(state, tmp_path / "whole.safetensors", encoding="fp32")
    assert sizes["int8_rows"] < 0.45 * (tmp_path / "whole.safetensors").stat().st_size


def test_int8_rows_are_stable_when_written_again(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    once = stored(state, tmp_path, "int8_rows")
    twice = stored(once, tmp_path, "int8_rows")
    assert all(torch.allclose(once[name], twice[name], rtol=1e-6, atol=0) for name in state)


def test_tensors_that_share_memory_are_each_written(tmp_path: Path) -> None:
    shared = torch.randn(4, 8)
    state = {"embed": shared, "head": shared, "view": shared[1:], "turned": shared.t()}
    save_weights(state, tmp_path / "tied.safetensors", encoding="fp32")
    loaded = load_weights(tmp_path / "tied.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 64])
def test_what_is_no_safetensors_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptBundle, match=r"model\.safetensors is no readable safetensors file"):
        load_weights(path)
