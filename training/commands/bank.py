"""`python -m training bank`: what a person types, and what they are told. Thin: parse, call, show.

torch is imported only once the arguments are seen to fit together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from training.console import errors_shown, stages_on
from training.data.pairs import PairSet, read_pairs
from training.errors import BankError

if TYPE_CHECKING:
    from encoders.bundle import Bundle
    from training.bank.bank import Trial

EXIT_NO_GAIN = 4
MOST_ALPHA = 2.0


def bank_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle: its embeddings stay as they are.")],
    *,
    data: Annotated[
        list[str], typer.Option(help="A set whose images and captions make the bank (repeatable).")
    ],
    best_on: Annotated[
        list[str] | None,
        typer.Option(help="A set to choose alpha and k on: none of --data's (repeatable)."),
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Drawn from --data in all; 3000 by default.")] = None,
    alphas: Annotated[str, typer.Option(help="Strengths to try, above 0 and at most 2.")] = "0.25,0.5,0.75,1",
    ks: Annotated[str, typer.Option(help="How many of the nearest queries tell a hub.")] = "16,32,64,128",
    seed: Annotated[int, typer.Option(help="Which pairs are drawn.")] = 0,
    in_place: Annotated[bool, typer.Option("--in-place", help="Keep the best in the bundle.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images and captions the encoder takes at once.")] = 32,
) -> None:
    """Make a query bank: items that stand near everything are held back wherever the bundle serves.

    Exit status: 0 chosen, and kept with --in-place; 4 no strength is better than no bank: nothing is kept;
    2 a bundle, a set or an option cannot be used.
    """
    with errors_shown():
        strengths, reaches = _parse_alphas(alphas), _parse_ks(ks)
        if not best_on and len(strengths) * len(reaches) > 1:
            raise BankError(
                "name a set to choose on by --best-on, or a single strength and k: --alphas 0.5 --ks 32"
            )
        if both := set(data) & set(best_on or ()):
            raise BankError(f"{both.pop()}: the bank may hold nothing of what it is chosen on; name another")
        sets, held_out = ([read_pairs(spec) for spec in specs] for specs in (data, best_on or ()))
        found = _make(
            bundle, sets, held_out, count=pairs, seed=seed, alphas=strengths, ks=reaches, device=device,
            batch=batch, keep=in_place,
        )  # fmt: skip
    if found is None:
        typer.echo("no strength is better than no bank: nothing is kept")
        raise typer.Exit(EXIT_NO_GAIN)
    typer.echo(found)


def _make(
    path: Path,
    sets: Sequence[PairSet],
    held_out: Sequence[PairSet],
    *,
    count: int | None,
    seed: int,
    alphas: Sequence[float],
    ks: Sequence[int],
    device: str,
    batch: int,
    keep: bool,
) -> str | None:
    """What was chosen, in a line; None where nothing is better than no bank."""
    from dataclasses import replace

    from encoders.bundle import Bundle
    from encoders.encoder import Encoder
    from training.bank.bank import DEFAULT_PAIRS, best_trial, draw_pairs, make_bank, store_bank, try_strengths
    from training.evaluation.embedding import embed_pairs

    opened = Bundle.open(path)
    drawn = draw_pairs(sets, DEFAULT_PAIRS if count is None else count, seed=seed)
    encoder = Encoder.load(opened, device=device, max_batch=batch)
    with stages_on(Console(stderr=True)) as on_progress:
        bank = make_bank(encoder, drawn, alpha=alphas[0], k=ks[0], batch=batch, on_progress=on_progress)
        embedded = [embed_pairs(encoder, one, batch=batch, on_progress=on_progress) for one in held_out]
    if held_out:
        trials = [_shown(trial, held_out) for trial in try_strengths(bank, embedded, alphas=alphas, ks=ks)]
        best = best_trial(trials)
        if best.alpha == 0:
            return None
        bank = replace(bank, alpha=best.alpha, k=best.k)
    made = f"{len(bank.rows['texts'])} pairs, alpha {bank.alpha:g}, k {bank.k}"
    if not keep:
        return f"bank of {made}: --in-place keeps it"
    store_bank(_with_seen(opened, drawn), bank)
    return (
        f"bank of {made} kept in {path}: its figures, relevance and verdict are of another ranking now "
        "(evaluate --store, calibrate, gate), and indexes are to be rebuilt"
    )


def _with_seen(bundle: "Bundle", drawn: Sequence[PairSet]) -> "Bundle":
    """The bundle's record of what it has seen with the bank's images, those sets that it has not seen whole."""
    from training.seen.exposure import exposure_of
    from training.seen.record import inherited, read_seen, source_of, store_seen

    seen = read_seen(bundle)
    foreign = [pairs for pairs in drawn if exposure_of(seen, pairs).status != "seen"]
    if not foreign:
        return bundle
    return store_seen(
        bundle, inherited([bundle], [source_of(one, name=f"{one.name}, bank") for one in foreign])
    )


def _shown(trial: "Trial", sets: Sequence[PairSet]) -> "Trial":
    title = f"alpha {trial.alpha:<4g} k {trial.k:<4d}" if trial.alpha else "no bank         "
    scores = "  ".join(f"{one.name} {score:6.2%}" for one, score in zip(sets, trial.scores, strict=True))
    typer.echo(f"{title} mean recall {trial.score:6.2%}  {scores}")
    return trial


def _parse_alphas(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise BankError(f"--alphas takes numbers joined by commas, not {text!r}") from error
    if any(not 0 < one <= MOST_ALPHA for one in found):
        raise BankError(f"--alphas lie above 0 and are at most {MOST_ALPHA:g}, given {text!r}")
    return found


def _parse_ks(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise BankError(f"--ks takes whole numbers above 0 joined by commas, not {text!r}")
    return [int(part) for part in parts]
