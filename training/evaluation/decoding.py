"""Images to a tower's pixels on a few threads, ahead of the encoder and in order; corrupted on the way.

Pillow and NumPy release the interpreter for most of the work, so decoding and corruption run beside the
encoder.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from encoders.errors import ImageError
from encoders.images import Pixels, Preprocessing, decode_image, to_pixels
from training.data.pairs import CaptionedImage, MissingImage
from training.errors import UnreadableImage
from training.shift.condition import Condition
from training.shift.conditions import image_under

DECODERS = min(4, os.cpu_count() or 1)

Item = TypeVar("Item")
Result = TypeVar("Result")


def decoded_pixels(
    images: Sequence[CaptionedImage],
    preprocessing: Preprocessing,
    *,
    condition: Condition | None = None,
    window: int,
) -> Iterator[Pixels | MissingImage]:
    """Pixels of each image in order, or why there are none; at most `window` are held at a time.

    A condition's corruption comes before the resize that `preprocessing` asks for.
    """
    work = partial(_decode, preprocessing=preprocessing, condition=condition)
    return in_threads(work, images, window=window)


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], *, window: int) -> Iterator[Result]:
    """`map` over `DECODERS` threads, in order, running at most `window` items ahead of the reader."""
    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(
    image: CaptionedImage, *, preprocessing: Preprocessing, condition: Condition | None
) -> Pixels | MissingImage:
    try:
        plain = decode_image(image.source.read())
    except (ImageError, UnreadableImage) as error:
        return MissingImage(image.image_id, str(error))
    shown = plain if condition is None else image_under(condition, plain, image_id=image.image_id)
    return to_pixels(shown, preprocessing)
