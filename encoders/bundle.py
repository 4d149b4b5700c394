"""A Bundle: one folder that holds all that makes an embedding, and proof that nothing in it changed.

    bundle.json          what it is: towers, preprocessing, tokenizer, provenance, SHA-256 of every other file
    model.safetensors    the weights
    tokenizer/           the tokenizer's files
    text/config.json     for a transformers text tower, its configuration
    adaptation.safetensors   where it was adapted to a domain: what is done to embeddings (encoders.adaptation)
    query_bank.safetensors   queries that tell hubs from answers (encoders.query_bank); changes no embedding
    short_queries.safetensors   how a few words are asked (encoders.short_queries); changes no embedding
    calibration.json     what a score is worth (encoders.calibration); changes no embedding
    golden.*             inputs with what they became when it was made (encoders.golden)
    verdict.json         what the gate said of it (encoders.verdict)
    seen.safetensors     hashes of the images that it was trained on (training.seen)
    report.json          how well it retrieves (training.evaluation.evaluate); changes no embedding
    README.md            its card
    parent/              where it was adapted: what gives its parent back whole (training.adapt.bundles)

The fingerprint covers what changes an embedding and nothing else, so a report may be added later. Nothing in a
bundle is ever unpickled or executed.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from encoders.adaptation import ADAPTATION
from encoders.errors import CorruptBundle, MissingBundle, UnsupportedBundle
from encoders.folders import link_or_copy, replace_folder
from encoders.folders import write_durably as _write_durably
from encoders.images import Preprocessing
from encoders.reading import reading
from encoders.texts import TOKENIZER_FILES, TokenizerSpec
from encoders.towers import TEXT_FOLDER, TowersConfig
from encoders.weights import Encoding, save_weights

FORMAT = 2
PLAIN_FORMAT = 1
"""What a bundle without an adaptation is written as: earlier versions read it too."""
MANIFEST = "bundle.json"
WEIGHTS = "model.safetensors"
TEXT_CONFIG = f"{TEXT_FOLDER}/config.json"

DEFAULT_BUNDLE = Path(__file__).parent / "default"
"""The small encoder that ships with Twinlens."""


class FileRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class BundleConfig(BaseModel):
    """What `bundle.json` says. `logit_scale` is the learned factor (not its logarithm)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["twinlens-bundle"] = "twinlens-bundle"
    format: int = PLAIN_FORMAT
    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w][\w.+-]*$")
    created: datetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    towers: TowersConfig
    preprocessing: Preprocessing
    tokenizer: TokenizerSpec
    weights: Encoding = "fp32"
    logit_scale: float = Field(gt=0)
    adaptation: Literal["affine"] | None = None
    """Whether the towers' embeddings are moved and turned before use (`encoders.adaptation`)."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Recipe, data with digests and licences, parents, command: for people; changes no embedding."""
    fingerprint: str = ""
    files: dict[str, FileRecord] = Field(default_factory=dict)

    @field_validator("files")
    @classmethod
    def _lie_inside(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"it names {name}, which lies outside the bundle")
        return files

    @property
    def embedding_files(self) -> tuple[str, ...]:
        """The files that change an embedding."""
        text = (TEXT_CONFIG,) if self.towers.has_transformers_text_tower else ()
        adapted = (ADAPTATION,) if self.adaptation else ()
        return (WEIGHTS, TOKENIZER_FILES[self.tokenizer.kind], *text, *adapted)

    def expected_fingerprint(self) -> str:
        """SHA-256 over what changes an embedding, 64 hexadecimal digits."""
        essence = {
            "towers": self.towers.model_dump(mode="json", exclude={"init_logit_scale", "init_logit_bias"}),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "tokenizer": self.tokenizer.model_dump(mode="json"),
            "files": {name: self.files[name].sha256 for name in self.embedding_files},
        }
        return hashlib.sha256(json.dumps(essence, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Bundle:
    """A folder on disk whose files were found to be those that its manifest names."""

    path: Path
    config: BundleConfig

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def fingerprint(self) -> str:
        return self.config.fingerprint

    @property
    def files(self) -> tuple[str, ...]:
        """Relative paths of all files that make it up, the manifest first."""
        return (MANIFEST, *sorted(self.config.files))

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> "Bundle":
        """Read and check a bundle. `verify=False` skips hashing, for a folder verified a moment ago.

        Raises MissingBundle, UnsupportedBundle (foreign or newer), CorruptBundle (naming the file), Unreadable.
        """
        folder = Path(path)
        with reading(folder):
            config = read_manifest(folder)
            for name, record in config.files.items():
                _check_file(folder, name, record, verify)
        if (expected := config.expected_fingerprint()) != config.fingerprint:
            raise CorruptBundle(f"{folder}: fingerprint is {config.fingerprint}, its content gives {expected}")
        return cls(path=folder, config=config)

    def with_file(self, name: str, content: bytes) -> "Bundle":
        """The same bundle with one more (or one changed) file that does not change an embedding."""
        if name in self.config.embedding_files or name == MANIFEST:
            raise ValueError(f"{name} is part of what the fingerprint covers: write a new bundle")
        staging = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        try:
            for kept in self.config.files:
                link_or_copy(self.path / kept, staging / kept)
            _write_durably(staging / name, content)
            files = {**self.config.files, name: _record(staging / name)}
            config = self.config.model_copy(update={"files": files})
            _write_durably(staging / MANIFEST, _manifest_bytes(config))
            replace_folder(staging, self.path)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return Bundle(path=self.path, config=config)


def write_bundle(
    path: Path,
    *,
    config: BundleConfig,
    state: dict[str, torch.Tensor] | Path,
    files: Mapping[str, bytes],
) -> Bundle:
    """Write a bundle so that `path` holds all of it or what it held before.

    `state` is the towers' state dict, or another bundle's weights file to keep as it is; `files` are the
    tokenizer's and whatever else belongs inside, by relative path. A bundle that was there is replaced; a
    folder that is no bundle is left alone (UnsupportedBundle).
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for name, content in files.items():
            _write_durably(staging / name, content)
        _write_weights(state, staging / WEIGHTS, encoding=config.weights)
        names = sorted([*files, WEIGHTS])
        recorded = config.model_copy(
            update={
                "files": {name: _record(staging / name) for name in names},
                "format": FORMAT if config.adaptation else PLAIN_FORMAT,
            }
        )
        sealed = recorded.model_copy(update={"fingerprint": recorded.expected_fingerprint()})
        _write_durably(staging / MANIFEST, _manifest_bytes(sealed))
        replace_folder(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return Bundle(path=path, config=sealed)


def _write_weights(state: dict[str, torch.Tensor] | Path, path: Path, *, encoding: Encoding) -> None:
    if isinstance(state, Path):
        shutil.copyfile(state, path)
        return
    save_weights(state, path, encoding=encoding)
    path.chmod(0o644)  # safetensors makes it its owner's alone; services run as another user


def check_replaceable(path: Path) -> None:
    """Raises UnsupportedBundle where something lies at `path` that is neither a bundle nor an empty folder."""
    if path.exists() and not (path / MANIFEST).exists() and (not path.is_dir() or any(path.iterdir())):
        raise UnsupportedBundle(f"{path} exists and is no bundle: name another folder")


def read_files(bundle: Bundle, keep: Callable[[str], bool] = lambda _: True) -> dict[str, bytes]:
    """The contents of a bundle's files other than manifest and weights, to make the next bundle from."""
    return {
        name: (bundle.path / name).read_bytes()
        for name in bundle.config.files
        if name != WEIGHTS and keep(name)
    }


def read_manifest(folder: Path) -> BundleConfig:
    """Read `bundle.json` alone; no other file is looked at. Raises as `Bundle.open` does."""
    manifest = folder / MANIFEST
    if not folder.is_dir():
        raise MissingBundle(f"no bundle at {folder}: no such folder")
    if not manifest.is_file():
        raise MissingBundle(f"no bundle at {folder}: it has no {MANIFEST}")
    try:
        raw = json.loads(manifest.read_text(encoding="utf8"))
    except (ValueError, OSError) as error:
        raise CorruptBundle(f"{manifest} does not parse: {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != "twinlens-bundle":
        raise UnsupportedBundle(f"{manifest} is not a Twinlens bundle's")
    if not isinstance(raw.get("format"), int) or raw["format"] > FORMAT:
        raise UnsupportedBundle(
            f"{folder} has bundle format {raw.get('format')}, this Twinlens reads up to {FORMAT}: upgrade it"
        )
    try:
        config = BundleConfig.model_validate(raw)
    except ValidationError as error:
        raise CorruptBundle(f"{manifest} is not valid: {error}") from error
    if missing := [name for name in config.embedding_files if name not in config.files]:
        raise CorruptBundle(f"{manifest} names no checksum for {', '.join(missing)}")
    return config


def _check_file(folder: Path, name: str, record: FileRecord, verify: bool) -> None:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CorruptBundle(f"{folder}: the manifest names {name}, which lies outside the bundle")
    if not path.is_file():
        raise CorruptBundle(f"{folder}: {name} is missing")
    if (size := path.stat().st_size) != record.bytes:
        raise CorruptBundle(f"{folder}: {name} has {size} bytes, the manifest says {record.bytes}")
    if verify and (digest := _sha256(path)) != record.sha256:
        raise CorruptBundle(f"{folder}: {name} has SHA-256 {digest}, the manifest says {record.sha256}")


def _manifest_bytes(config: BundleConfig) -> bytes:
    absent = None if config.adaptation else {"adaptation"}  # a bundle without one is to the byte what it was
    content = config.model_dump(mode="json", exclude=absent)
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256=_sha256(path), bytes=path.stat().st_size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
