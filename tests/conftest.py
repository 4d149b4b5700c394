"""Fixtures that every package's tests share."""

import ctypes
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TWINLENS_ENGINE", "torch")  # compiling takes a second, and there are hundreds of starts
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing downloads at test time: a lookup is a failure at once

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from encoders.bundle import Bundle, BundleConfig, write_bundle
from encoders.images import Preprocessing
from encoders.texts import TokenizerSpec
from encoders.towers import TowersConfig, build_towers

WORDS = [
    "a",
    "an",
    "the",
    "red",
    "green",
    "blue",
    "yellow",
    "black",
    "white",
    "dark",
    "light",
    "square",
    "circle",
    "dog",
    "cat",
    "car",
    "on",
    "of",
    "and",
    "with",
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tiny_tokenizer_json() -> bytes:
    """A word-level tokenizer of a few dozen words, in tokenizer.json form."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer.to_str().encode()


def tiny_text_config() -> bytes:
    """A BERT of one layer and 16 dimensions."""
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "vocab_size": 64, "hidden_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "pad_token_id": 0,
        "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return json.dumps(config).encode()


def make_tiny_bundle(path: Path, *, seed: int = 0, name: str = "tiny", **changes: object) -> Bundle:
    """Random weights in the shape of the default encoder: timm convolutions beside a transformers BERT."""
    towers = TowersConfig(
        embed_dim=16,
        vision_cfg={
            "timm_model_name": "test_efficientnet",
            "timm_pool": "",
            "timm_proj": "mlp",
            "image_size": 32,
        },
        text_cfg={"hf_model_name": "text", "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"},
    )
    config = BundleConfig(
        name=name,
        towers=towers,
        preprocessing=Preprocessing(height=32, width=32),
        tokenizer=TokenizerSpec(kind="tokenizers", context_length=16),
        logit_scale=14.0,
    ).model_copy(update=changes)
    files = {"tokenizer/tokenizer.json": tiny_tokenizer_json(), "text/config.json": tiny_text_config()}
    scratch = path.parent / f"{path.name}.towers"
    (scratch / "text").mkdir(parents=True, exist_ok=True)
    (scratch / "text" / "config.json").write_bytes(tiny_text_config())
    torch.manual_seed(seed)
    state = build_towers(towers, scratch).state_dict()
    return write_bundle(path, config=config, state=state, files=files)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle that encodes in about a millisecond."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture(scope="session")
def other_tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same shape with other weights, hence another fingerprint."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "other", seed=1, name="other").path


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Bundle]:
    """Makes a tiny bundle at a path, with a seed, a name or other fields of its configuration."""
    return make_tiny_bundle


@pytest.fixture
def held_by_modes() -> Iterator[None]:
    """This thread, and those that it starts, may do with files what their modes say, root's too."""
    capabilities, thread = ctypes.CDLL(None, use_errno=True), threading.get_native_id()
    header = (ctypes.c_uint32 * 2)(0x20080522, thread)  # _LINUX_CAPABILITY_VERSION_3
    had = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice
    assert capabilities.capget(header, had) == 0, os.strerror(ctypes.get_errno())
    less = (ctypes.c_uint32 * 6)(*had)
    less[0] &= ~0b1110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    assert capabilities.capset(header, less) == 0, os.strerror(ctypes.get_errno())
    yield
    assert capabilities.capset(header, had) == 0, os.strerror(ctypes.get_errno())
