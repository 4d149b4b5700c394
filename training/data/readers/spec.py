"""The one-line spec of a set of pairs: `<format>:<what>[?<option>=<value>&…]`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from training.errors import BadSpec, MissingFile

# A question mark is also a glob character: only one that is followed by `word=` starts the options.
OPTIONS = re.compile(r"\?(?=[a-z_]+=)")


@dataclass(frozen=True, slots=True)
class Spec:
    text: str
    format: str
    body: str
    options: Mapping[str, str]

    def option(self, name: str, default: str) -> str:
        return self.options.get(name, default)

    def number(self, name: str, default: int) -> int:
        """The option as an integer of at least 0; raises `BadSpec` otherwise."""
        value = self.options.get(name, str(default))
        if not value.isascii() or not value.isdigit():
            raise BadSpec(f"{self.text}: {name}= takes a whole number, not {value!r}")
        return int(value)

    def folder(self, name: str) -> Path | None:
        """The folder that the option names, which must exist; None without the option."""
        return existing_folder(self.options[name]) if name in self.options else None


def parse_spec(text: str) -> Spec:
    """Split a spec into format, body and options; raises `BadSpec` where it has no such parts."""
    head, *tail = OPTIONS.split(text, maxsplit=1)
    name, colon, body = head.partition(":")
    if not colon or not name or not body:
        raise BadSpec(f"{text!r} is not <format>:<file>, as in csv:captions.csv")
    return Spec(text, name, body, _parse_options(tail[0], text) if tail else {})


def _parse_options(text: str, spec: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in text.split("&"):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise BadSpec(f"{spec}: the option {part!r} is not name=value (a path here cannot hold '&')")
        if name in options:
            raise BadSpec(f"{spec}: {name}= is given twice")
        options[name] = value
    return options


def existing_file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise MissingFile(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    return path


def lines_of(text: str) -> list[str]:
    """The lines of the text file of this path, without a byte-order mark. Raises `MissingFile`."""
    path = existing_file(text)
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise MissingFile(f"{path}: not a text in UTF-8: {error}") from error


def existing_folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_dir():
        raise MissingFile(f"{path}: {'is a file, not a folder' if path.exists() else 'no such folder'}")
    return path


def matching_files(pattern: str) -> list[Path]:
    """The files of a glob pattern, or the one file it names, in order; raises `MissingFile` without any."""
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise MissingFile(f"{path}: is a folder, not a file: name its files, as in {path}/*")
    anchor = Path(path.anchor)
    found = sorted(match for match in anchor.glob(str(path.relative_to(anchor))) if match.is_file())
    if not found:
        raise MissingFile(f"{path}: no such file")
    return found


def file_and_suffix(body: str) -> tuple[Path, str | None]:
    """Split `<file>[:<suffix>]`; the file may hold colons itself, so the longest existing one wins.

    Raises `MissingFile`, with the part before the last colon, when nothing on disk matches.
    """
    colons = [position for position, character in enumerate(body) if character == ":"]
    for end in [len(body), *reversed(colons)]:
        if Path(body[:end]).expanduser().is_file():
            return Path(body[:end]).expanduser(), body[end + 1 :] or None
    return existing_file(body.rpartition(":")[0] or body), None


def file_and_folder(spec: Spec) -> tuple[Path, Path]:
    """Split `<file>:<folder>`, both existing."""
    file, folder = file_and_suffix(spec.body)
    if folder is None:
        raise BadSpec(f"{spec.text}: the images' folder is missing: {spec.format}:<file>:<folder>")
    return file, existing_folder(folder)
