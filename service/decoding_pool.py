"""The pool that decodes pictures off the event loop.

Knows nothing of HTTP, tickets or devices.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from encoders.images import Preprocessing
from index.cores import available_cores
from service.decoding import ImageLimits, ImageSource, Picture, decode_picture, decode_pixels
from service.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


class Decoders:
    """Decodes pictures. `submit` from any thread; `pixels` and `picture` block: call them in what it runs."""

    def __init__(self, settings: Settings) -> None:
        self._limits = ImageLimits(settings.max_image_pixels, settings.min_image_side_pixels)
        threads = settings.decode_threads or available_cores()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def stop(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run `work`, which calls `pixels` or `picture`, when a decoder is free."""
        return self._threads.submit(work, *args, **kwargs)

    def pixels(self, source: ImageSource, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """(height, width, 3) uint8. Raises InvalidField, UndecodableImage or ImageTooLarge."""
        return decode_pixels(source, preprocessing, limits=self._limits)

    def picture(self, source: ImageSource, preprocessing: Preprocessing) -> Picture:
        """Pixels, size, digest and thumbnail at once. Raises as `pixels` does."""
        return decode_picture(source, preprocessing, limits=self._limits)
