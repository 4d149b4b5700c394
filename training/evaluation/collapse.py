"""Is something wrong with these embeddings? Health figures, and warnings in plain language.

Used while training (before hours are lost) and by every evaluation. Pure NumPy over vectors: it does NOT
know models, images or where the embeddings came from.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from encoders.query_bank import QueryBank
from training.evaluation.alignment import Alignment, explain, measure_alignment
from training.evaluation.ranks import Doubles, Floats, Ints

FEWEST_DIRECTIONS = 16
"""Below so many rows or dimensions a low rank says nothing."""
LOWEST_SPREAD = 0.05
LOWEST_RANK_SHARE = 0.05
HIGHEST_GAP = 1.2
LOWEST_MARGIN = 0.01
HIGHEST_TIED_SHARE = 0.01
HIGHEST_CUT_SHARE = 0.1
_ROWS_PER_BLOCK = 8192


class EmbeddingHealth(BaseModel):
    """How embeddings lie on the sphere. Shares are from 0 to 1.

    spread: mean squared distance of unit rows from their mean, 0 (all equal) to 1 (all around);
    effective_rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007; RankMe,
    Garrido et al. 2023), 1 to `full_rank` = min(rows, dim);
    modality_gap: distance between the mean image and the mean caption, 0 to 2 (Liang et al. 2022; 0.8 is
    usual for CLIP); matched_cosine, unmatched_cosine: means over pairs, and over all images × captions;
    tied_share: queries, both ways, whose right answer ties with a wrong one; cut_share: captions cut short;
    alignment: why captions may score their own image no higher than any other, where they do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_spread: float
    caption_spread: float
    image_effective_rank: float
    caption_effective_rank: float
    image_full_rank: int
    caption_full_rank: int
    modality_gap: float
    matched_cosine: float
    unmatched_cosine: float
    tied_share: float = 0.0
    cut_share: float = 0.0
    alignment: Alignment | None = None


def measure_health(
    image_vectors: Floats,
    caption_vectors: Floats,
    *,
    caption_image: Ints,
    tied_share: float = 0.0,
    cut_share: float = 0.0,
    bank: QueryBank | None = None,
) -> EmbeddingHealth:
    """Health of unit rows (n, dim) and (m, dim); caption_image (m,) is the row of each caption's image.

    bank: the bundle's, whose pairs tell whether the towers were trained together. Raises ValueError when a
    vector is not finite. Work and memory are those of two (dim, dim) products.
    """
    image_mean, caption_mean = _mean(image_vectors), _mean(caption_vectors)
    matched = _matched_cosine(image_vectors, caption_vectors, caption_image)
    unmatched = float(image_mean @ caption_mean)
    alignment = None
    if matched - unmatched < LOWEST_MARGIN:
        alignment = measure_alignment(image_vectors, caption_vectors, caption_image=caption_image, bank=bank)
    return EmbeddingHealth(
        image_spread=max(0.0, 1.0 - float(image_mean @ image_mean)),
        caption_spread=max(0.0, 1.0 - float(caption_mean @ caption_mean)),
        image_effective_rank=effective_rank(image_vectors),
        caption_effective_rank=effective_rank(caption_vectors),
        image_full_rank=min(image_vectors.shape),
        caption_full_rank=min(caption_vectors.shape),
        modality_gap=float(np.linalg.norm(image_mean - caption_mean)),
        matched_cosine=matched,
        unmatched_cosine=unmatched,
        tied_share=tied_share,
        cut_share=cut_share,
        alignment=alignment,
    )


def effective_rank(vectors: NDArray[np.floating]) -> float:
    """exp(entropy of the singular values' shares) of (n, dim) vectors, about no mean; 1 when all are equal."""
    rows, dim = vectors.shape
    gram: Doubles = np.zeros((dim, dim))
    for start in range(0, rows, _ROWS_PER_BLOCK):
        block = vectors[start : start + _ROWS_PER_BLOCK].astype(np.float64)
        gram += block.T @ block
    # Squared singular values below the rounding of the float32 vectors themselves are noise, not directions.
    squares = np.linalg.eigvalsh(gram)
    singular = np.sqrt(squares[squares > squares[-1] * max(rows, dim) * np.finfo(np.float32).eps ** 2])
    shares = singular / singular.sum() if len(singular) else np.ones(1)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def health_warnings(health: EmbeddingHealth) -> tuple[str, ...]:
    """What is likely wrong, with the figures, and what to do; empty when nothing is."""
    return (*_collapse_warnings(health), *_alignment_warnings(health), *_query_warnings(health))


def _collapse_warnings(health: EmbeddingHealth) -> Iterator[str]:
    for kind, spread, rank, full in (
        ("image", health.image_spread, health.image_effective_rank, health.image_full_rank),
        ("caption", health.caption_spread, health.caption_effective_rank, health.caption_full_rank),
    ):
        if full < FEWEST_DIRECTIONS:
            continue
        if rank < max(2.0, LOWEST_RANK_SHARE * full):
            yield (
                f"{kind} embeddings collapsed: effective rank {rank:.1f} of {full}. "
                "Lower the learning rate, enlarge the batch, or train the heads alone first"
            )
        elif spread < LOWEST_SPREAD:
            yield (
                f"{kind} embeddings all point one way: spread {spread:.3f} of 1 (below {LOWEST_SPREAD}). "
                "Check that the tower's normalisation is the one it was trained with, and train it longer"
            )


def _alignment_warnings(health: EmbeddingHealth) -> Iterator[str]:
    if health.alignment is not None:
        yield (
            f"captions score their own image no higher than any other: mean cosine "
            f"{health.matched_cosine:.3f} against {health.unmatched_cosine:.3f}. {explain(health.alignment)}"
        )
    if health.modality_gap > HIGHEST_GAP:
        yield (
            f"images and captions lie on opposite sides: modality gap {health.modality_gap:.2f} of at most 2 "
            f"(above {HIGHEST_GAP}; 0.8 is usual). Let the logit scale start lower, or train longer"
        )


def _query_warnings(health: EmbeddingHealth) -> Iterator[str]:
    if health.tied_share > HIGHEST_TIED_SHARE:
        yield (
            f"{health.tied_share:.1%} of the queries tie their right answer with a wrong one. "
            "Identical images or near-identical embeddings: look for duplicates, then for collapse"
        )
    if health.cut_share > HIGHEST_CUT_SHARE:
        yield (
            f"{health.cut_share:.1%} of the captions are longer than the text tower reads, and are cut. "
            "Raise the context length, or shorten the captions"
        )


def _mean(vectors: Floats) -> Doubles:
    mean: Doubles = vectors.mean(axis=0, dtype=np.float64)
    if not np.isfinite(mean).all():
        bad = int(np.argmin(np.isfinite(vectors).all(axis=1)))
        raise ValueError(
            f"embedding {bad} of {len(vectors)} is not finite: training diverged, or a weight is broken"
        )
    return mean


def _matched_cosine(image_vectors: Floats, caption_vectors: Floats, caption_image: Ints) -> float:
    total = 0.0
    for start in range(0, len(caption_vectors), _ROWS_PER_BLOCK):
        block = slice(start, start + _ROWS_PER_BLOCK)
        total += float(np.einsum("nd,nd->", caption_vectors[block], image_vectors[caption_image[block]]))
    return total / len(caption_vectors)
