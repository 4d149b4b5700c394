"""The check of the docs finds what is wrong in a page, and runs what the page says in its order."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from docs.check.__main__ import pages
from docs.check.blocks import PageError, blocks_of, commands_of
from docs.check.names import faults
from docs.check.script import script_of

ROOT = Path(__file__).resolve().parent.parent
SERVER = """\
import http.server, pathlib, signal, sys, time
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
def end(*_): time.sleep(1); pathlib.Path('ended').touch(); sys.exit(0)
signal.signal(signal.SIGTERM, end)
http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Ready).serve_forever()
"""


def run(page: str, folder: Path, *, long: bool = False) -> subprocess.CompletedProcess[str]:
    """What a page does in a folder; its server listens on a free port in the place of 8000."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    script = "\n".join(script_of(blocks_of("page.md", page), folder, long=long, port=port))
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder, env={"PATH": "/usr/bin:/bin", "PORT": str(port), "NO_PROXY": "127.0.0.1"},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_commands_run_in_order_and_the_first_that_fails_is_named(tmp_path):
    page = (
        "# A page\n\n<!-- file: data/a.txt -->\n```text\nhello\n```\n"
        "<!-- before: word=kept -->\n```sh\ncat data/a.txt; echo $word\n"
        "echo one \\\n  two    # a comment\n```\n"
        "<!-- not run: no such thing -->\n```sh\necho never\n```\n"
        "<!-- long: hours -->\n```sh\necho later\n```\n"
        "  ```sh\n  false\n  echo behind\n  ```\n"
    )
    ran = run(page, tmp_path)
    assert ran.stdout == "hello\nkept\none two\n"
    assert ran.stderr.splitlines()[-1] == "page.md:22: failed with status 1"
    assert run(page, tmp_path, long=True).stdout == "hello\nkept\none two\nlater\n"


def test_a_server_is_ready_when_the_next_command_runs_and_ended_with_the_page(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "Makefile").write_text(f"serve:\n\t@exec {sys.executable} server.py $(PORT)\n")
    page = "```sh\nmake serve &    # stays\ncurl -sSf http://127.0.0.1:8000/x && test ! -e ended\n```\n"
    ran = run(page, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "ended").exists()


def test_the_next_server_starts_when_all_of_the_one_before_has_ended(tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "Makefile").write_text(f"serve:\n\t@{sys.executable} server.py $(PORT) & wait\n")
    ran = run("```sh\nmake serve\nmake serve\n```\n", tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_a_server_that_ends_by_itself_fails_its_command(tmp_path):
    (tmp_path / "Makefile").write_text("serve:\n\t@exit 1\n")
    ran = run("```sh\nmake serve\necho behind\n```\n", tmp_path)
    assert (ran.returncode != 0, ran.stdout) == (True, "")
    assert ran.stderr.splitlines()[-1].startswith("page.md:2: failed")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("```\nls\n```\n", "page.md:1: name the block's language"),
        ("<!-- norun: why -->\n```sh\nls\n```\n", "page.md:1: .* is no mark"),
        ("<!-- not run: why -->\n\n```sh\nls\n```\n", "page.md:2: a mark stands on the line right before"),
        ("<!-- file: a -->\n```sh\nls\n```\n", "page.md:2: 'file' does not go with 'sh'"),
        ("```sh\nls\n", "page.md:1: the block does not end"),
        ("```sh\nls 'a\n```\n", "bash cannot parse"),
    ],
)
def test_a_page_that_hides_a_command_is_refused(page, words):
    with pytest.raises(PageError, match=words):
        [list(commands_of(block)) for block in blocks_of("page.md", page) if block.language == "sh"]


def test_commands_and_options_that_are_not_there_are_named():
    text = "`python -m index list --json`, `python -m index lost`\n```text\npython -m index list --jsonl\n```\n"
    assert list(faults({"page.md": text}, python=Path(sys.executable), root=ROOT)) == [
        "page.md: `python -m index lost` is named, and there is no such command",
        "page.md: `python -m index list` has no option --jsonl",
    ]


def test_every_page_can_be_read_and_says_why_a_block_is_not_run():
    found = [block for page in pages() for block in blocks_of(page, (ROOT / page).read_text("utf-8"))]
    assert sum(block.language == "sh" for block in found) > 30
    assert all(len(block.reason.split()) > 1 for block in found if block.mark in ("not run", "long"))
