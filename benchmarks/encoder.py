"""The encoder alone, and decoding alone, in this process: what everything else is compared with.

The encoder gets the help that a careful script would give it: decoding on as many threads as there are cores,
ahead of it, and the batch size that suits it best.
"""

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.inputs import ImageFile, Inputs
from benchmarks.machine import own_cpu_seconds, usable_cores
from encoders.choices import Engine, check_engine
from encoders.encoder import Encoder
from encoders.images import Pixels, decode_image, to_pixels

IMAGE_BATCHES = (1, 4, 8, 32)
TEXT_BATCHES = (1, 16, 64)
DECODED_AHEAD = 2  # batches


@dataclass(frozen=True)
class Rate:
    """Items that went through in so many seconds of wall time, and of CPU time of the process at work."""

    items: int
    wall_seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.items / self.wall_seconds

    @property
    def cpu_milliseconds(self) -> float:
        """CPU time for one item."""
        return self.cpu_seconds / self.items * 1e3

    def __add__(self, other: "Rate") -> "Rate":
        return Rate(
            self.items + other.items,
            self.wall_seconds + other.wall_seconds,
            self.cpu_seconds + other.cpu_seconds,
        )


def served_engine() -> Engine:
    """What the service computes with, unless it is told otherwise. Raises EngineUnavailable."""
    return check_engine(os.environ.get("TWINLENS_ENGINE", "auto"))


class Alone:
    """An encoder with all cores of the machine. Use one at a time, on one thread."""

    def __init__(self, bundle: Path, inputs: Inputs, *, engine: Engine = "torch") -> None:
        self.cores = usable_cores()
        torch.set_num_threads(self.cores)
        largest = max(*IMAGE_BATCHES, *TEXT_BATCHES)
        self.encoder = Encoder.load(bundle, max_batch=largest, engine=engine, threads=self.cores)
        self._inputs = inputs
        self._pool = ThreadPoolExecutor(self.cores, thread_name_prefix="decode")

    def decode(self, seconds: float, images: Sequence[ImageFile]) -> Rate:
        """Bytes to pixels on all cores, and nothing else."""
        pixels = self._decoded(images, ahead=4 * self.cores)
        return _measure(lambda: bool(next(pixels).size), seconds, items=1)

    def encode(self, seconds: float, *, batch: int) -> Rate:
        """Pixels to vectors, nothing decoded meanwhile."""
        pixels = np.stack(list(itertools.islice(self._decoded(self._inputs.images, ahead=batch), batch)))
        return _measure(lambda: self.encoder.encode_pixels(pixels), seconds, items=batch)

    def embed_inputs(self, seconds: float, *, batch: int) -> Rate:
        return self.embed_images(seconds, self._inputs.images, batch=batch)

    def embed_images(self, seconds: float, images: Sequence[ImageFile], *, batch: int) -> Rate:
        """Bytes to vectors, decoding ahead of the encoder."""
        pixels = self._decoded(images, ahead=DECODED_AHEAD * batch)
        return _measure(
            lambda: self.encoder.encode_pixels(np.stack(list(itertools.islice(pixels, batch)))),
            seconds,
            items=batch,
        )

    def embed_titles(self, seconds: float, *, batch: int) -> Rate:
        return self.embed_texts(seconds, self._inputs.titles, batch=batch)

    def embed_texts(self, seconds: float, texts: Sequence[str], *, batch: int) -> Rate:
        """Strings to vectors."""
        endless = itertools.cycle(texts)
        return _measure(
            lambda: self.encoder.encode_texts(list(itertools.islice(endless, batch))), seconds, items=batch
        )

    def query_vectors(self) -> np.ndarray:
        """(queries, dim) unit rows of the gallery's queries."""
        return self.encoder.encode_texts(self._inputs.queries).vectors

    def _decoded(self, images: Sequence[ImageFile], *, ahead: int) -> Iterator[Pixels]:
        waiting: deque[Future[Pixels]] = deque()
        for image in itertools.cycle(images):
            waiting.append(self._pool.submit(self._pixels, image.data))
            if len(waiting) > ahead:
                yield waiting.popleft().result()

    def _pixels(self, data: bytes) -> Pixels:
        return to_pixels(decode_image(data), self.encoder.preprocessing)


def best_batch(measure: Callable[..., Rate], batches: Sequence[int], seconds: float) -> dict[int, Rate]:
    """A rate for each batch size, the fastest first."""
    rates = {batch: measure(seconds, batch=batch) for batch in batches}
    return dict(sorted(rates.items(), key=lambda entry: -entry[1].per_second))


def _measure(work: Callable[[], object], seconds: float, *, items: int) -> Rate:
    """Repeat `work`, which does `items` at a time, for about `seconds`; the first time warms up.

    The clock starts with as much decoded ahead as there is when it stops, so that none of it comes free.
    """
    work()
    times, started, cpu_before = 0, time.perf_counter(), own_cpu_seconds()
    while True:
        work()
        times += 1
        wall = time.perf_counter() - started
        if wall >= seconds:
            return Rate(items * times, wall, own_cpu_seconds() - cpu_before)
