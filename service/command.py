"""`python -m service`: serve the current release over HTTP; `python -m service keys`: its API keys.

Exit status: 0 stopped as asked, also during the start; 1 nothing fit to serve; 2 a wrong option; 3 the address
is taken, or the encoder failed to warm up.
"""

from pathlib import Path
from typing import Annotated

import typer

from encoders.errors import TwinlensError
from encoders.permissions import advice_on
from service.access.commands import keys
from service.errors import SettingsError
from service.preflight import check_machine
from service.settings import Settings
from service.signals import StartSignals
from service.watch.logs import log_as_json

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
command.add_typer(keys, name="keys")
Releases = Annotated[Path | None, typer.Option(help="folder of releases; its CURRENT names the one to serve")]
Release = Annotated[
    str | None, typer.Option(help="serve this release id, not the current one; pruning does not spare it")
]
Gallery = Annotated[Path | None, typer.Option(help="where the original pictures are now, if they moved")]
AccessLog = Annotated[bool | None, typer.Option("--access-log/--no-access-log", help="a log line a request")]


@command.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    *,
    releases: Releases = None,
    release: Release = None,
    gallery_root: Gallery = None,
    host: Annotated[str | None, typer.Option(help="address to listen on [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on; 0: any free one [8000]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 … [auto]")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16 [fp32]")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, torch or openvino [auto]")] = None,
    access_log: AccessLog = None,
) -> None:
    """Serve embeddings and search over HTTP. Every setting is also a variable TWINLENS_<NAME>."""
    options = {name: value for name, value in locals().items() if value is not None and name != "context"}
    signals = context.find_object(StartSignals)
    if context.invoked_subcommand:
        if signals is not None:
            signals.leave()
        return
    log_as_json("info")  # what reading the settings has to say, too
    try:
        settings = Settings.from_environment(**options)
    except SettingsError as error:
        _refuse(error, status=2)
    log_as_json(settings.log_level)
    check_machine(settings)
    # Not before: the keys' commands need no encoder, and torch takes seconds to load.
    from service.app import create_app
    from service.server import Server

    try:
        app = create_app(settings)
    except (TwinlensError, OSError) as error:
        _refuse(error, status=2 if isinstance(error, SettingsError) else 1)
    Server(app, settings, start_signals=signals).run()


def _refuse(error: Exception, *, status: int) -> None:
    typer.echo(f"cannot start: {error}", err=True)
    if advice := advice_on(error):
        typer.echo(advice, err=True)
    raise typer.Exit(status)
