"""`python -m training gate`: may this bundle replace that one? A table, JSON, an exit status, a verdict inside.

Thin: parse, call, show. torch is imported only once the policy has been read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.console import errors_shown, stages_on
from training.markdown import markdown_table

if TYPE_CHECKING:
    from encoders.verdict import Check, Verdict

EXIT_FAILED = 5

_out = Console()
_err = Console(stderr=True)


def gate_command(
    candidate: Annotated[Path, typer.Argument(help="The bundle to judge; the verdict is written into it.")],
    *,
    policy: Annotated[Path, typer.Option(help="The policy, a TOML file: training/recipes/gate.toml.")],
    against: Annotated[Path | None, typer.Option(help="The bundle that is served now.")] = None,
    cache: Annotated[Path | None, typer.Option(help="A folder to keep embeddings in, and reuse.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images and captions the encoder takes at once.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="A folder for verdict.json and verdict.md.")] = None,
    store: Annotated[bool, typer.Option(help="Write the verdict into the candidate.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Judge a bundle by a policy: parity, recall floors, and no fall against the bundle served now.

    A check whose figure proves nothing (saturated, too few images, images that the candidate has seen) is not
    passed, and says what would do. Exit status: 0 passed; 5 failed; 2 a bundle, the policy or a set cannot be
    used.
    """
    with errors_shown():
        from training.gate.policy import Policy

        rules = Policy.read(policy)
        from encoders.bundle import Bundle
        from encoders.verdict import VERDICT
        from training.files import replacing
        from training.gate.gate import GateSettings, judge

        judged = Bundle.open(candidate)
        current = Bundle.open(against) if against else None
        settings = GateSettings(device=device, batch=batch, cache=cache)
        with stages_on(_err) as on_progress:
            verdict = judge(judged, against=current, policy=rules, settings=settings, on_progress=on_progress)
        if store:
            judged.with_file(VERDICT, verdict.file_content())
        if out:
            for name, content in (
                (VERDICT, verdict.file_content()),
                ("verdict.md", _markdown(verdict).encode()),
            ):
                with replacing(out / name) as file:
                    file.write(content)
    _show(verdict, as_json=as_json)
    raise typer.Exit(0 if verdict.passed else EXIT_FAILED)


def _show(verdict: "Verdict", *, as_json: bool) -> None:
    if as_json:
        typer.echo(verdict.model_dump_json())
        return
    console = _out if _out.is_terminal else Console(width=160)
    table = Table(title=f"{verdict.candidate.name} by {verdict.policy}", title_justify="left")
    for title in ("check", "of", "figure", "95% interval", "limit", "verdict", ""):
        table.add_column(title, justify="right" if title in ("figure", "95% interval", "limit") else "left")
    for check in verdict.checks:
        style = "green" if check.passed else "red"
        cells = [escape(cell) for cell in _cells(check)]
        cells[5] = f"[{style}]{cells[5]}[/{style}]"
        table.add_row(*cells)
    console.print(table)
    for finding in verdict.findings:
        console.print(f"[red]likely cause[/] {escape(str(finding))}", highlight=False, soft_wrap=True)
    console.print(_conclusion(verdict), highlight=False, soft_wrap=True)


def _cells(check: "Check") -> list[str]:
    signed = "+.4f" if check.kind == "no_fall" else ".4f"
    interval = (
        "" if check.low is None or check.high is None else f"{check.low:{signed}} to {check.high:{signed}}"
    )
    figure, limit = ("–" if each is None else format(each, signed) for each in (check.figure, check.limit))
    return [
        check.kind.replace("_", " "), check.subject, figure, interval, limit, check.outcome, check.detail,
    ]  # fmt: skip


def _conclusion(verdict: "Verdict") -> str:
    against = f", against {verdict.against.name} {verdict.against.fingerprint[:12]}" if verdict.against else ""
    outcome = "passed" if verdict.passed else f"FAILED {len(verdict.failures)} of {len(verdict.checks)} checks"
    return f"{verdict.candidate.name} {verdict.candidate.fingerprint[:12]}{against}: {outcome}"


def _markdown(verdict: "Verdict") -> str:
    """For a pull request's comment or a job's summary."""
    columns = ("check", "of", "figure", "95% interval", "limit", "verdict", "")
    lines = [f"**{_conclusion(verdict)}**", ""]
    lines += markdown_table(columns, map(_cells, verdict.checks), texts=len(columns))
    if verdict.findings:
        lines += ["", *(f"- likely cause: {finding}" for finding in verdict.findings)]
    return "\n".join(lines) + "\n"
