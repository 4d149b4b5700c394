"""The query bank of a bundle: what people of a domain ask, as unit rows, to tell hubs from answers.

A hub is an item that stands near everything and so comes up for any query. Its mean similarity to the `k`
bank queries nearest to it tells how much of one it is (nearest-neighbour normalisation, Chowdhury et al. 2024):

    b(item) = mean of the k largest ⟨item, bank query⟩        s'(query, item) = ⟨query, item⟩ − α · b(item)

    query_bank.safetensors     texts (n, d), images (m, d), float16, either may be missing; in its metadata
                               alpha, k and the fingerprint of the encoder that made the rows

Bank texts correct the search of images by text, bank images that of texts by image. The bank changes no
embedding.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from encoders.errors import CorruptBundle
from encoders.modalities import MODALITIES, Modality

QUERY_BANK = "query_bank.safetensors"
DEFAULT_ALPHA = 0.75
DEFAULT_K = 128
UNIT_TOLERANCE = 1e-2  # float16 rows are of length 1 to about 1e-3

Rows = NDArray[np.float32]
ASKED_BY: Mapping[Modality, Modality] = {"images": "texts", "texts": "images"}
"""What is searched → the modality of the queries whose bank corrects it."""

_BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class QueryBank:
    """rows: unit rows (n, d) float32 of each modality that has queries; `k` and `alpha` as in the module."""

    rows: Mapping[Modality, Rows]
    fingerprint: str
    alpha: float = DEFAULT_ALPHA
    k: int = DEFAULT_K

    def corrects(self, searched: Modality) -> bool:
        """Whether the search of images (by texts), or of texts (by images), has a bank."""
        return ASKED_BY[searched] in self.rows

    def penalty(self, items: Rows, searched: Modality) -> Rows:
        """α·b (n,) of items (n, d), unit rows of what is searched; zeros where there is no bank for it."""
        if not self.corrects(searched):
            return np.zeros(len(items), dtype=np.float32)
        return self.alpha * hubness(items, self.rows[ASKED_BY[searched]], k=self.k)


def hubness(items: Rows, bank: Rows, *, k: int) -> Rows:
    """b (n,): the mean of each item's `k` largest cosines with the bank; all of a bank that is smaller."""
    reach = min(k, len(bank))
    means = [
        np.partition(items[start : start + _BLOCK_ROWS] @ bank.T, len(bank) - reach, axis=1)[:, -reach:].mean(
            axis=1
        )
        for start in range(0, len(items), _BLOCK_ROWS)
    ]
    return np.concatenate(means).astype(np.float32) if means else np.empty(0, dtype=np.float32)


def penalty_of(bank: QueryBank | None, searched: Modality) -> Callable[[Rows], Rows] | None:
    """Rows (n, d) of "images" or "texts" to penalties (n,); None where no bank corrects their search."""
    if bank is None or not bank.corrects(searched):
        return None
    return partial(bank.penalty, searched=searched)


def as_stored(rows: Rows) -> Rows:
    """Rounded as the file holds them, so that what is measured is what is served."""
    rounded: Rows = rows.astype(np.float16).astype(np.float32)
    return rounded


def query_bank_bytes(bank: QueryBank) -> bytes:
    """The file's content. Raises ValueError for a bank that `read_query_bank` would refuse."""
    if problem := _problem(bank, dim=next((rows.shape[1] for rows in bank.rows.values()), 0)):
        raise ValueError(f"no query bank: {problem}")
    metadata = {"alpha": repr(float(bank.alpha)), "k": str(bank.k), "fingerprint": bank.fingerprint}
    tensors = {str(m): np.ascontiguousarray(rows, dtype=np.float16) for m, rows in bank.rows.items()}
    return save(tensors, metadata=metadata)


def read_query_bank(folder: Path, *, fingerprint: str, dim: int) -> QueryBank | None:
    """The bank in a bundle's folder, or None. Raises CorruptBundle, also for another encoder's bank."""
    path = folder / QUERY_BANK
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        metadata, tensors = _metadata(path), load(content)
        bank = QueryBank(
            rows={m: tensors[m].astype(np.float32) for m in MODALITIES if m in tensors},
            fingerprint=metadata["fingerprint"],
            alpha=float(metadata["alpha"]),
            k=int(metadata["k"]),
        )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CorruptBundle(f"{path} is no readable query bank: {error!r}") from error
    if bank.fingerprint != fingerprint:
        raise CorruptBundle(
            f"{path} holds queries that {bank.fingerprint} embedded, and this bundle is {fingerprint}: "
            "make its own, with `python -m training adapt --method hubness`"
        )
    if problem := _problem(bank, dim=dim):
        raise CorruptBundle(f"{path}: {problem}")
    return bank


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _problem(bank: QueryBank, *, dim: int) -> str | None:
    """Why the bank cannot be used, or None."""
    if not (math.isfinite(bank.alpha) and bank.alpha >= 0 and bank.k >= 1):
        return f"alpha is {bank.alpha} and k is {bank.k}: alpha must not be negative, k must be at least 1"
    if not bank.rows:
        return "it holds no query"
    for modality, rows in bank.rows.items():
        if rows.ndim != 2 or 0 in rows.shape or rows.shape[1] != dim:
            return f"{modality} has shape {rows.shape}, expected (n, {dim})"
        lengths = np.linalg.norm(rows.astype(np.float32), axis=1)
        if not np.all(np.abs(lengths - 1.0) < UNIT_TOLERANCE):  # NaN fails the comparison
            row = int(np.argmin(np.abs(lengths - 1.0) < UNIT_TOLERANCE))
            return f"row {row} of {modality} has length {lengths[row]}, not 1"
    return None
