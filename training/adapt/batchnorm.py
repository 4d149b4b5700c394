"""AdaBN (Li et al. 2016): the BatchNorm statistics of an image tower, estimated anew on a domain's images.

Every BatchNorm, the stem's included, takes the mean over batches of the batch mean and variance ("cumulative
average") in one pass; nothing else of the tower moves.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.errors import AdaptationError


@torch.no_grad()
def reestimate(
    tower: nn.Module,
    batches: Iterable[torch.Tensor],
    *,
    run: Callable[[torch.Tensor], object],
    strength: float = 1.0,
) -> int:
    """Give `tower` the statistics of the batches that `run` puts through it; how many norms have new ones.

    `strength`: how much of the new goes into old · (1 − strength) + new · strength. Batches should be of like
    size, since each counts the same. Raises AdaptationError for a tower without BatchNorm, no batch, or
    statistics that are not finite; the tower is as it was then.
    """
    norms = [norm for norm in tower.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    if not norms:
        raise AdaptationError("the image tower has no BatchNorm whose statistics could be estimated anew")
    kept = [{name: value.clone() for name, value in norm.state_dict().items()} for norm in norms]
    momenta = [norm.momentum for norm in norms]
    try:
        seen = _pass(norms, batches, run)
        if not seen:
            raise AdaptationError("there is no image to estimate BatchNorm statistics on")
        _blend(norms, kept, strength)
    except BaseException:
        for norm, state in zip(norms, kept, strict=True):
            norm.load_state_dict(state)
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    return len(norms)


def _pass(
    norms: list[_BatchNorm], batches: Iterable[torch.Tensor], run: Callable[[torch.Tensor], object]
) -> int:
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's name for the cumulative average
        norm.train()
    seen = 0
    for batch in batches:
        run(batch)
        seen += len(batch)
    return seen


def _blend(norms: list[_BatchNorm], kept: list[dict[str, torch.Tensor]], strength: float) -> None:
    for norm, old in zip(norms, kept, strict=True):
        for name in ("running_mean", "running_var"):
            statistic = getattr(norm, name)
            statistic.copy_(torch.lerp(old[name], statistic, strength))
            if not torch.isfinite(statistic).all():
                raise AdaptationError(f"the images give a BatchNorm a {name} that is not finite")
        norm.num_batches_tracked = old["num_batches_tracked"]
