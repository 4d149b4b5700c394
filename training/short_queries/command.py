"""`python -m training queries`: short queries that a set holds, and ones that it does not."""

from pathlib import Path
from typing import Annotated

import typer

from training.console import errors_shown
from training.data.pairs import read_pairs
from training.files import replacing
from training.short_queries.draw import draw, mentions_of
from training.short_queries.lists import list_text


def queries_command(
    data: Annotated[list[str], typer.Option(help="A set of captioned images; several make one gallery.")],
    *,
    out: Annotated[Path, typer.Option(help="The list to write.")],
    count: Annotated[int, typer.Option(min=1, help="Most queries of each sort, held and not held.")] = 200,
    seed: Annotated[str, typer.Option(help="Another seed draws others.")] = "0",
) -> None:
    """Draw short queries from what the captions of a set say, and from what they do not say.

    Exit status: 0 written; 2 a set cannot be used.
    """
    with errors_shown():
        sets = [read_pairs(spec) for spec in data]
        mentions = mentions_of([image.captions for pairs in sets for image in pairs.images])
        name = " and ".join(pairs.name for pairs in sets)
        queries = draw(mentions, count=count, seed=f"{name} {seed}")
        images = sum(len(pairs.images) for pairs in sets)
        title = (
            f"{name}: {images:,} images hold {len(queries.present)} of these queries and "
            f"{len(queries.absent)} not, by their captions. Drawn by `python -m training queries`, seed {seed}."
        )
        with replacing(out) as file:
            file.write(list_text(queries, title=title).encode())
    typer.echo(title)
