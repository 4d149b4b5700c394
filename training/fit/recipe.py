"""Recipe: all that decides what a training run makes, frozen, validated, read from one TOML file.

Paths in a recipe are relative to where the command runs. `docs/training.md` is the guide. An unknown field is
an error: a misspelt one never silently keeps its default. This module reads no data and builds no towers.
"""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from encoders.choices import Precision
from encoders.weights import Encoding
from training.augmentation.augment import HELD_OUT_CORRUPTIONS, Augmentation
from training.augmentation.presets import AugmentationChoice, check_held_out
from training.errors import RecipeError
from training.fit.start import Start
from training.fit.step.loss import LossKind
from training.fit.towers.optimiser import Rates


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """One set of pairs to train on."""

    pairs: str
    """A spec: see `training.data.pairs`."""
    weight: float = Field(default=1.0, gt=0, le=100)
    """How often an image of it is seen in an epoch: 0.5 every other epoch, 2 twice each."""
    augmentation: AugmentationChoice = Augmentation()
    """A preset's name, or a table: of fields, or of a `preset` and what it changes."""
    word_dropout: float = Field(default=0.1, ge=0, lt=1)
    licence: str = ""


class Phase(_Frozen):
    """A stretch of training with one set of trained parts. Heads first, then the towers (LP-FT)."""

    name: str = Field(min_length=1)
    epochs: int = Field(ge=1)
    stop_after: int | None = Field(default=None, ge=1)
    """Epochs that are run of the `epochs` that the schedule of the rates is laid out for; None: all."""
    train_image: str = "all"
    """"head"; "blocks.K": a timm EfficientNet from stage K on; "all"."""
    train_text: str = "all"
    """"head"; "layers.K": a transformers text tower from layer K on; "all"."""
    keep_at: str | None = None
    """Where the kept activations are cut, when deeper than what is trained needs: one store for all phases."""
    views: int = Field(default=0, ge=0, le=1000)
    """With a frozen stem: how many views of an image are computed once and kept; 0 decodes afresh.

    A transformers text tower that trains its head alone has its captions computed once and kept, too.
    """
    batch: int = Field(default=256, ge=2)
    """Images a step."""
    captions: int = Field(default=1, ge=1, le=100)
    """Of each image, in the same step; it is embedded once. Cheap while the text tower is frozen and kept."""
    cutmix: float = Field(default=0.0, ge=0, le=1)
    """Probability that a step's images each show a box of another: see `cutmix`."""
    hard_negatives: float = Field(default=0.0, ge=0, lt=1)
    """Share of each batch that is drawn as near neighbours of the rest, by their captions."""
    micro_batch: int = Field(default=0, ge=0)
    """Images that fit in memory at once; 0: the whole batch. The contrastive batch stays whole."""
    heads_lr: float = Field(default=1e-3, gt=0)
    scale_lr: float | None = Field(default=None, gt=0)
    """Of the logit scale; like the heads' unless given."""
    image_lr: float = Field(default=1e-4, gt=0)
    text_lr: float = Field(default=3e-5, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the phase's steps."""
    clip_norm: float = Field(default=1.0, gt=0)
    freeze_norms: bool = True
    """BatchNorm keeps the statistics it came with."""

    @model_validator(mode="after")
    def _consistent(self) -> "Phase":
        if (self.views or self.keep_at) and self.train_image == "all":
            raise ValueError(f"phase {self.name!r}: views are kept behind a frozen stem, train_image is 'all'")
        if self.stop_after is not None and self.stop_after > self.epochs:
            raise ValueError(f"phase {self.name!r}: stop_after = {self.stop_after} of {self.epochs} epochs")
        if self.cutmix and self.stem == "head":
            raise ValueError(f"phase {self.name!r}: cutmix needs maps, and pooled features have none")
        if self.keep_at and _depth(self.keep_at) > _depth(self.train_image):
            raise ValueError(
                f"phase {self.name!r}: keep_at = {self.keep_at!r} would freeze what train_image = "
                f"{self.train_image!r} trains"
            )
        if not self.freeze_norms and 0 < self.micro_batch < self.batch:
            raise ValueError(f"phase {self.name!r}: micro_batch needs freeze_norms, or statistics count twice")
        return self

    @property
    def epochs_run(self) -> int:
        return self.stop_after or self.epochs

    @property
    def stem(self) -> str | None:
        """Where the image tower is cut for this phase; None: nowhere, it runs whole."""
        return self.keep_at or (None if self.train_image == "all" else self.train_image)

    @property
    def rates(self) -> Rates:
        return Rates(
            heads=self.heads_lr,
            scale=self.scale_lr or self.heads_lr,
            image=self.image_lr,
            text=self.text_lr,
            weight_decay=self.weight_decay,
            layer_decay=self.layer_decay,
        )


class Validation(_Frozen):
    """Retrieval on held-out pairs while training; the best average is what the bundle gets."""

    pairs: list[str] = Field(min_length=1)
    watch: list[str] = []
    """Sets that nothing is chosen by: measured before the first step and after the last, and told of a fall."""
    every_epochs: int = Field(default=1, ge=1)
    patience: int = Field(default=0, ge=0)
    """Validations without a better score before a phase ends; 0: never."""


class Distillation(_Frozen):
    """A stronger bundle whose similarities the towers learn to mimic, beside the pairs themselves."""

    teacher: Path
    weight: float = Field(default=0.5, gt=0, le=1)
    """Of the distance from the teacher in the loss; the rest is the contrastive loss's."""
    temperature: float | None = Field(default=None, gt=0)
    """What the teacher's cosines are divided by; its own learned one unless given."""


class Recipe(_Frozen):
    name: str = Field(pattern=r"^[\w][\w.+-]*$", max_length=100)
    seed: int = Field(default=0, ge=0)
    start: Start
    sources: list[Source] = Field(min_length=1)
    phases: list[Phase] = Field(min_length=1)
    validation: Validation | None = None
    unseen: list[str] = []
    """Sets that must stay unseen: training images that are nearly the same image are an error."""
    held_out_corruptions: list[str] = list(HELD_OUT_CORRUPTIONS)
    """Kinds that no augmentation may train on, so that a test with them measures more than memory."""
    distillation: Distillation | None = None
    loss: LossKind = "softmax"
    ema: float = Field(default=0.999, ge=0, lt=1)
    precision: Precision = "fp32"
    """Of the trained parts; a frozen stem has its own. On a CPU, bf16 is for matrix products alone."""
    stem_precision: Precision = "fp32"
    weights: Encoding | None = None
    """How the bundle stores its matrices; by default as the bundle that it starts from does, else fp32."""
    decode_threads: int = Field(default=2, ge=1, le=64)

    @model_validator(mode="after")
    def _keeps_its_word(self) -> "Recipe":
        check_held_out(
            self.held_out_corruptions, [(source.pairs, source.augmentation) for source in self.sources]
        )
        return self

    def decisive_json(self) -> str:
        """All that decides the next step of a run and its best one.

        What a later version added is left out while it is unused: a run that began before goes on.
        """
        left_out: dict[str, Any] = dict.fromkeys(
            ("decode_threads", "weights", "unseen", "held_out_corruptions"), True
        )
        if self.validation is not None and not self.validation.watch:
            left_out["validation"] = {"watch"}
        if self.distillation is None:
            left_out["distillation"] = True
        left_out["phases"] = {
            place: {name for name in ("hard_negatives", "stop_after") if not getattr(phase, name)}
            for place, phase in enumerate(self.phases)
        }
        return self.model_dump_json(exclude=left_out)

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Parse and check a TOML file. Raises RecipeError, which names the field."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf8")))
        except OSError as error:
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} is no valid TOML: {error}") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, found['loc'])) or 'recipe'}: {found['msg']} (given {found['input']!r})"
                for found in error.errors()
            )
            raise RecipeError(f"{path}: {problems}") from error


def warnings_of(recipe: Recipe) -> list[str]:
    """What in a recipe is likely wrong, each with its value and what to do."""
    found = []
    for phase in recipe.phases:
        found += [f"phase {phase.name!r}: {problem}" for problem in _phase_warnings(phase)]
    if recipe.validation is None:
        found.append(
            "no [validation]: nothing will tell when the model stops getting better; name held-out pairs"
        )
    return found


def _depth(cut: str) -> float:
    """How far from the input a place lies."""
    kind, _, number = cut.partition(".")
    return int(number) if kind == "blocks" and number.isdigit() else float("inf")


_SANE_RATES = {"heads_lr": (1e-5, 1e-2), "image_lr": (1e-7, 1e-3), "text_lr": (1e-7, 1e-3)}


def _phase_warnings(phase: Phase) -> list[str]:
    found = []
    for field, (low, high) in _SANE_RATES.items():
        value = getattr(phase, field)
        if not low <= value <= high:
            side = (
                "so high that training is likely to diverge" if value > high else "so low that little will move"
            )
            found.append(f"{field} = {value:g} is {side}; between {low:g} and {high:g} is usual")
    if phase.batch < 64:
        found.append(
            f"batch = {phase.batch} gives few negatives; 256 and more train better (micro_batch saves memory)"
        )
    if phase.weight_decay > 1:
        found.append(f"weight_decay = {phase.weight_decay:g} shrinks weights to nothing; 0.01 to 0.2 is usual")
    return found
