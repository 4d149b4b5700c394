"""What came, went and changed from one release to the next, item by item.

An item is its id, its image, its payload and its texts. Both sides are compared as sorted arrays of 64-bit
digests: 16 bytes an item and side, whatever the items hold. That any two of a million ids look the same happens
once in ten million comparisons.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encoders.errors import Unreadable
from index.catalog import ITEMS_NAME, TEXTS_NAME, current_release_id
from index.errors import NoRelease, ReleaseError
from index.manifest import Difference

_log = logging.getLogger(__name__)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # spreads a sum of digests over all bits before it is added to another


@dataclass(frozen=True, slots=True)
class _Items:
    """Digests of ids, ascending, and of what the items hold; (n,) uint64 each."""

    ids: NDArray[np.uint64]
    contents: NDArray[np.uint64]


def difference_from_current(releases: Path, staging: Path) -> Difference | None:
    """Compare a staged release with the current one; None where there is none, or none that can be read."""
    try:
        before = current_release_id(releases)
        old = _read(releases / before)
    except NoRelease:
        return None
    except (OSError, pa.ArrowException, ValueError, ReleaseError, Unreadable) as error:
        _log.warning("what changed since the current release cannot be told: %s", error)
        return None
    return _difference(before, old, _read(staging))


def _difference(before: str, old: _Items, new: _Items) -> Difference:
    places = np.minimum(np.searchsorted(old.ids, new.ids), len(old.ids) - 1)
    in_both = old.ids[places] == new.ids
    common = int(np.count_nonzero(in_both))
    changed = int(np.count_nonzero(old.contents[places[in_both]] != new.contents[in_both]))
    return Difference(
        release=before,
        added=len(new.ids) - common,
        removed=len(old.ids) - common,
        changed=changed,
        unchanged=common - changed,
    )


def _read(release: Path) -> _Items:
    ids, contents = bytearray(), bytearray()
    with pq.ParquetFile(release / ITEMS_NAME) as file:
        for batch in file.iter_batches(columns=["id", "digest", "payload"]):
            for item_id, digest, payload in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                ids += _digest(item_id.encode())
                contents += _digest(digest + payload.encode())
    found = np.frombuffer(ids, np.uint64)
    held = np.frombuffer(contents, np.uint64) + _ODD * _texts_of_items(release, len(found))
    order = np.argsort(found)
    return _Items(found[order], held[order])


def _texts_of_items(release: Path, count: int) -> NDArray[np.uint64]:
    """The sum of the digests of each item's texts, which no order changes; (count,) uint64."""
    sums = np.zeros(count, np.uint64)
    with pq.ParquetFile(release / TEXTS_NAME) as file:
        for batch in file.iter_batches(columns=["digest", "item_rows"]):
            digests = b"".join(digest[:8] for digest in batch.column("digest").to_pylist())
            rows = batch.column("item_rows")
            repeated = np.repeat(np.frombuffer(digests, np.uint64), np.diff(rows.offsets.to_numpy()))
            np.add.at(sums, rows.flatten().to_numpy(), repeated)
    return sums


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()
