"""The manifest of a release: what it is, what was counted and measured, and the SHA-256 of every file.

Knows the format only; reading the files it names is `release`, writing them is `rebuild` and `publish`.
"""

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from encoders.calibration import GalleryFit, Search
from index.errors import CorruptRelease, UnsupportedRelease

FORMAT_VERSION = 5
COMPARED_FORMAT_VERSION = 4  # of releases that were compared with what was current, but fit no relevance
LIVE_FORMAT_VERSION = 3  # of releases with live changes, but nothing before them that they are compared with
JUDGED_FORMAT_VERSION = 2  # of releases with a hubness correction or a verdict, but without live changes
PLAIN_FORMAT_VERSION = 1  # of releases with none of these: earlier versions read them
MANIFEST_NAME = "manifest.json"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Frozen):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Counts(_Frozen):
    """`reused`: images whose vectors came from the cache. `skipped`: files not images by name."""

    images: int = Field(ge=1)
    texts: int = Field(ge=0)
    failed: int = Field(ge=0)
    texts_cut: int = Field(default=0, ge=0)
    skipped: int = Field(default=0, ge=0)
    reused: int = Field(default=0, ge=0)


class MeasuredRecall(_Frozen):
    """How much of what exact search finds the index found: recall@k over sampled queries."""

    queries: str  # the modality they came from: "texts" or "images"
    query_count: int = Field(ge=1)
    k: int = Field(ge=1)
    recall: float = Field(ge=0, le=1)


class HubnessCorrection(_Frozen):
    """Vectors carry α · (mean cosine with the k nearest queries of the bundle's bank) as a penalty.

    `bank_queries`: what is searched ("images", "texts") → how many queries its bank has.
    """

    alpha: float = Field(ge=0, allow_inf_nan=False)
    k: int = Field(ge=1)
    bank_queries: dict[str, int] = Field(min_length=1)


class GateSummary(_Frozen):
    """What `training gate` said of the bundle; the whole verdict lies inside it. against: a fingerprint."""

    passed: bool
    created: datetime
    policy: str
    policy_digest: str
    against: str | None
    checks: int = Field(ge=1)
    failed: int = Field(ge=0)


class GallerySource(_Frozen):
    """Where the images came from; `root` is the folder that the items' paths are relative to."""

    kind: str
    source: str
    root: str


class Difference(_Frozen):
    """Items that came, went, changed (image, payload or texts) and stayed since `release` was current."""

    release: str
    added: int = Field(ge=0)
    removed: int = Field(ge=0)
    changed: int = Field(ge=0)
    unchanged: int = Field(ge=0)


class Manifest(_Frozen):
    format_version: int = PLAIN_FORMAT_VERSION
    id: str = Field(pattern=r"^\d{8}T\d{6}Z-[0-9a-f]{6}$")
    created: datetime
    fingerprint: str = Field(pattern=r"^[0-9a-f]{64}$")
    bundle: str  # the bundle's name
    dim: int = Field(ge=1)
    precision: str
    gallery: GallerySource
    counts: Counts
    recall: dict[str, MeasuredRecall]  # by what is searched: "images", "texts"
    hubness: HubnessCorrection | None = None
    gate: GateSummary | None = None  # of a bundle that was judged
    gallery_fits: dict[Search, GalleryFit] | None = (
        None  # what its own texts teach of relevance; None: too little
    )
    live_sequence: int | None = Field(default=None, ge=0)  # the last live change inside; None: there are none
    difference: Difference | None = None  # None: nothing was current before, or it could not be read
    files: dict[str, FileEntry]

    def corrects(self, searched: str) -> bool:
        """Whether the vectors of "images" or "texts" carry penalties."""
        return self.hubness is not None and searched in self.hubness.bank_queries

    @model_serializer(mode="wrap")
    def _as_before(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a correction or a verdict the manifest is to the byte what it was before there were any."""
        content: dict[str, Any] = serialise(self)
        return {key: value for key, value in content.items() if value is not None}

    @field_validator("files")
    @classmethod
    def _stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            if name.startswith("/") or ".." in name.split("/"):
                raise ValueError(f"the file name {name!r} leaves the release")
        return files

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, with a digest over everything else in it."""
        content = self.model_dump(mode="json")
        content["digest"] = _digest(content)
        (folder / MANIFEST_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check `manifest.json`; raises `CorruptRelease` or `UnsupportedRelease`."""
        content = _parsed(folder / MANIFEST_NAME)
        version = content.get("format_version")
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise UnsupportedRelease(
                f"{folder} has format version {version}, this program reads up to {FORMAT_VERSION}: "
                "update it, or roll back to an older release"
            )
        digest = content.pop("digest", None)
        if digest != _digest(content):
            raise CorruptRelease(f"{folder / MANIFEST_NAME} was changed: its digest does not match")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise CorruptRelease(f"{folder / MANIFEST_NAME}: {place}: {first['msg']}") from error


def content_digest(files: dict[str, FileEntry]) -> str:
    """SHA-256 in hex over the names and sums of a release's files."""
    return _digest({name: entry.sha256 for name, entry in files.items()})


def describe_file(path: Path) -> FileEntry:
    """The sum and size of a file, read in blocks."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileEntry(sha256=digest.hexdigest(), bytes=file.tell())


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CorruptRelease(f"{path} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptRelease(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CorruptRelease(f"{path} does not hold a JSON object")
    return content


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
