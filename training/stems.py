"""Where an image tower is cut: a frozen stem, whose activations can be kept, and the tail that is trained.

Two kinds of tower can be cut: timm networks of the EfficientNet family (at "blocks.K" or "head") and any other
timm trunk (at "head", its pooled features). Everything else trains whole ("all"). It does not know stores or
loops.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from training.errors import RecipeError

_STAGED = ("conv_stem", "bn1", "blocks", "conv_head", "bn2", "forward_head")


@dataclass(frozen=True)
class CutTower:
    """stem: (n, 3, h, w) -> activations; tail: activations -> (n, dim), not yet unit rows."""

    stem: nn.Module
    tail: nn.Module


def cut_image_tower(model: nn.Module, cut: str) -> CutTower:
    """Cut `model.visual` at "head" or "blocks.K". Raises RecipeError where the tower has no such place."""
    visual = cast("Any", model).visual
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        raise RecipeError(
            f"this image tower cannot be cut at {cut!r}: only timm towers can; use train_image = 'all'"
        )
    if cut == "head":
        return CutTower(stem=trunk, tail=visual.head)
    if not all(hasattr(trunk, name) for name in _STAGED):
        raise RecipeError(f"this timm tower has no {cut!r}: use 'head' or 'all'")
    index = _block_index(cut, len(trunk.blocks))
    return CutTower(stem=_Stem(trunk, index), tail=_Tail(visual, index))


def channels_last(activations: torch.Tensor) -> torch.Tensor:
    """(n, c, h, w) -> (n, h, w, c), the order they lie in; (n, c) stays."""
    return activations.permute(0, 2, 3, 1) if activations.dim() == 4 else activations


def channels_first(activations: torch.Tensor) -> torch.Tensor:
    """The inverse of `channels_last`."""
    return activations.permute(0, 3, 1, 2) if activations.dim() == 4 else activations


def _block_index(cut: str, count: int) -> int:
    name, _, number = cut.partition(".")
    if name != "blocks" or not number.isdigit() or not 0 < int(number) < count:
        raise RecipeError(f"{cut!r} names no place to cut: use 'head', or 'blocks.1' to 'blocks.{count - 1}'")
    return int(number)


class _Stem(nn.Module):
    def __init__(self, trunk: Any, index: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[:index])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.layers(images))


class _Tail(nn.Module):
    def __init__(self, visual: Any, index: int) -> None:
        super().__init__()
        trunk = visual.trunk
        self.layers = nn.Sequential(*trunk.blocks[index:], trunk.conv_head, trunk.bn2)
        self.pool = trunk.global_pool
        self.head = visual.head

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.head(self.pool(self.layers(activations))))
