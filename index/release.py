"""Loading a release: its vectors, its tables, its images; refusing it when anything does not fit.

Never writes.
"""

from dataclasses import dataclass
from pathlib import Path

from encoders.bundle import Bundle
from encoders.errors import BundleError, FingerprintMismatch
from encoders.reading import reading
from index.catalog import (
    BUNDLE_NAME,
    IMAGE_VECTORS_NAME,
    ITEMS_NAME,
    TEXT_VECTORS_NAME,
    TEXTS_NAME,
    THUMBNAILS_NAME,
    current_release_id,
    find_problems,
    read_manifest,
    release_path,
)
from index.errors import CorruptRelease, ImageMissing
from index.image_files import digest_of
from index.items import ItemTable, TextTable
from index.journal.images import IMAGES_NAME
from index.journal.location import LIVE_NAME
from index.manifest import Manifest
from index.thumbnails import ThumbnailFile
from index.vectors import Device, VectorIndex

__all__ = ["Release", "current_release_id"]


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

        `verify` hashes every file first. `gallery_root` says where the original images are now, if not where
        they were. Raises `ReleaseError` naming the file that is at fault, `Unreadable` where none is, and
        `FingerprintMismatch` where the bundle inside is not the one that the vectors were made with.
        """
        path = release_path(releases, release_id or current_release_id(releases))
        with reading(path):
            return cls._load(
                path,
                verify=verify,
                search_device=search_device,
                search_threads=search_threads,
                gallery_root=gallery_root,
            )

    @classmethod
    def _load(
        cls,
        path: Path,
        *,
        verify: bool,
        search_device: Device,
        search_threads: int | None,
        gallery_root: Path | None,
    ) -> "Release":
        manifest = read_manifest(path)
        _check_bundle(path, manifest)
        problems = find_problems(path, manifest) if verify else []
        if problems:
            raise CorruptRelease(f"{path}: " + "; ".join(problems))
        images, texts = (
            VectorIndex.read(
                path / name,
                threads=search_threads,
                device=search_device,
                penalised=manifest.corrects(searched),
            )
            for searched, name in (("images", IMAGE_VECTORS_NAME), ("texts", TEXT_VECTORS_NAME))
        )
        release = cls(
            path=path,
            manifest=manifest,
            images=images,
            texts=texts,
            items=ItemTable.read(path / ITEMS_NAME),
            texts_table=TextTable.read(path / TEXTS_NAME),
            gallery_root=gallery_root or Path(manifest.gallery.root),
            _thumbnails=ThumbnailFile(path / THUMBNAILS_NAME),
        )
        release._check_counts()
        release._check_dims()
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
        """The item's thumbnail: WebP, its long side at most 256 px. Raises `ImageMissing`."""
        offset_bytes, length_bytes = self.items.thumbnail_range(row)
        if not length_bytes:
            raise ImageMissing(f"the item {self.items.id(row)!r} was put as a vector", code="no_image")
        return self._thumbnails.read(offset_bytes, length_bytes)

    def open_image(self, row: int) -> bytes:
        """The original image's bytes; raises `ImageMissing` when it has gone, moved or changed."""
        source = self.items.image_source(row)
        data = source.read(self.gallery_root, live=self.path.parent / LIVE_NAME / IMAGES_NAME)
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

    def _check_dims(self) -> None:
        for name, index in ((IMAGE_VECTORS_NAME, self.images), (TEXT_VECTORS_NAME, self.texts)):
            if index.dim != self.manifest.dim:
                raise CorruptRelease(
                    f"{self.path / name} has {index.dim} dimensions, the manifest says {self.manifest.dim}"
                )


def _check_bundle(path: Path, manifest: Manifest) -> None:
    """The right encoder lies inside. Its files are hashed with all others, against the release's manifest."""
    try:
        bundle = Bundle.open(path / BUNDLE_NAME, verify=False)
    except BundleError as error:
        raise CorruptRelease(f"{path / BUNDLE_NAME}: {error}") from error
    if bundle.fingerprint != manifest.fingerprint:
        raise FingerprintMismatch(f"index built with {manifest.fingerprint}, encoder is {bundle.fingerprint}")
    dim = bundle.config.towers.embed_dim
    if dim != manifest.dim:
        raise CorruptRelease(
            f"{path / BUNDLE_NAME} embeds in {dim} dimensions, the manifest says {manifest.dim}"
        )
