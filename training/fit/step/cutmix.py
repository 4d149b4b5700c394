"""CutMix: a box of each image is taken from another, and so is that share of its target.

Against learning few photos by heart (Yun et al. 2019, there for classes). Every image of a step takes the box
from the one that follows it, the last from the first: the order of a batch is random anyway. It works on pixels
and on the activations of a stem alike, both being maps of an image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.fit.step.mixture import Draw, distinct_views

GRID = 14
"""Boxes have whole fourteenths as sides: the grid of a tower's activations at stride 16 for 224 pixels."""


@dataclass(frozen=True)
class Box:
    """In fourteenths of an image's sides."""

    top: int
    left: int
    side: int

    @property
    def share(self) -> float:
        """Of the image's area."""
        return self.side**2 / GRID**2

    def paste(self, maps: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) with each one's box filled from the next. Raises ValueError for anything else."""
        if maps.dim() != 4:
            raise ValueError(f"CutMix needs maps (n, c, h, w), got {tuple(maps.shape)}")
        rows = slice(*(round(end * maps.shape[2] / GRID) for end in (self.top, self.top + self.side)))
        columns = slice(*(round(end * maps.shape[3] / GRID) for end in (self.left, self.left + self.side)))
        mixed = maps.clone()
        mixed[:, :, rows, columns] = maps.roll(-1, dims=0)[:, :, rows, columns]
        return mixed


def draw_box(probability: float, *key: int) -> Box | None:
    """With `probability` a box of an area uniform in (0, 1), else None. The same key draws the same box."""
    rng = np.random.default_rng([3, *key])
    if rng.random() >= probability:
        return None
    side = min(GRID - 1, max(1, round(GRID * math.sqrt(rng.random()))))
    top, left = (int(rng.integers(GRID - side + 1)) for _ in range(2))
    return Box(top, left, side)


def followers(draws: Sequence[Draw], part_size: int) -> list[Draw]:
    """For each draw one of the image that fills its box, when the draws are read `part_size` at a time."""
    found: list[Draw] = []
    for start in range(0, len(draws), part_size):
        distinct, rows = distinct_views(draws[start : start + part_size])
        found += [distinct[(row + 1) % len(distinct)] for row in rows.tolist()]
    return found
