"""What is wrong with an encoder that no longer gives its golden vectors: which inputs differ, hence where.

Every stage is run and compared with what it gave when the bundle was made, so a fault is looked for where
inputs still agree and outputs no longer do: prepared pixels (resize, decoding), normalisation, the image tower
(channels, weights), token ids (truncation, tokenizer), the text tower (collapse, weights).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from encoders.encoder import Encoder, Vectors
from encoders.golden import REPRODUCED, Golden, Stages, cosines, golden_pixels, run_stages
from encoders.golden_inputs import SHORT_IDS
from encoders.images import Pixels, Preprocessing
from encoders.modalities import MODALITIES, Modality

Cause = Literal[
    "normalisation", "resize", "interpolation", "decoding", "channels", "weights", "collapse", "truncation",
    "tokenizer",
]  # fmt: skip

MOVED_LEVELS = 0.25
"""Mean difference of prepared pixels, of 255, below which they are the same: decoders round differently."""
_NORMALISED_TOLERANCE = 1e-3
_MENDED = 0.1
"""Another order of channels is the cause when it leaves at most this part of the distance."""
_LOST_SPREAD = 0.1
"""Part of what different inputs lay apart, at or below which a tower has collapsed."""
_NAMED = 4

Mask = NDArray[np.bool_]


class Finding(BaseModel):
    """A likely cause, and the observations that point to it, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cause: Cause
    evidence: str

    def __str__(self) -> str:
        return f"{self.cause}: {self.evidence}"


@dataclass(frozen=True, eq=False)
class GoldenCheck:
    """Golden inputs, made then and run now.

    reordered: mean cosine of the coloured scenes whose pixels agree and whose vectors do not, with what they
    gave then, by the order their channels are put in before the tower; empty where there are none.
    """

    golden: Golden
    now: Stages
    reordered: dict[str, float]

    def reproduced(self, modality: Modality) -> NDArray[np.float64]:
        """(n,) cosines with what the same stored weights gave when the bundle was made."""
        return cosines(self.now.vectors[modality], self.golden.stages.vectors[modality])

    def parity(self, modality: Modality) -> float:
        """Least cosine with the vectors of the reference weights. Images of one flat colour are left out:
        they excite a tower so little that rounding moves them far, and nobody looks for them.
        """
        found = cosines(self.now.vectors[modality], self.golden.reference[modality])
        if modality == "images":
            found = found[[image.kind != "flat" for image in self.golden.record.images]]
        return float(found.min())

    def spread(self, modality: Modality) -> float:
        """1 − mean cosine between different inputs, now."""
        return spread(self.now.vectors[modality])


def check_golden(encoder: Encoder, golden: Golden) -> GoldenCheck:
    """Runs every golden input through every stage of an encoder."""
    texts = tuple(text.text for text in golden.record.texts)
    now = run_stages(encoder, golden.files, texts)
    check = GoldenCheck(golden, now, {})
    coloured = np.array([image.coloured for image in golden.record.images])
    scenes = np.array([image.kind != "flat" for image in golden.record.images])
    suspects = np.flatnonzero(coloured & scenes & ~_moved(check) & (check.reproduced("images") < REPRODUCED))
    if not len(suspects):
        return check
    pixels = golden_pixels(encoder, golden.files)[suspects]
    then = golden.stages.vectors["images"][suspects]
    orders = {"".join("RGB"[c] for c in order): order for order in itertools.permutations(range(3))}
    turned = {name: _reordered(pixels, order, encoder.preprocessing) for name, order in orders.items()}
    return GoldenCheck(
        golden,
        now,
        {name: float(cosines(encoder.encode_pixels(each), then).mean()) for name, each in turned.items()},
    )


def diagnose(check: GoldenCheck) -> tuple[Finding, ...]:
    """The likely causes of all that differs by more than `REPRODUCED` allows; empty where nothing does."""
    collapsed = {modality: fall for modality in MODALITIES if (fall := _collapse(check, modality))}
    found = [
        *_pixel_findings(check),
        *_normalisation_findings(check),
        *([] if "images" in collapsed else _image_tower_findings(check)),
        *_token_findings(check),
        *([] if "texts" in collapsed else _text_tower_findings(check)),
        *collapsed.values(),
    ]
    return tuple(found)


