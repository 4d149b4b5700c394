"""open_clip's models (built-in tags, the hub, folders, checkpoint files) as `Published`.

open_clip itself finds, converts and loads the weights; a `.pt` file is read with weights_only=True, so that
nothing in it runs.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP, convert_to_custom_text_state_dict
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from pydantic import ValidationError

from encoders.bundle import TEXT_CONFIG
from encoders.errors import ImportFailed
from encoders.importing.preprocessing import from_open_clip
from encoders.importing.published import Published, card_licence, library_versions
from encoders.importing.settings import Settings, file_settings, tag_settings
from encoders.importing.tokenizers import freeze_open_clip
from encoders.towers import TEXT_FOLDER, TowersConfig, suppress_library_logs

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")

_PADDING_FREE_POOLERS = ("mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler")
"""Of transformers text towers: those whose result does not depend on how far a text is padded."""

_FOREIGN_KEYS = ("hf_tokenizer_name", "hf_model_pretrained", "tokenizer_kwargs", "tokenizer_mode")
"""Of a text tower's configuration: what a bundle's tokenizer specification and files say instead."""


@dataclass(frozen=True)
class _Source:
    """name: for open_clip, with or without a schema; pretrained: a tag or file where there is no schema.

    settings: of a tag or file; a folder or hub model has its own.
    """

    text: str
    name: str
    pretrained: str | None = None
    licence: str | None = None
    settings: Settings | None = None

    @property
    def quick_gelu(self) -> bool:
        """What the weights were trained with; open_clip only warns when the model's differs."""
        return self.settings is not None and self.settings.quick_gelu


def read_open_clip(
    source: str, *, architecture: str | None = None, like: str | None = None, cache: Path | None = None
) -> Published:
    """A model by `ARCHITECTURE/TAG`, `hf-hub:ORG/NAME`, `local-dir:FOLDER`, or a checkpoint file.

    architecture: for a checkpoint file, open_clip's name of its model. like: the tag of it whose preprocessing
    and activation the file was trained with. cache: where the hub's files are kept. Raises ImportFailed.
    """
    if like is not None and Path(source).suffix not in CHECKPOINT_SUFFIXES:
        raise ImportFailed(
            f"--like is for a checkpoint file: {source} says itself how its weights were trained"
        )
    found = _find(source, architecture, like)
    model, tokenizer = _load(found, cache)
    if not isinstance(model, CLIP | CustomTextCLIP):
        raise ImportFailed(
            f"{source}: a {type(model).__name__} has more than two towers and cannot be expressed"
        )
    preprocess_cfg = cast("dict[str, Any]", model.visual.preprocess_cfg)
    towers = _towers(found, model, cache)
    spec, tokenizer_files = freeze_open_clip(tokenizer, masked_pad_id=_masked_pad_id(model, towers))
    return Published(
        towers=towers,
        preprocessing=from_open_clip(preprocess_cfg),
        tokenizer=spec,
        state=_state(model, towers),
        files={**tokenizer_files, **_text_config(model, towers)},
        provenance={
            "source": source,
            "architecture": found.name,
            "licence": found.licence or "unknown",
            "settings": found.settings.basis if found.settings else "the model's own configuration",
            "libraries": library_versions("open_clip_torch", "timm", "transformers", "torch"),
        },
        embed_image=_image_embedder(model, preprocess_cfg),
        embed_text=lambda text: cast("torch.Tensor", model.encode_text(tokenizer([text]))[0]),
    )


def _find(source: str, architecture: str | None, like: str | None) -> _Source:
    if source.startswith(("hf-hub:", "local-dir:")):
        folder = Path(source.removeprefix("local-dir:"))
        return _Source(source, source, licence=card_licence(folder))
    if Path(source).suffix in CHECKPOINT_SUFFIXES:
        return _find_checkpoint(Path(source), architecture, like)
    name, _, tag = source.rpartition("/")
    name = name.replace("/", "-")
    if not name or name not in open_clip.list_models():
        raise ImportFailed(
            f"{source!r} is no ARCHITECTURE/TAG, hf-hub:ORG/NAME, local-dir:FOLDER, checkpoint file "
            f"({', '.join(CHECKPOINT_SUFFIXES)}) or transformers CLIP folder that is here; "
            "`python -c 'import open_clip; print(open_clip.list_pretrained())'` lists the tags"
        )
    return _Source(source, name, pretrained=tag, settings=tag_settings(name, tag))


