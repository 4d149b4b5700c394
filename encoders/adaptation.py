"""What a bundle does to its towers' embeddings to suit a domain: `z ← norm(W (z − μ))` for each modality.

    adaptation.safetensors     images.mean (d,), images.weight (d, d), texts.mean, texts.weight; float32

Each is optional: without a weight the rows are centred only, without a mean they are turned about the origin,
and a modality that is not named stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from encoders.errors import CorruptBundle
from encoders.modalities import MODALITIES, Modality
from encoders.towers import unit_rows

ADAPTATION = "adaptation.safetensors"


@dataclass(frozen=True, eq=False)
class AffineMap:
    """mean (d,) to take off unit rows, then weight (d, d) to multiply them by; None: nothing of the kind."""

    mean: torch.Tensor | None = None
    weight: torch.Tensor | None = None

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, d) unit rows to (n, d) unit rows; a row that is the mean itself becomes zero."""
        moved = rows if self.mean is None else rows - self.mean
        return unit_rows(moved if self.weight is None else moved @ self.weight.T)

    def to(self, device: torch.device) -> "AffineMap":
        return AffineMap(
            None if self.mean is None else self.mean.to(device),
            None if self.weight is None else self.weight.to(device),
        )


Adaptation = Mapping[Modality, AffineMap]
"""The map of each modality that has one."""


def adaptation_bytes(adaptation: Adaptation) -> bytes:
    """The file's content. Raises ValueError where it would hold nothing."""
    tensors = {
        f"{modality}.{part}": tensor.detach().float().cpu().contiguous()
        for modality, affine in adaptation.items()
        for part, tensor in (("mean", affine.mean), ("weight", affine.weight))
        if tensor is not None
    }
    if not tensors:
        raise ValueError("an adaptation without a mean or a weight changes nothing")
    return save(tensors)


def read_adaptation(path: Path, *, dim: int) -> Adaptation:
    """Read the file back. Raises CorruptBundle for other names, shapes, or numbers that are not finite."""
    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise CorruptBundle(f"{path} is no readable safetensors file: {error}") from error
    shapes = {f"{m}.{part}": shape for m in MODALITIES for part, shape in _shapes(dim).items()}
    for name, tensor in tensors.items():
        if shapes.get(name) != tuple(tensor.shape):
            raise CorruptBundle(
                f"{path}: {name} has shape {tuple(tensor.shape)}; with {dim} dimensions there can be {shapes}"
            )
        if not torch.isfinite(tensor).all():
            raise CorruptBundle(f"{path}: {name} holds numbers that are not finite")
    maps = {m: AffineMap(tensors.get(f"{m}.mean"), tensors.get(f"{m}.weight")) for m in MODALITIES}
    return {m: affine for m, affine in maps.items() if affine.mean is not None or affine.weight is not None}


def _shapes(dim: int) -> dict[str, tuple[int, ...]]:
    return {"mean": (dim,), "weight": (dim, dim)}
