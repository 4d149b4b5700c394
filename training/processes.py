"""The processes that train together: alone, or one of several that `torchrun` started.

It does not know what is trained.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """rank of count; the first one writes files and speaks."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, size: int) -> slice:
        """This process's part of a global batch of `size`, a multiple of `count`."""
        own = size // self.count
        return slice(self.rank * own, (self.rank + 1) * own)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """Join the group that torchrun describes, with NCCL on CUDA and gloo elsewhere; alone without torchrun."""
    # torchrun speaks through the environment: torch.distributed's own protocol, no setting of ours.
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(rank=dist.get_rank(), count=dist.get_world_size())


def leave_processes() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
