"""What was found, as tables for a terminal and as JSON. Computes no figure but percentages."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from benchmarks.encoder import Rate
from benchmarks.evaluation import Embedded
from benchmarks.million import Million
from benchmarks.plan import Found, ServiceFigures
from benchmarks.ranking import Ranking


def show(found: Found, console: Console) -> None:
    machine = found.machine
    console.print(
        f"\n{machine.processor}, {machine.cores} cores, {machine.memory_gibibytes} GiB; {machine.system}; "
        f"Python {machine.python}; "
        + ", ".join(f"{name} {version}" for name, version in machine.packages.items())
        + f"\nencoder {found.bundle} on {found.device}, fp32",
        highlight=False,
    )
    if machine.busy_cores > machine.cores / 4:
        console.print(
            f"[bold]Other work kept about {machine.busy_cores} cores busy: trust the ratios at most[/]"
        )
    console.print(_alone(found))
    if found.service:
        console.print(*(of(found.service) for of in (_served, _rebuilt, _searched, _memory)))
    if found.evaluation:
        console.print(_evaluated(found.evaluation.embedded), _ranked(found.evaluation.ranking))
    if found.million:
        console.print(_million(found.million))
    console.print(f"measured in {found.seconds:.0f} s; docs/performance.md says how to read this\n")


def as_json(found: Found) -> str:
    return json.dumps(asdict(found), indent=1) + "\n"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _alone(found: Found) -> Table:
    table = _table("The encoder alone", "what", "batch", "a second", "CPU ms each")
    rows: list[tuple[str, str, Rate]] = [("decoding alone", "", found.alone.decoding)]
    best = next(iter(found.alone.images))
    rows.append(("encoding decoded images", str(best), found.alone.encoding))
    for what, rates in (("images, decoded ahead", found.alone.images), ("texts", found.alone.texts)):
        rows.extend((what, str(batch), rate) for batch, rate in sorted(rates.items()))
    for what, batch, rate in rows:
        table.add_row(what, batch, f"{rate.per_second:,.1f}", f"{rate.cpu_milliseconds:.2f}")
    return table


def _served(found: ServiceFigures) -> Table:
    table = _table(
        "Embedding over HTTP",
        "what",
        "clients",
        "a second",
        "corrected",
        "ratio",
        "CPU ms each",
        "ratio of CPU",
        "p50 ms",
        "p99 ms",
    )
    for row in found.embedded:
        table.add_row(
            row.what,
            str(row.clients),
            f"{row.per_second:,.1f}",
            f"{row.corrected_per_second:,.1f}",
            _ratio(row.ratio),
            f"{row.cpu_milliseconds:.2f}",
            _ratio(row.cpu_ratio),
            f"{row.p50_milliseconds:,.1f}",
            f"{row.p99_milliseconds:,.1f}",
        )
    return table


def _rebuilt(found: ServiceFigures) -> Table:
    rebuilt = found.rebuilding.rebuilt
    table = _table(
        f"Rebuild of {rebuilt.rate.items:,} images and {rebuilt.texts:,} texts",
        "what",
        "images a second",
        "CPU ms each",
        "rebuild's rate to it",
        "by CPU",
    )
    for what, rate in (
        ("rebuild", rebuilt.rate),
        ("decoding alone", found.rebuilding.decoding),
        ("the encoder alone, decoded ahead", found.rebuilding.embedding),
    ):
        table.add_row(
            what,
            f"{rate.per_second:,.1f}",
            f"{rate.cpu_milliseconds:.2f}",
            _ratio(rebuilt.rate.per_second / rate.per_second),
            _ratio(rate.cpu_milliseconds / rebuilt.rate.cpu_milliseconds),
        )
    return table


def _searched(found: ServiceFigures) -> Table:
    table = _table("Search", "what", "clients", "a second", "corrected", "CPU ms each", "p50 ms", "p99 ms")
    for row in found.searches:
        table.add_row(
            row.what,
            str(row.clients),
            f"{row.per_second:,.0f}",
            f"{row.corrected_per_second:,.0f}",
            f"{row.cpu_milliseconds:.2f}",
            f"{row.p50_milliseconds:,.1f}",
            f"{row.p99_milliseconds:,.1f}",
        )
    table.add_row(
        "faiss alone",
        "",
        f"{found.search_alone.rate.per_second:,.0f}",
        "",
        f"{found.search_alone.rate.cpu_milliseconds:.3f}",
        f"{found.search_alone.p50_milliseconds:.3f}",
        f"{found.search_alone.p99_milliseconds:.3f}",
    )
    return table


def _million(found: Million) -> Table:
    table = _table(
        f"Exact search over {found.vectors:,} vectors of {found.dim} dimensions, one client, over HTTP",
        "what",
        "p50 ms",
        "to faiss alone",
        "CPU ms",
        "to faiss alone",
    )
    for threads, (p50, cpu) in found.alone.items():
        table.add_row(f"faiss alone, 10 results, {threads} threads", f"{p50:,.1f}", "", f"{cpu:,.1f}", "")
    for row in found.rows:
        p50, cpu = row.p50_milliseconds, row.cpu_milliseconds
        table.add_row(row.what, f"{p50:,.1f}", _ratio(row.ratio), f"{cpu:,.1f}", _ratio(row.cpu_ratio))
    table.add_row(
        f"peak MiB, of them {found.vectors_mebibytes:,.0f} vectors", f"{found.service_peak_mebibytes:,.0f}", ""
    )
    return table


def _memory(found: ServiceFigures) -> Table:
    table = _table("Peak memory", "what", "MiB")
    table.add_row("service", f"{found.service_peak_mebibytes:,.0f}")
    table.add_row("rebuild", f"{found.rebuilding.rebuilt.peak_memory_mebibytes:,.0f}")
    return table


def _evaluated(embedded: Sequence[Embedded]) -> Table:
    table = _table(
        "Evaluation, embedding images and captions",
        "what",
        "a\nsecond",  # broken by hand: Rich would shorten words before it breaks lines
        "CPU ms\neach",
        "decode\nalone",
        "to\nencoder",
        "by\nCPU",
        "to\nahead",
        "by\nCPU",
        "to\nparts",
        "by\nCPU",
    )
    for row in embedded:
        table.add_row(
            row.what,
            f"{row.rate.per_second:,.1f}",
            f"{row.rate.cpu_milliseconds:.2f}",
            "" if row.decoding is None else f"{row.decoding.per_second:,.1f}",
            _ratio(row.to_encoder),
            _ratio(row.to_encoder_by_cpu),
            _ratio(row.to_decoded_ahead),
            _ratio(row.to_decoded_ahead_by_cpu),
            _ratio(row.to_parts),
            _ratio(row.to_parts_by_cpu),
        )
    return table


def _ranked(found: Ranking) -> Table:
    task = found.task
    table = _table(
        f"Evaluation, ranking {task.captions:,} captions and {task.images:,} images, both ways",
        "what",
        "seconds",
        "CPU seconds",
        "peak MiB",
        "above the start",
    )
    start = found.resident_before_mebibytes
    table.add_row("at the start, all modules loaded", "", "", f"{start:,.0f}", "")
    table.add_row("  of it the vectors", "", "", f"{found.vectors_mebibytes:,.0f}", "")
    for what, wall, cpu, peak in (
        ("ranks", found.rank_seconds, f"{found.rank_cpu_seconds:,.1f}", found.peak_ranked_mebibytes),
        ("figures and intervals", found.figures_seconds, "", found.peak_mebibytes),
    ):
        table.add_row(what, f"{wall:,.1f}", cpu, f"{peak:,.0f}", f"{peak - start:,.0f}")
    table.add_row("all similarities at once would take", "", "", "", f"{found.full_matrix_mebibytes:,.0f}")
    for direction, share in found.recall_at_10.items():
        table.add_row(f"recall@10 {direction.replace('_', ' ')}: {share:.1%}")
    return table


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
