"""Conditions to evaluate under: names, groups and severities from the command line, and the seed of each.

Knows which corruptions there are and what a word on the command line means; neither towers nor figures.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image

from training.errors import EvaluationError
from training.shift.condition import Condition
from training.shift.corruptions import IMAGE_CORRUPTIONS, SEVERITIES, corrupt_image
from training.shift.text_corruptions import TEXT_CORRUPTIONS, corrupt_texts

LIGHT = (
    "over_exposure", "under_exposure", "gamma_darker", "gamma_lighter", "warm", "cool",
    "low_light", "brightness",
)  # fmt: skip
RESOLUTION = ("resolution_bicubic", "resolution_bilinear", "pixelate")
GROUPS: dict[str, tuple[str, ...]] = {
    "light": LIGHT,
    "resolution": RESOLUTION,
    "image": tuple(IMAGE_CORRUPTIONS),
    "text": tuple(TEXT_CORRUPTIONS),
    "all": (*IMAGE_CORRUPTIONS, *TEXT_CORRUPTIONS),
}
MEANS: dict[str, tuple[str, ...]] = {
    "mean of light": LIGHT,
    "mean of resolution": RESOLUTION,
    "mean of light and resolution": (*LIGHT, *RESOLUTION),
    "mean of image": GROUPS["image"],
    "mean of text": GROUPS["text"],
}
"""Averages over groups that were measured whole."""

FAMILIES: tuple[tuple[str, ...], ...] = (
    ("low_light", "under_exposure", "gamma_darker"),
    ("over_exposure", "gamma_lighter", "brightness"),
    ("warm", "cool"),
    ("desaturate", "oversaturate"),
    ("resolution_bicubic", "resolution_bilinear", "pixelate", "blur"),
)
"""Kinds that do much the same to an image: training on one is half a training on the others."""

_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


def parse_corruptions(words: str) -> tuple[str, ...]:
    """ "light,blur" to names, each once. Raises EvaluationError for a name that is neither kind nor group."""
    names: list[str] = []
    for word in filter(None, (word.strip() for word in words.split(","))):
        if word not in GROUPS and word not in GROUPS["all"]:
            raise EvaluationError(
                f"no corruption {word!r}: there are the groups {', '.join(GROUPS)}, "
                f"and {', '.join(GROUPS['all'])}"
            )
        names += GROUPS.get(word, (word,))
    return tuple(dict.fromkeys(names))


def parse_severities(words: str) -> tuple[int, ...]:
    """ "1-3,5" to (1, 2, 3, 5). Raises EvaluationError for anything but numbers from 1 to 5."""
    found: set[int] = set()
    for word in words.split(","):
        low, _, high = word.strip().partition("-")
        try:
            severities = range(int(low), int(high or low) + 1)
        except ValueError:
            severities = range(0)
        if not severities or not {severities[0], severities[-1]} <= set(SEVERITIES):
            raise EvaluationError(f"severities {words!r}: write 1-5, 3, or 1,3,5")
        found |= set(severities)
    return tuple(sorted(found))


def parse_input_sizes(words: str) -> tuple[tuple[int, int], ...]:
    """ "160,224x288" to (height, width) pairs. Raises EvaluationError for what is no size."""
    sizes = []
    for word in filter(None, (word.strip() for word in words.split(","))):
        match = _SIZE.fullmatch(word)
        size = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not all(1 <= side <= 4096 for side in size):
            raise EvaluationError(f"input size {word!r}: write pixels, 160 or 160x224 (height x width)")
        sizes.append(size)
    return tuple(dict.fromkeys(sizes))


def corrupted_conditions(corruptions: Sequence[str], severities: Sequence[int]) -> tuple[Condition, ...]:
    """Every corruption at every severity."""
    return tuple(Condition(corruption=name, severity=each) for name, each in product(corruptions, severities))


def changes_text(condition: Condition) -> bool:
    """Whether captions change, and images do not."""
    return condition.corruption in TEXT_CORRUPTIONS


def seeded(image_id: str, condition: Condition) -> np.random.Generator:
    """The generator of one image's corruption: another for each image, corruption and severity."""
    name = f"{image_id}\0{condition.corruption}\0{condition.severity}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def image_under(condition: Condition, image: Image.Image, *, image_id: str) -> Image.Image:
    """The image as the condition shows it, before the model's own resize."""
    if condition.corruption is None or condition.severity is None or changes_text(condition):
        return image
    rng = seeded(image_id, condition)
    return corrupt_image(image, condition.corruption, severity=condition.severity, rng=rng)


def captions_under(condition: Condition, captions: Sequence[str], *, image_id: str) -> tuple[str, ...]:
    """The captions of one image as the condition leaves them."""
    if condition.corruption is None or condition.severity is None or not changes_text(condition):
        return tuple(captions)
    rng = seeded(image_id, condition)
    return corrupt_texts(captions, condition.corruption, severity=condition.severity, rng=rng)


def near_kinds(kind: str, held_out: Sequence[str]) -> tuple[str, ...]:
    """Of a kind that was kept out of training: the kinds much like it that were not."""
    family: tuple[str, ...] = next((each for each in FAMILIES if kind in each), ())
    return tuple(other for other in family if kind in held_out and other not in held_out)


def held_out_note(conditions: Sequence[Condition], held_out: Sequence[str] | None) -> str | None:
    """Which corruptions of images a bundle's training kept out; None where no image was corrupted.

    `held_out` None: nothing is known of its training.
    """
    names = dict.fromkeys(each.corruption for each in conditions if each.corruption in IMAGE_CORRUPTIONS)
    images = [str(name) for name in names]
    if not images:
        return None
    if held_out is None:
        return "it is not known which of these corruptions it was trained on: what it keeps may be memory"
    near = {name: near_kinds(name, held_out) for name in images}
    kept_out = (
        ", ".join(
            f"{name} (but not {' and '.join(near[name])}, much like it)" if near[name] else name
            for name in images
            if name in held_out
        )
        or "none of these corruptions"
    )
    others = ", ".join(name for name in images if name not in held_out) or "none"
    return (
        f"kept out of its training by its recipe: {kept_out}; open to it, so that part may be memory: {others}"
    )


@dataclass(frozen=True)
class Subject:
    """What a figure is about: one condition, or all of a group's at one severity, to be averaged."""

    name: str
    severity: int | None
    conditions: tuple[Condition, ...]


def subjects_of(conditions: Sequence[Condition]) -> tuple[Subject, ...]:
    """Every condition, then the mean of each group that was measured whole, by severity."""
    alone = [
        Subject(each.corruption or str(each), each.severity, (each,)) for each in dict.fromkeys(conditions)
    ]
    means = []
    for (title, group), severity in product(MEANS.items(), SEVERITIES):
        members = corrupted_conditions(group, (severity,))
        if set(members) <= set(conditions):
            means.append(Subject(title, severity, members))
    return (*alone, *means)
