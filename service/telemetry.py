"""Metrics, request timings and log lines.

Every application has its own registry: nothing here is global, so several can live in one process.
Knows nothing of what the numbers are about.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

STAGES = ("queue", "decode", "inference", "search", "total")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(slots=True)
class Timings:
    """Seconds one request spent in each stage; of several items the slowest counts."""

    started: float = field(default_factory=time.perf_counter)
    queue: float = 0.0
    decode: float = 0.0
    inference: float = 0.0
    search: float = 0.0

    @property
    def total(self) -> float:
        return time.perf_counter() - self.started

    def header(self) -> str:
        """The value of `server-timing`, in milliseconds."""
        return ", ".join(f"{stage};dur={getattr(self, stage) * 1e3:.2f}" for stage in STAGES)


class Telemetry:
    """The metrics of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "twinlens_requests",
            "Answered requests by route, status and error code (empty when it succeeded)",
            ("route", "status", "cause"),
            registry=self.registry,
        )
        self._stages = Histogram(
            "twinlens_stage_seconds",
            "Seconds a request spent in each stage",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stage_of = {stage: self._stages.labels(stage) for stage in STAGES}
        self._batches = Histogram(
            "twinlens_batch_items",
            "Items in one device batch",
            ("kind",),
            buckets=_BATCHES,
            registry=self.registry,
        )
        self._batch_seconds = Histogram(
            "twinlens_batch_seconds",
            "Seconds of one device batch",
            ("kind",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._depth = Gauge(
            "twinlens_pending_items", "Items admitted and not yet answered", ("kind",), registry=self.registry
        )
        self._items = Counter(
            "twinlens_items", "Items by kind and outcome", ("kind", "outcome"), registry=self.registry
        )
        self._reloads = Counter(
            "twinlens_reloads", "Reloads of the release by outcome", ("outcome",), registry=self.registry
        )
        self._release = Info("twinlens_release", "What is served", registry=self.registry)
        self._in_flight = Gauge(
            "twinlens_requests_in_flight",
            "Requests not yet answered, this one included",
            registry=self.registry,
        )
        self._ready = Gauge("twinlens_ready", "1 when /readyz is 200", registry=self.registry)

    def request(self, route: str, status: int, *, cause: str, timings: Timings) -> None:
        self._requests.labels(route, str(status), cause).inc()
        for stage in STAGES:
            seconds = getattr(timings, stage)
            if seconds > 0:
                self._stage_of[stage].observe(seconds)

    def batch(self, kind: str, size: int, *, seconds: float) -> None:
        self._batches.labels(kind).observe(size)
        self._batch_seconds.labels(kind).observe(seconds)

    def item(self, kind: str, outcome: str) -> None:
        self._items.labels(kind, outcome).inc()

    def reload(self, outcome: str) -> None:
        self._reloads.labels(outcome).inc()

    def serving(self, *, release: str, model: str, fingerprint: str) -> None:
        self._release.info({"release": release, "model": model, "model_fingerprint": fingerprint})

    def watch_depth(self, kind: str, depth: Callable[[], float]) -> None:
        self._depth.labels(kind).set_function(depth)

    def watch_in_flight(self, in_flight: Callable[[], float]) -> None:
        self._in_flight.set_function(in_flight)

    def watch_ready(self, ready: Callable[[], float]) -> None:
        self._ready.set_function(ready)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class JsonLines(logging.Formatter):
    """One JSON object a log line: when, level, logger, message, and what `extra={"fields": …}` adds."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_as_json(level: str) -> None:
    """Send every log line of the process to standard error as JSON; only the command calls this."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
