"""Other libraries' words for preprocessing, as our one specification.

open_clip's PreprocessCfg and transformers' CLIP image processors.
"""

from typing import Any

from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import ValidationError

from encoders.errors import ImportFailed
from encoders.images import Preprocessing

_RESIZE_MODES = {"shortest": "shortest", "squash": "squash", "longest": "letterbox"}

_PILLOW_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def from_open_clip(cfg: dict[str, Any]) -> Preprocessing:
    """open_clip's `preprocess_cfg`, as its `image_transform` reads it. Raises ImportFailed."""
    height, width = _pair(cfg["size"])
    mode = cfg.get("resize_mode") or "shortest"
    if mode not in _RESIZE_MODES:
        raise ImportFailed(f"resize_mode {mode!r} is none of {', '.join(_RESIZE_MODES)}")
    # "random" is for training; where the size is no square, "shortest" takes bicubic whatever is asked for.
    bilinear = cfg.get("interpolation") == "bilinear" and (mode != "shortest" or height == width)
    return _checked(
        height=height,
        width=width,
        resize=_RESIZE_MODES[mode],
        crop_rounding="even",
        interpolation="bilinear" if bilinear else "bicubic",
        fill=cfg.get("fill_color") or 0,
        mean=_triple(cfg.get("mean") or OPENAI_DATASET_MEAN),
        std=_triple(cfg.get("std") or OPENAI_DATASET_STD),
    )


def from_transformers(processor: Any, *, image_side: int) -> Preprocessing:
    """A CLIP image processor's settings for a tower that reads `image_side` pixels. Raises ImportFailed."""
    _require_plain_scaling(processor)
    resize, shortest_side, (height, width) = _resize_and_crop(processor)
    if (height, width) != (image_side, image_side):
        raise ImportFailed(
            f"preprocessing gives {width}×{height} pixels, the tower reads {image_side}×{image_side}"
        )
    resample = int(processor.resample)
    if resample not in _PILLOW_RESAMPLING:
        raise ImportFailed(f"resample {resample} is none of {_PILLOW_RESAMPLING}")
    return _checked(
        height=height,
        width=width,
        resize=resize,
        shortest_side=shortest_side,
        crop_rounding="floor",
        interpolation=_PILLOW_RESAMPLING[resample],
        mean=_triple(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0),
        std=_triple(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0),
    )


def _require_plain_scaling(processor: Any) -> None:
    factor = getattr(processor, "rescale_factor", None) or 1 / 255
    if not processor.do_rescale or abs(factor * 255 - 1) > 1e-6:
        raise ImportFailed(
            f"do_rescale {processor.do_rescale} by {factor}: only values divided by 255 can be expressed"
        )
    if getattr(processor, "do_pad", None):
        raise ImportFailed("do_pad: padding to a size cannot be expressed")


def _resize_and_crop(processor: Any) -> tuple[str, int | None, tuple[int, int]]:
    """(resize mode, shortest side, (height, width) in the end)."""
    size, crop = _sizes(processor.size), _sizes(processor.crop_size)
    cropped = (crop["height"], crop["width"]) if processor.do_center_crop and "height" in crop else None
    if processor.do_resize and set(size) == {"shortest_edge"} and cropped:
        return "shortest", size["shortest_edge"], cropped
    if processor.do_resize and set(size) == {"height", "width"}:
        squashed = (size["height"], size["width"])
        if cropped in (None, squashed):
            return "squash", None, squashed
    raise ImportFailed(
        f"do_resize {processor.do_resize} to {size} and do_center_crop {processor.do_center_crop} to {crop}: "
        "only the shortest edge with a crop, or a height and width, can be expressed"
    )


def _sizes(size: Any) -> dict[str, int]:
    """What a processor's size says: a dict, or an object that holds None for what it does not name."""
    given = dict(size) if isinstance(size, dict) else vars(size) if size is not None else {}
    return {key: int(value) for key, value in given.items() if value is not None}


def _checked(**settings: Any) -> Preprocessing:
    try:
        return Preprocessing(**settings)
    except ValidationError as error:
        raise ImportFailed(f"preprocessing {settings} cannot be expressed: {error}") from error


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    height, width = size if len(size) == 2 else (size[0], size[0])
    return int(height), int(width)


def _triple(value: Any) -> tuple[float, ...]:
    return (
        tuple(float(channel) for channel in value) if isinstance(value, list | tuple) else (float(value),) * 3
    )
