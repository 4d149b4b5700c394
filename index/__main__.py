"""python -m index: build, check, list, switch and delete releases.

Thin: parse, call, show. torch is imported only by the command that embeds.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from encoders.errors import TwinlensError, Unreadable
from encoders.permissions import advice_on
from index import catalog
from index.console import changes_table, progress_on, releases_table, show_report
from index.cores import available_cores
from index.errors import ReleaseError
from index.journal.changes import describe_change
from index.journal.journal import compact as compact_journal
from index.journal.location import LIVE_NAME, read_acknowledged
from index.journal.snapshot import open_snapshot
from index.manifest import Manifest
from index.publish import prune as prune_releases
from index.publish import rollback as roll_back
from index.sources import open_gallery

EXIT_NOTHING_PUBLISHED = 1
EXIT_PUBLISHED_WITH_FAILURES = 3

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Build and keep releases."
)
_out = Console(soft_wrap=True)
_err = Console(stderr=True, soft_wrap=True)

Releases = Annotated[Path, typer.Option(help="The folder that holds the releases.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def rebuild(
    *,
    gallery: Annotated[
        str,
        typer.Option(
            help="A folder of images; a .csv, .tsv, .jsonl, .ndjson or .parquet table with a column "
            "'image' or 'path'; or WebDataset .tar files (one, a glob, or braces)."
        ),
    ],
    bundle: Annotated[Path | None, typer.Option(help="The encoder; by default the one that ships.")] = None,
    releases: Releases = Path("releases"),
    texts: Annotated[
        Path | None, typer.Option(help="Texts to find for an image, one a line, instead of the gallery's own.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="What a table's paths are relative to.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    engine: Annotated[
        str, typer.Option(envvar="TWINLENS_ENGINE", help="auto (OpenVINO on an x86 CPU), torch or openvino.")
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images the encoder takes at once.")] = 32,
    decode_threads: Annotated[int | None, typer.Option(min=1, help="By default one a core.")] = None,
    max_pixels: Annotated[int, typer.Option(min=1, help="Larger images fail.")] = 64_000_000,
    cache: Annotated[bool, typer.Option(help="Reuse, and keep, what was embedded before.")] = True,
    require_gate: Annotated[
        bool, typer.Option("--require-gate", help="Publish only a bundle that passed `training gate`.")
    ] = False,
    gate_policy: Annotated[
        Path | None, typer.Option(help="The policy it must have passed; implies --require-gate.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Index a gallery and make the result the current release.

    Exit status: 0 all is in; 3 published, but some items failed (see the release's failures.jsonl);
    1 nothing published, what was current stays current; 2 the command line is wrong.
    """
    with _errors_shown():
        from encoders.bundle import DEFAULT_BUNDLE
        from encoders.choices import check_engine, check_precision
        from index.rebuilding import RebuildSettings
        from index.rebuilding import rebuild as run

        settings = RebuildSettings(
            gallery=open_gallery(gallery, root=root),
            bundle=bundle or DEFAULT_BUNDLE,
            releases=releases,
            texts=texts,
            device=device,
            precision=check_precision(precision),
            engine=check_engine(engine),
            batch_size=batch_size,
            decode_threads=decode_threads or available_cores(),
            max_pixels=max_pixels,
            use_cache=cache,
            require_gate=require_gate or gate_policy is not None,
            gate_policy=gate_policy,
        )
        with progress_on(_err) as on_progress:
            report = run(settings, on_progress=on_progress)
    if as_json:
        failures = dict(report.tally.failures)
        told = {**_described(report.manifest), "seconds": round(report.seconds, 3), "failures": failures}
        typer.echo(json.dumps(told, indent=1))
    else:
        show_report(_out, report)
    raise typer.Exit(EXIT_PUBLISHED_WITH_FAILURES if report.tally.failures else 0)


@app.command()
def current(*, releases: Releases = Path("releases")) -> None:
    """Print the id of the current release; exit status 1 where there is none."""
    with _errors_shown():
        typer.echo(catalog.current_release_id(releases))


@app.command("list")
def list_releases(*, releases: Releases = Path("releases"), as_json: AsJson = False) -> None:
    """Show all releases, oldest first; the arrow marks the current one."""
    with _errors_shown():
        manifests, broken = _manifests(releases)
        now = _current_or_none(releases)
    if as_json:
        rows = [{**_described(manifest), "current": manifest.id == now} for manifest in manifests]
        faults = [{"release": name, "problem": why, "current": name == now} for name, why in broken.items()]
        typer.echo(json.dumps(rows + faults, indent=1))
    elif manifests or broken:
        _out.print(releases_table(manifests, broken, now))
    else:
        typer.echo(f"no releases in {releases}")


