"""Starts services within a second or two: everything is imported once, and each is a fork of this process.

`python -m benchmarks.faults.fork_server` reads a line of JSON for each service, its settings, and prints the
pid of the process that serves, then its exit status. No thread runs here, so that forking is safe.
"""

import ctypes
import gc
import json
import os
import signal
import sys

import index.rebuilding  # noqa: F401 - so that children need not import it
from service.app import create_app
from service.server import Server
from service.settings import Settings
from service.watch.logs import log_as_json

PR_SET_PDEATHSIG = 1  # of prctl(2)


def die_with_parent() -> None:
    """Also when that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(settings: Settings, log: int) -> None:
    die_with_parent()
    os.dup2(log, sys.stderr.fileno())
    os.dup2(log, sys.stdout.fileno())
    log_as_json(settings.log_level)
    try:
        Server(create_app(settings), settings).run()
    except BaseException as error:  # noqa: BLE001 - it must not run on as a second fork server
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    die_with_parent()
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        log = os.open(asked.pop("log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        pid = os.fork()
        if pid == 0:
            serve(Settings(**asked), log)
        os.close(log)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
