"""Metrics and request timings.

Every application has its own registry: nothing here is global, so several can live in one process. Labels come
from small fixed sets (route templates, error codes, names of parts): no caller can add one.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

STAGES = ("queue", "decode", "inference", "search", "total")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
ROUTES_TIMED_APART = ("/metrics", "/healthz", "/readyz")  # probes, which would flatter the percentiles
Reading = Callable[[], float]


class Spans(dict[str, tuple[float, float]]):
    """By stage: when it first began and last ended, in time.perf_counter() seconds."""

    def note(self, stage: str, began: float, ended: float) -> None:
        """Work on `stage`; several spans of one become the span around them."""
        first, last = self.get(stage, (began, ended))
        self[stage] = (min(first, began), max(last, ended))


@dataclass(slots=True)
class Timings:
    """Seconds one request spent in each stage; of several items the slowest counts."""

    started: float = field(default_factory=time.perf_counter)
    queue: float = 0.0
    decode: float = 0.0
    inference: float = 0.0
    search: float = 0.0
    spans: Spans = field(default_factory=Spans)

    @property
    def total(self) -> float:
        return time.perf_counter() - self.started

    def header(self) -> str:
        """The value of `server-timing`, in milliseconds."""
        return ", ".join(f"{stage};dur={getattr(self, stage) * 1e3:.2f}" for stage in STAGES)


class Telemetry:
    """The metrics of one application. What only some parts have (a cache, CUDA) appears when they say so."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._of_requests()
        self._of_items()
        self._of_parts()
        self._of_releases()

    def _of_requests(self) -> None:
        self._requests = self._counter(
            "twinlens_requests",
            "Answered requests by route, status and error code (empty when it succeeded)",
            "route",
            "status",
            "cause",
        )
        self._request_seconds = self._histogram(
            "twinlens_request_seconds", "Seconds from a request's first byte to its answer", "route"
        )
        self._stages = self._histogram(
            "twinlens_stage_seconds", "Seconds a request spent in each stage, probes left out", "stage"
        )
        self._stage_of = {stage: self._stages.labels(stage) for stage in STAGES}

    def _of_items(self) -> None:
        self._batches = self._histogram(
            "twinlens_batch_items", "Items in one device batch", "kind", buckets=_BATCHES
        )
        self._batch_seconds = self._histogram("twinlens_batch_seconds", "Seconds of one device batch", "kind")
        self._items = self._counter(
            "twinlens_items", "Items by kind and outcome: ok, or the error code", "kind", "outcome"
        )
        self._admissions = self._counter(
            "twinlens_admissions",
            "Items (searches: requests) by queue and whether it took them: admitted, or the error code",
            "kind",
            "outcome",
        )
        self._depth = self._gauge("twinlens_pending_items", "Items admitted and not yet answered", "kind")
        self._limit = self._gauge("twinlens_queue_limit_items", "Most items a queue admits", "kind")
        self._oldest = self._gauge(
            "twinlens_queue_oldest_seconds", "Age of the item that has waited longest; 0: none waits", "kind"
        )
        self._cache = self._counter(
            "twinlens_cache_lookups", "Lookups in the embedding cache by outcome: hit, miss", "outcome"
        )

    def _of_parts(self) -> None:
        self._decoder_starts = self._counter("twinlens_decoder_starts", "Decoding processes started")
        self._decoder_ends = self._counter(
            "twinlens_decoder_ends",
            "Decoding processes that ended, by cause: crashed, too_slow, killed, stalled, idle, retired",
            "cause",
        )
        self._turned_away = self._counter(
            "twinlens_connections_turned_away",
            "Connections refused or closed by cause: headers_too_slow, headers_too_large, invalid_http, "
            "answer_untaken, made_room, too_many_connections",
            "cause",
        )

    def _of_releases(self) -> None:
        self._reloads = self._counter("twinlens_reloads", "Reloads of the release by outcome", "outcome")
        self._refusals = self._counter(
            "twinlens_release_refusals", "Releases that were not taken into service, by reason", "reason"
        )
        self._release = Info("twinlens_release", "What is served", registry=self.registry)
        self._created = self._gauge(
            "twinlens_release_created_timestamp_seconds", "When the release that is served was built"
        )
        self._loaded = self._gauge(
            "twinlens_release_loaded_timestamp_seconds", "When the release that is served was loaded"
        )
        self._release_items = self._gauge("twinlens_release_items", "What the release holds", "kind")

    def request(self, route: str, status: int, *, cause: str, timings: Timings) -> None:
        self._requests.labels(route, str(status), cause).inc()
        self._request_seconds.labels(route).observe(timings.total)
        if route in ROUTES_TIMED_APART:
            return
        for stage in STAGES:
            seconds = getattr(timings, stage)
            if seconds > 0:
                self._stage_of[stage].observe(seconds)

    def batch(self, kind: str, size: int, *, seconds: float) -> None:
        self._batches.labels(kind).observe(size)
        self._batch_seconds.labels(kind).observe(seconds)

    def item(self, kind: str, outcome: str) -> None:
        self._items.labels(kind, outcome).inc()

    def admission(self, kind: str, outcome: str, *, size: int = 1) -> None:
        """`size` items that queue `kind` admitted ("admitted") or refused (an error code)."""
        self._admissions.labels(kind, outcome).inc(size)

    def cache(self, outcome: str, *, count: int) -> None:
        """So many lookups in the embedding cache: "hit" or "miss"."""
        self._cache.labels(outcome).inc(count)

    def decoder_started(self) -> None:
        self._decoder_starts.inc()

    def decoder_ended(self, cause: str) -> None:
        self._decoder_ends.labels(cause).inc()

    def turned_away(self, cause: str) -> None:
        """A connection that was refused, or closed for what it did or did not do."""
        self._turned_away.labels(cause).inc()

    def reload(self, outcome: str, *, count: int = 1) -> None:
        self._reloads.labels(outcome).inc(count)

    def refusal(self, reason: str, *, count: int = 1) -> None:
        """A release that was not taken into service; `reason` is one of a few words, not the whole story.

        A `count` of 0 makes it known, so that the first one is a rise from 0.
        """
        self._refusals.labels(reason).inc(count)

    def serving(
        self,
        *,
        release: str,
        model: str,
        fingerprint: str,
        created: float,
        loaded: float,
        counts: Mapping[str, int],
    ) -> None:
        """What is served from now on; `created` and `loaded` are seconds since the epoch."""
        self._release.info({"release": release, "model": model, "model_fingerprint": fingerprint})
        self._created.set(created)
        self._loaded.set(loaded)
        for kind, count in counts.items():
            self._release_items.labels(kind).set(count)

    def watch_queue(
        self, kind: str, *, depth: Reading, limit: int, oldest_seconds: Reading | None = None
    ) -> None:
        """A queue by its name: how many it holds and may hold, and how long its oldest item has waited."""
        self._depth.labels(kind).set_function(depth)
        self._limit.labels(kind).set(limit)
        if oldest_seconds is not None:
            self._oldest.labels(kind).set_function(oldest_seconds)

    def watch_cache(self, *, size_bytes: Reading, limit_bytes: int, entries: Reading) -> None:
        """The embedding cache, where there is one."""
        self._gauge("twinlens_cache_bytes", "Bytes the embedding cache holds").set_function(size_bytes)
        self._gauge("twinlens_cache_limit_bytes", "Most bytes the embedding cache holds").set(limit_bytes)
        self._gauge("twinlens_cache_entries", "Embeddings in the cache").set_function(entries)

    def watch(self, name: str, words: str, reading: Reading) -> None:
        """A gauge of its own: `twinlens_<name>`, read whenever metrics are."""
        self._gauge(f"twinlens_{name}", words).set_function(reading)

    def collect(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        """Whole families, computed whenever metrics are read; their names are this application's."""
        self.registry.register(_Computed(metrics))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(name, words, labels, registry=self.registry)

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(name, words, labels, registry=self.registry)

    def _histogram(
        self, name: str, words: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
    ) -> Histogram:
        return Histogram(name, words, labels, buckets=buckets, registry=self.registry)


class _Computed(Collector):
    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics()

    def describe(self) -> Iterable[Metric]:
        """Nothing ahead of time: what it takes to compute them may not be there yet."""
        return ()
