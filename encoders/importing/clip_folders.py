"""transformers CLIP folders (config.json, weights, preprocessor_config.json, tokenizer) as `Published`.

The towers become open_clip's: the same computation under other names, with q, k and v in one matrix. It does
not know bundles on disk.
"""

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from encoders.errors import ImportFailed
from encoders.importing.preprocessing import from_transformers
from encoders.importing.published import Published, card_licence, library_versions
from encoders.importing.tokenizers import freeze_hugging_face
from encoders.towers import TowersConfig, suppress_library_logs

_ACTIVATIONS: dict[str, tuple[bool, dict[str, str]]] = {
    "quick_gelu": (True, {}),
    "gelu": (False, {}),
    "gelu_pytorch_tanh": (False, {"approximate": "tanh"}),
}
"""transformers' name: (open_clip's quick_gelu, arguments of GELU)."""

_RENAMED = (
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)

_VOCABULARY = ("vocab.json", "merges.txt")
"""What CLIP's tokenizer is made of, where there is no tokenizer.json."""

_PROJECTIONS = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
"""Linear layers there, matrices to multiply by (transposed) in open_clip."""


def is_transformers_folder(path: Path) -> bool:
    return (path / "config.json").is_file() and not (path / "open_clip_config.json").is_file()


def read_transformers_clip(folder: Path) -> Published:
    """A folder that CLIPModel's and CLIPProcessor's `save_pretrained` wrote. Raises ImportFailed."""
    _require_clip(folder)
    _require_vocabulary(folder)
    model, processor, tokenizer = _load(folder)
    text, vision = model.config.text_config, model.config.vision_config
    pool_type, eos_id = _pooling(text)
    spec, files = freeze_hugging_face(
        tokenizer,
        context_length=min(int(tokenizer.model_max_length), text.max_position_embeddings),
        clean="none",
        # The tower is causal and reads at the end token: padding is never read, but must not be that token.
        pad_id=0 if eos_id else 1,
    )
    return Published(
        towers=_towers(model.config, pool_type=pool_type, eos_id=eos_id),
        preprocessing=from_transformers(processor, image_side=vision.image_size),
        tokenizer=spec,
        state=_converted(model.state_dict()),
        files=files,
        provenance={
            "source": str(folder),
            "architecture": "transformers CLIPModel",
            "licence": card_licence(folder) or "unknown",
            "settings": "the folder's own configuration",
            "libraries": library_versions("transformers", "open_clip_torch", "tokenizers", "torch"),
        },
        embed_image=_image_embedder(model, processor),
        embed_text=_text_embedder(model, tokenizer, spec.context_length),
    )


def _require_clip(folder: Path) -> None:
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise ImportFailed(f"{folder / 'config.json'} cannot be read: {error}") from error
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if kind != "clip":
        raise ImportFailed(
            f"{folder} holds a model of type {kind!r}, only 'clip' can be imported from a transformers folder; "
            "SigLIP and others come by their open_clip tag, such as ViT-B-16-SigLIP/webli"
        )


def _require_vocabulary(folder: Path) -> None:
    """transformers makes do without: every text becomes the same few tokens, with no error."""
    if (folder / "tokenizer.json").is_file():
        return
    if missing := [name for name in _VOCABULARY if not (folder / name).is_file()]:
        raise ImportFailed(
            f"{folder} has no vocabulary: {' and '.join(missing)} (or tokenizer.json) must lie there, as they "
            "were published with the weights"
        )


def _load(folder: Path) -> tuple[Any, Any, Any]:
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        CLIPModel,
    )  # costs seconds: only when it is needed

    try:
        with suppress_library_logs():
            model, report = cast("Any", CLIPModel).from_pretrained(
                folder, local_files_only=True, output_loading_info=True, dtype=torch.float32
            )
            processor = cast("Any", AutoImageProcessor).from_pretrained(folder, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises whatever a foreign folder makes it raise
        raise ImportFailed(f"transformers cannot load {folder}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ImportFailed(f"{folder}: the weights lack {len(missing)} tensors, {missing[0]} first")
    return model.eval(), processor, tokenizer


def _towers(config: Any, *, pool_type: str, eos_id: int) -> TowersConfig:
    text, vision = config.text_config, config.vision_config
    if text.hidden_act != vision.hidden_act and "quick_gelu" in (text.hidden_act, vision.hidden_act):
        raise ImportFailed(
            f"hidden_act is {text.hidden_act} for texts, {vision.hidden_act} for images: one is needed"
        )
    if vision.num_channels != 3:
        raise ImportFailed(f"the image tower reads {vision.num_channels} channels, 3 are needed")
    return TowersConfig(
        embed_dim=config.projection_dim,
        quick_gelu=_activation(text.hidden_act)[0],
        vision_cfg={
            **_transformer(vision),
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
        },
        text_cfg={
            **_transformer(text),
            "heads": text.num_attention_heads,
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "pool_type": pool_type,
            "eos_id": eos_id,
        },
    )


def _transformer(config: Any) -> dict[str, Any]:
    """What both towers' configurations have in common, in open_clip's words."""
    gelu = _activation(config.hidden_act)[1]
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "norm_kwargs": {"eps": config.layer_norm_eps},
        **({"act_kwargs": gelu} if gelu else {}),
    }


def _activation(name: str) -> tuple[bool, dict[str, str]]:
    if name not in _ACTIVATIONS:
        raise ImportFailed(f"hidden_act {name!r} is none of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _pooling(text: Any) -> tuple[str, int]:
    """(open_clip's pool_type, end token): old configurations say 2 and mean the highest id."""
    if not isinstance(text.eos_token_id, int):
        raise ImportFailed(f"eos_token_id is {text.eos_token_id}: one id is needed")
    return ("argmax" if text.eos_token_id == 2 else "eos"), text.eos_token_id


def _converted(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    converted = {"logit_scale": state["logit_scale"].reshape(())}
    for name, tensor in state.items():
        if name in _PROJECTIONS:
            converted[_PROJECTIONS[name]] = tensor.t().contiguous()
        elif ".self_attn.q_proj." in name:
            parts = [state[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            merged = name.replace(".self_attn.q_proj.", ".attn.in_proj_")
            converted[_renamed(merged)] = torch.cat(parts)
        elif not re.search(r"\.[kv]_proj\.|\.position_ids$|^logit_scale$", name):
            converted[_renamed(name)] = tensor
    return converted


def _renamed(name: str) -> str:
    return functools.reduce(lambda left, rule: re.sub(rule[0], rule[1], left), _RENAMED, name)


def _image_embedder(model: Any, processor: Any) -> Callable[[Image.Image], torch.Tensor]:
    return lambda image: _pooled(model.get_image_features(**processor(images=image, return_tensors="pt")))


def _text_embedder(model: Any, tokenizer: Any, context_length: int) -> Callable[[str], torch.Tensor]:
    def embed(text: str) -> torch.Tensor:
        tokens = tokenizer([text], truncation=True, max_length=context_length, return_tensors="pt")
        return _pooled(model.get_text_features(**tokens))

    return embed


def _pooled(output: Any) -> torch.Tensor:
    """transformers 5 answers an output object, 4 the tensor alone."""
    return cast("torch.Tensor", getattr(output, "pooler_output", output)[0])
