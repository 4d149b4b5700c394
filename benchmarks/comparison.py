"""Loads set against the encoder alone: rates, ratios, latencies. Arithmetic only; measures nothing."""

import math
from dataclasses import dataclass
from statistics import median

from benchmarks.encoder import Rate
from benchmarks.load import Load


@dataclass(frozen=True)
class Served:
    """What a number of clients got. Ratios are to the encoder alone in the same round; 1.0 is no loss."""

    what: str
    clients: int
    per_second: float
    corrected_per_second: float
    ratio: float | None
    cpu_ratio: float | None
    cpu_milliseconds: float
    p50_milliseconds: float
    p99_milliseconds: float


def corrected_rate(load: Load, *, items: int, cores: int) -> float:
    """Items a second, had the load generator run on another machine.

    In T seconds `cores` cores give cores · T CPU seconds. The generator took G of them, so the service could
    have at most cores · T − G, which is what all cores give in T − G / cores seconds: its rate is items
    divided by that. Where cores were idle this takes out too little rather than too much.
    """
    return items * load.answers / (load.wall_seconds * (1.0 - load.generator_cpu / cores))


def compare(
    what: str, loads: list[Load], alone: list[Rate] | None, *, clients: int, items: int, cores: int
) -> Served:
    """Rounds of one load, each with the encoder alone just before it; `items` in a request.

    Ratios are the median over rounds, so that other work on the machine spoils a round, not the result.
    """
    corrected = [corrected_rate(load, items=items, cores=cores) for load in loads]
    cpu = [load.server_cpu * load.wall_seconds / (items * load.answers) * 1e3 for load in loads]
    latencies = sorted(latency for load in loads for latency in load.latencies_seconds)
    return Served(
        what=what,
        clients=clients,
        per_second=sum(items * load.answers for load in loads) / sum(load.wall_seconds for load in loads),
        corrected_per_second=median(corrected),
        ratio=median(rate / own.per_second for rate, own in zip(corrected, alone, strict=True))
        if alone
        else None,
        cpu_ratio=median(own.cpu_milliseconds / spent for spent, own in zip(cpu, alone, strict=True))
        if alone
        else None,
        cpu_milliseconds=median(cpu),
        p50_milliseconds=quantile(latencies, 0.5) * 1e3,
        p99_milliseconds=quantile(latencies, 0.99) * 1e3,
    )


def quantile(ordered: list[float], share: float) -> float:
    """The least value that at least `share` of the sorted values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
