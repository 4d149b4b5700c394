"""WebDataset shards: tar files whose members share a key, `0001.jpg` beside `0001.txt` or `0001.json`.

Shards are indexed, never extracted: an image is read back from its shard by offset and length, so a shard
must not be compressed (`.tar.gz` is refused). The pattern may hold `{00000..00099}`, `{a,b}` and glob
characters. An id is `<shard>/<key>`, since keys may repeat from shard to shard.

Captions: the `.txt` member, else `caption` or `captions` of the `.json`; with `caption=` those JSON fields.
"""

import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from training.data.readers.listed import ImageSource, ListedImage, Listing, normalised
from training.data.readers.spec import Spec, matching_files
from training.errors import BadRow, BadSpec

IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "png", "webp"})
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST_SHARDS = 1_000_000


@dataclass(slots=True)
class Sample:
    """The members of one key. `row` is the place of its first member in the shard."""

    key: str
    row: int
    image: ImageSource | None = None
    text: bytes | None = None
    fields: dict[str, Any] = field(default_factory=dict)


def read_webdataset(spec: Spec) -> Listing:
    columns = tuple(spec.options["caption"].split(",")) if "caption" in spec.options else ()
    for shard in shards(spec.body):
        for sample in _samples(shard):
            captions = _captions(sample, columns=columns, shard=shard)
            fault = None if sample.image else "captions without an image in the shard"
            places = (sample.image,) if sample.image else ()
            yield ListedImage(f"{shard.name}/{sample.key}", captions, places, fault)


def shards(pattern: str) -> list[Path]:
    """The files of a brace and glob pattern, in order; raises `MissingFile` where one is not there."""
    return [shard for name in expand_braces(pattern) for shard in matching_files(name)]


def expand_braces(pattern: str) -> Iterator[str]:
    """`x-{08..10}.tar` -> x-08.tar, x-09.tar, x-10.tar; `{a,b}` -> a, b; several multiply."""
    pieces = BRACES.split(pattern)
    choices = [[piece] if place % 2 == 0 else _choices(piece, pattern) for place, piece in enumerate(pieces)]
    return ("".join(parts) for parts in itertools.product(*choices))


def _choices(text: str, pattern: str) -> list[str]:
    if match := RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2])
        if first > last or last - first >= MOST_SHARDS:
            raise BadSpec(f"{pattern}: {{{text}}} is not a rising range of at most {MOST_SHARDS:,}")
        return [f"{number:0{len(match[1])}d}" for number in range(first, last + 1)]
    if "," not in text:
        raise BadSpec(f"{pattern}: {{{text}}} is neither {{00..99}} nor {{a,b}}")
    return text.split(",")


def _samples(shard: Path) -> Iterator[Sample]:
    """The shard's samples. Members of a key stand together, as the format demands."""
    sample: Sample | None = None
    row, end = 0, 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for row, member in enumerate(tar, start=1):
                end = tar.offset
                if not member.isfile():
                    continue
                key, suffix = _key_and_suffix(member.name)
                if sample is None or key != sample.key:
                    if sample:
                        yield sample
                    sample = Sample(key, row)
                _add(sample, suffix, member=member, tar=tar, shard=shard)
    except (tarfile.TarError, OSError) as error:
        problem = "not an uncompressed tar, or cut short"
        raise BadRow(shard, row + 1, value=str(error), problem=problem) from error
    _check_end(shard, row, end=end)
    if sample:
        yield sample


def _check_end(shard: Path, row: int, *, end: int) -> None:
    """Refuse a shard that stops or turns to garbage between members, which `tarfile` takes for its end."""
    with shard.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise BadRow(
            shard, row + 1, value=block[:20], problem="no end-of-archive mark: the shard is cut or damaged"
        )


def _key_and_suffix(name: str) -> tuple[str, str]:
    """`a/b/001.left.jpg` -> (`a/b/001`, `left.jpg`): a key ends at the first dot of the base name."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.with_name(stem or path.name)), suffix.lower()


def _add(sample: Sample, suffix: str, *, member: tarfile.TarInfo, tar: tarfile.TarFile, shard: Path) -> None:
    if suffix in IMAGE_SUFFIXES and sample.image is None:
        sample.image = ImageSource(shard, member.offset_data, member.size)
    elif suffix in {"txt", "json"}:
        file = tar.extractfile(member)
        content = file.read() if file else b""
        if suffix == "txt":
            sample.text = content
        else:
            sample.fields = _json_object(content, shard=shard, row=sample.row)


def _json_object(content: bytes, *, shard: Path, row: int) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError as error:
        raise BadRow(
            shard, row, value=repr(content)[2:-1], problem=f"its .json is not JSON ({error})"
        ) from error
    if not isinstance(value, dict):
        raise BadRow(shard, row, value=value, problem="its .json is not an object")
    return value


def _captions(sample: Sample, *, columns: tuple[str, ...], shard: Path) -> tuple[str, ...]:
    if columns or sample.text is None:
        values = [sample.fields.get(name) for name in columns or ("caption", "captions")]
    else:
        values = [_decoded(sample.text, shard=shard, row=sample.row)]
    captions: dict[str, str] = {}
    for value in values:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and normalised(text):
                captions.setdefault(normalised(text).casefold(), normalised(text))
    return tuple(captions.values())


def _decoded(text: bytes, *, shard: Path, row: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise BadRow(shard, row, value=text[:40], problem="its .txt is not UTF-8") from error
