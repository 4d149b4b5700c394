"""`python -m training`: its commands."""

import typer

from training.commands.adapt import adapt_command
from training.commands.augment import augment_command
from training.commands.bank import bank_command
from training.commands.blend import interpolate_command, soup_command
from training.commands.calibrate import calibrate_command, relevance_command
from training.commands.evaluate import evaluate_command
from training.commands.fit import fit_command
from training.commands.gate import gate_command
from training.commands.seen import seen_command
from training.commands.short_queries import queries_command, short_queries_command

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train bundles, and measure how they hold up."
)
app.command("fit")(fit_command)
app.command("evaluate")(evaluate_command)
app.command("calibrate")(calibrate_command)
app.command("relevance")(relevance_command)
app.command("gate")(gate_command)
app.command("augment")(augment_command)
app.command("interpolate")(interpolate_command)
app.command("soup")(soup_command)
app.command("bank")(bank_command)
app.command("adapt")(adapt_command)
app.command("queries")(queries_command)
app.command("short-queries")(short_queries_command)
app.command("seen")(seen_command)

if __name__ == "__main__":
    app()