def spread(vectors: Vectors) -> float:
    """1 − mean cosine between different rows: 0 where all are alike."""
    rows = vectors.astype(np.float64)
    with np.errstate(invalid="ignore"):
        alike = rows @ rows.T
    return float(1.0 - np.nan_to_num(alike[~np.eye(len(rows), dtype=bool)], nan=1.0).mean())


def _pixel_findings(check: GoldenCheck) -> list[Finding]:
    """Where the tower reads other pixels: by the images it happens to."""
    images = check.golden.record.images
    moved = _moved(check) & (check.reproduced("images") < REPRODUCED)
    if not moved.any():
        return []
    scenes = np.array([image.kind == "scene" for image in images])
    shape = np.array([image.shape for image in images])
    named = _named([image.name for image in images], moved)
    if not (moved & scenes).any():
        kinds = " and ".join(sorted({image.kind for image, one in zip(images, moved, strict=True) if one}))
        return [Finding(cause="decoding", evidence=f"only images with {kinds} are read otherwise ({named})")]
    if _channels_exchanged(check, moved):
        return [Finding(cause="channels", evidence=f"pixels come with other channels than then ({named})")]
    if not (moved & (shape != "other")).any():
        evidence = f"only images of another shape than the tower's are prepared otherwise ({named})"
        return [Finding(cause="resize", evidence=f"{evidence}; those of its shape agree: the resize mode")]
    if not (moved & (shape == "own")).any():
        evidence = f"all images that are resized differ ({named}), those of the tower's size agree"
        return [Finding(cause="interpolation", evidence=evidence)]
    evidence = f"images of every shape are prepared otherwise ({named}): size, crop or resize mode"
    return [Finding(cause="resize", evidence=evidence)]


def _normalisation_findings(check: GoldenCheck) -> list[Finding]:
    then, now = check.golden.stages.normalised, check.now.normalised
    if np.abs(then - now).max() <= _NORMALISED_TOLERANCE:
        return []
    shown = [
        f"{colour} comes to {_numbers(now[row])}, it came to {_numbers(then[row])}"
        for row, colour in enumerate(("black", "white"))
    ]
    reversed_ = np.abs(then[:, ::-1] - now).max() <= _NORMALISED_TOLERANCE
    hint = "; mean and deviation are those of the channels in reverse order" if reversed_ else ""
    differ = int((check.reproduced("images") < REPRODUCED).sum())
    evidence = f"every pixel is offset or scaled alike: {'; '.join(shown)}{hint}"
    count = f"{differ} of {len(check.golden.files)} images differ, flat ones too"
    return [Finding(cause="normalisation", evidence=f"{evidence} ({count})")]


def _image_tower_findings(check: GoldenCheck) -> list[Finding]:
    """Images that reach the tower as they did, and come out otherwise."""
    same = ~_moved(check)
    if np.abs(check.golden.stages.normalised - check.now.normalised).max() > _NORMALISED_TOLERANCE:
        return []
    cosine = check.reproduced("images")
    bad = same & (cosine < REPRODUCED)
    if not bad.any():
        return []
    coloured = np.array([image.coloured for image in check.golden.record.images])
    order, mended = max(check.reordered.items(), key=lambda item: item[1], default=("RGB", -1.0))
    if order != "RGB" and 1.0 - mended <= _MENDED * (1.0 - check.reordered["RGB"]):
        evidence = (
            f"coloured images differ (least cosine {cosine[same & coloured].min():.4f}), grey ones "
            f"{'agree' if cosine[same & ~coloured].min() >= REPRODUCED else 'less so'} "
            f"({cosine[same & ~coloured].min():.4f}); with the channels in the order {order} they agree "
            f"({mended:.4f}): the tower reads another order than it is given"
        )
        return [Finding(cause="channels", evidence=evidence)]
    evidence = (
        f"{int(bad.sum())} of {int(same.sum())} images that reach the image tower unchanged differ (least "
        f"cosine {cosine[same].min():.4f}, mean {cosine[same].mean():.4f}): its weights are others"
    )
    return [Finding(cause="weights", evidence=evidence)]