@app.command()
def changes(*, releases: Releases = Path("releases"), as_json: AsJson = False) -> None:
    """Show what was put and deleted while serving, and is not in the current release yet."""
    with _errors_shown():
        inside = _live_sequence(releases)
        with open_snapshot(releases, known=catalog.last_live_sequence(releases)) as snapshot:
            pending = [change.without_vectors() for change in snapshot.changes(after=inside)]
    if as_json:
        typer.echo(json.dumps([describe_change(change) for change in pending], indent=1, ensure_ascii=False))
    elif pending:
        _out.print(changes_table(pending))
        _out.print(f"{len(pending):,} changes after {inside:,}: `rebuild` takes them in", highlight=False)
    else:
        typer.echo(f"no changes in {releases} that the current release does not hold")


@app.command()
def verify(
    release_id: Annotated[str | None, typer.Argument(help="By default the current release.")] = None,
    *,
    releases: Releases = Path("releases"),
    every: Annotated[bool, typer.Option("--all", help="Check all releases.")] = False,
) -> None:
    """Hash every file of a release and name each that is missing, cut or changed (exit status 1)."""
    with _errors_shown():
        wanted = (
            catalog.release_ids(releases) if every else [release_id or catalog.current_release_id(releases)]
        )
        faults = {name: _problems(releases, name) for name in wanted}
    for name, problems in faults.items():
        typer.echo(f"{name}: {'; '.join(problems) or 'whole'}")
    raise typer.Exit(1 if any(faults.values()) else 0)


@app.command()
def rollback(
    release_id: Annotated[
        str | None, typer.Argument(help="By default what was current before; again: further back.")
    ] = None,
    *,
    releases: Releases = Path("releases"),
) -> None:
    """Make another release current, after checking that it is whole; what is not is passed over."""
    with _errors_shown():
        done = roll_back(releases, release_id)
    for name, problems in done.passed_over.items():
        typer.echo(f"{name} is passed over: {problems}", err=True)
    typer.echo(f"current is now {done.release}")


@app.command()
def prune(
    *,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest releases stay.")],
    releases: Releases = Path("releases"),
) -> None:
    """Delete old releases; the current one stays, however old."""
    with _errors_shown():
        removed = prune_releases(releases, keep=keep)
    typer.echo("\n".join(f"removed {name}" for name in removed) or "nothing to remove")


@app.command()
def compact(
    *,
    releases: Releases = Path("releases"),
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on without changes that are missing from the journal.")
    ] = False,
) -> None:
    """Give back what live changes take on the disk for nothing, while no service writes them.

    Works on a full disk, too.
    """
    with _errors_shown():
        known = catalog.last_live_sequence(releases)
        ever = max(known, read_acknowledged(releases))
        if not (accept_loss or ever or (releases / LIVE_NAME).is_dir()):
            raise ReleaseError(f"there are no live changes in {releases}")
        freed_bytes = compact_journal(releases, known=known, accept_loss=accept_loss)
    typer.echo(f"freed {freed_bytes / 1e6:,.1f} MB in {releases / LIVE_NAME}")


def _problems(releases: Path, release_id: str) -> list[str]:
    path = catalog.release_path(releases, release_id)
    try:
        return catalog.find_problems(path, catalog.read_manifest(path))
    except (ReleaseError, Unreadable) as error:
        return [str(error)]


def _manifests(releases: Path) -> tuple[list[Manifest], dict[str, str]]:
    manifests, broken = [], {}
    for release_id in catalog.release_ids(releases):
        try:
            manifests.append(catalog.read_manifest(releases / release_id))
        except (ReleaseError, Unreadable) as error:
            broken[release_id] = str(error)
    return manifests, broken


def _described(manifest: Manifest) -> dict[str, Any]:
    """What a release is, as JSON; its id is called `release`, as everywhere but in its own manifest."""
    return {"release": manifest.id, **manifest.model_dump(mode="json", exclude={"id", "files"})}


def _current_or_none(releases: Path) -> str | None:
    try:
        return catalog.current_release_id(releases)
    except ReleaseError:
        return None


def _live_sequence(releases: Path) -> int:
    """The last change that the current release holds; 0 where there is no release yet, or it holds none."""
    now = _current_or_none(releases)
    return 0 if now is None else catalog.read_manifest(releases / now).live_sequence or 0


@contextmanager
def _errors_shown() -> Iterator[None]:
    """Errors meant for people become a line, with what to do where a file was refused, and status 1."""
    try:
        yield
    except (TwinlensError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if advice := advice_on(error):
            print(advice, file=sys.stderr)
        raise typer.Exit(EXIT_NOTHING_PUBLISHED) from error


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s: %(message)s")
    app()
