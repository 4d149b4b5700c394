"""Reading releases: find the current one, check it, load it, take pictures from it.

Never writes. Knows nothing of galleries, of how a release is built, or of HTTP.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from encoders.bundle import Bundle
from encoders.errors import BundleError, FingerprintMismatch
from index.errors import CorruptRelease, ImageMissing, NoRelease, UnknownRelease
from index.items import ItemTable, TextTable
from index.manifest import FileEntry, Manifest, describe_file
from index.pictures import digest_of
from index.thumbnails import ThumbnailFile
from index.vectors import Device, VectorIndex

CURRENT_NAME = "CURRENT"
BUNDLE_NAME = "bundle"
IMAGE_VECTORS_NAME = "image_vectors.faiss"
TEXT_VECTORS_NAME = "text_vectors.faiss"
ITEMS_NAME = "items.parquet"
TEXTS_NAME = "texts.parquet"
THUMBNAILS_NAME = "thumbnails.pack"
FAILURES_NAME = "failures.jsonl"

_RELEASE_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


@dataclass(frozen=True)
class Release:
    """A loaded release. Read-only; a newer one may be published, or this one pruned, while it is in use."""

    path: Path
    manifest: Manifest
    images: VectorIndex
    texts: VectorIndex
    items: ItemTable
    texts_table: TextTable
    gallery_root: Path
    _thumbnails: ThumbnailFile

    @classmethod
    def load(
        cls,
        releases: Path,
        release_id: str | None = None,
        *,
        verify: bool = True,
        search_device: Device = "auto",
        search_threads: int | None = None,
        gallery_root: Path | None = None,
    ) -> "Release":
        """Load a release by id, or the one that `CURRENT` names.

        `verify` hashes every file first. `gallery_root` says where the original pictures are now, if not
        where they were. Raises `ReleaseError` naming the file that is at fault, and `FingerprintMismatch`
        where the bundle inside is not the one that the vectors were made with.
        """
        path = release_path(releases, release_id or current_release_id(releases))
        manifest = read_manifest(path)
        _check_bundle(path, manifest)
        problems = find_problems(path, manifest) if verify else []
        if problems:
            raise CorruptRelease(f"{path}: " + "; ".join(problems))
        release = cls(
            path=path,
            manifest=manifest,
            images=VectorIndex.read(
                path / IMAGE_VECTORS_NAME, threads=search_threads, device=search_device
            ),
            texts=VectorIndex.read(path / TEXT_VECTORS_NAME, threads=search_threads, device=search_device),
            items=ItemTable.read(path / ITEMS_NAME),
            texts_table=TextTable.read(path / TEXTS_NAME),
            gallery_root=gallery_root or Path(manifest.gallery.root),
            _thumbnails=ThumbnailFile(path / THUMBNAILS_NAME),
        )
        release._check_counts()
        return release

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def bundle_path(self) -> Path:
        return self.path / BUNDLE_NAME

    def thumbnail(self, row: int) -> bytes:
        """The item's thumbnail: WebP, its long side at most 256 px."""
        return self._thumbnails.read(*self.items.thumbnail_range(row))

    def open_image(self, row: int) -> bytes:
        """The original picture's bytes; raises `ImageMissing` when it has gone, moved or changed."""
        source = self.items.image_source(row)
        data = source.read(self.gallery_root)
        if digest_of(data) != self.items.digest(row):
            raise ImageMissing(
                f"{self.gallery_root / source.path} has changed since release {self.id} was built: rebuild",
                code="changed",
            )
        return data

    def _check_counts(self) -> None:
        counts = self.manifest.counts
        held = {
            IMAGE_VECTORS_NAME: (len(self.images), counts.images),
            ITEMS_NAME: (len(self.items), counts.images),
            TEXT_VECTORS_NAME: (len(self.texts), counts.texts),
            TEXTS_NAME: (len(self.texts_table), counts.texts),
        }
        for name, (found, expected) in held.items():
            if found != expected:
                raise CorruptRelease(f"{self.path / name} holds {found} rows, the manifest says {expected}")


def current_release_id(releases: Path) -> str:
    """The id in `CURRENT`; raises `NoRelease`, or `CorruptRelease` when it holds something else."""
    try:
        content = (releases / CURRENT_NAME).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise NoRelease(f"no release in {releases} yet: run `python -m index rebuild` first") from error
    except (OSError, ValueError) as error:
        raise CorruptRelease(f"{releases / CURRENT_NAME} cannot be read: {error}") from error
    if not _RELEASE_ID.fullmatch(content):
        raise CorruptRelease(f"{releases / CURRENT_NAME} holds {content[:80]!r}, which is no release id")
    return content


def release_path(releases: Path, release_id: str) -> Path:
    """The folder of a release; raises `UnknownRelease`."""
    path = releases / release_id
    if not _RELEASE_ID.fullmatch(release_id) or not path.is_dir():
        raise UnknownRelease(f"no release {release_id!r} in {releases}")
    return path


def release_ids(releases: Path) -> list[str]:
    """The ids of all releases, oldest first; half-written ones have other names and are not among them."""
    if not releases.is_dir():
        return []
    return sorted(path.name for path in releases.iterdir() if _RELEASE_ID.fullmatch(path.name))


def read_manifest(path: Path) -> Manifest:
    """The manifest in a release's folder; raises `ReleaseError`, also when it belongs to another folder."""
    manifest = Manifest.read(path)
    if manifest.id != path.name:
        raise CorruptRelease(f"{path} holds the manifest of release {manifest.id}")
    return manifest


def find_problems(path: Path, manifest: Manifest) -> list[str]:
    """Hash every file of a release; one sentence for each that is missing, cut or changed."""
    problems = (_problem(path, name, entry) for name, entry in sorted(manifest.files.items()))
    return [problem for problem in problems if problem]


def _problem(folder: Path, name: str, expected: FileEntry) -> str | None:
    path = folder / name
    try:
        if path.stat().st_size != expected.bytes:
            return f"{name} has {path.stat().st_size} bytes instead of {expected.bytes}"
        if describe_file(path).sha256 != expected.sha256:
            return f"{name} was changed: its SHA-256 does not match"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return None


def _check_bundle(path: Path, manifest: Manifest) -> None:
    try:
        bundle = Bundle.open(path / BUNDLE_NAME)
    except BundleError as error:
        raise CorruptRelease(f"{path / BUNDLE_NAME}: {error}") from error
    if bundle.fingerprint != manifest.fingerprint:
        raise FingerprintMismatch(
            f"index built with {manifest.fingerprint}, encoder is {bundle.fingerprint}"
        )
