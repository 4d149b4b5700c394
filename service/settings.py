"""Settings of the service; the only reader of the environment (variables `TWINLENS_<FIELD>`).

Knows nothing of what the values are used for.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from encoders.images import DEFAULT_MAX_PIXELS
from service.errors import SettingsError

PREFIX = "TWINLENS_"
MEBIBYTE = 1 << 20
logger = logging.getLogger(__name__)


class Settings(BaseModel):
    """Frozen; every field is also the environment variable TWINLENS_<FIELD IN CAPITALS>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    releases: Path = Field(description="folder of releases; its CURRENT names the one to serve")
    release: str | None = Field(
        None, description="serve this release, not CURRENT's; pruning does not spare it"
    )
    gallery_root: Path | None = Field(None, description="where the original pictures are now, if they moved")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    root_path: str = Field("", description="path under which a proxy mounts the service")

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    precision: Literal["fp32", "bf16"] = "fp32"
    image_batch: int = Field(32, ge=1, le=4096, description="most images in one device batch")
    text_batch: int = Field(64, ge=1, le=4096, description="most texts in one device batch")
    torch_threads: int = Field(0, ge=0, description="threads of the encoder on CPU; 0: one a core")
    decode_threads: int = Field(0, ge=0, description="threads that decode images; 0: one a core")
    search_device: Literal["auto", "cpu", "gpu"] = "auto"
    search_threads: int = Field(0, ge=0, description="OpenMP threads of faiss; 0: one a core")

    image_queue: int = Field(256, ge=1, description="images admitted and not yet answered")
    text_queue: int = Field(1024, ge=1, description="texts admitted and not yet answered")
    search_queue: int = Field(512, ge=1, description="searches admitted and not yet answered")
    max_images: int = Field(128, ge=1, description="most images in one request")
    max_texts: int = Field(512, ge=1, description="most texts in one request")
    max_queries: int = Field(64, ge=1, description="most queries in one /search/batch")
    max_body_bytes: int = Field(64 * MEBIBYTE, ge=1024)
    max_bodies_bytes: int = Field(512 * MEBIBYTE, ge=1024, description="bodies of all requests in flight")
    max_image_pixels: int = Field(DEFAULT_MAX_PIXELS, ge=1)
    min_image_side_pixels: int = Field(2, ge=1, description="an image with a shorter side shows nothing")
    max_text_characters: int = Field(100_000, ge=1)

    deadline_seconds: float = Field(30.0, gt=0, description="of a request that names no x-deadline-ms")
    stall_seconds: float = Field(30.0, gt=0, description="a batch that takes longer turns /readyz red")
    shutdown_grace_seconds: float = Field(20.0, ge=0)
    watch_seconds: float = Field(2.0, ge=0, description="how often CURRENT is looked at; 0: never")
    verify: bool = Field(True, description="check every SHA-256 of a release when loading it")

    access_log: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _requests_fit_their_queue(self) -> Self:
        for items, queue in (("max_images", "image_queue"), ("max_texts", "text_queue")):
            if getattr(self, items) > getattr(self, queue):
                raise ValueError(
                    f"{items}={getattr(self, items)} exceeds {queue}={getattr(self, queue)}: "
                    "such a request could never be admitted"
                )
        if self.max_body_bytes > self.max_bodies_bytes:
            raise ValueError(
                f"max_body_bytes={self.max_body_bytes} exceeds max_bodies_bytes={self.max_bodies_bytes}: "
                "such a body could never be taken"
            )
        return self

    @classmethod
    def from_environment(cls, **options: object) -> Self:
        """Options win over TWINLENS_ variables, and those over defaults; SettingsError names what is wrong."""
        variables = _variables(os.environ, known=frozenset(cls.model_fields))
        given = {name: value for name, value in options.items() if value is not None}
        try:
            return cls.model_validate({**variables, **given})
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error


def _variables(environment: Mapping[str, str], *, known: frozenset[str]) -> dict[str, str]:
    named = {key[len(PREFIX) :].lower(): value for key, value in environment.items() if key.startswith(PREFIX)}
    for name in sorted(named.keys() - known):
        logger.warning("%s%s is no setting of the service and is ignored", PREFIX, name.upper())
    return {name: value for name, value in named.items() if name in known}


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            problems.append(f"{name} is not set: give --{name.replace('_', '-')} or {PREFIX}{name.upper()}")
        elif name:
            problems.append(f"{name} ({PREFIX}{name.upper()}) = {problem['input']!r}: {problem['msg']}")
        else:
            problems.append(problem["msg"])
    return "; ".join(problems)
