"""What an embedding was computed from, as one SHA-256: all that changes the vector, and nothing that does not.

What it is of, the encoder's fingerprint and precision, and the bytes of the image, or the text and whether it
may be cut. So a swap of encoders never finds the old one's vectors, and two images of one size never share.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from encoders.encoder import Encoder
from service.decoding.images import ImageSource, image_bytes
from service.device.tickets import Kind
from service.device.tokenizing import TextItem
from service.errors import InvalidField

INLINE_CHARACTERS = 4096  # hashed within 0.02 ms

Keys = list[bytes | None]
"""None: has no key, and will be refused when it is decoded."""


class Digests:
    """A thread that hashes what is large. Coroutines belong to the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="digest")  # begins when something is hashed

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def of_texts(self, encoder: Encoder, items: Sequence[TextItem]) -> Keys:
        if sum(len(item.text) for item in items) <= INLINE_CHARACTERS:
            return _of_texts(encoder, items)
        return await asyncio.get_running_loop().run_in_executor(self._thread, _of_texts, encoder, items)

    async def of_images(
        self, encoder: Encoder, sources: Sequence[ImageSource]
    ) -> tuple[Keys, list[ImageSource]]:
        """And the sources, as bytes where they came as base64: one image has one key, however it was sent."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, _of_images, encoder, sources)


def key(encoder: Encoder, kind: Kind, form: str, content: bytes) -> bytes:
    """`form` tells apart what is done to the same content."""
    head = "\0".join((kind, encoder.fingerprint, encoder.precision, form)).encode()
    digest = hashlib.sha256(len(head).to_bytes(4, "little") + head)
    digest.update(content)
    return digest.digest()


def _of_texts(encoder: Encoder, items: Sequence[TextItem]) -> Keys:
    forms = {True: "cut", False: "whole"}
    return [
        key(encoder, "text", forms[item.may_be_cut], item.text.encode("utf-8", "surrogatepass"))
        for item in items
    ]


def _of_images(encoder: Encoder, sources: Sequence[ImageSource]) -> tuple[Keys, list[ImageSource]]:
    keys: Keys = []
    opened: list[ImageSource] = []
    for source in sources:
        try:
            data = image_bytes(source)
        except InvalidField:
            keys.append(None)
            opened.append(source)
        else:
            keys.append(key(encoder, "image", "", data))
            opened.append(data)
    return keys, opened
