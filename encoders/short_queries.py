"""Ask a text tower for a few words in the sentences it learned: templates, and what training taught of phrases.

People type nouns, and text towers learned sentences. A query of up to four words that is no sentence is searched for
as the mean of the bundle's templates ("{}", "a {}", "a photo of a {}"), moved towards where training found images of
such phrases (Radford et al. 2021, section 3.1.4, have the templates):

    q = unit(Σ unit(template))        q' = unit(q + strength · unit(q · projection))

    short_queries.safetensors   projection (d, d) float16, may be missing; in its metadata templates, strength, the
                                lexicon of nouns (`encoders.lexicon`) and the fingerprint of the encoder

It is for search alone: embeddings that are given out stay what the tower makes of the text itself.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from encoders.errors import CorruptBundle
from encoders.lexicon import Lexicon

SHORT_QUERIES = "short_queries.safetensors"
MOST_WORDS = 4
MOST_CHARACTERS = 60
MOST_TEMPLATES = 16
PLACE = "{}"

Rows = NDArray[np.float32]
_SENTENCE = re.compile(r"[.!?…]\s*$|\b(?:is|are|was|were|has|have|am|be|does|do|did)\b", re.IGNORECASE)
_LATIN = re.compile(r"[^\W\d_]", re.UNICODE)


@dataclass(frozen=True, eq=False)
class ShortQueries:
    """How one encoder is asked for a few words. `projection`: (d, d) float32, or None."""

    templates: tuple[str, ...]
    fingerprint: str
    projection: Rows | None = None
    strength: float = 0.0
    lexicon: Lexicon | None = None
    """The nouns that galleries are searched for most: what a release is calibrated by."""

    def texts_for(self, query: str) -> list[str]:
        """The sentences to embed for a short query, one a template."""
        words = " ".join(query.split())
        return [template.replace(PLACE, words) for template in self.templates]

    def combined(self, vectors: Rows) -> Rows:
        """(n, d) unit rows for the unit rows (n, templates, d) of n queries' sentences."""
        mean = _unit(vectors.sum(axis=1))
        if self.projection is None or not self.strength:
            return mean
        return _unit(mean + self.strength * _unit(mean @ self.projection))


def is_short_query(text: str) -> bool:
    """Whether a text is up to four words in Latin letters that make no sentence."""
    words = text.split()
    if not 1 <= len(words) <= MOST_WORDS or len(text) > MOST_CHARACTERS or _SENTENCE.search(text):
        return False
    letters = _LATIN.findall(text)
    return bool(letters) and all(letter <= "\u024f" for letter in letters)


def short_queries_bytes(found: ShortQueries) -> bytes:
    """The file's content. Raises ValueError for what `read_short_queries` would refuse."""
    dim = 0 if found.projection is None else found.projection.shape[1]
    if problem := _problem(found, dim=dim):
        raise ValueError(f"no short queries: {problem}")
    metadata = {
        "templates": json.dumps(found.templates, ensure_ascii=False),
        "strength": repr(float(found.strength)),
        "fingerprint": found.fingerprint,
        "lexicon": found.lexicon.text if found.lexicon else "",
    }
    tensors = {} if found.projection is None else {"projection": found.projection.astype(np.float16)}
    return save(tensors, metadata=metadata)


def read_short_queries(folder: Path, *, fingerprint: str, dim: int) -> ShortQueries | None:
    """What the bundle in a folder says of short queries, or None. Raises CorruptBundle."""
    path = folder / SHORT_QUERIES
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
        tensors = load(content)
        found = ShortQueries(
            templates=tuple(json.loads(metadata["templates"])),
            fingerprint=metadata["fingerprint"],
            projection=tensors["projection"].astype(np.float32) if "projection" in tensors else None,
            strength=float(metadata["strength"]),
            lexicon=Lexicon(metadata["lexicon"]) if metadata.get("lexicon") else None,
        )
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CorruptBundle(f"{path} cannot be read: {error!r}") from error
    if found.fingerprint != fingerprint:
        raise CorruptBundle(
            f"{path} was fitted for {found.fingerprint}, and this bundle is {fingerprint}: fit its own, with "
            "`python -m training short-queries`"
        )
    if problem := _problem(found, dim=dim):
        raise CorruptBundle(f"{path}: {problem}")
    return found


def _problem(found: ShortQueries, *, dim: int) -> str | None:
    """Why it cannot be used, or None."""
    if not 1 <= len(found.templates) <= MOST_TEMPLATES:
        return f"it has {len(found.templates)} templates: from 1 to {MOST_TEMPLATES} are taken"
    for template in found.templates:
        if not isinstance(template, str) or PLACE not in template:
            return f"the template {template!r} has no {PLACE} where the query goes"
    if not (math.isfinite(found.strength) and found.strength >= 0):
        return f"its strength is {found.strength}: it must not be negative"
    projection = found.projection
    if projection is not None and (projection.shape != (dim, dim) or not np.isfinite(projection).all()):
        return f"its projection has shape {projection.shape}, expected finite numbers of ({dim}, {dim})"
    return None


def _unit(rows: Rows) -> Rows:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Rows = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
