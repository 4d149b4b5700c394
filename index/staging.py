"""The encoder that goes into a release under construction, shared with earlier ones that hold the same files.

Knows bundles and manifests; not how a release is built or published.
"""

import shutil
from contextlib import suppress
from pathlib import Path

from encoders.bundle import Bundle
from index import catalog
from index.manifest import describe_file


def stage_bundle(source: Path, target: Path, *, releases: Path) -> Bundle:
    """The bundle itself goes into the release, and the encoder is loaded from there.

    A file that an earlier release holds is shared with it by a hard link; nobody edits those. The source's own
    files are copied: an edit in place there would otherwise change every release.
    """
    bundle = Bundle.open(source, verify=False)
    held = _held_files(releases)
    for name in bundle.files:
        record = bundle.config.files.get(name)
        _stage_file(bundle.path / name, target / name, twin=held.get(record.sha256) if record else None)
    return Bundle.open(target)


def _stage_file(source: Path, target: Path, *, twin: Path | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if twin is not None:
        with suppress(OSError):  # pruned meanwhile, or a file system without links
            if describe_file(twin).sha256 == describe_file(source).sha256:
                target.hardlink_to(twin)
                return
    shutil.copyfile(source, target)


def _held_files(releases: Path) -> dict[str, Path]:
    """The files of the releases' bundles by SHA-256; of equal ones, the newest."""
    return {
        entry.sha256: releases / manifest.id / name
        for manifest in catalog.readable_manifests(releases)
        for name, entry in manifest.files.items()
        if name.startswith(f"{catalog.BUNDLE_NAME}/")
    }
