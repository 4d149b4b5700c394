"""Conditions to evaluate under: names, groups and severities from the command line, and the seed of each.

Knows which corruptions there are and what a word on the command line means; neither towers nor figures.
"""

import hashlib
import re
from collections.abc import Sequence
from itertools import product

import numpy as np
from PIL import Image

from training.augment import HELD_OUT_CORRUPTIONS
from training.corruptions import IMAGE_CORRUPTIONS, SEVERITIES, corrupt_image
from training.errors import EvaluationError
from training.report import Condition
from training.text_corruptions import TEXT_CORRUPTIONS, corrupt_texts

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
        if not severities or not set(severities) <= set(SEVERITIES):
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
    """Whether captions change, and pictures do not."""
    return condition.corruption in TEXT_CORRUPTIONS


def seeded(image_id: str, condition: Condition) -> np.random.Generator:
    """The generator of one image's corruption: another for each image, corruption and severity."""
    name = f"{image_id}\0{condition.corruption}\0{condition.severity}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


def picture_under(condition: Condition, image: Image.Image, *, image_id: str) -> Image.Image:
    """The picture as the condition shows it, before the model's own resize."""
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


def held_out_note(conditions: Sequence[Condition]) -> str | None:
    """Which of the corruptions stand in no training augmentation; None where nothing was corrupted."""
    names = tuple(dict.fromkeys(each.corruption for each in conditions if each.corruption))
    pictures = [name for name in names if name in IMAGE_CORRUPTIONS]
    if not pictures:
        return None
    unseen = [name for name in pictures if name in HELD_OUT_CORRUPTIONS]
    known = [name for name in pictures if name not in HELD_OUT_CORRUPTIONS]
    return (
        f"in no training augmentation of Twinlens: {', '.join(unseen) or 'none of these corruptions'}; "
        f"related to one, so that part of the figure may be memory: {', '.join(known) or 'none'}"
    )
