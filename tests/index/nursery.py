"""Forks rebuilds that are to be killed: torch and faiss are imported once, not for each of them.

Reads JSON lines {"arguments", "kill_at_step", "kill_at_cpu_seconds"}; answers each with the child's pid, then
with its exit status, the steps it made on the disk and its processor time. A step is opening, renaming,
linking, making or deleting something in the releases' folder; the child sends itself SIGKILL before its n-th.
At a given processor time it is this process that sends it. No thread runs here, so forking is safe.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import index.rebuilding  # noqa: F401 - so that children need not import it
from index.__main__ import app

STEPS = {"open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "sqlite3.connect"}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def count_steps(releases, kill_at_step, report):
    steps = 0

    def hook(event, arguments):
        nonlocal steps
        if event in STEPS and any(str(argument).startswith(releases) for argument in arguments[:2]):
            steps += 1
            os.pwrite(report, str(steps).encode(), 0)
            if steps == kill_at_step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def child(order, report):
    releases = order["arguments"][order["arguments"].index("--releases") + 1]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the child
    count_steps(releases, order["kill_at_step"], report)
    try:
        app(order["arguments"])
    except SystemExit as ended:
        os._exit(ended.code or 0)
    os._exit(99)


def kill_at_cpu_time(pid, seconds):
    """An ended child stays a zombie until it is waited for, so its pid is nobody else's meanwhile."""
    while True:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z":
            return
        if sum(map(int, fields[11:13])) / TICKS_PER_SECOND >= seconds:
            break
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        report = os.memfd_create("steps")
        pid = os.fork()
        if pid == 0:
            child(order, report)
        print(pid, flush=True)
        if order["kill_at_cpu_seconds"] is not None:
            kill_at_cpu_time(pid, order["kill_at_cpu_seconds"])
        _, status, usage = os.wait4(pid, 0)
        steps = int(os.pread(report, 20, 0) or 0)
        os.close(report)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        print(json.dumps([os.waitstatus_to_exitcode(status), steps, cpu_seconds]), flush=True)


if __name__ == "__main__":
    main()
