"""What training shows of phrases: where the images and captions lie that mention them, as a memory for queries.

Of every source and phrase two directions are taken: the mean of the images, and the mean of the captions, that
mention it, less the mean of all. n mentions count as n / (n + 3): a few say little. A phrase's value is their
sum over the sources, so that drawings and photos count alike however many there are of either. Kernel ridge
regression spreads the values over the phrases that the memory holds: a query gets what is known of its
neighbours.

Memory is sums by phrase, whatever the number of images: sources are read in chunks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.short_queries import PhraseMemory
from training.data.pairs import PairSet
from training.errors import ShortQueriesError
from training.evaluation.embedding import Embedder, Embedding, OnProgress, silent
from training.evaluation.ranks import Floats
from training.evaluation.short_queries import Ask
from training.short_queries.phrases import Phrase, vocabulary

WIDTH = 0.1
RIDGE = 1.0
FEW_MENTIONS = 3
MOST_WEIGHT = 30
"""Mentions beyond this make a phrase no surer."""
MOST_PHRASES = 4000
"""That values are fitted to: nouns first, then the most mentioned."""
MOST_KEYS = 1000
LEAST_PHRASES = 30
IMAGES_PER_CHUNK = 2048

Doubles = NDArray[np.float64]


@dataclass(eq=False)
class MentionSums:
    """Sums of the vectors (d,) that mention each phrase, of all vectors, and how many there are."""

    dim: int
    by_phrase: dict[Phrase, Doubles] = field(default_factory=dict)
    counts: dict[Phrase, int] = field(default_factory=dict)
    total: Doubles = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.total = np.zeros(self.dim)

    def add(self, vectors: Floats, mentioned: Sequence[frozenset[Phrase]]) -> None:
        """vectors (n, d) and the phrases that each of them mentions."""
        self.total += vectors.sum(axis=0, dtype=np.float64)
        self.count += len(vectors)
        for vector, phrases in zip(vectors, mentioned, strict=True):
            for phrase in phrases:
                if phrase not in self.by_phrase:
                    self.by_phrase[phrase] = np.zeros(self.dim)
                    self.counts[phrase] = 0
                self.by_phrase[phrase] += vector
                self.counts[phrase] += 1

    def directions(self) -> Iterator[tuple[Phrase, Doubles]]:
        """Of each phrase: which way its mentions lie from all vectors, as long as n / (n + 3)."""
        mean = self.total / max(1, self.count)
        for phrase, total in self.by_phrase.items():
            count = self.counts[phrase]
            away = total - count * mean
            length = float(np.linalg.norm(away))
            if length > 0:
                yield phrase, away / length * (count / (count + FEW_MENTIONS))


@dataclass(frozen=True, eq=False)
class PhraseValues:
    """phrases (p,), how many images or captions mention each (p,), and what is known of it (p, d)."""

    phrases: tuple[Phrase, ...]
    counts: Doubles
    values: Doubles


def phrase_values(
    encoder: Embedder,
    sources: Sequence[PairSet],
    *,
    batch: int = 32,
    cache: Path | None = None,
    on_progress: OnProgress = silent,
) -> PhraseValues:
    """What the sources show of every phrase that people would ask and a caption mentions.

    Raises ShortQueriesError where the captions mention fewer than LEAST_PHRASES.
    """
    values: dict[Phrase, Doubles] = {}
    counts: dict[Phrase, int] = {}
    for pairs in sources:
        for sums in _sums_of(encoder, pairs, batch=batch, cache=cache, on_progress=on_progress):
            for phrase, direction in sums.directions():
                values[phrase] = values.get(phrase, 0.0) + direction
                counts[phrase] = counts.get(phrase, 0) + sums.counts[phrase]
    if len(values) < LEAST_PHRASES:
        names = ", ".join(pairs.name for pairs in sources)
        raise ShortQueriesError(
            f"the captions of {names} mention {len(values)} phrases that people would ask in English: at least "
            f"{LEAST_PHRASES} are needed; give other --data, or none for templates alone"
        )
    kept = sorted(values, key=lambda phrase: (phrase.kind != "noun", -counts[phrase], phrase))[:MOST_PHRASES]
    return PhraseValues(
        tuple(kept), np.array([counts[each] for each in kept], float), np.stack([values[each] for each in kept])
    )


def fit_memory(known: PhraseValues, ask: Ask) -> PhraseMemory:
    """Keys and values at strength 1; `ask`: how queries are asked, without a memory.

    Keys are the first MOST_KEYS phrases. Minimises Σ w ‖K a − y‖² + RIDGE · tr(aᵀ K a) over the values a.
    """
    vectors = ask(known.phrases).astype(np.float64)
    keys = vectors[:MOST_KEYS]
    near, among = (np.exp((rows @ keys.T - 1.0) / WIDTH) for rows in (vectors, keys))
    weighted = near * np.sqrt(np.minimum(known.counts, MOST_WEIGHT))[:, np.newaxis]
    normal = weighted.T @ near + RIDGE * among + 1e-6 * np.eye(len(keys))
    values = np.linalg.solve(normal, weighted.T @ known.values)
    return PhraseMemory(keys.astype(np.float32), values.astype(np.float32), WIDTH)


def of_strength(memory: PhraseMemory, strength: float) -> PhraseMemory | None:
    """The memory with its values as strong; None at 0."""
    return replace(memory, values=memory.values * np.float32(strength)) if strength else None


def _sums_of(
    encoder: Embedder, pairs: PairSet, *, batch: int, cache: Path | None, on_progress: OnProgress
) -> tuple[MentionSums, MentionSums]:
    """Of a source's images and of its captions."""
    images, captions = MentionSums(encoder.dim), MentionSums(encoder.dim)
    total = len(pairs.images)
    for start in range(0, total, IMAGES_PER_CHUNK):
        chunk = replace(pairs, images=pairs.images[start : start + IMAGES_PER_CHUNK])
        embedding = Embedding(encoder, chunk, batch=batch, cache=cache)
        if not len(embedding.images[0]):
            continue
        embedded = embedding.clean
        mentioned = [_asked_for(caption) for caption in embedded.captions]
        of_image: list[set[Phrase]] = [set() for _ in embedded.image_ids]
        for image, phrases in zip(embedded.caption_image.tolist(), mentioned, strict=True):
            of_image[image] |= phrases
        images.add(embedded.image_vectors, [frozenset(phrases) for phrases in of_image])
        captions.add(embedded.caption_vectors, mentioned)
        on_progress(f"{pairs.name}: phrases", min(total, start + IMAGES_PER_CHUNK), total)
    return images, captions


def _asked_for(caption: str) -> frozenset[Phrase]:
    known = vocabulary()
    return frozenset(phrase for phrase in known.mentioned(caption) if known.is_asked_for(phrase))
