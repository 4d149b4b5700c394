"""What a weights file alone does not say: the preprocessing and the activation that it was trained with.

One architecture is published with several: of open_clip's 196 tags 83 differ from what the architecture's name
alone gives. A wrong guess loads without an error, and embeds wrongly in open_clip as it does here.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from encoders.errors import ImportFailed

SIDECAR = "open_clip_config.json"
"""open_clip's own name of what it publishes beside weights: `model_cfg` and `preprocess_cfg`."""

_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class Settings:
    """preprocessing: open_clip's words, the size left out; basis: where both were found, for people."""

    quick_gelu: bool
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    basis: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"{name} {value}" for name, value in self.preprocessing.items() if value)
        return f"{'QuickGELU' if self.quick_gelu else 'GELU'}, {told}"


def tag_settings(architecture: str, tag: str) -> Settings:
    """Those of a published tag. Raises ImportFailed where the architecture has none of that name."""
    if not (known := get_pretrained_cfg(architecture, tag)):
        tags = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        raise ImportFailed(f"open_clip has no tag {tag!r} for {architecture}; it has {tags}")
    return _settings(architecture, known, quick_gelu=bool(known.get("quick_gelu")), basis=f"the tag {tag}")


def file_settings(file: Path, *, architecture: str, like: str | None = None) -> Settings:
    """Those of a weights file: of the tag that `like` names, of a config beside it, or of all published tags.

    Raises ImportFailed, which asks, where nothing tells.
    """
    if like is not None:
        return tag_settings(architecture, like)
    if (sidecar := file.with_name(SIDECAR)).is_file():
        return _sidecar_settings(sidecar, architecture)
    tags = list_pretrained_tags_by_model(architecture)
    by_settings: dict[str, list[str]] = {}
    found = [tag_settings(architecture, tag) for tag in tags]
    for tag, settings in zip(tags, found, strict=True):
        by_settings.setdefault(str(settings), []).append(tag)
    if len(by_settings) == 1:
        basis = f"what all published tags of {architecture} agree on ({', '.join(tags)})"
        return Settings(found[0].quick_gelu, found[0].preprocessing, basis)
    if not tags:
        raise ImportFailed(
            f"{file} does not say which preprocessing and activation its weights were trained with, and "
            f"{architecture} has no published tag that would tell: write {SIDECAR} beside it, with "
            '{"model_cfg": {…}, "preprocess_cfg": {"mean": […], "std": […], "interpolation": "bicubic", '
            '"resize_mode": "shortest"}}'
        )
    choices = "; ".join(f"{settings}: {', '.join(named)}" for settings, named in by_settings.items())
    raise ImportFailed(
        f"{file} does not say which preprocessing and activation its weights were trained with, and the "
        f"published tags of {architecture} differ ({choices}): name the tag that they were trained from or "
        f"like with --like TAG, or put their {SIDECAR} beside the file"
    )


def _sidecar_settings(sidecar: Path, architecture: str) -> Settings:
    try:
        raw = json.loads(sidecar.read_text(encoding="utf8"))
        model, preprocess = raw["model_cfg"], raw["preprocess_cfg"]
        theirs = {part: model[part] for part in ("embed_dim", "vision_cfg", "text_cfg")}
        quick_gelu = bool(model.get("quick_gelu"))
        if lacking := [name for name in ("mean", "std") if not preprocess.get(name)]:
            raise ImportFailed(
                f"{sidecar}: preprocess_cfg lacks {' and '.join(lacking)}: write what was trained"
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImportFailed(f"{sidecar} has no readable model_cfg and preprocess_cfg: {error!r}") from error
    own = open_clip.get_model_config(architecture) or {}
    if other := [part for part, value in theirs.items() if json.dumps(own.get(part)) != json.dumps(value)]:
        raise ImportFailed(
            f"{sidecar} is of another model than {architecture}: {', '.join(other)} differ; name its own, or "
            f"import the folder {sidecar.parent}"
        )
    if own.get("quick_gelu") and not quick_gelu:
        raise ImportFailed(
            f"{sidecar} says GELU and {architecture} has QuickGELU: name the architecture without it"
        )
    return _settings(architecture, preprocess, quick_gelu=quick_gelu, basis=str(sidecar))


def _settings(architecture: str, given: Mapping[str, Any], *, quick_gelu: bool, basis: str) -> Settings:
    """As open_clip reads them: its own defaults for what is not given."""
    merged = merge_preprocess_dict(asdict(PreprocessCfg()), dict(given))
    return Settings(
        quick_gelu=quick_gelu or bool((open_clip.get_model_config(architecture) or {}).get("quick_gelu")),
        preprocessing={name: merged[name] for name in _PREPROCESSING},
        basis=basis,
    )
