"""The changes that wait for the next rebuild, for people to look at. Knows nothing of how they are shown."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from index.live.reading import LIVE_NAME, LiveReader
from index.live.records import Change, Put

_NOTHING = np.empty(0, dtype=np.float32)


def pending_changes(releases: Path, *, after: int) -> Iterator[Change]:
    """The last change of every id behind that number, in order, without vectors. Raises CorruptJournal."""
    last: dict[str, Change] = {}
    for change in LiveReader(releases / LIVE_NAME):
        last.pop(change.id, None)
        if change.sequence <= after:
            continue
        if isinstance(change, Put):
            last[change.id] = replace(change, vector=_NOTHING, text_vectors=_NOTHING)
        else:
            last[change.id] = change
    yield from last.values()


def describe_change(change: Change) -> dict[str, Any]:
    """As JSON has it."""
    if not isinstance(change, Put):
        return {"sequence": change.sequence, "change": "delete", "id": change.id}
    return {
        "sequence": change.sequence,
        "change": "put",
        "id": change.id,
        "picture": change.digest and change.digest.hex(),
        "model_fingerprint": change.fingerprint,
        "texts": change.texts,
        "payload": change.payload,
    }
