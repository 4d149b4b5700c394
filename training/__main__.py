"""`python -m training`: its commands."""

import typer

from training.adapt.command import adapt_command
from training.blend_command import interpolate_command, soup_command
from training.calibrate_command import calibrate_command
from training.evaluate_command import evaluate_command
from training.fit_command import fit_command
from training.gate_command import gate_command
from training.sheet_command import augment_command

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Train bundles, and measure how they hold up."
)
app.command("fit")(fit_command)
app.command("evaluate")(evaluate_command)
app.command("calibrate")(calibrate_command)
app.command("gate")(gate_command)
app.command("augment")(augment_command)
app.command("interpolate")(interpolate_command)
app.command("soup")(soup_command)
app.command("adapt")(adapt_command)

if __name__ == "__main__":
    app()
