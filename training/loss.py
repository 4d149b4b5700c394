"""The contrastive losses: pure functions of unit rows, positives and scale.

Rows of `images` and `texts` are this process's; the `all_*` rows are every process's, in the same order on each
(alone, they are one and the same). Averaged over processes, a loss and its gradients equal those of one
process that holds the whole batch. It does not know towers or optimisers.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

LossKind = Literal["softmax", "sigmoid"]

MAX_LOGIT_SCALE = 100.0
"""CLIP's clamp: beyond it, training turns unstable (Radford et al. 2021, section 2.5)."""


@dataclass(frozen=True)
class Batch:
    """A contrastive batch: local unit rows (n, d), the global ones (N, d), and which pairs belong together.

    positives: (n, N) booleans; entry (i, j) says that local pair i and global pair j show one image or bear one
    caption. It is symmetric, and every row has at least one.
    """

    images: torch.Tensor
    texts: torch.Tensor
    all_images: torch.Tensor
    all_texts: torch.Tensor
    positives: torch.Tensor


def positives_between(
    image_ids: torch.Tensor,
    caption_ids: torch.Tensor,
    all_image_ids: torch.Tensor,
    all_caption_ids: torch.Tensor,
) -> torch.Tensor:
    """(n, N) booleans: same image or same caption. Ids are integers (n,) and (N,)."""
    same_image = image_ids[:, None] == all_image_ids[None, :]
    same_caption = caption_ids[:, None] == all_caption_ids[None, :]
    return same_image | same_caption


def softmax_loss(batch: Batch, logit_scale: torch.Tensor) -> torch.Tensor:
    """Symmetric cross entropy over the similarity matrix (CLIP), the target uniform over the positives."""
    target = batch.positives.float()
    target = target / target.sum(dim=1, keepdim=True)
    from_images = logit_scale * batch.images @ batch.all_texts.T
    from_texts = logit_scale * batch.texts @ batch.all_images.T
    return (F.cross_entropy(from_images, target) + F.cross_entropy(from_texts, target)) / 2


def sigmoid_loss(batch: Batch, logit_scale: torch.Tensor, logit_bias: torch.Tensor) -> torch.Tensor:
    """Pairwise sigmoid loss (SigLIP, Zhai et al. 2023): each of the n × N pairs a decision of its own."""
    logits = logit_scale * batch.images @ batch.all_texts.T + logit_bias
    signs = batch.positives.float() * 2 - 1
    return -F.logsigmoid(signs * logits).sum() / len(batch.images)


def clamp_logit_scale(log_scale: torch.Tensor) -> None:
    """Keep the logarithm of the scale within [0, ln 100], in place."""
    with torch.no_grad():
        log_scale.clamp_(0.0, math.log(MAX_LOGIT_SCALE))
