"""What is checked of the machine before the start, in processes of its own: limits cannot be taken back."""

import shutil
import subprocess
import sys

import pytest
from live_service import ROOT

from service.control_groups import memory_groups, memory_limit_bytes
from service.preflight import check_memory_order, files_needed
from service.settings import Settings

CHECK = """
import logging, resource, sys
from service.preflight import check_machine
from service.settings import Settings
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
check_machine(Settings(releases="r", max_connections=300, decode_workers=8))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
NEEDED = files_needed(Settings(releases="r", max_connections=300, decode_workers=8))


def run(*command: object) -> subprocess.CompletedProcess[str]:
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "words"),
    [
        (1000, 1000, 1000, ""),
        (100, 1000, NEEDED, ""),
        (100, 200, 200, f"may have 200 files open (ulimit -n) and needs up to {NEEDED}, of which 300 for"),
    ],
)
def test_the_limit_on_open_files_is_raised_or_told_to_be_low(soft, hard, raised, words):
    ended = run(sys.executable, "-c", CHECK, soft, hard)
    assert (ended.stdout, words in ended.stderr, bool(ended.stderr)) == (f"{raised}\n", True, bool(words))


def test_a_score_that_lets_the_service_go_before_its_decoders_is_told():
    raise_score = 'echo 950 > /proc/self/oom_score_adj; exec "$@"'
    ended = run("sh", "-c", raise_score, "sh", sys.executable, "-c", CHECK, 1000, 1000)
    assert (
        "oom_score_adj of this process is 950: when memory runs out while it holds more than 5%" in ended.stderr
    )


@pytest.mark.parametrize(
    ("own", "files", "limit", "kills_all"),
    [
        ("0::/a/b\n", {"a/memory.max": "900", "a/b/memory.max": "max", "a/memory.oom.group": "1"}, 900, True),
        ("0::/a\n", {"a/memory.max": "900", "memory.max": "800", "a/memory.oom.group": "0"}, 800, False),
        ("0::/../outside\n", {"memory.max": "700"}, 700, False),
        ("4:cpu:/x\n9:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "600"}, 600, False),
        ("9:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": f"{2**63 - 4096}"}, None, False),
        ("", {}, None, False),
    ],
)
def test_limit_and_group_kill_are_found_in_the_groups_around_the_process(
    tmp_path, caplog, own, files, limit, kills_all
):
    (tmp_path / "own").write_text(own)
    for name, content in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(content + "\n")
    at = tmp_path / "root", tmp_path / "own"
    assert memory_limit_bytes(*at) == limit
    check_memory_order(memory_groups(*at))
    assert ("memory.oom.group is 1" in caplog.text) == kills_all


def test_decoders_that_cannot_offer_themselves_first_are_told():
    if run("unshare", "--mount", "true").returncode if shutil.which("unshare") else 1:
        pytest.skip("this machine lets nobody mount")
    fork = (
        "import os\n"
        "from service.decoding.fork_server import ForkServer\n"
        "from service.decoding.worker import WorkerLimits\n"
        "fork_server = ForkServer(WorkerLimits(1 << 30, 1.0), environment=os.environ)\n"
        "fork_server.fork(wall_seconds=1.0).close()\n"
        "fork_server.stop()\n"
    )
    shut = 'mount --bind /proc /proc && mount -o remount,bind,ro /proc && exec "$@"'
    ended = run("unshare", "--mount", "sh", "-c", shut, "sh", sys.executable, "-c", fork)
    assert "oom_score_adj cannot be set (Read-only file system)" in ended.stderr
    assert ended.returncode == 0
