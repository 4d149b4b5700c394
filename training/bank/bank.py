"""A query bank from pairs, and how strongly it should act, by retrieval on sets that it holds nothing of.

It knows sets and encoders; neither commands nor indexes.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from encoders.bundle import Bundle
from encoders.query_bank import QUERY_BANK, QueryBank, as_stored, query_bank_bytes
from training.card import CARD, bundle_card
from training.data.captions import group_captions
from training.data.pairs import CaptionedImage, PairSet
from training.errors import BankError
from training.evaluation.embedding import EmbeddedPairs, Embedder, OnProgress, embed_pairs, silent
from training.evaluation.metrics import DEFAULT_KS
from training.evaluation.ranks import DIRECTIONS, rank_pairs

DEFAULT_PAIRS = 3000
"""6 MB at 512 dimensions. A third of it gains a little less: LOG.md."""
LEAST_PAIRS = 100


@dataclass(frozen=True)
class Trial:
    """A strength and a reach, and with them each set's mean of R@1, R@5, R@10 both ways. alpha 0: no bank."""

    alpha: float
    k: int
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """Sets count alike, however large."""
        return sum(self.scores) / len(self.scores)


def draw_pairs(sets: Sequence[PairSet], count: int, *, seed: int) -> list[PairSet]:
    """At most `count` images of all the sets, each as likely, with one of its captions each.

    The draw hangs on ids and seed alone, not on the order of files. Raises BankError for fewer than
    LEAST_PAIRS.
    """
    if count < LEAST_PAIRS:
        raise BankError(
            f"a bank of {count} pairs tells no hub from an answer: at least {LEAST_PAIRS} are needed"
        )
    drawn = random.Random(seed)
    all_images = sorted(
        ((number, image) for number, pairs in enumerate(sets) for image in pairs.images),
        key=lambda one: (one[0], one[1].image_id),
    )
    chosen = drawn.sample(all_images, min(count, len(all_images)))
    if len(chosen) < LEAST_PAIRS:
        names = ", ".join(pairs.name for pairs in sets)
        raise BankError(f"{names}: {len(chosen)} images in all; at least {LEAST_PAIRS} are needed for a bank")
    images: list[list[CaptionedImage]] = [[] for _ in sets]
    for number, image in chosen:
        images[number].append(replace(image, captions=(drawn.choice(image.captions),)))
    return [replace(one, images=tuple(kept)) for one, kept in zip(sets, images, strict=True) if kept]


def make_bank(
    encoder: Embedder,
    sets: Sequence[PairSet],
    *,
    alpha: float,
    k: int,
    batch: int = 32,
    on_progress: OnProgress = silent,
) -> QueryBank:
    """The bank of all the sets' images and captions, float16 as it will be stored."""
    embedded = [embed_pairs(encoder, pairs, batch=batch, on_progress=on_progress) for pairs in sets]
    return QueryBank(
        rows={
            "texts": as_stored(np.concatenate([one.caption_vectors for one in embedded])),
            "images": as_stored(np.concatenate([one.image_vectors for one in embedded])),
        },
        fingerprint=encoder.fingerprint,
        alpha=alpha,
        k=k,
    )


def try_strengths(
    bank: QueryBank, sets: Sequence[EmbeddedPairs], *, alphas: Sequence[float], ks: Sequence[int]
) -> Iterator[Trial]:
    """Retrieval on the sets without a bank, then under every strength and reach."""
    yield Trial(0.0, ks[0], tuple(_score(one, None) for one in sets))
    for k, alpha in product(ks, alphas):
        tried = replace(bank, alpha=alpha, k=k)
        yield Trial(alpha, k, tuple(_score(one, tried) for one in sets))


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The one of the highest score; of equals, the one that corrects least."""
    return max(trials, key=lambda trial: (trial.score, -trial.alpha, -trial.k))


def store_bank(bundle: Bundle, bank: QueryBank) -> Bundle:
    """The same bundle with the bank inside, its card without figures: they were another ranking's."""
    stored = bundle.with_file(QUERY_BANK, query_bank_bytes(bank))
    return stored.with_file(CARD, bundle_card(stored.config).encode())


def _score(embedded: EmbeddedPairs, bank: QueryBank | None) -> float:
    retrieval = rank_pairs(
        embedded.image_vectors,
        embedded.caption_vectors,
        caption_image=embedded.caption_image,
        caption_group=group_captions(embedded.captions),
        bank=bank,
    )
    return float(
        np.mean([retrieval.direction(d).hit_probability(k).mean() for d in DIRECTIONS for k in DEFAULT_KS])
    )
