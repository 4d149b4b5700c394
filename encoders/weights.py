"""A state dict on disk and back: fp32, fp16, or matrices as int8 rows with one scale a row.

int8 rows: for every float tensor of at least 64 values a row (first axis), row r is stored as
round(w / s_r) with s_r = max|w_r| / 127, beside `<name>.row_scale` (float32).
All else stays float32: biases, norms and depthwise kernels are small and lose most. It never unpickles.
"""

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from encoders.errors import CorruptBundle

Encoding = Literal["fp32", "fp16", "int8_rows"]

ROW_SCALE = ".row_scale"
_MIN_ROW = 64


def save_weights(state: dict[str, torch.Tensor], path: Path, *, encoding: Encoding) -> None:
    """Write a state dict as safetensors; tensors of integers keep their type."""
    packed: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        packed.update(_pack(name, tensor.detach().cpu(), encoding))
    save_file(_unshared(packed), path)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict, floats in float32 whatever the encoding. Raises CorruptBundle."""
    try:
        packed = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CorruptBundle(f"{path} is no readable safetensors file: {error}") from error
    state = {}
    for name, tensor in packed.items():
        if name.endswith(ROW_SCALE):
            continue
        scale = packed.get(name + ROW_SCALE)
        if scale is not None:
            state[name] = tensor.float() * scale.reshape(-1, *[1] * (tensor.dim() - 1))
        else:
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """safetensors refuses tensors that share memory, as tied embeddings do: each gets its own."""
    seen: set[int] = set()
    own = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone().contiguous() if storage in seen else tensor.contiguous()
        seen.add(storage)
    return own


def _pack(name: str, tensor: torch.Tensor, encoding: Encoding) -> dict[str, torch.Tensor]:
    if not tensor.is_floating_point() or encoding == "fp32":
        return {name: tensor}
    wide = tensor.dim() >= 2 and tensor.numel() // max(1, tensor.shape[0]) >= _MIN_ROW
    if encoding == "fp16":
        return {name: tensor.half() if wide else tensor.float()}
    if not wide:
        return {name: tensor.float()}
    rows = tensor.float().flatten(1)
    scale = rows.abs().amax(dim=1).clamp(min=1e-12) / 127.0
    quantised = torch.round(rows / scale[:, None]).clamp(-127, 127).to(torch.int8)
    return {name: quantised.reshape(tensor.shape), name + ROW_SCALE: scale}
