"""`python -m training adapt`: what a person types, and what they are told. The work is `adapt`'s.

torch is imported only once the command line has been read.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.console import errors_shown, stages_on

if TYPE_CHECKING:
    from encoders.bundle import Bundle
    from training.adapt.acceptance import Row
    from training.adapt.adapt import Outcome
    from training.adapt.choosing import Trial

EXIT_REJECTED = 4
EXIT_UNDECIDED = 6
_EXITS = {"accepted": 0, "rejected": EXIT_REJECTED, "undecided": EXIT_UNDECIDED}
_STYLES = {"accepted": "green", "rejected": "red", "undecided": "yellow"}

_out = Console()
_err = Console(stderr=True)


def adapt_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle to adapt; it stays as it is.")],
    *,
    out: Annotated[Path, typer.Option(help="The adapted bundle's folder.")],
    target: Annotated[
        str | None, typer.Option(help="A folder of images, or a set of pairs whose captions only measure.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="A set of pairs like those the bundle was trained for: what must not fall."),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="What is asked of the target, one text a line; never its test set.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="auto, or of adabn, pseudo, few-shot, centre, whiten, coral, hubness: a,b:0.5"),
    ] = "auto",
    holdout: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="The share of each set that is measured on.")
    ] = 0.5,
    shots: Annotated[int, typer.Option(min=0, help="Captioned images that few-shot may look at.")] = 0,
    seed: Annotated[int, typer.Option(help="Which images are held out.")] = 0,
    splits: Annotated[
        int, typer.Option(min=1, help="Part the sets so often, by seed, seed + 1, …, and judge by all.")
    ] = 1,
    force: Annotated[bool, typer.Option("--force", help="Write the bundle though it is not accepted.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Write at --out the bundle that an adapted BUNDLE was made from.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Images and texts the encoder takes at once.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Suit a bundle to images and queries of one's own, without labels; say what it gains and what it costs.

    Exit status: 0 adapted; 4 rejected (the source loses more than two points of R@1, or the target falls);
    6 undecided (the intervals do not tell): no bundle is written then unless forced; 2 a bundle, a set or an
    option cannot be used.
    """
    with errors_shown():
        if undo:
            _undo(bundle, out)
            return
        from training.adapt.adapt import Request, adapt

        if target is None or source is None:
            raise typer.BadParameter("--target and --source are needed, or --undo")
        request = Request(
            bundle=bundle, target=target, source=source, out=out, queries=queries, method=method,
            holdout=holdout, shots=shots, seed=seed, splits=splits, device=device, batch=batch, force=force,
        )  # fmt: skip
        with stages_on(_err) as on_progress:
            outcome = adapt(request, on_progress=on_progress, on_trial=_show_trial)
    if as_json:
        typer.echo(_as_json(outcome))
    else:
        _show(outcome, bundle)
    raise typer.Exit(_EXITS[outcome.verdict.state])


def _undo(bundle: Path, out: Path) -> None:
    from encoders.bundle import Bundle
    from training.adapt.bundles import undo

    written = undo(Bundle.open(bundle), out)
    _out.print(f"{written.path} is {written.name} again, fingerprint {written.fingerprint}", soft_wrap=True)


def _show_left_behind(parent: Path, adapted: "Bundle") -> None:
    from encoders.bundle import Bundle
    from training.heirlooms import left_behind

    if told := left_behind([Bundle.open(parent, verify=False)], adapted):
        _out.print(escape(told), highlight=False, soft_wrap=True)


def _show(outcome: "Outcome", parent: Path) -> None:
    console = _out if _out.is_terminal else Console(width=140)
    names = ", ".join(map(str, outcome.methods)) or "none"
    console.print(f"methods: {names}", highlight=False, markup=False)
    console.print(_table(outcome.rows))
    for line in (*outcome.notes, *_proxy_lines(outcome)):
        console.print(f"[dim]{escape(line)}[/dim]", highlight=False, soft_wrap=True)
    state, reason = outcome.verdict.state, escape(outcome.verdict.reason)
    style = _STYLES[state]
    console.print(f"[{style}]{state}[/{style}]: {reason}", highlight=False, soft_wrap=True)
    if outcome.bundle is None:
        console.print("no bundle is written", highlight=False)
    else:
        console.print(
            f"wrote {outcome.bundle.path}, fingerprint {outcome.bundle.fingerprint[:12]}", markup=False
        )
        _show_left_behind(parent, outcome.bundle)


def _table(rows: Sequence["Row"]) -> Table:
    from training.adapt.acceptance import WAY_TITLES

    table = Table(title="acceptance", title_justify="left")
    for name in ("set", "images", "way", "recall", "before", "after", "difference", "95% interval"):
        table.add_column(name, justify="left" if name in ("set", "way") else "right")
    for row in rows:
        way = WAY_TITLES[row.direction]
        delta = row.difference
        table.add_row(
            row.side, str(row.images), way, f"R@{row.k}", f"{row.before:.1%}", f"{row.after:.1%}",
            f"{100 * delta.value:+.1f}", f"{100 * delta.low:+.1f} to {100 * delta.high:+.1f}",
        )  # fmt: skip
    return table


def _proxy_lines(outcome: "Outcome") -> list[str]:
    from training.adapt.proxies import WEAKNESSES

    before, after = outcome.proxies["before"], outcome.proxies["after"]
    shown = [f"{name} {before[name]:.3f} to {after[name]:.3f} ({WEAKNESSES[name]})" for name in after]
    if outcome.labelled:
        return [f"proxy, no label looked at: {line}" for line in shown]
    return [
        "without captions of the target, how well it retrieves there cannot be known; what moved, and why it "
        "proves nothing alone:",
        *shown,
    ]


def _show_trial(trial: "Trial") -> None:
    names = ",".join(map(str, trial.methods))
    if trial.gain is None or trial.source is None:
        _err.print(
            f"auto: {names}: cannot be tried: {trial.why}", markup=False, highlight=False, soft_wrap=True
        )
        return
    gain = trial.gain
    figures = f"R@10 {100 * gain.value:+.1f} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    told = f"auto: {names}: target {figures}, source R@1 {100 * trial.source:+.1f}: {trial.why}"
    _err.print(told, markup=False, highlight=False, soft_wrap=True)


def _as_json(outcome: "Outcome") -> str:
    written = outcome.bundle
    return json.dumps(
        {
            "methods": [str(method) for method in outcome.methods],
            "verdict": outcome.verdict.state,
            "accepted": outcome.verdict.accepted,
            "reason": outcome.verdict.reason,
            "table": [row.model_dump(mode="json") for row in outcome.rows],
            "proxies": outcome.proxies,
            "trials": [
                {
                    "methods": [str(method) for method in trial.methods],
                    "gain": None if trial.gain is None else asdict(trial.gain),
                    "source": trial.source,
                    "kept": trial.kept,
                    "why": trial.why,
                }
                for trial in outcome.trials
            ],
            "notes": outcome.notes,
            "bundle": None if written is None else str(written.path),
            "fingerprint": None if written is None else written.fingerprint,
        }
    )
