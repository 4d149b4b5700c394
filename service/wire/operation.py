"""What `/healthz`, `/readyz` and `/release` answer, for their documentation. Knows not how it is found."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class HealthAnswer(BaseModel):
    status: Literal["alive"]


class RefusedRelease(BaseModel):
    release: str | None = Field(description="null where CURRENT itself cannot be read")
    reason: str = Field(description="one of a few words")


class ReadyAnswer(BaseModel):
    status: Literal["ready"]
    release: str
    refused: RefusedRelease | None = Field(None, description="what CURRENT names and could not be served")


class ReleaseAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    release: str
    created: str = Field(description="ISO 8601, UTC")
    loaded: str
    model: str
    model_fingerprint: str = Field(description="of all that changes an embedding")
    dim: int
    device: str
    precision: Literal["fp32", "bf16"]
    engine: Literal["torch", "openvino"] = Field(description="what computes the embeddings")
    compiling: bool = Field(description="a faster engine is being made ready")
    context_length: int = Field(description="tokens of a text that are read")
    counts: dict[str, int | None]
    recall: dict[str, Any] = Field(description="by what is searched: share of what exact search finds")
    gallery: dict[str, Any]
    gate: dict[str, Any] | None = Field(
        description="the verdict of `training gate`, with each check under `details`; null without one"
    )
    calibration: dict[str, Any] | None
    report: dict[str, Any] | None = Field(description="how well the encoder retrieves, as it was evaluated")
    live: dict[str, Any] | None = Field(description="the changes laid over the release; null: none are taken")
    refused: dict[str, Any] | None = Field(description="what CURRENT names and could not be served, and why")


class ReloadAnswer(BaseModel):
    release: str
    swapped: bool
