"""The gate's policy: what a bundle must show before it may be served, frozen, validated, read from a TOML file.

`docs/generalisation.md` is the guide, `training/recipes/gate.toml` the default bundle's. An unknown field is an
error: a misspelt one never silently drops a check. It measures nothing.
"""

import hashlib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from encoders.golden import REPRODUCED
from encoders.weights import Encoding
from training.errors import EvaluationError, PolicyError
from training.evaluation.ranks import DIRECTIONS, Direction
from training.shift.condition import Condition
from training.shift.conditions import corrupted_conditions, parse_corruptions


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parity(_Frozen):
    """Least cosines of the golden images and texts. By how the weights are stored: with the fp32 reference.

    int8_rows: rounding rows to 8 bits costs EfficientNet-Lite0 0.0017 at most, MiniLM 0.0007.
    """

    fp32: float = Field(default=0.9999, gt=0, le=1)
    fp16: float = Field(default=0.9999, gt=0, le=1)
    int8_rows: float = Field(default=0.995, gt=0, le=1)
    reproduced: float = Field(default=REPRODUCED, gt=0, le=1)
    """With what the same stored weights gave when the bundle was made, whatever the encoding."""
    spread: float = Field(default=0.05, ge=0, lt=1)
    """Least 1 − mean cosine between different golden inputs: below it parity is blind, retrieval a lottery."""
    require_fp32_reference: bool = True
    """Whether golden vectors made from rounded weights fail."""

    def limit(self, stored: Encoding) -> float:
        """Least cosine with the reference of a bundle whose weights are stored so."""
        limits: dict[Encoding, float] = {"fp32": self.fp32, "fp16": self.fp16, "int8_rows": self.int8_rows}
        return limits[stored]


class Evidence(_Frozen):
    """What a set must bring to prove anything; a check with less is not passed, and says so."""

    least_images: int = Field(default=50, ge=1)
    widest: float = Field(default=0.10, gt=0, le=1)
    """Of a 95% interval, half: ±10 points hide all that matters."""
    saturated: float = Field(default=0.99, gt=0, le=1)
    """Recall of both bundles at which no fall shows: nearly every query is answered."""


class Floor(_Frozen):
    """Recall that must be reached, from 0 to 1, on a set as it is or under one corruption."""

    data: str
    """A spec: see `training.data.pairs`."""
    direction: Direction
    k: int = Field(default=10, ge=1)
    floor: float = Field(ge=0, le=1)
    corruption: str | None = None
    severity: int = Field(default=3, ge=1, le=5)

    @field_validator("corruption")
    @classmethod
    def _is_one(cls, name: str | None) -> str | None:
        if name is not None and len(_known(name)) != 1:
            raise ValueError(f"{name!r} is a group: a floor takes one corruption")
        return name

    @property
    def condition(self) -> Condition | None:
        return Condition(corruption=self.corruption, severity=self.severity) if self.corruption else None


class NoFall(_Frozen):
    """Recall that must not fall against the current bundle, by the 95% interval of the paired difference.

    margin: from 0 to 1, how much may be lost. rule: "shown": the whole interval lies above −margin, so small
    sets need a wide margin; "not_refuted": not all of it lies below, which catches what is proven alone.
    corruptions: names and groups as `evaluate --corruptions` takes them; none: the set as it is. judge: every
    condition for itself, or the mean over the corruptions at a severity.
    """

    data: str
    directions: tuple[Direction, ...] = Field(default=DIRECTIONS, min_length=1)
    k: int = Field(default=10, ge=1)
    margin: float = Field(ge=0, lt=1)
    rule: Literal["shown", "not_refuted"] = "shown"
    corruptions: str = ""
    severities: tuple[int, ...] = (3,)
    judge: Literal["each", "mean"] = "each"

    @model_validator(mode="after")
    def _names_conditions(self) -> Self:
        _known(self.corruptions)
        if not self.severities or not set(self.severities) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"severities are {self.severities}: name some, from 1 to 5")
        return self

    def subjects(self) -> Iterator[tuple[str, tuple[Condition | None, ...]]]:
        """What is judged: a title and the conditions whose mean it is; the clean set has none of either."""
        names = _known(self.corruptions)
        if not names:
            yield "", (None,)
            return
        for severity in self.severities:
            conditions = corrupted_conditions(names, (severity,))
            if self.judge == "mean":
                yield f"mean of {self.corruptions} {severity}", conditions
            else:
                for condition in conditions:
                    yield str(condition), (condition,)


class Policy(_Frozen):
    """name and digest are those of the file."""

    name: str
    digest: str
    parity: Parity = Parity()
    evidence: Evidence = Evidence()
    floors: tuple[Floor, ...] = ()
    no_fall: tuple[NoFall, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """Raises PolicyError, which names the field."""
        try:
            content = path.read_bytes()
            fields = tomllib.loads(content.decode())
        except OSError as error:
            raise PolicyError(f"cannot read the policy {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"{path} is no valid TOML: {error}") from error
        if reserved := {"name", "digest"} & fields.keys():
            raise PolicyError(f"{path}: {', '.join(sorted(reserved))}: the file has them, no field of it")
        try:
            return cls.model_validate(
                {**fields, "name": path.name, "digest": hashlib.sha256(content).hexdigest()}
            )
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, found['loc']))}: {found['msg']} (given {found['input']!r})"
                for found in error.errors()
            )
            raise PolicyError(f"{path}: {problems}") from error


def _known(words: str) -> tuple[str, ...]:
    try:
        return parse_corruptions(words)
    except EvaluationError as error:
        raise ValueError(str(error)) from error
