"""Pixels on their way to a device: gathered row by row, by another thread than the one that encodes.

On CUDA they lie in pinned memory and are copied on a stream of their own as they come, beside whatever the
device computes; on a CPU they are there already.
"""

from collections.abc import Sequence

import numpy as np
import torch

from encoders.images import Pixels


class PixelStage:
    """Room for `capacity` images of (height, width, 3) pixels. One thread at a time may use it."""

    def __init__(self, capacity: int, *, height: int, width: int, device: torch.device) -> None:
        shape = (capacity, height, width, 3)
        self._count = 0
        self._copies = _stream(device) if device.type == "cuda" else None
        self._host = torch.empty(shape, dtype=torch.uint8, pin_memory=self._copies is not None)
        self._rows: Pixels = self._host.numpy()
        self._there = self._host
        if self._copies is not None:
            with torch.cuda.stream(self._copies):
                self._there = torch.empty(shape, dtype=torch.uint8, device=device)

    def __len__(self) -> int:
        return self._count

    def add(self, images: Sequence[Pixels]) -> None:
        """Raises ValueError for pixels of another shape or type, or more than there is room for."""
        begin, expected = self._count, self._rows.shape[1:]
        end = begin + len(images)
        if end > len(self._rows):
            raise ValueError(f"{end} images for a stage of {len(self._rows)}")
        for row, pixels in enumerate(images, start=begin):
            if pixels.shape != expected or pixels.dtype != np.uint8:
                raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 {expected}")
            self._rows[row] = pixels
        self._count = end
        if self._copies is not None:
            with torch.cuda.stream(self._copies):
                self._there[begin:end].copy_(self._host[begin:end], non_blocking=True)

    def tensor(self) -> torch.Tensor:
        """uint8 (n, height, width, 3) on the device, for what is launched on its current stream from now on."""
        if self._copies is not None:
            computing = torch.cuda.current_stream(self._there.device)
            computing.wait_stream(self._copies)
            self._there.record_stream(computing)  # else its memory could be given away while it is read
        return self._there[: self._count]


def _stream(device: torch.device) -> torch.cuda.Stream:
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream
