"""Which reader a source is for, and the bundle made of it."""

from dataclasses import replace
from pathlib import Path

from encoders.bundle import MANIFEST, Bundle
from encoders.errors import ImportFailed
from encoders.importing.clip_folders import is_transformers_folder, read_transformers_clip
from encoders.importing.open_clip_models import read_open_clip
from encoders.importing.published import Published, write_published


def import_model(
    source: str,
    *,
    out: Path,
    name: str,
    architecture: str | None = None,
    like: str | None = None,
    licence: str | None = None,
    cache: Path | None = None,
) -> Bundle:
    """The bundle at `out` of a published model (see `python -m encoders import --help` for sources).

    architecture, like: of a checkpoint file, as `read_open_clip` has them. licence: of the weights, where the
    source names none. Raises ImportFailed or BundleError, and leaves `out` as it was.
    """
    published = read_published(source, architecture=architecture, like=like, cache=cache)
    if licence:
        published = replace(published, provenance={**published.provenance, "licence": licence})
    return write_published(published, out, name=name)


def read_published(
    source: str, *, architecture: str | None = None, like: str | None = None, cache: Path | None = None
) -> Published:
    """The published model that a source names. Raises ImportFailed."""
    path = Path(source)
    if not path.is_dir():
        return read_open_clip(source, architecture=architecture, like=like, cache=cache)
    if like is not None:
        raise ImportFailed(
            f"--like is for a checkpoint file, {path} is a folder with a configuration of its own"
        )
    if (path / MANIFEST).is_file():
        raise ImportFailed(f"{path} is a Twinlens bundle already")
    if (path / "open_clip_config.json").is_file():
        return read_open_clip(f"local-dir:{path}", cache=cache)
    if is_transformers_folder(path):
        return read_transformers_clip(path)
    raise ImportFailed(
        f"{path} has neither a config.json (transformers) nor an open_clip_config.json (open_clip)"
    )
