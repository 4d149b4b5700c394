"""`python -m service`: serve the current release over HTTP; `python -m service keys`: its API keys.

Exit status: 0 stopped as asked, also during the start; 1 nothing fit to serve; 2 a wrong option; 3 the address
is taken, or the encoder failed to warm up.
"""

import typer

from encoders.errors import TwinlensError
from encoders.permissions import advice_on
from service.access.commands import keys
from service.errors import SettingsError
from service.options import secrets_in_words, with_settings
from service.preflight import check_machine
from service.settings import Settings
from service.signals import StartSignals
from service.watch.logs import log_as_json

command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
command.add_typer(keys, name="keys")


@command.callback(invoke_without_command=True, epilog=secrets_in_words())
@with_settings
def serve(context: typer.Context, **options: object) -> None:
    """Serve embeddings and search over HTTP. Every option is also a variable, which the option overrules."""
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
