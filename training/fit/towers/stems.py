"""Where a tower is cut: a frozen stem, whose activations can be kept, and the tail that is trained.

Image towers that can be cut: timm networks of the EfficientNet family (at "blocks.K" or "head") and any other
timm trunk (at "head", its pooled features). Text towers: transformers' (at "head"). Everything else trains
whole.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from open_clip.hf_model import HFTextEncoder
from torch import nn

from training.errors import RecipeError

_STAGED = ("conv_stem", "bn1", "blocks", "conv_head", "bn2", "forward_head")


@dataclass(frozen=True)
class CutTower:
    """stem: (n, 3, h, w) or ids (n, length) -> activations; tail: activations -> (n, dim), of any length."""

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


def cut_text_tower(model: nn.Module) -> CutTower | None:
    """Cut `model.text` below its head; None where it is no transformers tower, and runs whole."""
    text = getattr(model, "text", None)
    if not isinstance(text, HFTextEncoder):
        return None
    return CutTower(stem=_TextStem(text), tail=text.proj)


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


class _TextStem(nn.Module):
    """(n, length) ids -> (n, width) pooled."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.transformer, self.pooler = text.transformer, text.pooler
        self._pad_id = text.config.pad_token_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        mask = (ids != self._pad_id).long()
        return cast("torch.Tensor", self.pooler(self.transformer(input_ids=ids, attention_mask=mask), mask))


class _Tail(nn.Module):
    def __init__(self, visual: Any, index: int) -> None:
        super().__init__()
        trunk = visual.trunk
        self.layers = nn.Sequential(*trunk.blocks[index:], trunk.conv_head, trunk.bn2)
        self.pool = trunk.global_pool
        self.head = visual.head

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.head(self.pool(self.layers(activations))))
