"""WebDataset tars: neighbouring files of one name up to the first dot are a sample.

`a.jpg` is the image, `a.json` its payload, `a.txt` its caption. Images stay where they are and are
read by offset, so only plain tars will do. The id is the tar's name, the sample's key and the suffix.
"""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from index.errors import BadItem
from index.gallery import (
    IMAGE_SUFFIXES,
    Failure,
    GalleryItem,
    checked_id,
    clean_payload,
    even_text,
    texts_of,
)
from index.image_files import ImageSource, reading_fault

MAX_SIDECAR_BYTES = 16 * 1024 * 1024


class TarGallery:
    kind = "webdataset"

    def __init__(self, source: str, tars: list[Path]) -> None:
        self.source = source
        self.root = Path(os.path.commonpath([tar.parent for tar in tars]))
        self.skipped = 0
        self._tars = tars
        self._size_bytes = max(1, sum(tar.stat().st_size for tar in tars))
        self._read_bytes = 0

    def __iter__(self) -> Iterator[GalleryItem | Failure]:
        self.skipped = self._read_bytes = 0
        for tar in self._tars:
            before_bytes = self._read_bytes
            name = tar.relative_to(self.root).as_posix()
            try:
                for sample in _samples(tar):
                    self._read_bytes = before_bytes + sample.end_bytes
                    yield _entry(name, sample)
                _check_end(tar)
            except PermissionError as error:
                yield Failure(name, reading_fault(error), f"the tar cannot be read: {error.strerror}")
            except (tarfile.TarError, OSError, ValueError, OverflowError, BadItem) as error:
                yield Failure(name, "cut_archive", f"the tar cannot be read to its end: {error}")
            self._read_bytes = before_bytes + tar.stat().st_size

    def fraction(self) -> float:
        return min(1.0, self._read_bytes / self._size_bytes)


@dataclass
class _Sample:
    key: str
    end_bytes: int = 0
    image: tuple[str, int, int] | None = None  # suffix, offset and length in bytes
    sidecars: dict[str, bytes] = field(default_factory=dict)


def _samples(path: Path) -> Iterator[_Sample]:
    with tarfile.open(path, "r:") as tar:
        sample: _Sample | None = None
        while (member := tar.next()) is not None:
            if member.size < 0:  # Python before 3.11.14 would read the same header for ever
                raise BadItem("cut_archive", f"{member.name!r} has {member.size} bytes")
            tar.members = []  # type: ignore[attr-defined]  # else it keeps every header of the archive
            if not member.isreg() or PurePosixPath(member.name).name.startswith("."):
                continue
            key, suffix = _split(member.name)
            if sample is not None and sample.key != key:
                yield sample
            if sample is None or sample.key != key:
                sample = _Sample(key)
            _take(sample, suffix, tar, member)
        if sample is not None:
            yield sample


def _split(name: str) -> tuple[str, str]:
    """Key and suffix, WebDataset's way: the key ends at the first dot of the last part."""
    folder, slash, last = name.removeprefix("./").rpartition("/")
    stem, dot, suffix = last.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def _take(sample: _Sample, suffix: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    sample.end_bytes = member.offset_data + member.size
    if suffix in IMAGE_SUFFIXES and sample.image is None:
        sample.image = (suffix, member.offset_data, member.size)
    elif suffix in (".json", ".txt", ".cls") and member.size <= MAX_SIDECAR_BYTES:
        file = tar.extractfile(member)
        sample.sidecars[suffix] = file.read() if file else b""


def _entry(tar_name: str, sample: _Sample) -> GalleryItem | Failure:
    place = f"{tar_name.removesuffix('.tar')}/{sample.key}"
    try:
        return _item(tar_name, place, sample)
    except (BadItem, ValueError, RecursionError) as error:
        return Failure(place, getattr(error, "code", "bad_row"), str(error))


def _item(tar_name: str, place: str, sample: _Sample) -> GalleryItem:
    if sample.image is None:
        raise BadItem("bad_row", f"the sample {sample.key!r} holds no image")
    suffix, offset_bytes, length_bytes = sample.image
    columns: dict[str, Any] = {}
    if ".json" in sample.sidecars:
        parsed = json.loads(sample.sidecars[".json"])
        columns = parsed if isinstance(parsed, dict) else {"json": parsed}
    if ".cls" in sample.sidecars:
        columns.setdefault("cls", sample.sidecars[".cls"].decode().strip())
    if ".txt" in sample.sidecars:
        columns["caption"] = even_text(sample.sidecars[".txt"].decode())
        columns.pop("captions", None)
    source = ImageSource(tar_name, offset_bytes, length_bytes)
    return GalleryItem(checked_id(place + suffix), source, texts_of(columns), clean_payload(columns))


def _check_end(path: Path) -> None:
    """A whole tar ends in zeros; tarfile takes one that was cut between two files for a short one."""
    with path.open("rb") as file:
        file.seek(-512, os.SEEK_END)
        if any(file.read(512)):
            raise BadItem("cut_archive", "its end mark is missing, so files after the last one may be lost")
