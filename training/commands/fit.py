"""`python -m training fit`: what a person types, and what they are told. The work is `job`'s.

torch is imported only once the command line has been read.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from safetensors import SafetensorError

from training.console import errors_shown
from training.errors import StartIsBetter

CHECKPOINT_SECONDS = 120.0
EXIT_NO_GAIN = 4


def fit_command(
    recipe: Annotated[Path, typer.Argument(help="TOML file: see docs/training.md and training/recipes/.")],
    out: Annotated[Path, typer.Option("--out", help="Folder that the bundle is written to.")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Checkpoints and logs. [default: runs/<name>]")
    ] = None,
    cache: Annotated[Path, typer.Option("--cache", help="Activations of frozen stems.")] = Path(
        "runs/activations"
    ),
    until: Annotated[
        str | None, typer.Option("--until", help="Stop after the phase of this name, and write the bundle.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N.")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: one a core.")] = 0,
    checkpoint_seconds: Annotated[
        float, typer.Option("--checkpoint-seconds", min=0, help="At most this much work is lost to a kill.")
    ] = CHECKPOINT_SECONDS,
) -> None:
    """Train a bundle by a recipe. Killed at any moment, the same command goes on from the last checkpoint.

    Exit status: 0 trained; 4 nothing scored higher on the validation sets than what the run began from: no
    bundle is written; 2 the recipe, a set or a folder cannot be used, or the loss is no longer a number.
    """
    with errors_shown(SafetensorError):
        from training.fit.job import JobOptions, run_job
        from training.fit.recipe import Recipe

        options = JobOptions(
            out=out,
            folder=folder,
            cache=cache,
            device=device,
            threads=threads,
            checkpoint_seconds=checkpoint_seconds,
            until=until,
        )
        try:
            run_job(Recipe.read(recipe), options, Console())
        except StartIsBetter as better:
            typer.echo(f"nothing gained: {better}", err=True)
            raise typer.Exit(EXIT_NO_GAIN) from None
