"""A contact sheet: what each source's augmentation makes of some images, exactly as a run would see them.

One block a pipeline, one row an image, the plain image first, then views 1, 2, 3 … of the recipe's seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from encoders.images import Preprocessing
from training.augmentation.augment import NO_AUGMENTATION, Augmentation
from training.augmentation.presets import PRESETS
from training.fit.recipe import Source
from training.fit.views.views import TrainingImage, ViewSettings

CELL = 160
"""Pixels of a cell's side; views are shown smaller where their long side is larger."""
GAP = 6
LINE = 18
INK, PAPER, QUIET = (20, 20, 20), (250, 250, 250), (110, 110, 110)

_STRENGTHS = {
    "crop_area": ("crop_area", "crop_aspect"), "zoom_out": (), "flip": (), "exposure": ("exposure_stops",),
    "gamma": ("gamma_range",), "white_balance": ("white_balance_range",), "jitter": ("jitter_strength",),
    "grey": (), "blur": ("blur_sigma",), "noise": ("noise_sigma",), "resolution": ("resolution_side",),
    "jpeg": ("jpeg_quality",),
}  # fmt: skip


@dataclass(frozen=True)
class Pipeline:
    """An augmentation and the sources that have it."""

    sources: tuple[str, ...]
    augmentation: Augmentation


def pipelines_of(sources: Mapping[str, Source]) -> list[Pipeline]:
    """One for each augmentation that differs, in order of appearance; `sources` by a name to show."""
    found: dict[Augmentation, list[str]] = {}
    for name, source in sources.items():
        found.setdefault(source.augmentation, []).append(name)
    return [Pipeline(tuple(names), augmentation) for augmentation, names in found.items()]


def described(augmentation: Augmentation) -> str:
    """Its preset's name, if it has one, and every part that is on with its strength."""
    preset = [name for name, one in PRESETS.items() if one == augmentation]
    parts = [_part(augmentation, name) for name in _STRENGTHS]
    return "; ".join([*preset, *(part for part in parts if part)]) or "nothing"


def contact_sheet(
    images: Sequence[tuple[str, TrainingImage]],
    pipelines: Sequence[Pipeline],
    *,
    preprocessing: Preprocessing,
    views: int,
    seed: int,
) -> Image.Image:
    """The sheet, on white. Raises UnreadableImage."""
    blocks = [
        _block(images, one, ViewSettings(preprocessing, one.augmentation, seed), views=views)
        for one in pipelines
    ]
    width, height = max(block.width for block in blocks), sum(block.height + 2 * GAP for block in blocks)
    sheet = Image.new("RGB", (width, height), PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height + 2 * GAP
    return sheet


def _part(augmentation: Augmentation, name: str) -> str:
    value = getattr(augmentation, name)
    if value == getattr(NO_AUGMENTATION, name):
        return ""
    strengths = [_shown(getattr(augmentation, field)) for field in _STRENGTHS[name] if field != name]
    return " ".join([name, _shown(value), *(f"({strength})" for strength in strengths)])


def _shown(value: float | tuple[float, float]) -> str:
    return f"{value[0]:.3g} to {value[1]:.3g}" if isinstance(value, tuple) else f"{value:.3g}"


def _block(
    images: Sequence[tuple[str, TrainingImage]], pipeline: Pipeline, settings: ViewSettings, *, views: int
) -> Image.Image:
    width = (views + 1) * (CELL + GAP) + GAP
    heading = wrap(", ".join(pipeline.sources), width // 9)
    heading += wrap(described(pipeline.augmentation), width // 8)
    top = GAP + LINE * (len(heading) + 1)
    block = Image.new("RGB", (width, top + len(images) * (CELL + LINE + GAP)), PAPER)
    draw = ImageDraw.Draw(block)
    font = ImageFont.load_default(size=13)
    for place, line in enumerate(heading):
        draw.text((GAP, GAP + place * LINE), line, fill=INK, font=font)
    for view in range(views + 1):
        title = f"view {view}" if view else "plain"
        draw.text((GAP + view * (CELL + GAP), top - LINE), title, fill=QUIET, font=font)
    for row, (name, image) in enumerate(images):
        corner = top + row * (CELL + LINE + GAP)
        for view in range(views + 1):
            shown = Image.fromarray(settings.pixels(image, view))
            shown.thumbnail((CELL, CELL), Image.Resampling.LANCZOS)
            block.paste(shown, (GAP + view * (CELL + GAP), corner))
        draw.text((GAP, corner + CELL), name[: width // 9], fill=QUIET, font=font)
    return block
