"""`python -m service` as it is run: one line when it cannot start, and a stop that loses nothing."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from live_service import image_file, spawned, until_it_serves, wait_until

from service.errors import SettingsError
from service.settings import Settings


def test_sigterm_finishes_what_is_in_flight_and_exits_with_0(releases):
    with spawned("--port", "0", "--device", "cpu", TWINLENS_RELEASES=str(releases)) as process:
        url, _ = until_it_serves(process)
        may_end = threading.Event()

        def slow_upload() -> Iterator[bytes]:
            yield image_file(1)[:100]
            assert may_end.wait(60)
            yield image_file(1)[100:]

        def embed() -> httpx.Response:
            headers = {"content-type": "image/png"}
            return httpx.post(
                f"{url}/embed/image", content=slow_upload(), headers=headers, timeout=60, trust_env=False
            )

        with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
            answer = pool.submit(embed)
            try:
                wait_until(lambda: "requests_in_flight 2.0" in client.get("/metrics").text)
                process.send_signal(signal.SIGTERM)
                wait_until(lambda: client.get("/readyz").status_code == 503)
                assert client.post("/embed/text", json={"texts": "a"}).status_code == 503
            finally:
                may_end.set()
            assert answer.result().status_code == 200
        assert process.wait(30) == 0


def test_a_start_that_is_refused_says_why_in_one_line(tmp_path):
    with spawned("--releases", str(tmp_path)) as process:
        words = process.stderr.read()
        assert process.wait(60) == 1
        assert words == f"cannot start: no release in {tmp_path} yet: run `python -m index rebuild` first\n"


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "releases is not set: give --releases or TWINLENS_RELEASES"),
        ({"TWINLENS_RELEASES": "r", "TWINLENS_PORT": "http"}, r"port \(TWINLENS_PORT\) = 'http'"),
        ({"TWINLENS_RELEASES": "r", "TWINLENS_MAX_IMAGES": "999"}, "max_images=999 exceeds image_queue=256"),
        ({"TWINLENS_RELEASES": "r", "TWINLENS_PRECISION": "fp8"}, "fp32.*bf16"),
    ],
)
def test_a_wrong_setting_is_named_with_its_variable(monkeypatch, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment()


def test_options_win_over_variables_and_unknown_variables_are_warned_of(monkeypatch, caplog):
    monkeypatch.setenv("TWINLENS_RELEASES", "here")
    monkeypatch.setenv("TWINLENS_PORT", "1234")
    monkeypatch.setenv("TWINLENS_PROT", "5")
    settings = Settings.from_environment(port=80, host=None)
    assert (settings.releases, settings.port, settings.host) == (Path("here"), 80, "127.0.0.1")
    assert "TWINLENS_PROT is no setting" in caplog.text
