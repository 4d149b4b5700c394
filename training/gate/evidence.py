"""Whether a figure says enough to pass a check: on a few dozen images, or where everything is found, none does.

What is told names what would do: how many images, or which k. It measures nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from encoders.verdict import Doubt
from training.evaluation.metrics import Estimate, images_for
from training.evaluation.ranks import Direction
from training.gate.policy import Evidence
from training.seen.exposure import Exposure

TELLING = 0.95
"""Recall up to which a k still tells one bundle from a better one."""


@dataclass(frozen=True)
class Lacking:
    """Why a check is not passed though its limit is kept."""

    doubt: Doubt
    why: str


@dataclass(frozen=True)
class Sample:
    """What was measured: how many images with how many captions, up to which rank, with which interval.

    recall: of the bundle (the lesser of two), by k; exposure: what the candidate has seen of the set.
    """

    images: int
    captions: int
    direction: Direction
    k: int
    interval: Estimate
    recall: Callable[[int], float]
    exposure: Exposure

    @property
    def chance(self) -> float:
        """Recall of a random order, with as many captions for each image."""
        if self.direction == "text_to_image":
            return min(1.0, self.k / self.images)
        missed = max(0.0, 1 - self.k / self.captions)
        return float(1 - missed ** (self.captions / self.images))


def lacking_for_floor(sample: Sample, *, floor: float, evidence: Evidence) -> Lacking | None:
    """What a recall that reaches its floor lacks to be believed."""
    if seen := _seen(sample):
        return seen
    if sample.chance >= floor:
        found = f"a random order of {sample.images} images reaches {sample.chance:.1%} R@{sample.k}"
        return Lacking("saturated", f"{found}: take a smaller k, more images or a higher floor")
    return _too_few(sample, evidence)


def lacking_for_no_fall(sample: Sample, *, evidence: Evidence) -> Lacking | None:
    """What a recall that does not fall lacks to be believed."""
    return _seen(sample) or _saturated(sample, evidence) or _too_few(sample, evidence)


def undecided(sample: Sample, *, margin: float) -> Lacking | None:
    """Why no fall could not be shown, where the figure itself does not look like one."""
    room = sample.interval.value + margin
    if room <= 0:
        return None
    enough = images_for(sample.images, _half(sample.interval), room)
    return Lacking("too few", f"neither a fall nor that there is none: about {enough:,} images would tell")


def _seen(sample: Sample) -> Lacking | None:
    if not sample.exposure.counts:
        return None
    return Lacking("seen", f"{sample.exposure}: take images that it was neither trained on nor chosen by")


def _saturated(sample: Sample, evidence: Evidence) -> Lacking | None:
    if sample.recall(sample.k) < evidence.saturated:
        return None
    telling = next((k for k in range(sample.k - 1, 0, -1) if sample.recall(k) <= TELLING), None)
    advice = (
        f"k = {telling} would tell ({sample.recall(telling):.1%})"
        if telling
        else f"even R@1 is {sample.recall(1):.1%}: take a larger or harder set"
    )
    return Lacking("saturated", f"{sample.recall(sample.k):.1%} of the queries are answered: {advice}")


def _too_few(sample: Sample, evidence: Evidence) -> Lacking | None:
    half = _half(sample.interval)
    by_width = images_for(sample.images, half, evidence.widest) if half > evidence.widest else 0
    if not by_width and sample.images >= evidence.least_images:
        return None
    enough = max(by_width, evidence.least_images)
    return Lacking("too few", f"{sample.images} images (±{half:.1%}): at least {enough:,} would do")


def _half(interval: Estimate) -> float:
    return (interval.high - interval.low) / 2
