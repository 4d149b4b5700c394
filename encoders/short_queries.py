"""Ask a text tower for a few words in the sentences it learned, and with what training showed of such words.

People type nouns, and text towers learned sentences. A query of up to four words that is no sentence is
searched for as the mean of the bundle's templates ("{}", "a {}", "a photo of a {}": Radford et al. 2021,
section 3.1.4). A bundle may also remember phrases: where the images and captions of its training lie that
mention them. A query is moved towards what it is near to among these, and stays what it is where it is near to
none (a key-value cache as in Tip-Adapter, Zhang et al. 2022, with values by kernel ridge regression):

    q = unit(Σ unit(template))        q' = unit(q + Σ exp((⟨q, key⟩ − 1) / width) · value)

    short_queries.safetensors   keys and values (m, d) float16, may be missing; in its metadata templates, the
                                width, the lexicon of nouns (`encoders.lexicon`), the encoder's fingerprint

It is for search alone: embeddings that are given out stay what the tower makes of the text itself.
"""

import json
import math
import re
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
UNIT_TOLERANCE = 1e-2  # float16 rows are of length 1 to about 1e-3

Rows = NDArray[np.float32]
_SENTENCE = re.compile(r"[.!?…]\s*$|\b(?:is|are|was|were|has|have|am|be|does|do|did)\b", re.IGNORECASE)
_ARTICLES = frozenset(("a", "an", "the"))
_LATIN = re.compile(r"[^\W\d_]", re.UNICODE)


@dataclass(frozen=True, eq=False)
class PhraseMemory:
    """keys (m, d): phrases as queries, unit rows; values (m, d): what each adds to a query that is near it."""

    keys: Rows
    values: Rows
    width: float

    def __call__(self, queries: Rows) -> Rows:
        """(n, d) to add to the unit rows (n, d)."""
        distance = np.minimum(queries @ self.keys.T - 1.0, 0.0)  # rounding may bring a cosine above 1
        near = np.exp(distance / np.float32(self.width))
        return np.asarray(near @ self.values, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ShortQueries:
    """How one encoder is asked for a few words."""

    templates: tuple[str, ...]
    fingerprint: str
    memory: PhraseMemory | None = None
    lexicon: Lexicon | None = None
    """The nouns that galleries are searched for most: what a release is calibrated by."""

    def texts_for(self, query: str) -> list[str]:
        """The sentences to embed for a short query, one a template; "a {}" for "a dog" is "a dog"."""
        typed = query.split()
        words = typed[1:] if typed[1:] and typed[0].lower() in _ARTICLES else typed
        return [
            template.replace(PLACE, " ".join(typed if template == PLACE else words))
            for template in self.templates
        ]

    def combined(self, vectors: Rows) -> Rows:
        """(n, d) unit rows for the unit rows (n, templates, d) of n queries' sentences."""
        mean = _unit(vectors.sum(axis=1))
        return mean if self.memory is None else _unit(mean + self.memory(mean))

    def for_encoder(self, fingerprint: str) -> "ShortQueries":
        """What of it holds where embeddings are others: the templates and the nouns, not the memory."""
        return ShortQueries(self.templates, fingerprint, lexicon=self.lexicon)


def is_short_query(text: str) -> bool:
    """Whether a text is up to four words in Latin letters that make no sentence."""
    words = text.split()
    if not 1 <= len(words) <= MOST_WORDS or len(text) > MOST_CHARACTERS or _SENTENCE.search(text):
        return False
    letters = _LATIN.findall(text)
    return bool(letters) and all(letter <= "\u024f" for letter in letters)


def short_queries_bytes(found: ShortQueries) -> bytes:
    """The file's content. Raises ValueError for what `read_short_queries` would refuse."""
    memory = found.memory
    if problem := _problem(found, dim=0 if memory is None else memory.keys.shape[1]):
        raise ValueError(f"no short queries: {problem}")
    metadata = {
        "templates": json.dumps(found.templates, ensure_ascii=False),
        "fingerprint": found.fingerprint,
        "lexicon": found.lexicon.text if found.lexicon else "",
    }
    if memory is None:
        return save({}, metadata=metadata)
    tensors = {"keys": memory.keys.astype(np.float16), "values": memory.values.astype(np.float16)}
    return save(tensors, metadata=metadata | {"width": repr(float(memory.width))})


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
            memory=_memory(tensors, metadata) if tensors else None,
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
    return None if found.memory is None else _memory_problem(found.memory, dim)


def _memory(tensors: dict[str, NDArray[np.float16]], metadata: dict[str, str]) -> PhraseMemory:
    keys, values = (tensors[name].astype(np.float32) for name in ("keys", "values"))
    return PhraseMemory(keys, values, float(metadata["width"]))


def _memory_problem(memory: PhraseMemory, dim: int) -> str | None:
    if not (math.isfinite(memory.width) and memory.width > 0):
        return f"its width is {memory.width}: it must be above 0"
    count = len(memory.keys)
    for name, rows in (("keys", memory.keys), ("values", memory.values)):
        if rows.shape != (count, dim) or not count or not np.isfinite(rows).all():
            return f"its {name} have shape {rows.shape}, expected finite numbers of ({max(1, count)}, {dim})"
    lengths = np.linalg.norm(memory.keys, axis=1)
    if not np.all(np.abs(lengths - 1.0) < UNIT_TOLERANCE):
        return f"a key has length {lengths[int(np.argmax(np.abs(lengths - 1.0)))]}, not 1"
    return None


def _unit(rows: Rows) -> Rows:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Rows = (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
