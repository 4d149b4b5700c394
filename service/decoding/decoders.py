"""Where images are decoded: in processes of their own, or in threads of this one."""

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.images import Preprocessing
from index.cores import available_cores
from service.control_groups import memory_limit_bytes
from service.decoding.images import (
    ImageLimits,
    ImageSource,
    WholeImage,
    decode_pixels,
    decode_whole_image,
    start_of_base64,
)
from service.decoding.protocol import Answer, Job, Kind
from service.decoding.worker import WorkerLimits
from service.decoding.worker_pool import PoolSize, WorkerPool
from service.errors import EncodingFailed
from service.settings import MEBIBYTE, Settings, environment_of_decoders
from service.watch.telemetry import Telemetry

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

BYTES_A_PIXEL = 26
"""At most, measured: 24.6 for JPEG 2000 with alpha at 64 megapixels; WebP 17, JPEG 12, AVIF 11."""
INTERPRETER_BYTES = 256 * MEBIBYTE
MAX_BALLAST_BYTES = 1024 * MEBIBYTE
COPIES_OF_A_BODY = 3  # as received, as bytes, and out of its base64


class Decoders:
    """Decodes images. `submit` from any thread; `pixels` and `image` block: call them in what it runs.

    Processes, so that whatever a hostile file does to a codec costs that file alone; with `decode_workers` 0,
    threads of this process, for debugging.
    """

    def __init__(self, settings: Settings, *, telemetry: Telemetry) -> None:
        self._limits = ImageLimits(settings.max_image_pixels, settings.min_image_side_pixels)
        workers = available_cores() if settings.decode_workers is None else settings.decode_workers
        if workers and not hasattr(os, "fork"):
            logger.warning("this system cannot fork: images are decoded in the service's own process")
            workers = 0
        self._pool = None
        if workers:
            limits = WorkerLimits(memory_bytes(settings), settings.decode_seconds, ballast_bytes())
            size = PoolSize(workers, limits)
            self._pool = WorkerPool(size, environment=environment_of_decoders(), telemetry=telemetry)
        threads = workers or settings.decode_threads or available_cores()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Start the processes, which come up meanwhile; what fails meanwhile ends them."""
        if self._pool:
            self._pool.start()
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self) -> None:
        """Block until an image could be decoded. Raises Unavailable."""
        if self._pool:
            self._pool.wait_until_ready()

    def stop(self) -> None:
        """Refuse what waits; end the processes."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._pool:
            self._pool.stop()

    def unhealthy_reason(self) -> str | None:
        """Say why images cannot be decoded just now; None while they can."""
        return self._pool.unhealthy_reason() if self._pool else None

    def process_ids(self) -> tuple[int, ...]:
        """Of the processes that are alive; none with `decode_workers` 0."""
        return self._pool.process_ids() if self._pool else ()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run `work`, which calls `pixels` or `image`, when a decoder is free."""
        return self._threads.submit(work, *args, **kwargs)

    def pixels(self, source: ImageSource, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """(height, width, 3) uint8. Raises InvalidField, UndecodableImage, ImageTooLarge or Unavailable."""
        if self._pool is None:
            return decode_pixels(source, preprocessing, limits=self._limits)
        return _pixels(self._ask("pixels", source, preprocessing), preprocessing)

    def image(self, source: ImageSource, preprocessing: Preprocessing) -> WholeImage:
        """Pixels, size, digest and thumbnail at once. Raises as `pixels` does."""
        if self._pool is None:
            return decode_whole_image(source, preprocessing, limits=self._limits)
        answer = self._ask("image", source, preprocessing)
        pixels = _pixels(answer, preprocessing)
        width, height = answer.size_pixels or (0, 0)
        return WholeImage(pixels, width, height, answer.digest, bytes(answer.payload[pixels.nbytes :]))

    def _ask(self, kind: Kind, source: ImageSource, preprocessing: Preprocessing) -> Answer:
        assert self._pool is not None  # noqa: S101 - the callers looked
        if isinstance(source, str):
            start_of_base64(source)  # what is plainly none takes no decoder's time
        answer = self._pool.run(Job(kind, source, preprocessing, self._limits))
        if answer.error is not None:
            raise answer.error
        return answer


def memory_bytes(settings: Settings) -> int:
    """What one decoding process may map: enough for the largest image that is taken, of any format."""
    if settings.decode_memory_mebibytes is not None:
        return settings.decode_memory_mebibytes * MEBIBYTE
    bodies = COPIES_OF_A_BODY * settings.max_body_bytes
    return INTERPRETER_BYTES + bodies + BYTES_A_PIXEL * settings.max_image_pixels


def ballast_bytes() -> int:
    """What a decoding process weighs beside what it holds: nothing where no container has a limit on memory."""
    return min(memory_limit_bytes() or 0, MAX_BALLAST_BYTES)


def _pixels(answer: Answer, spec: Preprocessing) -> NDArray[np.uint8]:
    shape = (spec.height, spec.width, 3)
    count = spec.height * spec.width * 3
    if answer.shape != shape or len(answer.payload) < count:
        raise EncodingFailed(f"the decoder gave pixels of {answer.shape}, expected {shape}")
    return np.frombuffer(answer.payload, dtype=np.uint8, count=count).reshape(shape)
