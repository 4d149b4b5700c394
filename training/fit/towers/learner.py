"""The towers in training: which parameters move in a phase, and how a batch becomes embeddings."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from encoders.choices import Precision
from encoders.texts import Tokenizer
from encoders.towers import unit_rows
from training.errors import RecipeError
from training.fit.recipe import Phase
from training.fit.step.loss import Batch, LossKind, sigmoid_loss, softmax_loss
from training.fit.towers.optimiser import part_of
from training.fit.towers.products import lower_products
from training.fit.towers.stems import CutTower, cut_image_tower, cut_text_tower
from training.fit.views.kept_texts import KeptTexts
from training.fit.views.views import Wanted

TEXT_BATCH = 64
"""Texts of like length that run together; the contrastive batch is whatever the phase says."""

CPU_IMAGE_BATCH = 32
"""Images that run together on a CPU: 256 at once take 1.6 times as long, for want of cache."""


class Feed(Protocol):
    """What the trained part of the image tower reads: pixels, or the activations of a frozen stem."""

    def read(self, wanted: Wanted) -> torch.Tensor: ...

    def turn(self, following: Wanted = ()) -> None: ...


class Learner:
    """Both towers on one device, with the parts that `phase` trains set to learn."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        *,
        padded_to_context: bool,
        precision: Precision,
        loss: LossKind,
    ) -> None:
        self.model = model
        self._padded_to_context = padded_to_context
        self._open = cast("Any", model)
        self._tokenizer = tokenizer
        self._precision = precision
        self.loss_kind = loss
        self.device = next(model.parameters()).device
        if loss == "sigmoid" and self._open.logit_bias is None:
            raise RecipeError(
                "loss = 'sigmoid' needs towers with a logit bias: start from a SigLIP-style model"
            )
        self.cut: CutTower | None = None
        self.text_cut: CutTower | None = None
        self.kept_texts: KeptTexts | None = None
        self._phase: Phase | None = None
        if precision == "bf16" and self.device.type == "cpu":
            _lower_trunks(model)

    def begin(self, phase: Phase) -> list[str]:
        """Set which parameters learn; their names come back, sorted."""
        self._phase = phase
        self.cut = None if phase.stem is None else cut_image_tower(self.model, phase.stem)
        self.text_cut = cut_text_tower(self.model) if phase.train_text == "head" else None
        self.kept_texts = None
        trained = trained_names(self.model, phase)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in trained)
        return sorted(trained)

    def whole(self) -> None:
        """Run both towers whole, from pixels and texts, until the next phase begins."""
        self.cut = self.text_cut = self.kept_texts = None

    def train(self) -> None:
        """Dropout on; norms keep their statistics where the phase says so; frozen stems are as in use."""
        self.model.train()
        assert self._phase is not None  # noqa: S101 - begin() comes first
        for module in self.model.modules():
            if self._phase.freeze_norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        for cut in (self.cut, self.text_cut):
            if cut is not None:
                cut.stem.eval()

    def embed_images(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, dim) unit rows of what the feed gave."""
        tower = self._open.visual if self.cut is None else self.cut.tail
        alone = not (self.model.training and self._norms_move)
        parts = torch.split(inputs, CPU_IMAGE_BATCH) if alone and self.device.type == "cpu" else (inputs,)
        with self._autocast():
            return unit_rows(torch.cat([tower(part) for part in parts]))

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, dim) unit rows, in the order given."""
        if self.kept_texts is not None:
            assert self.text_cut is not None  # noqa: S101 - what is kept lies behind the cut
            with self._autocast():
                return unit_rows(self.text_cut.tail(self.kept_texts.read(texts)))
        return unit_rows(self._run_texts(self._open.encode_text, texts))

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, width) of the frozen text tower below its head; only where `text_cut` is."""
        assert self.text_cut is not None  # noqa: S101 - the caller looked
        return self._run_texts(self.text_cut.stem.eval(), texts)

    @torch.no_grad()
    def caption_features(self, texts: Sequence[str]) -> torch.Tensor:
        """(n, width) unit rows from below the text tower's head; of a tower without one, its embeddings."""
        cut = cut_text_tower(self.model.eval())
        return unit_rows(self._run_texts(self._open.encode_text if cut is None else cut.stem, texts))

    def _run_texts(self, tower: Callable[[torch.Tensor], torch.Tensor], texts: Sequence[str]) -> torch.Tensor:
        """Sorted by length, so that padding costs little; given back in order."""
        tokens = self._tokenizer(texts)
        order = np.argsort(tokens.lengths, kind="stable")
        rows = []
        for part in np.array_split(order, math.ceil(len(order) / TEXT_BATCH)):
            width = tokens.ids.shape[1] if self._padded_to_context else max(1, int(tokens.lengths[part].max()))
            ids = torch.from_numpy(tokens.ids[part][:, :width]).to(self.device)
            with self._autocast():
                rows.append(tower(ids).float())
        return torch.cat(rows)[torch.from_numpy(np.argsort(order)).to(self.device)]

    def loss(self, batch: Batch) -> torch.Tensor:
        scale = self._open.logit_scale.exp()
        if self.loss_kind == "sigmoid":
            return sigmoid_loss(batch, scale, self._open.logit_bias)
        return softmax_loss(batch, scale)

    @property
    def log_scale(self) -> torch.Tensor:
        return cast("torch.Tensor", self._open.logit_scale)

    @property
    def _norms_move(self) -> bool:
        return self._phase is not None and not self._phase.freeze_norms

    def _autocast(self) -> torch.autocast:
        """On a CPU the products alone are lowered: see `products`."""
        enabled = self._precision == "bf16" and self.device.type != "cpu"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def _lower_trunks(model: nn.Module) -> None:
    """All but the heads, which cost little and whose rounding would be everyone's."""
    for owner, name in (("visual", "trunk"), ("text", "transformer")):
        part = getattr(getattr(model, owner, None), name, None)
        if isinstance(part, nn.Module):
            lower_products(part)


def trained_names(model: nn.Module, phase: Phase) -> set[str]:
    """Names of the parameters that a phase trains: parts of both towers, their heads, the logit scale."""
    names = [name for name, _ in model.named_parameters()]
    text_layers = _text_filter(model, phase.train_text)
    whole = phase.train_image == "all"
    in_tail = (
        set() if whole else {id(one) for one in cut_image_tower(model, phase.train_image).tail.parameters()}
    )
    parameters = dict(model.named_parameters())

    def trains(name: str) -> bool:
        if name.startswith("logit_"):
            return True
        if name.startswith("visual."):
            return whole or id(parameters[name]) in in_tail
        return part_of(name) == "heads" or text_layers(name)

    return {name for name in names if trains(name)}


class _NameFilter(Protocol):
    def __call__(self, name: str, /) -> bool: ...


def _text_filter(model: nn.Module, cut: str) -> _NameFilter:
    if cut in ("all", "head"):
        return lambda _: cut == "all"
    numbered = re.compile(r"(?:layer|resblocks)\.(\d+)\.")
    kind, _, number = cut.partition(".")
    layers = {
        int(found[1])
        for name, _ in model.named_parameters()
        if part_of(name) == "text" and (found := numbered.search(name))
    }
    if kind != "layers" or not number.isdigit() or int(number) not in layers:
        named = f", or 'layers.0' to 'layers.{max(layers)}'" if layers else ""
        raise RecipeError(f"train_text = {cut!r} names no layer: use 'head', 'all'{named}")
    first = int(number)

    def trains(name: str) -> bool:
        found = numbered.search(name)
        return int(found[1]) >= first if found else "ln_final" in name

    return trains
