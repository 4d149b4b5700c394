"""Commands of ours that pages name, in the text and in blocks that are not run: whether there are such."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

_COMMAND = re.compile(
    r"python -m (?P<module>(?:training|index|service|encoders|benchmarks|docs)(?:\.\w+)*)"
    r"(?P<sub>(?: (?!-)[a-z]+(?=[ `\n]|$))*)(?P<rest>[^`\n]*(?:\\\n[^`\n]*)*)"
)
_OPTION = re.compile(r"(?<!\S)\[?(--[a-z][a-z-]+)")


def named_in(text: str) -> Iterator[tuple[str, tuple[str, ...], frozenset[str]]]:
    """Module, words behind it, options: of each `python -m …` of ours that a page has."""
    for found in _COMMAND.finditer(text):
        rest = re.split(r"\s#|;|\|\s|&&", found["rest"])[0]
        yield found["module"], tuple(found["sub"].split()), frozenset(_OPTION.findall(rest))


def faults(pages: Mapping[str, str], *, python: Path, root: Path) -> Iterator[str]:
    """A line for each command or option that is named and is not there."""
    helps: dict[tuple[str, tuple[str, ...]], str | None] = {}
    for page, text in pages.items():
        for module, words, options in named_in(text):
            command = f"python -m {' '.join((module, *words))}"
            shown = _help(module, words, helps, python=python, root=root)
            if shown is None:
                yield f"{page}: `{command}` is named, and there is no such command"
                continue
            for option in sorted(options - set(re.findall(r"--[a-z][a-z-]+", shown))):
                yield f"{page}: `{command}` has no option {option}"


def _help(
    module: str,
    words: tuple[str, ...],
    known: dict[tuple[str, tuple[str, ...]], str | None],
    *,
    python: Path,
    root: Path,
) -> str | None:
    """What `--help` says; None where there is no such command. Arguments are no words."""
    if (module, words) not in known:
        run = subprocess.run(  # noqa: S603
            [python, "-m", module, *words, "--help"],
            cwd=root, capture_output=True, text=True, check=False, timeout=300,
            env={"COLUMNS": "400", "PATH": "/usr/bin:/bin", "NO_COLOR": "1"},
        )  # fmt: skip
        known[module, words] = run.stdout if run.returncode == 0 else None
    return known[module, words]