def _find_checkpoint(file: Path, architecture: str | None, like: str | None) -> _Source:
    if not file.is_file():
        raise ImportFailed(f"no checkpoint at {file}")
    if architecture is None:
        raise ImportFailed(f"{file} says nothing of its architecture: name it with --model, such as ViT-B-32")
    if architecture not in open_clip.list_models():
        raise ImportFailed(f"open_clip has no model {architecture!r}: see `open_clip.list_models()`")
    settings = file_settings(file, architecture=architecture, like=like)
    licence = card_licence(file.parent)
    return _Source(str(file), architecture, pretrained=str(file), licence=licence, settings=settings)


def _load(source: _Source, cache: Path | None) -> tuple[Any, Any]:
    cache_dir = str(cache) if cache else None
    try:
        with suppress_library_logs():
            model = open_clip.create_model(
                source.name,
                pretrained=source.pretrained,
                force_quick_gelu=source.quick_gelu,
                force_preprocess_cfg=dict(source.settings.preprocessing) if source.settings else None,
                pretrained_text=False,
                require_pretrained=True,
                weights_only=True,
                cache_dir=cache_dir,
            )
            tokenizer = open_clip.get_tokenizer(source.name, cache_dir=cache_dir)
    except Exception as error:  # open_clip, the hub and torch.load raise whatever they meet
        raise ImportFailed(f"open_clip cannot load {source.text}: {error}") from error
    return model.eval(), tokenizer


def _model_config(name: str, cache: Path | None) -> dict[str, Any]:
    if not name.startswith("hf-hub:"):
        return dict(open_clip.get_model_config(name))
    # get_model_config would look for it in the default cache, whatever cache the weights came to
    file = download_pretrained_from_hf(
        name.removeprefix("hf-hub:"), filename="open_clip_config.json", cache_dir=str(cache) if cache else None
    )
    return dict(json.loads(Path(file).read_text(encoding="utf8"))["model_cfg"])


def _towers(source: _Source, model: CLIP | CustomTextCLIP, cache: Path | None) -> TowersConfig:
    cfg = _model_config(source.name, cache)
    text_cfg = {key: value for key, value in cfg["text_cfg"].items() if key not in _FOREIGN_KEYS}
    if text_cfg.get("hf_model_name"):
        text_cfg["hf_model_name"] = TEXT_FOLDER
    vision_cfg = {key: value for key, value in cfg["vision_cfg"].items() if key != "timm_model_pretrained"}
    rest = {key: value for key, value in cfg.items() if key != "nonscalar_logit_scale"}
    rest["custom_text"] = isinstance(model, CustomTextCLIP)
    rest["quick_gelu"] = bool(cfg.get("quick_gelu")) or source.quick_gelu
    try:
        return TowersConfig(**{**rest, "text_cfg": text_cfg, "vision_cfg": vision_cfg})
    except ValidationError as error:
        raise ImportFailed(f"{source.text}: its configuration cannot be expressed: {error}") from error


def _state(model: CLIP | CustomTextCLIP, towers: TowersConfig) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = dict(model.state_dict())
    for scalar in ("logit_scale", "logit_bias"):
        if scalar in state:
            state[scalar] = state[scalar].reshape(())
    if isinstance(model, CLIP) and towers.is_custom:
        return dict(convert_to_custom_text_state_dict(state))
    return state


def _text_config(model: CLIP | CustomTextCLIP, towers: TowersConfig) -> dict[str, bytes]:
    if not towers.has_transformers_text_tower:
        return {}
    return {TEXT_CONFIG: model.text.config.to_json_string(use_diff=False).encode()}


def _masked_pad_id(model: CLIP | CustomTextCLIP, towers: TowersConfig) -> int | None:
    if not towers.has_transformers_text_tower:
        return None
    if towers.text_cfg.get("hf_pooler_type", "mean_pooler") not in _PADDING_FREE_POOLERS:
        return None
    return cast("int | None", model.text.config.pad_token_id)


def _image_embedder(model: CLIP | CustomTextCLIP, cfg: dict[str, Any]) -> Callable[[Image.Image], torch.Tensor]:
    transform = image_transform_v2(PreprocessCfg(**cfg), is_train=False)
    return lambda image: cast("torch.Tensor", model.encode_image(transform(image)[None])[0])
