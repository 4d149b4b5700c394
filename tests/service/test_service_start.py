"""`python -m service` while it starts and while it ends: signals that come too soon or too late, low limits."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_service import ROOT, HeldFile, publish, spawned, until_it_serves, wait_until
from processes import children_of, is_running


@pytest.fixture
def folder(tmp_path: Path, releases: Path) -> Path:
    """A folder of releases that may be changed."""
    return shutil.copytree(releases, tmp_path / "releases")


def current(folder: Path) -> Path:
    return folder / (folder / "CURRENT").read_text().strip()


def start(folder: Path, **variables: str):
    return spawned("--port", "0", "--device", "cpu", TWINLENS_RELEASES=str(folder), **variables)


def test_sighup_ends_nothing_even_before_other_packages_are_imported(tmp_path):
    (tmp_path / "typer.py").write_text(
        "import os, signal; os.kill(os.getpid(), signal.SIGHUP); raise SystemExit(7)"
    )
    command = [sys.executable, "-m", "service"]
    ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False)
    assert ended.returncode == 7


def test_a_reload_that_is_asked_for_during_the_start_is_done(folder, gallery, tiny_bundle):
    first = current(folder)
    second = publish(folder, gallery, tiny_bundle)
    (folder / "CURRENT").write_text(first.name)
    with HeldFile(first / "manifest.json") as held, start(folder, TWINLENS_WATCH_SECONDS="0") as process:
        held.wait_for_reader()
        (folder / "CURRENT").write_text(second)
        process.send_signal(signal.SIGHUP)
        held.go_on()
        url, _ = until_it_serves(process)
        wait_until(lambda: httpx.get(f"{url}/release", trust_env=False).json()["release"] == second)


def test_a_stop_while_the_release_loads_ends_it_at_once(folder):
    with HeldFile(current(folder) / "manifest.json") as held, start(folder) as process:
        held.wait_for_reader()
        decoders = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "stopped by SIGTERM" in process.stderr.read()
        wait_until(lambda: not any(map(is_running, decoders)))


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Processes that were stopped, and cannot end by themselves."""
    found: list[int] = []
    yield found
    for process_id in found:
        os.kill(process_id, signal.SIGKILL)


def test_a_stop_while_the_service_is_warmed_ends_it_at_once(folder, stopped):
    with HeldFile(current(folder) / "manifest.json") as held, start(folder) as process:
        held.wait_for_reader()
        wait_until(lambda: children_of(process.pid))
        stopped += children_of(process.pid)
        for process_id in stopped:
            os.kill(process_id, signal.SIGSTOP)  # the start waits for a decoder, for a minute
        held.go_on()
        assert any("Waiting for application startup" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_sighup_while_the_service_ends_changes_nothing(folder):
    with start(folder) as process:
        until_it_serves(process)
        process.send_signal(signal.SIGTERM)
        while process.poll() is None:
            process.send_signal(signal.SIGHUP)
        assert process.returncode == 0
