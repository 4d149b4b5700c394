"""That keys are told to nobody: not to who reads logs, answers, metrics or traces."""

import json

import httpx
from live_service import image_file, spawned, until_it_serves
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from test_keys import QUERY, bearer
from test_tracing import attributes, collector

from service.access.keys import create_key
from service.access.passes import COOKIE


def test_no_key_is_ever_printed_answered_or_traced(releases, tmp_path):
    """Everything the process says, answers and sends, with every level of the log on."""
    keys_file = tmp_path / "keys.json"
    good = create_key(keys_file, "shop", scopes=("read",))
    wrong = good[:-4] + "zzzz"
    heads = [bearer(good), bearer(wrong), {"x-api-key": good}, {"x-api-key": wrong}]
    heads += [{"authorization": good}, {"authorization": f"Basic {wrong}"}, {"cookie": f"{COOKIE}=1.{good}.2"}]
    variables = {
        "TWINLENS_KEYS_FILE": str(keys_file),
        "TWINLENS_LOG_LEVEL": "debug",
        "TWINLENS_ACCESS_LOG": "true",
        "TWINLENS_RELEASES": str(releases),
    }
    answered = []
    with (
        collector() as (traces, taken),
        spawned("--port", "0", "--device", "cpu", TWINLENS_TRACES_ENDPOINT=traces, **variables) as process,
    ):
        url, printed = until_it_serves(process)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            for head in heads:
                for method, path, options in [
                    ("POST", "/search/text", {"json": QUERY}),
                    ("POST", "/search/text", {"content": b"{"}),
                    ("POST", "/embed/image", {"content": image_file(1)}),
                    ("POST", "/images/pass", {}),
                    ("POST", "/release/reload", {}),
                    ("GET", "/images/nope", {}),
                    ("GET", "/metrics", {}),
                    ("GET", "/release", {}),
                    ("GET", "/nope", {}),
                ]:
                    answer = client.request(method, path, headers=head, **options)
                    answered.append(answer.text + repr(answer.headers.multi_items()))
        process.terminate()
        printed += process.stderr.readlines()
    traced = "".join(span.SerializeToString().decode("latin-1") for span in taken.spans)
    told = "".join(printed + answered) + traced
    assert '"caller": "shop"' in told  # the name is there, for whoever reads the log
    assert '"cause": "wrong_key"' in told
    requests = [attributes(span) for span in taken.spans if span.kind == Span.SPAN_KIND_SERVER]
    assert {"wrong_key", "missing_key", "missing_scope"} <= {request.get("error.type") for request in requests}
    assert len(requests) >= len(heads) * 8  # all but those for metrics
    for secret in (good, wrong, json.loads(keys_file.read_text())["keys"][0]["sha256"]):
        assert secret not in told
