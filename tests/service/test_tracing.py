"""Traces reach an OTLP collector with what they should tell and nothing else; without one they cost nothing."""

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from live_service import image_file, running, wait_until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service.errors import SettingsError
from service.settings import Settings

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
PNG = {"content-type": "image/png"}


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes OTLP over HTTP as protobuf, on loopback."""

    spans: list[Span]
    services: set[str]

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(names["service.name"])
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        answer = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def collector() -> Iterator[tuple[str, type[Collector]]]:
    handler = type("Handler", (Collector,), {"spans": [], "services": set()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(span: Span) -> dict[str, object]:
    return {a.key: a.value.int_value or a.value.string_value for a in span.attributes}


def test_a_request_becomes_a_span_with_its_stages_below_and_goes_on_with_the_callers_trace(
    releases, settings_for, monkeypatch
):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collector() as (url, taken):
        with running(settings_for(releases, traces_endpoint=f"{url}/v1/traces")) as service:
            headers = {
                "traceparent": f"00-{TRACE}-{PARENT}-01",
                "x-request-id": "mine-1",
                "authorization": "Bearer tl_sesame",
            }
            answer = service.client.post("/search/image?k=3", content=image_file(1), headers=headers | PNG)
            assert answer.status_code == 200
            service.client.post("/search/text", json={"query": "an umbrella of my own"})
            service.client.get("/items/a%20private%20name")
            service.client.get("/healthz")
            wait_until(lambda: len([s for s in taken.spans if s.kind == Span.SPAN_KIND_SERVER]) >= 3)
        spans = list(taken.spans)
    requests = {span.name: span for span in spans if span.kind == Span.SPAN_KIND_SERVER}
    assert set(requests) == {"POST /search/image", "POST /search/text", "GET /items/{item_id:id}"}
    by_image = requests["POST /search/image"]
    assert (by_image.trace_id.hex(), by_image.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(by_image) == {
        "http.request.method": "POST",
        "http.route": "/search/image",
        "http.response.status_code": 200,
        "twinlens.request_id": "mine-1",
    }
    below = [span for span in spans if span.parent_span_id == by_image.span_id]
    assert {span.name for span in below} == {"decode", "queue", "inference", "search"}
    for span in below:
        assert span.trace_id == by_image.trace_id
        assert by_image.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= by_image.end_time_unix_nano
    order = sorted(below, key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in order] == ["decode", "queue", "inference", "search"]
    assert abs(by_image.start_time_unix_nano - time.time_ns()) < 600e9
    assert requests["POST /search/text"].trace_id != by_image.trace_id
    missing = attributes(requests["GET /items/{item_id:id}"])
    assert (missing["http.response.status_code"], missing["error.type"]) == (404, "unknown_item")
    assert taken.services == {"twinlens"}
    told = b"".join(span.SerializeToString() for span in spans)
    for secret in (b"umbrella", b"private", b"sesame"):
        assert secret not in told


def test_a_dead_collector_hurts_no_request_nor_the_stop(releases, settings_for, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with running(settings_for(releases, traces_endpoint="http://127.0.0.1:9/v1/traces")) as service:
        for _ in range(30):
            assert service.client.post("/embed/text", json={"texts": "a dog"}).status_code == 200
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 15


def test_without_a_collector_nothing_of_opentelemetry_is_imported(releases):
    program = (
        "import sys; from service.app import create_app; from service.settings import Settings; "
        f"create_app(Settings.from_environment(releases={str(releases)!r}, device='cpu')); "
        "parts = ('opentelemetry.sdk', 'opentelemetry.exporter', 'service.watch.tracing'); "
        "print([name for name in sys.modules if name.startswith(parts)])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/base/"}, "http://c:4318/base/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/x"},
            "https://t/x",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "TWINLENS_TRACES_ENDPOINT": "http://mine/t"},
            "http://mine/t",
        ),
    ],
)
def test_the_collectors_address_is_read_as_opentelemetry_says(variables, endpoint, monkeypatch, tmp_path):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment(releases=tmp_path).traces_endpoint == endpoint


def test_an_address_that_is_none_is_refused_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
    with pytest.raises(SettingsError, match=r"traces_endpoint.*collector:4317"):
        Settings.from_environment(releases=tmp_path)
