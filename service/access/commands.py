"""`python -m service keys`: create, list and revoke API keys. Thin: parse, call, show.

A running service takes up the change within a second or two. Loads no encoder.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from encoders.permissions import advice_on
from service.access.keys import Key, Scope, create_key, read_keys, revoke_key
from service.errors import KeyFileError

keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
File = Annotated[Path, typer.Option("--file", envvar="TWINLENS_KEYS_FILE", help="the file of keys")]
Name = Annotated[str, typer.Option("--name", help="whose key it is: letters, digits, . _ -")]


@keys.command()
def create(
    *,
    name: Name,
    file: File,
    scope: Annotated[Scope, typer.Option("--scope", help="write includes read")],
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="requests it may have at once")] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="when it ends, in UTC")
    ] = None,
) -> None:
    """Make a key and print it, once: the file keeps its digest only."""
    with _refusing():
        secret = create_key(
            file,
            name,
            scopes=(scope,),
            max_concurrent=max_concurrent,
            expires=expires.replace(tzinfo=UTC) if expires else None,
        )
    typer.echo(f"{file} knows {name!r} now. This is its key, and it is shown only here:", err=True)
    typer.echo(secret)


@keys.command("list")
def list_keys(*, file: File) -> None:
    """Say which keys there are, and what each may do."""
    with _refusing():
        found = read_keys(file)
    for key in found:
        typer.echo(_line(key))


@keys.command()
def revoke(*, name: Name, file: File) -> None:
    """Take a key away."""
    with _refusing():
        revoke_key(file, name)
    typer.echo(f"{file} knows {name!r} no more", err=True)


def _line(key: Key) -> str:
    facts = [key.name, "+".join(key.scopes)]
    if key.max_concurrent:
        facts.append(f"{key.max_concurrent} at once")
    if key.expires:
        verb = "expired" if key.expired(datetime.now(UTC)) else "expires"
        facts.append(f"{verb} {key.expires:%Y-%m-%d %H:%M} UTC")
    if key.created:
        facts.append(f"created {key.created:%Y-%m-%d}")
    return "  ".join(facts)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except KeyFileError as error:
        typer.echo(f"keys: {error}", err=True)
        if advice := advice_on(error):
            typer.echo(advice, err=True)
        raise typer.Exit(1) from error
