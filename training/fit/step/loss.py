"""The contrastive losses: pure functions of unit rows, positives and scale.

Rows of `images` and `texts` are this process's; the `all_*` rows are every process's, in the same order on each
(alone, they are one and the same). Averaged over processes, a loss and its gradients equal those of one process
that holds the whole batch.
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
class PairIds:
    """Who belongs to whom: integers (n,), equal for equal images and for equal captions, on every process.

    Where `share` of each image shows another pair's (see `cutmix`), `mixed` has that pair's ids.
    """

    images: torch.Tensor
    captions: torch.Tensor
    mixed: "PairIds | None" = None
    share: float = 0.0


@dataclass(frozen=True)
class Batch:
    """A contrastive batch: local unit rows (n, d), the global ones (N, d), and which belong together.

    image_targets: (n, N), how much of local image i the global text j is about, from 0 to 1.
    text_targets: (n, N), how much of global image j is what the local text i is about.
    Without mixing both are 0 or 1 and the same. Every row has at least one entry above 0.
    """

    images: torch.Tensor
    texts: torch.Tensor
    all_images: torch.Tensor
    all_texts: torch.Tensor
    image_targets: torch.Tensor
    text_targets: torch.Tensor


def targets_between(local: PairIds, every: PairIds) -> tuple[torch.Tensor, torch.Tensor]:
    """`image_targets` and `text_targets` of a batch: same image or same caption, by the share that shows it."""
    own = _belong(local, every)
    if local.mixed is None or every.mixed is None:
        return own, own
    kept = (1 - local.share) * own
    return (
        kept + local.share * _belong(local.mixed, every),
        kept + local.share * _belong(local, every.mixed),
    )


def _belong(local: PairIds, every: PairIds) -> torch.Tensor:
    same_image = local.images[:, None] == every.images[None, :]
    same_caption = local.captions[:, None] == every.captions[None, :]
    return (same_image | same_caption).float()


def softmax_loss(batch: Batch, logit_scale: torch.Tensor) -> torch.Tensor:
    """Symmetric cross entropy over the similarity matrix (CLIP), each row's targets scaled to a sum of 1."""
    from_images = logit_scale * batch.images @ batch.all_texts.T
    from_texts = logit_scale * batch.texts @ batch.all_images.T
    return (
        F.cross_entropy(from_images, _distribution(batch.image_targets))
        + F.cross_entropy(from_texts, _distribution(batch.text_targets))
    ) / 2


def sigmoid_loss(batch: Batch, logit_scale: torch.Tensor, logit_bias: torch.Tensor) -> torch.Tensor:
    """Pairwise sigmoid loss (SigLIP, Zhai et al. 2023): each of the n × N pairs a decision of its own."""
    logits = logit_scale * batch.images @ batch.all_texts.T + logit_bias
    total = F.binary_cross_entropy_with_logits(logits, batch.image_targets, reduction="sum")
    return total / len(batch.images)


@dataclass(frozen=True)
class TeacherRows:
    """What a teacher makes of a batch, without gradients: unit rows (n, e) here, (N, e) of every process."""

    images: torch.Tensor
    texts: torch.Tensor
    all_images: torch.Tensor
    all_texts: torch.Tensor


def affinity_loss(
    batch: Batch, teacher: TeacherRows, logit_scale: torch.Tensor, *, teacher_scale: float
) -> torch.Tensor:
    """How far the student's similarities are from the teacher's: mean KL(teacher ‖ student), both ways.

    Each row is a softmax over the other side of the batch: the spaces themselves may differ in size (affinity
    mimicking, Wu et al. 2023, "TinyCLIP").
    """
    return (
        _divergence(
            teacher_scale * teacher.images @ teacher.all_texts.T, logit_scale * batch.images @ batch.all_texts.T
        )
        + _divergence(
            teacher_scale * teacher.texts @ teacher.all_images.T, logit_scale * batch.texts @ batch.all_images.T
        )
    ) / 2


def _divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    return F.kl_div(
        student.log_softmax(dim=1), teacher.log_softmax(dim=1), reduction="batchmean", log_target=True
    )


def _distribution(targets: torch.Tensor) -> torch.Tensor:
    return targets / targets.sum(dim=1, keepdim=True)


def clamp_logit_scale(log_scale: torch.Tensor) -> None:
    """Keep the logarithm of the scale within [0, ln 100], in place."""
    with torch.no_grad():
        log_scale.clamp_(0.0, math.log(MAX_LOGIT_SCALE))
