"""Settings of the service; the only reader of the environment (variables `TWINLENS_<FIELD>`)."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from encoders.images import DEFAULT_MAX_PIXELS
from service.errors import SettingsError

PREFIX = "TWINLENS_"
MEBIBYTE = 1 << 20
# The setting that begins each group -> what the group is called in `--help` and in docs/settings.md.
GROUPS = {
    "releases": "What is served, and where",
    "device": "The encoder and decoding",
    "image_queue": "Queues, and what a request may hold",
    "keys_file": "Callers and connections",
    "deadline_seconds": "Time, and taking up releases",
    "traces_endpoint": "Traces and logs",
}
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")
_FOR_DECODERS = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
logger = logging.getLogger(__name__)


class Settings(BaseModel):
    """Frozen; every field is also the environment variable TWINLENS_<FIELD IN CAPITALS>."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    releases: Path = Field(description="folder of releases; its CURRENT names the one to serve")
    release: str | None = Field(
        None, description="serve this release, not CURRENT's; pruning does not spare it"
    )
    gallery_root: Path | None = Field(None, description="where the original images are now, if they moved")
    live_changes: bool = Field(False, description="take items in and out while serving: see docs/live.md")
    max_live_items: int = Field(
        50_000, ge=1, description="put since the release was built; they are held in memory and searched apart"
    )
    max_payload_bytes: int = Field(65_536, ge=64, description="of one item that is put, as JSON")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: any free one")
    root_path: str = Field(
        "", pattern=r"^(/[^/?#]+)*$", description="path under which a proxy mounts the service, as /images"
    )

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 …")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="what the encoder computes in")
    engine: Literal["auto", "torch", "openvino"] = Field("auto", description="auto: OpenVINO on an x86 CPU")
    image_batch: int = Field(32, ge=1, le=4096, description="most images in one device batch")
    text_batch: int = Field(64, ge=1, le=4096, description="most texts in one device batch")
    text_batch_tokens: int = Field(4096, ge=1, description="most tokens in one device batch of texts")
    torch_threads: int = Field(0, ge=0, description="threads of the encoder on CPU; 0: one a core")
    decode_workers: int | None = Field(
        None, ge=0, le=256, description="processes that decode images; unset: one a core; 0: threads, to debug"
    )
    decode_threads: int = Field(0, ge=0, description="with decode_workers=0: how many; 0: one a core")
    decode_seconds: float = Field(10.0, gt=0, description="of a processor that decoding one image may take")
    decode_memory_mebibytes: int | None = Field(
        None, ge=256, description="that a decoding process may use; unset: what max_image_pixels can come to"
    )
    search_device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="where faiss searches; auto: on a GPU with room, else the CPU"
    )
    search_threads: int = Field(0, ge=0, description="OpenMP threads of faiss; 0: one a core")

    image_queue: int = Field(256, ge=1, description="images admitted and not yet answered")
    text_queue: int = Field(1024, ge=1, description="texts admitted and not yet answered")
    queue_bytes: int = Field(
        256 * MEBIBYTE, ge=1 << 20, description="pixels, or texts, admitted and not yet answered"
    )
    cache_bytes: int = Field(0, ge=0, description="most bytes of embeddings kept to be given again; 0: none")
    search_queue: int = Field(512, ge=1, description="searches admitted and not yet answered")
    max_images: int = Field(128, ge=1, description="most images in one request")
    max_texts: int = Field(512, ge=1, description="most texts in one request")
    max_queries: int = Field(64, ge=1, description="most queries in one /search/batch")
    max_body_bytes: int = Field(64 * MEBIBYTE, ge=1024, description="of one request")
    max_bodies_bytes: int = Field(512 * MEBIBYTE, ge=1024, description="bodies of all requests in flight")
    max_image_pixels: int = Field(DEFAULT_MAX_PIXELS, ge=1, description="an image with more is not decoded")
    min_image_side_pixels: int = Field(2, ge=1, description="an image with a shorter side shows nothing")
    max_text_characters: int = Field(100_000, ge=1, description="of one text")

    keys_file: Path | None = Field(
        None, description="API keys, by `python -m service keys`; unset: who comes may do everything"
    )
    metrics_without_key: bool = Field(False, description="let /metrics be read without a key")
    key_max_concurrent: int = Field(
        0, ge=0, description="requests at once for a key that names no number itself; 0: any"
    )
    address_max_concurrent: int = Field(
        0, ge=0, description="requests at once for an address, where there are no keys; 0: any"
    )
    image_secret: SecretStr | None = Field(
        None, min_length=32, description="signs the page's passes for images; shared by replicas"
    )
    cors_origins: tuple[str, ...] = Field((), description="sites whose pages may call, as https://app.example")
    allowed_hosts: tuple[str, ...] = Field((), description="host names to answer to; none: what is safe")
    trusted_proxies: tuple[str, ...] = Field(
        ("127.0.0.1", "::1"), description="whose x-forwarded-for and x-forwarded-proto are believed"
    )
    max_connections: int = Field(512, ge=1, description="open at once; beyond them the idlest is closed")
    max_header_bytes: int = Field(32_768, ge=1024, description="request line and headers together")
    header_seconds: float = Field(10.0, gt=0, description="that a request's head may take")
    body_seconds: float = Field(20.0, gt=0, description="that any body may take; more as its bytes come")
    body_bytes_per_second: int = Field(16_384, ge=1, description="each so many bytes give a body a second more")
    send_seconds: float = Field(30.0, gt=0, description="in which a caller takes 64 KiB of its answer at least")

    deadline_seconds: float = Field(30.0, gt=0, description="of a request that names no x-deadline-ms")
    stall_seconds: float = Field(30.0, gt=0, description="a batch that takes longer turns /readyz red")
    exit_after_stall_seconds: float = Field(
        300.0, ge=0, description="exit when nothing has come back for so long; 0: never"
    )
    shutdown_grace_seconds: float = Field(20.0, ge=0, description="in which what is in flight may end")
    watch_seconds: float = Field(2.0, ge=0, description="how often CURRENT is looked at; 0: never")
    verify: bool = Field(True, description="check every SHA-256 of a release when loading it")

    traces_endpoint: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]+",
        description="where traces go, OTLP over HTTP; "
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT say it too",
    )
    access_log: bool = Field(False, description="a log line a request")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least to be logged")

    @field_validator("cors_origins", "allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _commas_separate(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip())

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_exact(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: name each as https://app.example or http://host:port"
                )
        return origins

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
            return cls.model_validate({**_traces_endpoint(os.environ), **variables, **given})
        except ValidationError as error:
            raise SettingsError(_explain(error)) from error


def environment_of_decoders() -> dict[str, str]:
    """All that a decoding process gets of the environment: what finds its libraries, and no secret."""
    return {name: os.environ[name] for name in _FOR_DECODERS if name in os.environ} | _ONE_THREAD


def _traces_endpoint(environment: Mapping[str, str]) -> dict[str, str]:
    """Where OpenTelemetry's own variables send traces, by its rules: the general one is a base address.

    The SDK reads the rest of its variables itself, once `service.watch.tracing` imports it.
    """
    if endpoint := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return {"traces_endpoint": endpoint}
    if base := environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return {"traces_endpoint": f"{base.rstrip('/')}/v1/traces"}
    return {}


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
            value = "(hidden)" if name == "image_secret" else repr(problem["input"])
            problems.append(f"{name} ({PREFIX}{name.upper()}) = {value}: {problem['msg']}")
        else:
            problems.append(problem["msg"])
    return "; ".join(problems)
