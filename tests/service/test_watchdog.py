"""A process that cannot serve any more says why and ends, whatever of it is stuck."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

LIMIT_SECONDS = 5.0
# The real command's server, with a way to get stuck: the real thing cannot be had on demand.
SCRIPT = """
import ctypes, sys, time
from pathlib import Path
from service.app import create_app
from service.watch.logs import log_as_json
from service.server import Server
from service.settings import Settings

log_as_json("info")
settings = Settings(releases=Path(sys.argv[1]), port=0, device="cpu", torch_threads=1, watch_seconds=0,
                    engine="torch", decode_workers=0, stall_seconds=0.2,
                    exit_after_stall_seconds=float(sys.argv[2]))
app = create_app(settings)

@app.post("/get-stuck/{where}")
async def get_stuck(where: str) -> None:
    if where == "loop":
        time.sleep(1000)
    if where == "device":
        app.state.serving.embedder.device.call(lambda: time.sleep(1000))
    if where == "interpreter":
        ctypes.PyDLL(None).sleep(1000)

server = Server(app, settings)
startup = server.startup

async def tell(sockets=None):
    await startup(sockets)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)

server.startup = tell
server.run()
"""


# How it is stuck -> the exit status, and what is told.
WAYS = {
    "device": (70, "the device has not come back for"),
    "loop": (70, "the event loop has not come back for"),
    "interpreter": (1, "Timeout"),
}


@contextmanager
def started(releases: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", SCRIPT, str(releases), str(LIMIT_SECONDS)]
    with log.open("wb") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def processes(
    tmp_path_factory: pytest.TempPathFactory, releases: Path
) -> Iterator[dict[str, tuple[subprocess.Popen[bytes], Path]]]:
    """One for each way to be stuck with its log, started together: most of their time goes into imports."""
    folder = tmp_path_factory.mktemp("stuck")
    with ExitStack() as stack:
        yield {way: (stack.enter_context(started(releases, folder / way)), folder / way) for way in WAYS}


@pytest.mark.parametrize("way", WAYS)
def test_a_process_that_is_stuck_tells_its_stacks_and_ends(
    processes: dict[str, tuple[subprocess.Popen[bytes], Path]], way: str
) -> None:
    (process, log), (status, told) = processes[way], WAYS[way]
    port = int(process.stdout.readline())
    post_in_background(f"http://127.0.0.1:{port}/get-stuck/{way}")
    assert process.wait(60) == status
    text = log.read_text("utf-8", "replace")
    assert told in text
    assert "get_stuck" in text or "in <lambda>" in text  # the stack of what is stuck


def post_in_background(url: str) -> None:
    def post() -> None:
        with suppress(httpx.HTTPError):  # the process is gone
            httpx.post(url, timeout=30, trust_env=False)

    threading.Thread(target=post, daemon=True).start()
