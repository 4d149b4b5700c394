"""A bundle's image tower at another input size, where it allows one.

A convolutional tower with pooling takes any size; a vision transformer has an embedding for every patch of
the size it was trained at, and refuses others. What is tried here is what will run: one blank image.
"""

import copy

import numpy as np

from encoders.encoder import Encoder
from encoders.images import Preprocessing
from training.errors import EvaluationError


class SizeRefused(EvaluationError):
    """The tower does not run, or gives no finite vector, at this size."""


def encoder_at_size(encoder: Encoder, size: tuple[int, int]) -> Encoder:
    """The same towers, resizing to `size` (height, width) pixels. Raises SizeRefused.

    The weights are shared: use either, but not both at once.
    """
    resized = copy.copy(encoder)
    resized.preprocessing = _at_size(encoder.preprocessing, size)
    try:
        vectors = resized.encode_pixels(np.full((1, *size, 3), 128, dtype=np.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SizeRefused(f"input size {size[0]}×{size[1]}: the image tower refuses it: {reason}") from error
    if not np.isfinite(vectors).all():
        raise SizeRefused(f"input size {size[0]}×{size[1]}: the image tower gives no finite vector")
    return resized


def _at_size(spec: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    """The short side before a crop grows and shrinks with the crop."""
    height, width = size
    scale = min(height / spec.height, width / spec.width)
    shortest = None if spec.shortest_side is None else max(1, round(spec.shortest_side * scale))
    return spec.model_copy(update={"height": height, "width": width, "shortest_side": shortest})
