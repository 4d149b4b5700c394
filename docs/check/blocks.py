"""A page to its fenced blocks, with what is marked on the line before each."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Mark = Literal["not run", "long", "file", "before"]
_FENCE = re.compile(r"^(\s*)```(\S*)$")
_MARK = re.compile(r"^\s*<!-- (not run|long|file|before): (.+) -->$")
_COMMENT = re.compile(r"^\s*<!-- (?!Written by)")


class PageError(Exception):
    """A page that cannot be read as this check asks; the message names the line."""


@dataclass(frozen=True)
class Block:
    """One fenced block, or the command of a `before` mark, which has no fence."""

    page: str
    line: int  # of its first line of text
    language: str
    text: str
    mark: Mark | None = None
    reason: str = ""  # what the mark says behind its colon

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """Every block of a page, in order. Raises PageError for a fence without a language and for a wrong mark."""
    lines = enumerate(text.splitlines(), 1)
    marked: tuple[Mark, str] | None = None
    for number, line in lines:
        if fence := _FENCE.match(line):
            yield _block(page, number, fence[2], _until_fence(page, number, fence[1], lines), marked)
            marked = None
        elif marked is not None:
            raise PageError(f"{page}:{number}: a mark stands on the line right before its block")
        elif mark := _MARK.match(line):
            if mark[1] == "before":
                yield Block(page, number, "sh", mark[2] + "\n", "before")
            else:
                marked = mark[1], mark[2]  # type: ignore[assignment]  # the pattern knows the words
        elif _COMMENT.match(line):
            raise PageError(f"{page}:{number}: {line!r} is no mark: see docs/check/__init__.py")


def _block(page: str, number: int, language: str, text: str, marked: tuple[Mark, str] | None) -> Block:
    if not language:
        raise PageError(f"{page}:{number}: name the block's language: sh for what is run, text for what is not")
    mark, reason = marked or (None, "")
    if (mark == "file") == (language == "sh") and mark is not None:
        raise PageError(f"{page}:{number}: {mark!r} does not go with {language!r}")
    return Block(page, number + 1, language, text, mark, reason)


def _until_fence(page: str, start: int, indent: str, lines: Iterator[tuple[int, str]]) -> str:
    text: list[str] = []
    for _, line in lines:
        if line == f"{indent}```":
            return "".join(f"{each}\n" for each in text)
        text.append(line.removeprefix(indent))
    raise PageError(f"{page}:{start}: the block does not end")


def commands_of(block: Block) -> Iterator[tuple[int, str]]:
    """The line and the text of each command of a block: as few lines together as bash can parse."""
    pending: list[str] = []
    for offset, line in enumerate(block.text.splitlines()):
        if not pending and (not line.strip() or line.startswith("#")):
            continue
        pending.append(line)
        text = "\n".join(pending)
        if not text.endswith("\\") and _parses(text):
            yield block.line + offset + 1 - len(pending), text
            pending = []
    if pending:
        raise PageError(f"{block.place}: bash cannot parse {pending[0]!r} and what follows")


def _parses(text: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode == 0  # noqa: S603, S607
