"""Changes for tests of the journal, and what they are in a form that can be compared."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from index.image_files import digest_of
from index.journal.changes import ChangeSet, Delete, NewImage, Upsert
from index.journal.journal import Journal
from index.journal.snapshot import open_snapshot

DIM = 8


def vectors(seed, count):
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def upsert(item_id, *, seed=0, texts=("one", "two"), data=None):
    rows = vectors(seed, 1 + len(texts))
    return Upsert(
        id=item_id,
        payload={"title": "ä", "n": [1, {"deep": None}]},
        vector=rows[0],
        fingerprint="f" * 64,
        texts=texts,
        text_vectors=rows[1:],
        digest=digest_of(data) if data else None,
        width_pixels=3,
        height_pixels=4,
    )


def put(item_id, data=None, *, key=None, answer=lambda _: b"", **options):
    """A set of one upsert with its image."""
    one = upsert(item_id, data=data, **options)
    images = {one.digest: NewImage(data, b"thumbnail of " + data[:20])} if data else {}
    return ChangeSet([one], images, key=key, answer=answer)


def delete(*ids):
    return ChangeSet([Delete(item_id) for item_id in ids])


def as_read(changes):
    """What a change is, in what can be compared."""
    return [
        (change.sequence, change.id)
        if isinstance(change, Delete)
        else (
            change.sequence,
            change.id,
            change.payload,
            tuple(change.texts),
            change.vector.tolist(),
            change.text_vectors.tolist(),
            change.digest,
            change.fingerprint,
            (change.width_pixels, change.height_pixels),
        )
        for change in changes
    ]


def read(releases, **options):
    with open_snapshot(releases, **options) as snapshot:
        return list(snapshot.changes())


def ids(releases):
    return [change.id for change in read(releases)]


def image_names(releases):
    return {path.name for path in (releases / "live" / "images").iterdir()}


def names(*images):
    return {digest_of(data).hex() for data in images}


def thumbnail_count(releases):
    path = releases / "live" / "journal.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM thumbnails").fetchone()[0]


def used_bytes(folder: Path):
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def opened(releases, **options):
    return closing(Journal(releases, **options))
