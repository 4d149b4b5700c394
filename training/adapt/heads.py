"""Training the heads alone on a domain's pairs beside replayed source pairs, then going only part of the way.

Below the heads everything is frozen, so images and texts pass through the towers once. A step's loss is the
mean of the contrastive loss on a batch of the domain's pairs and on one of the source's; at the end the heads
are interpolated with what they were (WiSE-FT, Wortsman et al. 2022).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from encoders.encoder import Encoder, normaliser
from encoders.towers import unit_rows
from training.data.captions import group_captions
from training.data.pairs import CaptionedImage, MissingImage
from training.errors import AdaptationError, RecipeError
from training.evaluation.decoding import decoded_pixels
from training.evaluation.embedding import OnProgress
from training.evaluation.ranks import Floats, Ints
from training.fit.step.loss import Batch, PairIds, softmax_loss, targets_between
from training.fit.towers.stems import cut_image_tower, cut_text_tower

STEPS = 100
BATCH = 128
LEARNING_RATE = 3e-4
BLOCK_ROWS = 1024
SURE_SHARE = 0.5
"""Of mutual neighbours, the half with the largest cosines is trained on."""


@dataclass(frozen=True)
class Pairing:
    """Images with one caption each; an image may come again with another."""

    pairs: Sequence[tuple[CaptionedImage, str]]


@dataclass(frozen=True, eq=False)
class _Features:
    """What the heads read: images (n, …), texts (n, width), and who belongs to whom."""

    images: torch.Tensor
    texts: torch.Tensor
    image_ids: torch.Tensor
    caption_ids: torch.Tensor

    def __len__(self) -> int:
        return len(self.texts)


def mutual_neighbours(images: Floats, texts: Floats, *, share: float = SURE_SHARE) -> tuple[Ints, Ints]:
    """(rows of images, rows of texts) that are each other's nearest: the `share` with the best cosines."""
    best_text, cosine = _nearest(images, texts)
    best_image, _ = _nearest(texts, images)
    rows = np.flatnonzero(best_image[best_text] == np.arange(len(images)))
    sure = rows[np.argsort(-cosine[rows], kind="stable")[: max(1, round(share * len(rows)))]]
    return sure, best_text[sure]


def _nearest(rows: Floats, others: Floats) -> tuple[Ints, Floats]:
    """(the row of `others` nearest to each row, their cosine), in blocks."""
    best, cosine = np.empty(len(rows), dtype=np.int64), np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        scores = rows[start : start + BLOCK_ROWS] @ others.T
        best[start : start + BLOCK_ROWS] = scores.argmax(axis=1)
        cosine[start : start + BLOCK_ROWS] = scores.max(axis=1)
    return best, cosine


def train_heads(
    encoder: Encoder, domain: Pairing, replay: Pairing, *, strength: float, on_progress: OnProgress
) -> None:
    """Train the encoder's heads in place. Raises AdaptationError for towers that cannot be cut there."""
    model = encoder.model
    try:
        image_cut, text_cut = cut_image_tower(model, "head"), cut_text_tower(model)
    except RecipeError as error:
        raise AdaptationError(f"the heads cannot be trained alone: {error}") from error
    if text_cut is None:
        raise AdaptationError("the heads cannot be trained alone: the text tower is no transformers tower")
    heads = nn.ModuleList([image_cut.tail, text_cut.tail])
    before = copy.deepcopy(heads.state_dict())
    stems = (image_cut.stem, text_cut.stem)
    read = [_features(encoder, stems, pairing, on_progress) for pairing in (domain, replay)]
    with torch.enable_grad():
        _descend(heads, read, scale=encoder.bundle.config.logit_scale, on_progress=on_progress)
    after = heads.state_dict()
    blended = {
        name: torch.lerp(before[name], value, strength) if value.is_floating_point() else value
        for name, value in after.items()
    }
    if bad := next((name for name, value in blended.items() if not torch.isfinite(value).all()), None):
        heads.load_state_dict(before)
        raise AdaptationError(f"training the heads diverged: {bad} is not finite")
    heads.load_state_dict(blended)
    heads.eval().requires_grad_(False)


def _descend(heads: nn.ModuleList, sets: Sequence[_Features], *, scale: float, on_progress: OnProgress) -> None:
    """AdamW with a linear warm-up over a tenth and a linear fall."""
    heads.train().requires_grad_(True)
    for module in heads.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    optimiser = torch.optim.AdamW(heads.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, 10 * (step + 1) / STEPS) * (1 - step / STEPS)
    )
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        optimiser.zero_grad()
        losses = [_loss(heads, features, rng, scale) for features in sets if len(features) > 1]
        torch.autograd.backward(torch.stack(losses).mean())
        optimiser.step()
        schedule.step()
        on_progress("training the heads", step + 1, STEPS)


def _loss(heads: nn.ModuleList, features: _Features, rng: np.random.Generator, scale: float) -> torch.Tensor:
    rows = torch.from_numpy(rng.permutation(len(features))[:BATCH])
    images, texts = unit_rows(heads[0](features.images[rows])), unit_rows(heads[1](features.texts[rows]))
    ids = PairIds(features.image_ids[rows], features.caption_ids[rows])
    image_targets, text_targets = targets_between(ids, ids)
    batch = Batch(images, texts, images, texts, image_targets, text_targets)
    return softmax_loss(batch, torch.tensor(scale, device=images.device))


@torch.no_grad()
def _features(
    encoder: Encoder, stems: tuple[nn.Module, nn.Module], pairing: Pairing, on_progress: OnProgress
) -> _Features:
    """Each distinct image and text through its frozen stem; pairs whose image does not decode drop out."""
    images = list({image.image_id: image for image, _ in pairing.pairs}.values())
    image_rows: dict[str, torch.Tensor] = {}
    normalise = normaliser(encoder.preprocessing, encoder.device)
    made = decoded_pixels(images, encoder.preprocessing, window=32)
    for done, (captioned, pixels) in enumerate(zip(images, made, strict=True), 1):
        if not isinstance(pixels, MissingImage):
            batch = torch.from_numpy(pixels[None].copy()).to(encoder.device)
            image_rows[captioned.image_id] = stems[0](normalise(batch))[0]
        on_progress("what the heads read", done, len(images))
    kept = [(image.image_id, caption) for image, caption in pairing.pairs if image.image_id in image_rows]
    if not kept:
        raise AdaptationError("none of the images to train the heads on decodes")
    names = {image_id: number for number, image_id in enumerate(image_rows)}
    captions = [caption for _, caption in kept]
    return _Features(
        images=torch.stack([image_rows[image_id] for image_id, _ in kept]),
        texts=_text_features(encoder, stems[1], captions),
        image_ids=torch.tensor([names[image_id] for image_id, _ in kept]),
        caption_ids=torch.from_numpy(np.ascontiguousarray(group_captions(captions))),
    )


def _text_features(encoder: Encoder, stem: nn.Module, captions: Sequence[str]) -> torch.Tensor:
    tokens = encoder.tokenize(captions)
    rows = []
    for start in range(0, len(captions), encoder.max_batch):
        chunk = slice(start, start + encoder.max_batch)
        width = max(1, int(tokens.lengths[chunk].max()))
        ids = torch.from_numpy(tokens.ids[chunk][:, :width]).to(encoder.device)
        rows.append(cast("Any", stem)(ids).float())
    return torch.cat(rows)
