"""`python -m training seen`: what a bundle has seen, whether it has seen a set, and the record for one without.

Thin: parse, call, show.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.console import errors_shown
from training.errors import SeenError

if TYPE_CHECKING:
    from encoders.bundle import Bundle
    from training.seen.record import Seen

EXIT_SEEN = 3


def seen_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle; its embeddings stay as they are.")],
    *,
    data: Annotated[
        list[str] | None, typer.Option(help="A set to compare with what it has seen (repeatable).")
    ] = None,
    record: Annotated[
        bool,
        typer.Option(
            "--record", help="Write the record of a bundle from before there was one, by its own sources."
        ),
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(help="With --record: a set it was trained on, where its provenance names another place."),
    ] = None,
    chosen_by: Annotated[
        list[str] | None,
        typer.Option(help="With --record: a set that its weights were chosen by (repeatable)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a set.")] = False,
) -> None:
    """Say which images a bundle has seen: seen, partly seen, unseen, or not looked for.

    Exit status: 0 done; 3 it has seen images of a --data set; 2 a bundle or a set cannot be used.
    """
    with errors_shown():
        from encoders.bundle import Bundle
        from training.seen.record import read_seen, store_seen
        from training.seen.sources import seen_by_provenance

        opened = Bundle.open(bundle)
        if (source or chosen_by) and not record:
            raise SeenError("--source and --chosen-by are what --record is made of: give it, too")
        if record:
            made = seen_by_provenance(opened, sources=source or (), chosen_by=chosen_by or ())
            opened = store_seen(opened, made)
        seen = read_seen(opened)
        found = _compare(seen, data or (), as_json=as_json)
    if not data and not as_json:
        _show(opened, seen)
    raise typer.Exit(EXIT_SEEN if found else 0)


def _compare(seen: "Seen | None", specs: "list[str] | tuple[str, ...]", *, as_json: bool) -> bool:
    """Whether images of any of the sets were seen."""
    from training.data.pairs import read_pairs
    from training.seen.exposure import exposure_of

    any_seen = False
    for spec in specs:
        pairs = read_pairs(spec)
        exposure = exposure_of(seen, pairs)
        any_seen |= exposure.seen > 0
        told = {"set": pairs.name, **exposure.model_dump(mode="json")}
        typer.echo(json.dumps(told) if as_json else f"{pairs.name}: {exposure}")
    return any_seen


def _show(bundle: "Bundle", seen: "Seen | None") -> None:
    if seen is None:
        typer.echo(f"{bundle.name} carries no record of what it has seen: --record makes one of its sources")
        return
    for source in seen.sources:
        one = source.record
        kept = "" if one.kept == one.images else f", {one.kept:,} of them kept"
        typer.echo(f"{one.role} {one.name}: {one.images:,} images{kept}")
    for name in seen.unknown:
        typer.echo(f"of what {name} was trained on nothing is known")
