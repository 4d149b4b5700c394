"""Small published models with random weights, in the forms that open_clip and transformers publish."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import bytes_to_unicode

from tests.conftest import tiny_text_config, tiny_tokenizer_json

VIT = {"image_size": 64, "patch_size": 16, "width": 64, "layers": 2, "head_width": 32}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
RESNET = {"image_size": 64, "width": 16, "layers": [1, 1, 1, 1], "head_width": 32}
TIMM = {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64}


def spread(model: torch.nn.Module, *, gain: float = 2.0) -> torch.nn.Module:
    """Random weights large enough that different inputs embed far apart, norms and biases included."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.mul_(gain)
            elif not name.startswith("logit_"):
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def open_clip_config(vision: dict[str, Any], text: dict[str, Any], **rest: Any) -> dict[str, Any]:
    return {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text, **rest}


def random_open_clip(config: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    custom = config.get("custom_text") or "hf_model_name" in config["text_cfg"]
    plain = {key: value for key, value in config.items() if key != "custom_text"}
    plain["text_cfg"] = {**plain["text_cfg"], "hf_model_pretrained": False}
    gain = 16.0 if "hf_model_name" in config["text_cfg"] else 5.0 if config["vision_cfg"] is RESNET else 2.0
    return spread((CustomTextCLIP if custom else CLIP)(**plain), gain=gain)


def save_local_dir(folder: Path, config: dict[str, Any], preprocess: dict[str, Any] | None = None) -> Path:
    """A folder as open_clip's `local-dir:` and `hf-hub:` take it."""
    folder.mkdir(parents=True, exist_ok=True)
    published = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(published))
    from safetensors.torch import save_model

    save_model(random_open_clip(config), str(folder / "open_clip_model.safetensors"))
    return folder


def save_text_folder(folder: Path) -> Path:
    """A transformers text tower's configuration and tokenizer, as a hub's folder has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(tiny_text_config())
    (folder / "tokenizer.json").write_bytes(tiny_tokenizer_json())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "pad_token": "[PAD]",
                "unk_token": "[UNK]",
                "cls_token": "[CLS]",
                "sep_token": "[SEP]",
                "model_max_length": 32,
            }
        )
    )
    return folder


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a small architecture that open_clip knows for the length of a test."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    (tmp_path / "Tiny-16.json").write_text(json.dumps(open_clip_config(VIT, TEXT)))
    open_clip.add_model_config(tmp_path / "Tiny-16.json")
    return "Tiny-16"


def clip_bpe_files(folder: Path) -> None:
    """A CLIP tokenizer in transformers' form, of a few merges, in vocab.json and merges.txt."""
    letters = list(bytes_to_unicode().values())
    merges = ["t h", "th e</w>", "a n", "d o", "do g</w>", "c a", "ca t</w>", "r e", "re d</w>"]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    special = ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate([*dict.fromkeys(pieces), *special])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def save_transformers_clip(folder: Path, *, image_side: int = 64, **processor: Any) -> Path:
    """A CLIP folder as transformers writes it: other names, q, k and v apart, its own preprocessing."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    clip_bpe_files(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 64, "intermediate_size": 160}
    config = CLIPConfig(
        text_config={
            **tower,
            "hidden_size": 32,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 20,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**tower, "image_size": image_side, "patch_size": 16},
        projection_dim=24,
    )
    torch.manual_seed(0)
    spread(CLIPModel(config), gain=1.5).save_pretrained(folder)
    tokenizer.model_max_length = 20
    tokenizer.save_pretrained(folder)
    sizes = {"size": {"shortest_edge": image_side}, "crop_size": {"height": image_side, "width": image_side}}
    CLIPImageProcessor(**{**sizes, **processor}).save_pretrained(folder)
    return folder
