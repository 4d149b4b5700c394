"""A tiny bundle whose embeddings lie far apart, and real bundles on disk, each broken in one way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from encoders.bundle import Bundle, read_files, write_bundle
from encoders.encoder import load_towers
from encoders.golden import add_golden
from encoders.images import Preprocessing
from tests.conftest import make_tiny_bundle

State = dict[str, torch.Tensor]
PREPROCESSING = Preprocessing(height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
GAINS = {"visual": 4.0, "text": 8.0}


def make_lively_bundle(path: Path, **changes: Any) -> Bundle:
    """Random weights, large enough that different inputs embed far apart; with golden inputs."""
    tiny = make_tiny_bundle(path.with_name(f"{path.name}.tiny"), name="lively")
    state = {
        name: tensor * GAINS.get(name.partition(".")[0], 1.0) if tensor.dim() >= 2 else tensor
        for name, tensor in load_towers(tiny).state_dict().items()
    }
    config = tiny.config.model_copy(update={"preprocessing": PREPROCESSING, **changes})
    return add_golden(write_bundle(path, config=config, state=state, files=read_files(tiny)), reference=state)


def rewrite(
    bundle: Bundle, out: Path, *, change: Callable[[State], object] = lambda state: None, **config: Any
) -> Bundle:
    """The same bundle, golden inputs included, with other weights or another configuration."""
    state = {name: tensor.clone() for name, tensor in load_towers(bundle).state_dict().items()}
    change(state)
    updated = bundle.config.model_copy(update=config)
    return write_bundle(out, config=updated, state=state, files=read_files(bundle))


def _noise(state: State) -> None:
    generator = torch.Generator().manual_seed(3)
    for tensor in state.values():
        if tensor.dim() >= 2:
            tensor += 0.02 * tensor.std() * torch.randn(tensor.shape, generator=generator)


def _collapse_texts(state: State) -> None:
    """Every token reads alike, wherever it stands."""
    for name in ("word_embeddings", "position_embeddings"):
        rows = state[f"text.transformer.embeddings.{name}.weight"]
        rows.copy_(rows.mean(dim=0).expand_as(rows).clone())


def _swap_channels(state: State) -> None:
    stem = state["visual.trunk.conv_stem.weight"]
    stem.copy_(stem[:, [2, 1, 0]].clone())


def _wrong_mean(bundle: Bundle, out: Path) -> Bundle:
    spec = bundle.config.preprocessing.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
    return rewrite(bundle, out, preprocessing=spec)


def _wrong_resize(bundle: Bundle, out: Path) -> Bundle:
    spec = bundle.config.preprocessing.model_copy(update={"resize": "shortest"})
    return rewrite(bundle, out, preprocessing=spec)


def _truncated(bundle: Bundle, out: Path) -> Bundle:
    return rewrite(bundle, out, tokenizer=bundle.config.tokenizer.model_copy(update={"context_length": 8}))


BREAKS: dict[str, tuple[Callable[[Bundle, Path], Bundle], str]] = {
    "wrong normalisation": (_wrong_mean, "normalisation"),
    "wrong resize mode": (_wrong_resize, "resize"),
    "noise in the weights": (lambda bundle, out: rewrite(bundle, out, change=_noise), "weights"),
    "collapsed text tower": (lambda bundle, out: rewrite(bundle, out, change=_collapse_texts), "collapse"),
    "truncation at 8 tokens": (_truncated, "truncation"),
    "swapped channels": (lambda bundle, out: rewrite(bundle, out, change=_swap_channels), "channels"),
}
"""What is broken → what makes a broken copy of a bundle, and the cause that must be named."""
