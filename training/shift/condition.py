"""What the images or captions of a set were changed by."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Condition(BaseModel):
    """What a set was changed by: a corruption (see `training.shift`) at a severity, or another input size.

    `input_size`: (height, width) that images were resized to, where it is not the bundle's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    corruption: str | None = None
    severity: int | None = Field(default=None, ge=1, le=5)
    input_size: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _is_one_change(self) -> Self:
        if (self.corruption is None) != (self.severity is None):
            raise ValueError("a corruption comes with its severity, and a severity with its corruption")
        if (self.corruption is None) == (self.input_size is None):
            raise ValueError("a condition is either a corruption at a severity, or an input size")
        return self

    def __str__(self) -> str:
        """ "low_light 3", "input 160×160"."""
        if self.input_size is not None:
            return f"input {self.input_size[0]}×{self.input_size[1]}"
        return f"{self.corruption} {self.severity}"
