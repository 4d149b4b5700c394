"""Lists of short queries on disk: drawn once, before anything is tuned, and asked ever after.

    # comment
    present <tab> noun <tab> dog
    absent <tab> adjective noun <tab> zebra <tab> grazing zebra

A line is whether the set holds it, the kind, the noun, and for the other kinds the modifier.
"""

from pathlib import Path

from training.errors import MissingFile, PairsError
from training.short_queries.draw import QueryList
from training.short_queries.phrases import KINDS, Phrase

DRAWN = Path(__file__).parent / "drawn"
"""The lists that the figures in the docs are measured with."""


def list_text(queries: QueryList, *, title: str) -> str:
    """What `read_list` reads back."""
    lines = [f"# {title}"]
    for name, phrases in (("present", queries.present), ("absent", queries.absent)):
        lines += ["\t".join(filter(None, (name, p.kind, p.noun, p.modifier))) for p in phrases]
    return "\n".join(lines) + "\n"


def read_list(path: Path) -> QueryList:
    """Raises MissingFile, or PairsError naming the line that is none."""
    if not path.is_file():
        raise MissingFile(f"no list of short queries at {path}: `python -m training queries` draws one")
    found: dict[str, list[Phrase]] = {"present": [], "absent": []}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, kind, *words = line.split("\t")
        if name not in found or kind not in KINDS or len(words) != 1 + (kind != "noun"):
            raise PairsError(
                f"{path}, line {number}: {line!r} is no query: present or absent, one of {', '.join(KINDS)}, "
                "the noun and its modifier, with tabs between"
            )
        found[name].append(Phrase(kind, *words))
    return QueryList(tuple(found["present"]), tuple(found["absent"]))
