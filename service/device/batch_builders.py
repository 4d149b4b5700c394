"""Batches of pixels and of tokens: put together by one thread, encoded by the one that owns the device.

Knows encoders; nothing of queues, threads or HTTP.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from encoders.encoder import Encoder
from encoders.texts import TokenRow
from service.device.tickets import Embedded, Outcome
from service.errors import EncodingFailed


class PixelBatchBuilder:
    """(height, width, 3) images; on CUDA their copy to the device begins as soon as they are added."""

    def __init__(self, encoder: Encoder, capacity: int) -> None:
        self._encoder = encoder
        self._stage = encoder.stage_pixels(capacity)

    def add(self, payloads: Sequence[NDArray[np.uint8]]) -> None:
        self._stage.add(payloads)

    def encode(self) -> list[Outcome]:
        return [_checked(vector) for vector in self._encoder.encode_staged(self._stage)]


class TokenBatchBuilder:
    """Texts as token ids; padded at the end, when it is known which go through together."""

    def __init__(self, encoder: Encoder, capacity: int) -> None:  # noqa: ARG002 - ids need no room made for them
        self._encoder = encoder
        self._rows: list[TokenRow] = []

    def add(self, payloads: Sequence[TokenRow]) -> None:
        self._rows.extend(payloads)

    def encode(self) -> list[Outcome]:
        vectors = self._encoder.encode_rows(self._rows)
        return [
            _checked(vector, truncated=row.truncated, tokens=len(row))
            for vector, row in zip(vectors, self._rows, strict=True)
        ]


def probe(encoder: Encoder) -> None:
    """Run both towers on a known good input; raises when either fails. Device thread only."""
    spec = encoder.preprocessing
    blank = np.full((1, spec.height, spec.width, 3), 128, dtype=np.uint8)
    vectors = np.concatenate([encoder.encode_pixels(blank), encoder.encode_texts(["a photo"]).vectors])
    if not np.isfinite(vectors).all():
        raise EncodingFailed("the encoder gives embeddings that are not finite")


def _checked(vector: NDArray[np.float32], *, truncated: bool = False, tokens: int = 0) -> Outcome:
    if not np.isfinite(vector).all():
        return EncodingFailed("the encoder gives an embedding that is not finite for this input")
    return Embedded(vector, truncated, tokens)
