"""Augmentations by name, and which kinds of corruption each one trains on.

A recipe keeps some kinds out of training, so that a test with them tells more than memory: `check_held_out`
holds it to its word.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from training.augmentation.augment import HELD_OUT_CORRUPTIONS, NO_AUGMENTATION, Augmentation

PRESETS: dict[str, Augmentation] = {
    "none": NO_AUGMENTATION,
    "standard": Augmentation(),
    "drawings": Augmentation(zoom_out=0.3, exposure=0.15, gamma=0.15, jitter=0.6, grey=0.05),
    "strong": Augmentation(
        crop_area=(0.3, 1.0), exposure=0.5, exposure_stops=(-3, 2), gamma=0.4, gamma_range=(0.35, 2.8),
        grey=0.15, resolution=0.5, resolution_side=(32, 160), jpeg=0.35, jpeg_quality=(8, 80),
    ),
}  # fmt: skip
"""Drawings come cut out, at any scale, and their colours mean more than a photo's."""

KINDS: dict[str, str] = {
    "over_exposure": "exposure", "under_exposure": "exposure", "gamma_darker": "gamma",
    "gamma_lighter": "gamma", "low_light": "exposure and noise together", "warm": "white_balance",
    "cool": "white_balance", "brightness": "jitter", "contrast": "jitter", "desaturate": "jitter or grey",
    "oversaturate": "jitter of a strength of 0.5 and more", "resolution_bicubic": "resolution",
    "resolution_bilinear": "resolution", "pixelate": "nothing",
    "jpeg": "jpeg", "noise": "noise", "blur": "blur",
}  # fmt: skip
"""Kinds of corruption that images are tested with, and what in an augmentation trains on them."""

OVERSATURATED_FROM = 1.5
"""The mildest severity of that corruption multiplies saturation by this."""


def chosen(given: object) -> object:
    """A preset's name, or a table with `preset` and what it changes, as fields. Raises ValueError."""
    if isinstance(given, str):
        return _preset(given)
    if isinstance(given, Mapping) and "preset" in given:
        changes: dict[str, Any] = {name: value for name, value in given.items() if name != "preset"}
        return {**_preset(given["preset"]).model_dump(), **changes}
    return given


AugmentationChoice = Annotated[Augmentation, BeforeValidator(chosen)]


def trained_kinds(augmentation: Augmentation) -> frozenset[str]:
    """The kinds of corruption that its views may show."""
    one = augmentation
    jittered = one.jitter > 0 and one.jitter_strength > 0
    shown = {
        "over_exposure": one.exposure > 0 and one.exposure_stops[1] > 0,
        "under_exposure": one.exposure > 0 and one.exposure_stops[0] < 0,
        "gamma_darker": one.gamma > 0 and one.gamma_range[1] > 1,
        "gamma_lighter": one.gamma > 0 and one.gamma_range[0] < 1,
        "low_light": one.noise > 0 and one.exposure > 0 and one.exposure_stops[0] < 0,
        "warm": one.white_balance > 0 and one.white_balance_range[1] > 1,
        "cool": one.white_balance > 0 and one.white_balance_range[0] < 1,
        "brightness": jittered,
        "contrast": jittered,
        "desaturate": jittered or one.grey > 0,
        "oversaturate": jittered and 1 + one.jitter_strength >= OVERSATURATED_FROM,
        "resolution_bicubic": one.resolution > 0,
        "resolution_bilinear": one.resolution > 0,
        "jpeg": one.jpeg > 0,
        "noise": one.noise > 0,
        "blur": one.blur > 0,
    }
    return frozenset(kind for kind, trained in shown.items() if trained)


def check_held_out(held_out: Sequence[str], augmentations: Iterable[tuple[str, Augmentation]]) -> None:
    """Raises ValueError where one of the augmentations, each under its source, trains on a held-out kind."""
    if unknown := [kind for kind in held_out if kind not in KINDS]:
        raise ValueError(
            f"held_out_corruptions names {', '.join(unknown)}: the kinds are {', '.join(sorted(KINDS))}"
        )
    for source, augmentation in augmentations:
        if trained := sorted(trained_kinds(augmentation) & set(held_out)):
            named = ", ".join(f"{kind} (by {KINDS[kind]})" for kind in trained)
            raise ValueError(
                f"the source {source} trains on {named}, which held_out_corruptions names: "
                "turn that off, or take the kind from the list"
            )


def held_out_of(provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds that a bundle's recipe kept out of training; bundles from before it said so kept the usual."""
    return tuple(provenance.get("recipe", {}).get("held_out_corruptions", HELD_OUT_CORRUPTIONS))


def _preset(name: object) -> Augmentation:
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"there is no augmentation {name!r}: the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