def _token_findings(check: GoldenCheck) -> list[Finding]:
    then, now = check.golden.stages.ids, check.now.ids
    texts = [text.text for text in check.golden.record.texts]
    differ = np.array([a != b for a, b in zip(then, now, strict=True)])
    if not differ.any():
        return []
    cut = np.array([_is_cut(a, b) or _is_cut(b, a) for a, b in zip(then, now, strict=True)])
    named = _named([repr(text[:24]) for text in texts], differ)
    if (differ & ~cut).any():
        evidence = f"{int(differ.sum())} of {len(texts)} texts become other token ids ({named})"
        return [Finding(cause="tokenizer", evidence=evidence)]
    longest = (max(map(len, now)), max(map(len, then)))
    agree = [len(ids) for ids, other in zip(then, differ, strict=True) if not other]
    evidence = (
        f"texts are read to {longest[0]} token ids, it was {longest[1]} when the bundle was made: "
        f"{int(differ.sum())} of {len(texts)} differ, {len(agree)} of at most {max(agree, default=0)} ids agree"
    )
    return [Finding(cause="truncation", evidence=evidence)]


def _text_tower_findings(check: GoldenCheck) -> list[Finding]:
    """Texts whose token ids are what they were, and whose vectors are not."""
    same = np.array([a == b for a, b in zip(check.golden.stages.ids, check.now.ids, strict=True)])
    cosine = check.reproduced("texts")
    bad = same & (cosine < REPRODUCED)
    if not bad.any():
        return []
    long = np.array([len(ids) > SHORT_IDS for ids in check.now.ids])
    if not (bad & ~long).any() and (bad | ~same | ~long).all():
        evidence = (
            f"only texts of more than {SHORT_IDS} token ids differ: the text tower reads no more than those"
        )
        return [Finding(cause="truncation", evidence=evidence)]
    evidence = (
        f"{int(bad.sum())} of {int(same.sum())} texts that reach the text tower unchanged differ (least cosine "
        f"{cosine[same].min():.4f}, mean {cosine[same].mean():.4f}): its weights are others"
    )
    return [Finding(cause="weights", evidence=evidence)]


def _collapse(check: GoldenCheck, modality: Modality) -> Finding | None:
    """Inputs that differ embed alike: worse than wrong, for every ranking is then a tie."""
    then, now = spread(check.golden.stages.vectors[modality]), check.spread(modality)
    if now > _LOST_SPREAD * then or check.reproduced(modality).min() >= REPRODUCED:
        return None
    what = {"images": "images", "texts": "texts"}[modality]
    evidence = (
        f"all {what} embed alike: mean cosine between different ones {1 - now:.4f}, it was {1 - then:.4f}"
    )
    return Finding(cause="collapse", evidence=evidence)


def _moved(check: GoldenCheck) -> Mask:
    """(n,) whether an image reaches the tower as other pixels than then."""
    distance = np.abs(check.golden.stages.pixels.astype(np.float32) - check.now.pixels.astype(np.float32))
    found: Mask = distance.mean(axis=(1, 2)) > MOVED_LEVELS
    return found


def _reordered(pixels: Pixels, order: tuple[int, ...], spec: Preprocessing) -> Pixels:
    """Pixels that normalise to what `pixels` do, in another order of channels; to the nearest level."""
    mean, std = 255.0 * np.array(spec.mean), 255.0 * np.array(spec.std)
    normalised = (pixels - mean) / std
    levels = np.rint(normalised[..., order] * std + mean)
    return np.clip(levels, 0, 255).astype(np.uint8)


def _channels_exchanged(check: GoldenCheck, moved: Mask) -> bool:
    then, now = (stages.pixels[moved].astype(np.float32) for stages in (check.golden.stages, check.now))
    orders = [order for order in itertools.permutations(range(3)) if order != (0, 1, 2)]
    return any(np.abs(then[..., order] - now).mean() <= MOVED_LEVELS for order in orders)


def _is_cut(whole: Sequence[int], cut: Sequence[int]) -> bool:
    """Whether `cut` is the beginning of `whole`, its own end mark left aside."""
    return len(cut) < len(whole) and tuple(whole[: len(cut) - 1]) == tuple(cut[:-1])


def _named(names: Sequence[str], wanted: Mask) -> str:
    chosen = [name for name, one in zip(names, wanted, strict=True) if one]
    return ", ".join(chosen[:_NAMED]) + (f" and {len(chosen) - _NAMED} more" if len(chosen) > _NAMED else "")


def _numbers(values: NDArray[np.float32]) -> str:
    return "/".join(f"{value:.2f}" for value in values)
