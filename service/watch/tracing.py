"""OpenTelemetry traces over OTLP/HTTP, where the settings name a collector; otherwise this is never imported.

A request only leaves a note when it is answered. One thread of this module turns notes into spans, with the
times that were measured; it imports OpenTelemetry when the first note comes, so that neither the start nor a
request waits for it. What cannot be kept or sent is dropped: no collector that is slow or dead costs a request
anything.

Spans tell the route's template, status, error code and request id; never a path, a text, an image or a key.
The SDK reads its own standard variables besides (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and _TIMEOUT, OTEL_BSP_*): they are no settings of ours. Knows
nothing of HTTP servers.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

logger = logging.getLogger(__name__)
MAX_NOTES = 4096  # that wait to become spans
SERVICE_NAME = "twinlens"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Note:
    """An answered request. Times are time.perf_counter() seconds; `spans` by stage: when it began and ended.

    `parent` holds the W3C headers traceparent and tracestate, as far as the caller sent them.
    """

    method: str
    route: str
    status: int
    cause: str
    request_id: str
    began: float
    spans: Mapping[str, tuple[float, float]]
    parent: Mapping[str, str]
    ended: float = field(default_factory=time.perf_counter)


class Traces:
    """Takes notes on the event loop, sends spans from its own threads."""

    def __init__(self, endpoint: str) -> None:
        """`endpoint` is the whole address of the collector, as http://collector:4318/v1/traces."""
        self._endpoint = endpoint
        self._notes: queue.Queue[Note | None] = queue.Queue(MAX_NOTES)
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def note(
        self,
        method: str,
        route: str,
        *,
        status: int,
        cause: str,
        request_id: str,
        began: float,
        spans: Mapping[str, tuple[float, float]],
        parent: Mapping[str, str],
    ) -> None:
        """An answered request. Never waits and never raises; with too many notes waiting, this one is lost."""
        note = Note(method, route, status, cause, request_id, began, spans, parent)
        with contextlib.suppress(queue.Full):
            self._notes.put_nowait(note)

    def stop(self, *, timeout_seconds: float) -> None:
        """Send what there is, within the time; blocks."""
        try:
            self._notes.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        note = self._notes.get()
        if note is None:
            return
        try:
            provider = _provider(self._endpoint)
        except Exception:  # whatever is wrong with the packages or their variables, requests go on
            logger.exception("no traces: OpenTelemetry cannot be set up")
            return
        tracer = provider.get_tracer(SERVICE_NAME)
        while note is not None:
            try:
                _record(tracer, note)
            except Exception:  # one note must not take the following ones with it
                logger.exception("a trace could not be recorded")
            note = self._notes.get()
        provider.shutdown()


def _provider(endpoint: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME as NAME
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # Of the variables' attributes and ours, theirs win.
    resource = Resource({NAME: SERVICE_NAME}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


def _record(tracer: "Tracer", note: Note) -> None:
    """A span for the request, and below it one for each stage, with the times that were measured."""
    from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    epoch = time.time_ns() - time.perf_counter_ns()

    def at(moment: float) -> int:
        return epoch + int(moment * 1e9)

    method = note.method if note.method in _METHODS else "_OTHER"
    attributes: dict[str, Any] = {
        "http.request.method": method,
        "http.route": note.route,
        "http.response.status_code": note.status,
        "twinlens.request_id": note.request_id,
    }
    if note.cause:
        attributes["error.type"] = note.cause
    span = tracer.start_span(
        f"{method} {note.route}",
        context=TraceContextTextMapPropagator().extract(note.parent),
        kind=SpanKind.SERVER,
        attributes=attributes,
        start_time=at(note.began),
    )
    if note.status >= _SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR, note.cause))
    below = set_span_in_context(span)
    for stage, (began, ended) in sorted(note.spans.items(), key=lambda entry: entry[1]):
        tracer.start_span(stage, context=below, start_time=at(began)).end(at(ended))
    span.end(at(note.ended))
