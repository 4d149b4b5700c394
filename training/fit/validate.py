"""Retrieval on held-out pairs while training: cheap, on images prepared once, with the weights as they are.

The figures are those of `metrics`, without intervals. It does not choose weights or stop anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.captions import group_captions
from training.data.pairs import digest_of
from training.evaluation.collapse import EmbeddingHealth, measure_health
from training.evaluation.metrics import DEFAULT_KS
from training.evaluation.ranks import Floats, Retrieval, rank_pairs
from training.fit.step.mixture import Mixture
from training.fit.towers.learner import Feed, Learner
from training.fit.views.views import TrainingImage

EMBED_BATCH = 128

T = TypeVar("T")


@dataclass(frozen=True)
class HeldOut:
    """images (n,), captions (m,), the image of each caption (m,), the number of its text (m,)."""

    name: str
    images: tuple[TrainingImage, ...]
    captions: tuple[str, ...]
    caption_image: NDArray[np.int64]
    caption_group: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """SHA-256 over what the images hold, the captions, and which belong together."""
        images = [image.digest.hex() for image in self.images]
        return digest_of([images, self.captions, [str(owner) for owner in self.caption_image]])


@dataclass(frozen=True)
class Outcome:
    """recall: "t2i@1" … "i2t@10", from 0 to 1, of one set; health of its embeddings."""

    name: str
    recall: dict[str, float]
    health: EmbeddingHealth

    @property
    def score(self) -> float:
        """Mean of R@1, R@5, R@10 both ways (a sixth of the usual rsum)."""
        return float(np.mean(list(self.recall.values())))


def held_out(name: str, mixture: Mixture) -> HeldOut:
    """From a mixture of one source."""
    examples = mixture.examples[0]
    captions = [caption for example in examples for caption in example.captions]
    owner = [row for row, example in enumerate(examples) for _ in example.captions]
    return HeldOut(
        name=name,
        images=tuple(example.image for example in examples),
        captions=tuple(captions),
        caption_image=np.array(owner, dtype=np.int64),
        caption_group=group_captions(captions),
    )


def validate(learner: Learner, sets: Sequence[HeldOut], feed: Feed) -> list[Outcome]:
    """Both towers in eval mode over each set."""
    learner.model.eval()
    return [_validate_set(learner, one, feed) for one in sets]


def retrievals(learner: Learner, sets: Sequence[HeldOut], feed: Feed) -> list[Retrieval]:
    """Where the answer to every query of each set stands, both towers in eval mode."""
    learner.model.eval()
    return [_retrieved(one, *_embedded(learner, one, feed)) for one in sets]


def mean_score(outcomes: Sequence[Outcome]) -> float:
    """Sets count alike, however large."""
    return float(np.mean([outcome.score for outcome in outcomes]))


def _validate_set(learner: Learner, data: HeldOut, feed: Feed) -> Outcome:
    image_vectors, caption_vectors = _embedded(learner, data, feed)
    retrieval = _retrieved(data, image_vectors, caption_vectors)
    health = measure_health(
        image_vectors, caption_vectors, caption_image=data.caption_image, tied_share=_tied_share(retrieval)
    )
    return Outcome(data.name, _recall(retrieval), health)


@torch.inference_mode()
def _embedded(learner: Learner, data: HeldOut, feed: Feed) -> tuple[Floats, Floats]:
    """Unit rows of images (n, dim) and captions (m, dim)."""
    images = []
    for part in _parts(data.images):
        images.append(learner.embed_images(feed.read([(image, 0) for image in part])).cpu().numpy())
        feed.turn()
    by_length = sorted(range(len(data.captions)), key=lambda row: len(data.captions[row]))
    image_vectors = np.concatenate(images)
    caption_vectors = np.empty((len(data.captions), image_vectors.shape[1]), dtype=np.float32)
    for rows in _parts(by_length):
        caption_vectors[list(rows)] = learner.embed_texts([data.captions[row] for row in rows]).cpu().numpy()
    return image_vectors, caption_vectors


def _retrieved(data: HeldOut, image_vectors: Floats, caption_vectors: Floats) -> Retrieval:
    return rank_pairs(
        image_vectors, caption_vectors, caption_image=data.caption_image, caption_group=data.caption_group
    )


def _recall(retrieval: Retrieval) -> dict[str, float]:
    directions = {"t2i": retrieval.text_to_image, "i2t": retrieval.image_to_text}
    return {
        f"{name}@{k}": float(ranks.hit_probability(k).mean())
        for name, ranks in directions.items()
        for k in DEFAULT_KS
    }


def _tied_share(retrieval: Retrieval) -> float:
    both = (retrieval.text_to_image, retrieval.image_to_text)
    return sum(ranks.tied_queries for ranks in both) / sum(len(ranks) for ranks in both)


def _parts(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + EMBED_BATCH] for start in range(0, len(items), EMBED_BATCH)]
