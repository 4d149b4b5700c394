"""Labelled images through an encoder to a ZeroShotReport: class names in templates, one vector a class.

Ties the parts together: `labelled`, `embedding`, `zero_shot`.
"""

import time

import numpy as np

from training.data.labelled import LabelledSet, ZeroShotTask
from training.data.pairs import PairSet
from training.data.templates import CLIP_TEMPLATES
from training.errors import EvaluationError
from training.evaluation.embedding import Embedder, OnProgress, embed_pairs, silent
from training.evaluation.evaluate import EvaluationOptions
from training.evaluation.ranks import Floats
from training.evaluation.report import RetrievalReport
from training.evaluation.zero_shot import (
    ClassAccuracy,
    ZeroShotReport,
    class_accuracies,
    classify,
    most_confused,
    top_accuracies,
)

LARGEST_GUESS_SHARE = 0.5
DEFAULT_OPTIONS = EvaluationOptions()


def class_vectors(encoder: Embedder, names: tuple[str, ...], templates: tuple[str, ...]) -> Floats:
    """Unit rows (classes, dim): the mean of the templates' unit vectors, at length 1 (Radford et al., 2021).

    Raises EvaluationError where a vector is not finite.
    """
    texts = [template.replace("{}", name) for name in names for template in templates]
    vectors = encoder.encode_texts(texts).vectors.reshape(len(names), len(templates), -1)
    means = vectors.mean(axis=1, dtype=np.float64)
    if not np.isfinite(means).all():
        raise EvaluationError(
            f"{encoder.name} gives a class a vector that is not finite: its training diverged"
        )
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(lengths, 1e-12), dtype=np.float32)


def with_classification(
    report: RetrievalReport,
    encoder: Embedder,
    task: ZeroShotTask,
    *,
    options: EvaluationOptions = DEFAULT_OPTIONS,
    on_progress: OnProgress = silent,
) -> RetrievalReport:
    """The report with each of the task's labelled sets in it."""
    measured = tuple(
        measure_zero_shot(encoder, each, templates=task.templates, options=options, on_progress=on_progress)
        for each in task.sets
    )
    return report.model_copy(update={"classification": measured})


def measure_zero_shot(
    encoder: Embedder,
    labelled: LabelledSet,
    *,
    templates: tuple[str, ...] = CLIP_TEMPLATES,
    options: EvaluationOptions = DEFAULT_OPTIONS,
    on_progress: OnProgress = silent,
) -> ZeroShotReport:
    """Classify each image by the nearest class; broken images are named and left out."""
    start = time.perf_counter()
    images = PairSet(labelled.name, labelled.spec, labelled.images)
    embedded = embed_pairs(encoder, images, batch=options.batch, cache=options.cache, on_progress=on_progress)
    row_of = {image.image_id: row for row, image in enumerate(labelled.images)}
    image_class = labelled.image_class[[row_of[image_id] for image_id in embedded.image_ids]]
    vectors = class_vectors(encoder, labelled.classes, templates)
    classified = classify(embedded.image_vectors, vectors, image_class=image_class)
    per_class = class_accuracies(classified.guesses, labelled.classes)
    top = top_accuracies(
        classified.ranks,
        classes=len(labelled.classes),
        samples=options.bootstrap_samples,
        seed=options.seed,
    )
    guessed = classified.guesses.sum(axis=0) / len(image_class)
    return ZeroShotReport(
        name=labelled.name,
        spec=labelled.spec,
        digest=labelled.digest,
        images=len(image_class),
        classes=len(labelled.classes),
        templates=templates,
        top=top,
        mean_per_class=float(np.mean([each.top1 for each in per_class])),
        tied_images=classified.ranks.tied_queries,
        per_class=per_class,
        confused=most_confused(classified.guesses, labelled.classes),
        missing=labelled.missing,
        broken=embedded.broken,
        warnings=_warnings(per_class, labelled.classes[int(guessed.argmax())], float(guessed.max())),
        seconds=round(time.perf_counter() - start, 3),
    )


def _warnings(per_class: tuple[ClassAccuracy, ...], favourite: str, share: float) -> tuple[str, ...]:
    """A class that takes most images in, although few are its own: what a collapse looks like here."""
    images = sum(each.images for each in per_class)
    own = sum(each.images for each in per_class if each.name == favourite) / images
    if share <= LARGEST_GUESS_SHARE or share < 2 * own:
        return ()
    return (
        f"{share:.0%} of the images are taken for {favourite!r}, {own:.0%} are: its name says too little, "
        "or the encoder collapsed here. Look at the name and the templates, then at the set's recall",
    )
