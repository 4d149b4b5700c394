"""One training step: draws become embeddings, their loss gives gradients, the optimiser moves the weights.

All that is random in a step depends on its key, (seed, phase, epoch, step), alone.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from training.errors import Diverged
from training.fit.prepare import Prepared
from training.fit.progress import Reporter
from training.fit.recipe import Phase
from training.fit.step.contrast import LossOf, Towers, average_gradients, contrastive_step, gather_rows
from training.fit.step.cutmix import Box, draw_box, followers
from training.fit.step.loss import Batch, PairIds, TeacherRows, affinity_loss, clamp_logit_scale
from training.fit.step.mixture import Draw, caption_ids, distinct_views, image_ids
from training.fit.step.teacher import Teacher
from training.fit.towers.learner import Learner
from training.fit.views.feeds import Feeds


@dataclass(frozen=True)
class Mimicry:
    """The share of the loss that is the distance from a teacher's similarities, those times `scale`."""

    teacher: Teacher
    weight: float
    scale: float


def open_mimicry(prepared: Prepared, reporter: Reporter) -> Mimicry | None:
    """The recipe's teacher, its rows of all images and captions kept (the first process computes them)."""
    wanted, bundle = prepared.recipe.distillation, prepared.teacher
    if wanted is None or bundle is None:
        return None

    def opened() -> Teacher:
        threads = prepared.recipe.decode_threads
        return Teacher(bundle, cache=prepared.cache, device=prepared.device, threads=threads)

    teacher = opened()
    missing = sum(len(some) for some in teacher.missing(prepared.mixture))
    if prepared.processes.first and missing:
        reporter.say(f"{missing} images and captions go through the teacher {bundle.name} once, and are kept")
        with reporter.bar("teacher", missing, unit="rows") as bar:
            teacher.compute(prepared.mixture, on_batch=bar.advance)
    prepared.processes.wait()
    scale = bundle.config.logit_scale if wanted.temperature is None else 1 / wanted.temperature
    return Mimicry(teacher if prepared.processes.first else opened(), wanted.weight, scale)


@dataclass(frozen=True)
class Stepper:
    """Takes the steps of one phase; `rank` is this process's."""

    learner: Learner
    feeds: Feeds
    phase: Phase
    adam: torch.optim.AdamW
    rank: int = 0
    mimicry: "Mimicry | None" = None

    def take(self, draws: Sequence[Draw], *key: int) -> float:
        """One step on this process's draws of a batch; the loss of the global batch. Raises Diverged."""
        self.learner.train()
        part_size = self.phase.micro_batch * self.phase.captions or len(draws)
        box = draw_box(self.phase.cutmix, *key)
        self.adam.zero_grad(set_to_none=True)
        loss = contrastive_step(
            self._towers(draws, box),
            pair_ids(draws, box, part_size=part_size, device=self.learner.device),
            loss_of=self._loss_of(draws, box, part_size),
            micro_batch=part_size,
            seed=_step_seed(*key, self.rank),
        )
        self._move(loss, step=key[-1])
        return loss

    def _towers(self, draws: Sequence[Draw], box: Box | None) -> Towers:
        learner = self.learner

        def towers(part: slice) -> tuple[torch.Tensor, torch.Tensor]:
            distinct, rows = distinct_views(draws[part])
            inputs = self.feeds.read(distinct)
            images = learner.embed_images(inputs if box is None else box.paste(inputs))
            texts = learner.embed_texts([draw.caption for draw in draws[part]])
            return images[torch.from_numpy(rows).to(learner.device)], texts

        return towers

    def _loss_of(self, draws: Sequence[Draw], box: Box | None, part_size: int) -> LossOf:
        learner, mimicry = self.learner, self.mimicry
        if mimicry is None:
            return learner.loss
        images, texts = mimicry.teacher.rows(draws, box, part_size=part_size)
        weight, scale = mimicry.weight, mimicry.scale

        def loss(batch: Batch) -> torch.Tensor:
            rows = TeacherRows(images, texts, gather_rows(images), gather_rows(texts))
            affinity = affinity_loss(batch, rows, learner.log_scale.exp(), teacher_scale=scale)
            return (1 - weight) * learner.loss(batch) + weight * affinity

        return loss

    def _move(self, loss: float, *, step: int) -> None:
        moving = [parameter for group in self.adam.param_groups for parameter in group["params"]]
        average_gradients(moving)
        norm = float(nn.utils.clip_grad_norm_(moving, self.phase.clip_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            phase = self.phase
            raise Diverged(
                f"the loss is {loss} and the gradient's norm {norm} at step {step} of an epoch: lower the "
                f"rates of phase {phase.name!r} (heads {phase.heads_lr:g}, image {phase.image_lr:g}, "
                f"text {phase.text_lr:g})"
            )
        self.adam.step()
        if self.learner.loss_kind == "softmax":
            clamp_logit_scale(self.learner.log_scale)


def pair_ids(draws: Sequence[Draw], box: Box | None, *, part_size: int, device: torch.device) -> PairIds:
    """Who belongs to whom in a batch that is read `part_size` draws at a time, its images mixed by `box`."""

    def of(some: Sequence[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(image_ids(some)).to(device), torch.from_numpy(caption_ids(some)).to(device)

    if box is None:
        return PairIds(*of(draws))
    return PairIds(*of(draws), PairIds(*of(followers(draws, part_size))), box.share)


def _step_seed(*key: int) -> int:
    text = " ".join(map(str, key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
