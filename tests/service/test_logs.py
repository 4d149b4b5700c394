"""Log lines: one JSON object each, whoever logs and whatever is logged, with no secret in them."""

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import httpx
from live_service import image_file, spawned, until_it_serves

from service.watch.logs import JsonLines

FORGED = "GET /a%0a%7b%22level%22:%22forged%22%7d"
WORD = "something-that-no-log-tells"


def test_every_line_of_a_real_process_is_one_json_object_without_secrets(releases):
    variables = {"TWINLENS_RELEASES": str(releases), "TWINLENS_NO_SUCH": WORD}
    with spawned("--port", "0", "--device", "cpu", "--access-log", **variables) as process:
        url, lines = until_it_serves(process)
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            headers = {"x-request-id": "mine-7", "authorization": f"Bearer {WORD}", "x-api-key": WORD}
            client.post("/search/text", json={"query": WORD}, headers=headers)
            client.post("/embed/image", content=image_file(1), headers={"content-type": "image/png"})
            client.post("/embed/text", content=f"{{{WORD}", headers={"content-type": "application/json"})
        host, port = url.removeprefix("http://").split(":")
        for request in (f"{FORGED} HTTP/1.1\r\nhost: x\r\nconnection: close", "no HTTP at all"):
            with socket.create_connection((host, int(port)), timeout=30) as raw:
                raw.sendall(f"{request}\r\n\r\n".encode())
                while raw.recv(4096):
                    pass
        process.terminate()
        lines += process.stderr.readlines()
        assert process.wait(30) == 0
    told = [json.loads(line) for line in lines]
    for line in told:
        assert {"time", "level", "logger", "message"} <= set(line)
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
    requests = {line["path"]: line for line in told if line["logger"] == "service.access"}
    assert requests["/search/text"]["request_id"] == "mine-7"
    assert requests["/search/text"]["status"] == 200
    assert requests["/embed/text"]["cause"] == "invalid_json"
    assert any("forged" in path for path in requests)  # as a path, and as no line of its own
    assert any("TWINLENS_NO_SUCH is no setting" in line["message"] for line in told)
    assert any(line["logger"].startswith("uvicorn") and line["level"] == "warning" for line in told)
    assert WORD not in "".join(lines)


def test_warnings_and_what_nobody_caught_are_json_lines_too():
    program = (
        "import threading, warnings; from service.watch.logs import log_as_json; log_as_json('info'); "
        "warnings.warn('two\\nlines'); "
        "thread = threading.Thread(target=lambda: 1 / 0, name='device'); thread.start(); thread.join(); "
        "type('Gone', (), {'__del__': lambda self: {}['x']})(); "
        "raise RuntimeError('the\\nend')"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    warning, thread, gone, end = (json.loads(line) for line in result.stderr.splitlines())
    assert (warning["level"], warning["logger"]) == ("warning", "py.warnings")
    assert "two\nlines" in warning["message"]
    assert "thread device ends: ZeroDivisionError" in thread["message"]
    assert "ZeroDivisionError" in thread["traceback"]
    assert "KeyError" in gone["message"]
    assert "<lambda>" in gone["traceback"]
    assert "the process ends: RuntimeError" in end["message"]


def test_no_record_breaks_its_line_or_hides_what_every_line_has():
    formatted = JsonLines().format
    odd = logging.LogRecord("a", logging.INFO, "f.py", 1, "%s and %s \u2028 \ud800", ("one",), None)
    odd.fields = {"level": "forged", "path": Path("/x")}
    line = formatted(odd)
    assert line.isascii()
    assert "\n" not in line
    told = json.loads(line)
    assert (told["level"], told["path"]) == ("info", "/x")
