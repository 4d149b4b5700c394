"""The folder of releases: which there are, which is current, and whether their files are whole.

Never writes, and loads no vectors and no encoder, so that asking is quick.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from encoders.errors import Unreadable
from encoders.reading import reading
from index.errors import CorruptRelease, NoRelease, ReleaseError, UnknownRelease
from index.manifest import FileEntry, Manifest, describe_file

CURRENT_NAME = "CURRENT"
BUNDLE_NAME = "bundle"
IMAGE_VECTORS_NAME = "image_vectors.faiss"
TEXT_VECTORS_NAME = "text_vectors.faiss"
ITEMS_NAME = "items.parquet"
TEXTS_NAME = "texts.parquet"
THUMBNAILS_NAME = "thumbnails.pack"
FAILURES_NAME = "failures.jsonl"

_RELEASE_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}")


def is_release_id(text: str) -> bool:
    return _RELEASE_ID.fullmatch(text) is not None


def current_release_id(releases: Path) -> str:
    """The id in `CURRENT`; raises `NoRelease`, `CorruptRelease` when it holds something else, `Unreadable`."""
    try:
        with reading(releases / CURRENT_NAME):
            content = (releases / CURRENT_NAME).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise NoRelease(f"no release in {releases} yet: run `python -m index rebuild` first") from error
    except (OSError, ValueError) as error:
        raise CorruptRelease(f"{releases / CURRENT_NAME} cannot be read: {error}") from error
    if not is_release_id(content):
        raise CorruptRelease(f"{releases / CURRENT_NAME} holds {content[:80]!r}, which is no release id")
    return content


def release_path(releases: Path, release_id: str) -> Path:
    """The folder of a release; raises `UnknownRelease`."""
    path = releases / release_id
    if not is_release_id(release_id) or not path.is_dir():
        raise UnknownRelease(f"no release {release_id!r} in {releases}")
    return path


def release_ids(releases: Path) -> list[str]:
    """The ids of all releases, oldest first; half-written ones have other names and are not among them."""
    if not releases.is_dir():
        return []
    return sorted(path.name for path in releases.iterdir() if is_release_id(path.name))


def read_manifest(path: Path) -> Manifest:
    """The manifest in a release's folder; raises `Unreadable`, or `ReleaseError`, also for another folder's."""
    with reading(path):
        manifest = Manifest.read(path)
    if manifest.id != path.name:
        raise CorruptRelease(f"{path} holds the manifest of release {manifest.id}")
    return manifest


def readable_manifests(releases: Path) -> Iterator[Manifest]:
    for release_id in release_ids(releases):
        with suppress(ReleaseError, Unreadable):
            yield read_manifest(releases / release_id)


def last_live_sequence(releases: Path) -> int:
    """The number of the last live change that any release holds; 0 where none holds any."""
    return max((manifest.live_sequence or 0 for manifest in readable_manifests(releases)), default=0)


def find_problems(path: Path, manifest: Manifest) -> list[str]:
    """Hash every file; one sentence for each that is missing, cut or changed. Raises `Unreadable`."""
    problems = (_problem(path, name, entry) for name, entry in sorted(manifest.files.items()))
    return [problem for problem in problems if problem]


def _problem(folder: Path, name: str, expected: FileEntry) -> str | None:
    path = folder / name
    try:
        with reading(path):
            if path.stat().st_size != expected.bytes:
                return f"{name} has {path.stat().st_size} bytes instead of {expected.bytes}"
            if describe_file(path).sha256 != expected.sha256:
                return f"{name} was changed: its SHA-256 does not match"
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return None
