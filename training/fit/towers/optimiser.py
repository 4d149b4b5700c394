"""What moves the weights: parameter groups with their rates, the schedule, and the moving average."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

_NUMBERED = re.compile(r"(?:blocks|layer|layers|resblocks|stages)\.(\d+)\.")


@dataclass(frozen=True)
class Rates:
    """Peak rates by part (`scale`: of the logit scale), weight decay, factor per layer below the top."""

    heads: float
    scale: float
    image: float
    text: float
    weight_decay: float
    layer_decay: float = 1.0


def optimiser(model: nn.Module, trained: Iterable[str], rates: Rates) -> torch.optim.AdamW:
    """AdamW over the named parameters; biases, norms and the logit scale are not decayed.

    Each group carries `peak_lr`, which `set_rate` scales. A parameter in layer i of L in a tower gets
    rate · layer_decay^(L − 1 − i): what is closer to the input moves less.
    """
    named = dict(model.named_parameters())
    parameters = {name: named[name] for name in sorted(trained)}
    depth = _depths(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = rates.weight_decay if parameter.dim() >= 2 else 0.0
        groups.setdefault((_rate(name, rates, depth), decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": rate, "peak_lr": rate, "weight_decay": decay}
            for (rate, decay), members in groups.items()
        ],
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def set_rate(adam: torch.optim.Optimizer, share: float) -> None:
    """Every group's rate becomes `share` of its peak."""
    for group in adam.param_groups:
        group["lr"] = group["peak_lr"] * share


def cosine_with_warmup(step: int, *, steps: int, warmup_steps: int) -> float:
    """Share of the peak rate at `step` (from 0): linear up, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class MovingAverage:
    """Exponential moving average of named parameters, with a warm-up: min(decay, (1 + n) / (10 + n))."""

    def __init__(self, model: nn.Module, trained: Iterable[str], *, decay: float) -> None:
        parameters = dict(model.named_parameters())
        self._live = {name: parameters[name] for name in sorted(trained)}
        self._decay = decay
        self.updates = 0
        self.shadow = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, parameter in self._live.items():
            self.shadow[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live values and the averages; twice is where one was."""
        for name, parameter in self._live.items():
            live = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name] = live

    @torch.no_grad()
    def load(self, shadow: Mapping[str, torch.Tensor], updates: int) -> None:
        for name in self.shadow:
            self.shadow[name].copy_(shadow[name])
        self.updates = updates


def part_of(name: str) -> str:
    """ "heads", "image" or "text": which rate a parameter of open_clip's CLIP takes."""
    if name.startswith(("visual.head", "text.proj", "text_projection", "text.text_projection", "logit_")):
        return "heads"
    if name in ("visual.proj",) or name.startswith(("visual.attn_pool", "visual.attnpool")):
        return "heads"
    return "image" if name.startswith("visual.") else "text"


def _rate(name: str, rates: Rates, depth: Mapping[str, int]) -> float:
    if name.startswith("logit_"):
        return rates.scale
    part = part_of(name)
    base = cast("float", getattr(rates, part))
    if part == "heads" or rates.layer_decay == 1.0:
        return base
    found = _NUMBERED.search(name)
    above_input = int(found[1]) if found else (0 if _is_input(name) else depth[part] - 1)
    return base * rates.layer_decay ** (depth[part] - 1 - above_input)


def _depths(model: nn.Module) -> dict[str, int]:
    deepest: dict[str, int] = {"image": 1, "text": 1}
    for name, _ in cast("Any", model).named_parameters():
        if (found := _NUMBERED.search(name)) and (part := part_of(name)) != "heads":
            deepest[part] = max(deepest[part], int(found[1]) + 1)
    return deepest


def _is_input(name: str) -> bool:
    return any(word in name for word in ("embedding", "conv_stem", "patch_embed", "conv1", ".bn1."))
