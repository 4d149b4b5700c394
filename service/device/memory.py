"""When a device runs out of memory: how that is told from other failures, and what is given back."""

import gc

import torch

_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch says it in several ways: its own type, a RuntimeError of the CPU's allocator or of cuBLAS."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def free_memory() -> None:
    """Give back what is kept for reuse: blocks of other sizes than the next batch will ask for."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
