"""Short queries into a bundle, and from a bundle to the next that is made of it."""

from pathlib import Path

from encoders.bundle import Bundle
from encoders.short_queries import SHORT_QUERIES, ShortQueries, read_short_queries, short_queries_bytes
from training.card import CARD, bundle_card
from training.files import replacing

MEMORY_LOST = (
    "the bundle's memory of phrases is of other embeddings: its templates stay, and `python -m training "
    "short-queries` makes another"
)


def store_short_queries(bundle: Bundle, chosen: ShortQueries) -> Bundle:
    """The same bundle, of the same fingerprint, with them inside; its card without the figures of before."""
    stored = bundle.with_file(SHORT_QUERIES, short_queries_bytes(chosen))
    return stored.with_file(CARD, bundle_card(stored.config).encode())


def write_short_queries(chosen: ShortQueries, path: Path) -> None:
    with replacing(path) as file:
        file.write(short_queries_bytes(chosen))


def carried(parent: Bundle, child: Bundle) -> tuple[Bundle, tuple[str, ...]]:
    """The child with what holds of its parent's short queries, and what is to be told of what does not.

    All of them where both embed alike, else the templates alone.
    """
    dim = parent.config.towers.embed_dim
    known = read_short_queries(parent.path, fingerprint=parent.fingerprint, dim=dim)
    if known is None:
        return child, ()
    if child.fingerprint == parent.fingerprint:
        return child.with_file(SHORT_QUERIES, (parent.path / SHORT_QUERIES).read_bytes()), ()
    kept = child.with_file(SHORT_QUERIES, short_queries_bytes(known.for_encoder(child.fingerprint)))
    return kept, () if known.memory is None else (MEMORY_LOST,)
