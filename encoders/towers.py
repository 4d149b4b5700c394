"""The two towers, built from one configuration by open_clip's model definitions.

Any open_clip architecture (its own JSON configuration), and the small pair: a timm image tower beside a
transformers text tower, whose configuration lies in a bundle's `text/` folder. Nothing is downloaded here and
no weights are loaded: see `bundle` for those.
"""

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CustomTextCLIP
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from encoders.errors import UnsupportedBundle

TEXT_FOLDER = "text"
"""Inside a bundle: the transformers configuration of the text tower."""


class TowersConfig(BaseModel):
    """open_clip's model configuration, as in its `model_configs/*.json`.

    `text_cfg["hf_model_name"]`, where there is one, is the bundle's `text` folder, never a hub's name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embed_dim: int = Field(ge=1, le=16384)
    vision_cfg: dict[str, Any]
    text_cfg: dict[str, Any]
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: float = 2.6592600369327780  # ln(1 / 0.07), CLIP's own
    init_logit_bias: float | None = None

    @field_validator("text_cfg")
    @classmethod
    def _text_lies_inside(cls, text_cfg: dict[str, Any]) -> dict[str, Any]:
        """Else the fingerprint would not cover it, and a hub might be asked for it."""
        if (name := text_cfg.get("hf_model_name")) and name != TEXT_FOLDER:
            raise ValueError(f"hf_model_name is {name!r}: in a bundle it is {TEXT_FOLDER!r}, its own folder")
        return text_cfg

    @field_validator("vision_cfg")
    @classmethod
    def _names_no_hub(cls, vision_cfg: dict[str, Any]) -> dict[str, Any]:
        if ":" in (name := str(vision_cfg.get("timm_model_name", ""))):
            raise ValueError(f"timm_model_name is {name!r}: a bundle holds all that it needs and names no hub")
        return vision_cfg

    @property
    def has_transformers_text_tower(self) -> bool:
        return bool(self.text_cfg.get("hf_model_name"))

    @property
    def is_custom(self) -> bool:
        """Whether the text tower is a module of its own (CustomTextCLIP), not spread over the model (CLIP)."""
        return self.custom_text or self.has_transformers_text_tower or "timm_model_name" in self.vision_cfg


def build_towers(config: TowersConfig, folder: Path) -> nn.Module:
    """A CLIP or CustomTextCLIP with random weights, in eval mode.

    `folder` is the bundle that relative names in the configuration refer to. Raises UnsupportedBundle when
    the installed open_clip or timm does not know the architecture.
    """
    text_cfg = dict(config.text_cfg)
    if config.has_transformers_text_tower:
        text_cfg["hf_model_name"] = str(folder / text_cfg["hf_model_name"])
        text_cfg["hf_model_pretrained"] = False
    model_class = CustomTextCLIP if config.is_custom else CLIP
    try:
        with suppress_library_logs():
            model: nn.Module = model_class(
                embed_dim=config.embed_dim,
                vision_cfg={**config.vision_cfg, "timm_model_pretrained": False},
                text_cfg=text_cfg,
                quick_gelu=config.quick_gelu,
                init_logit_scale=config.init_logit_scale,
                init_logit_bias=config.init_logit_bias,
            )
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError, OSError) as error:
        raise UnsupportedBundle(f"cannot build the towers {config.model_dump()}: {error}") from error
    return model.eval()


def unit_rows(features: torch.Tensor) -> torch.Tensor:
    """(n, d) float32 rows of length 1; a zero row stays zero rather than becoming NaN."""
    return torch.nn.functional.normalize(features.float(), dim=-1, eps=1e-12)


class _Quiet(logging.Filter):
    """Drops warnings, and less, of threads that asked for quiet."""

    def __init__(self) -> None:
        super().__init__()
        self.threads = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or not getattr(self.threads, "quiet", False)


_quiet = _Quiet()


@contextlib.contextmanager
def suppress_library_logs() -> Iterator[None]:
    """transformers and open_clip report on the root logger what no user of a bundle can act on.

    Of this thread alone: `logging.disable` would drop what others have to say meanwhile, and of two threads
    that use it at once one restores what the other had set.
    """
    transformers = logging.getLogger("transformers")  # keeps its records from the root logger
    for place in (logging.root, *logging.root.handlers, *transformers.handlers, logging.lastResort):
        if place is not None:
            place.addFilter(_quiet)  # once, however often
    before = getattr(_quiet.threads, "quiet", False)
    _quiet.threads.quiet = True
    try:
        yield
    finally:
        _quiet.threads.quiet = before
