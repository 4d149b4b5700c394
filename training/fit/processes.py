"""The processes that train together: alone, or one of several that `torchrun` started."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

LONGEST_WAIT = timedelta(days=2)
"""For the first process, which alone computes activations and looks for leaks while the others wait."""


@dataclass(frozen=True)
class Processes:
    """rank of count; the first one writes files and speaks."""

    rank: int = 0
    count: int = 1
    device: torch.device | None = None
    """Where tensors that all share lie; None: nothing is shared."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, size: int) -> slice:
        """This process's part of a global batch of `size`, a multiple of `count`."""
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def agreed(self, value: float) -> float:
        """The first process's value, on all: a decision that each took alone could part their ways."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """Join the group that torchrun describes, with NCCL on CUDA and gloo elsewhere; alone without torchrun."""
    # torchrun speaks through the environment: torch.distributed's own protocol, no setting of ours.
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    return Processes(rank=dist.get_rank(), count=dist.get_world_size(), device=device)


def leave_processes() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
