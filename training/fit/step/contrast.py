"""One contrastive step: the loss of a whole batch and its gradients, in micro-batches, over all processes.

The batch of a contrastive loss cannot be accumulated like others: every pair is every other's negative. So
the towers run twice where the batch does not fit: first without a graph, for the embeddings; then, once the
loss has given each embedding its gradient, micro-batch by micro-batch with one (Gao et al. 2021, "Scaling deep
contrastive learning batch size under memory limited setup"). Dropout draws the same masks both times. It does
not know optimisers, epochs or data.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn

from training.fit.step.loss import Batch, PairIds, targets_between


class Towers(Protocol):
    """Unit rows of one micro-batch: (n, d) images, (n, d) texts."""

    def __call__(self, part: slice) -> tuple[torch.Tensor, torch.Tensor]: ...


LossOf = Callable[[Batch], torch.Tensor]


def contrastive_step(towers: Towers, ids: PairIds, *, loss_of: LossOf, micro_batch: int, seed: int) -> float:
    """Add the gradients of the batch's loss to every parameter; the loss of the global batch comes back.

    `towers(part)` embeds the pairs of a slice of this process's batch; `seed` draws the dropout of this step.
    Gradients of several processes still have to be averaged: see `average_gradients`.
    """
    count = len(ids.images)
    parts = [slice(start, min(start + micro_batch, count)) for start in range(0, count, micro_batch)]
    if len(parts) == 1:
        torch.manual_seed(_part_seed(seed, parts[0]))
        images, texts = towers(parts[0])
        loss = loss_of(_gathered(images, texts, ids))
        torch.autograd.backward(loss)
        return _mean_over_processes(loss)
    images, texts = _embed_without_graph(towers, parts, seed)
    loss = loss_of(_gathered(images, texts, ids))
    torch.autograd.backward(loss)
    _replay(towers, parts, (images.grad, texts.grad), seed)
    return _mean_over_processes(loss)


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes; alone, nothing happens."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    means = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.reshape(gradient.shape))


def _embed_without_graph(
    towers: Towers, parts: Sequence[slice], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    images, texts = [], []
    with torch.no_grad():
        for part in parts:
            torch.manual_seed(_part_seed(seed, part))
            image_rows, text_rows = towers(part)
            images.append(image_rows)
            texts.append(text_rows)
    return torch.cat(images).requires_grad_(), torch.cat(texts).requires_grad_()


def _replay(
    towers: Towers,
    parts: Sequence[slice],
    gradients: tuple[torch.Tensor | None, torch.Tensor | None],
    seed: int,
) -> None:
    for part in parts:
        torch.manual_seed(_part_seed(seed, part))
        rows = towers(part)
        pairs = [
            (embedding, gradient[part])
            for embedding, gradient in zip(rows, gradients, strict=True)
            if gradient is not None and embedding.requires_grad
        ]
        torch.autograd.backward([row for row, _ in pairs], [gradient for _, gradient in pairs])


def _part_seed(seed: int, part: slice) -> int:
    return int(seed * 1_000_003 + part.start) % (2**63)


def _gathered(images: torch.Tensor, texts: torch.Tensor, ids: PairIds) -> Batch:
    image_targets, text_targets = targets_between(ids, _gathered_ids(ids))
    return Batch(
        images=images,
        texts=texts,
        all_images=gather_rows(images),
        all_texts=gather_rows(texts),
        image_targets=image_targets,
        text_targets=text_targets,
    )


def _gathered_ids(ids: PairIds) -> PairIds:
    mixed = None if ids.mixed is None else _gathered_ids(ids.mixed)
    return PairIds(gather_rows(ids.images), gather_rows(ids.captions), mixed, ids.share)


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """(n, …) on each process to (N, …) on all, in rank order, with gradients to every process's rows."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    if rows.requires_grad:
        return torch.cat(dist_nn.all_gather(rows))  # type: ignore[no-untyped-call]
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows)
    return torch.cat(parts)


def _mean_over_processes(loss: torch.Tensor) -> float:
    mean = loss.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return float(mean)
