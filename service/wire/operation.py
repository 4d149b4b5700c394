"""What `/healthz`, `/readyz` and `/release` answer, for their documentation."""

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


class LoadingRelease(BaseModel):
    release: str | None = Field(description="null until CURRENT was read")
    since: str = Field(description="ISO 8601, UTC")


class ReleaseDetails(BaseModel):
    """How the release and its encoder were checked."""

    recall: dict[str, Any] = Field(description="by what is searched: share of what exact search finds")
    gallery: dict[str, Any]
    difference: dict[str, Any] | None = Field(
        description="items added, removed, changed, unchanged since `release` was current; null: not compared"
    )
    gate: dict[str, Any] | None = Field(
        description="the verdict of `training gate`, with each check under `details`; null without one"
    )
    calibration: dict[str, Any] | None
    report: dict[str, Any] | None = Field(description="how well the encoder retrieves, as it was evaluated")


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
    live: dict[str, Any] | None = Field(description="the changes laid over the release; null: none are taken")
    loading: LoadingRelease | None = Field(description="the release that is to take this one's place")
    refused: dict[str, Any] | None = Field(description="what CURRENT names and could not be served, and why")
    details: ReleaseDetails | None = Field(None, description="with details=true")


class ReloadAnswer(BaseModel):
    release: str
    swapped: bool


class StillLoadingAnswer(BaseModel):
    """`release` is what is served until the other is loaded."""

    release: str
    swapped: Literal[False] = False
    loading: LoadingRelease
