"""`python -m training queries` and `short-queries`: lists of short queries, and how a bundle asks them.

torch is imported only once the sets have been read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console

from training.console import errors_shown, stages_on
from training.data.pairs import PairSet, joined_sets, read_pairs
from training.errors import ShortQueriesError
from training.files import replacing
from training.short_queries.draw import draw, mentions_of
from training.short_queries.lists import list_text

if TYPE_CHECKING:
    from encoders.encoder import Encoder
    from encoders.short_queries import ShortQueries
    from training.evaluation.embedding import OnProgress
    from training.evaluation.ranks import Floats
    from training.evaluation.short_queries import Encode
    from training.query_expansion.choose import HeldOut, Trial


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
        pairs = joined_sets([read_pairs(spec) for spec in data])
        mentions = mentions_of([image.captions for image in pairs.images])
        queries = draw(mentions, count=count, seed=f"{pairs.name} {seed}")
        title = (
            f"{pairs.name}: {len(pairs.images):,} images hold {len(queries.present)} of these queries and "
            f"{len(queries.absent)} not, by their captions. Drawn by `python -m training queries`, seed {seed}."
        )
        with replacing(out) as file:
            file.write(list_text(queries, title=title).encode())
    typer.echo(title)


def short_queries_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle: its embeddings stay as they are.")],
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(help="A set that it was trained on, for the memory of phrases (repeatable)."),
    ] = None,
    best_on: Annotated[
        list[str] | None,
        typer.Option(help="A held-out set to choose by: none of --data's (repeatable)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write short_queries.safetensors there.")] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Keep it in the bundle.")] = False,
    cache: Annotated[Path | None, typer.Option(help="A folder to keep embeddings in, and reuse.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images and captions the encoder takes at once.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Choose how a bundle asks queries of a few words: templates, and a memory of what training showed of them.

    Without --data, as for an imported model, templates alone; without --best-on the first of the candidates.
    Exit status: 0 chosen; 2 a bundle, a set or an option cannot be used.
    """
    with errors_shown():
        if data and not best_on:
            raise ShortQueriesError(
                "how strongly a memory acts is chosen on held-out sets: name one (--best-on)"
            )
        if both := set(data or ()) & set(best_on or ()):
            raise ShortQueriesError(f"{both.pop()}: what is chosen by must be held out; name another set")
        sources, held_out = ([read_pairs(spec) for spec in specs or ()] for specs in (data, best_on))
        from encoders.bundle import Bundle
        from encoders.encoder import Encoder
        from training.query_expansion.store import store_short_queries, write_short_queries

        opened = Bundle.open(bundle)
        encoder = Encoder.load(opened, device=device, max_batch=batch)
        with stages_on(Console(stderr=True)) as on_progress:
            chosen = _choose(encoder, sources, held_out, batch=batch, cache=cache, on_progress=on_progress)
        if out is not None:
            write_short_queries(chosen, out)
        if in_place:
            store_short_queries(opened, chosen)
    typer.echo(_told(chosen, bundle, kept=in_place))


def _choose(
    encoder: "Encoder",
    sources: Sequence[PairSet],
    held_out: Sequence[PairSet],
    *,
    batch: int,
    cache: Path | None,
    on_progress: "OnProgress",
) -> "ShortQueries":
    from dataclasses import replace

    from encoders.short_queries import ShortQueries
    from training.evaluation.embedding import embed_pairs
    from training.evaluation.short_queries import ask
    from training.query_expansion.choose import TEMPLATE_SETS, HeldOut, Judge, choose_strength, choose_templates
    from training.query_expansion.memory import fit_memory, phrase_values
    from training.short_queries.phrases import vocabulary

    encode = _remembering(encoder)
    held = [
        HeldOut.of(one.name, embed_pairs(encoder, one, batch=batch, cache=cache, on_progress=on_progress))
        for one in held_out
    ]
    judge = Judge(held, encode, encoder.query_bank)
    templates, trials = choose_templates(judge, encoder.fingerprint) if held else (TEMPLATE_SETS[0], [])
    _show(trials, held)
    chosen = ShortQueries(templates, encoder.fingerprint, lexicon=vocabulary().lexicon)
    if not sources:
        return chosen
    known = phrase_values(encoder, sources, batch=batch, cache=cache, on_progress=on_progress)
    memory, trials = choose_strength(
        judge, chosen, fit_memory(known, lambda phrases: ask(phrases, chosen, encode))
    )
    _show(trials, held)
    return replace(chosen, memory=memory)


def _remembering(encoder: "Encoder") -> "Encode":
    """Embeds a text once, however often it is asked for."""
    known: dict[str, Floats] = {}

    def encode(texts: Sequence[str]) -> "Floats":
        if fresh := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(fresh, encoder.encode_texts(fresh).vectors, strict=True))
        return np.stack([known[text] for text in texts])

    return encode


def _show(trials: Sequence["Trial"], sets: Sequence["HeldOut"]) -> None:
    for trial in trials:
        parts = (
            f"{one.name} P@1 {first:.1%} hit@5 {five:.1%} mAP {precision:.1%} AUC {auc:.3f}"
            for one, (first, five, precision, auc) in zip(sets, trial.figures, strict=True)
        )
        typer.echo(f"{trial.title}: score {trial.score:.3f} ± {trial.error:.3f}; {'; '.join(parts)}")


def _told(chosen: "ShortQueries", bundle: Path, *, kept: bool) -> str:
    templates = ", ".join(f'"{template}"' for template in chosen.templates)
    memory = f" and a memory of {len(chosen.memory.keys):,} phrases" if chosen.memory is not None else ""
    if not kept:
        return f"templates {templates}{memory}: --in-place keeps them"
    return (
        f"templates {templates}{memory} kept in {bundle}: calibrate it anew, for short queries find "
        "otherwise now (python -m training calibrate)"
    )
