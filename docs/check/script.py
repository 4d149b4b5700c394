"""A page's blocks to one bash script: each command as it stands, servers beside them."""

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from docs.check.blocks import Block, commands_of

ADDRESS = re.compile(r"(?<=127\.0\.0\.1:)8000\b|(?<=localhost:)8000\b")
SERVER = re.compile(r"\bmake (demo|serve)\b|python -m service(?! keys)(?!.* --help)")
_HEAD = """\
set -euo pipefail
at=start server=
trap 'status=$?; down; [ $status = 0 ] || echo "$at: failed with status $status" >&2' EXIT
down() {
  [ -n "$server" ] || return 0
  kill -TERM -- "-$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  for _ in $(seq 600); do # what it started may end after it, and holds the port until then
    kill -0 -- "-$server" 2>/dev/null || break
    sleep .1
  done
  server=
}
up() { # waits until the server of this process group is ready; its own failure is the command's
  server=$1
  for _ in $(seq 2400); do
    ! curl --disable --silent --fail --output /dev/null "http://127.0.0.1:$PORT/readyz" || return 0
    kill -0 "$server" 2>/dev/null || { wait "$server"; echo 'the server ended by itself' >&2; return 1; }
    sleep .25
  done
  echo 'the server was not ready within ten minutes' >&2
  return 1
}
"""


def script_of(blocks: Iterable[Block], clone: Path, *, long: bool, port: int) -> Iterator[str]:
    """The lines of the script; files are written into the clone by it, in their turn."""
    yield _HEAD
    for block in blocks:
        if block.mark == "file":
            yield f"mkdir -p {shlex.quote(str((clone / block.reason).parent))}"
            yield f"cat > {shlex.quote(str(clone / block.reason))} <<'END OF FILE'\n{block.text}END OF FILE"
        elif is_run(block, long=long):
            for line, command in commands_of(block):
                yield from _command(f"{block.page}:{line}", ADDRESS.sub(str(port), command))


def is_run(block: Block, *, long: bool) -> bool:
    """Whether the block's commands are run, this time."""
    return block.language == "sh" and (block.mark in (None, "before") or (block.mark == "long" and long))


def _command(place: str, command: str) -> Iterator[str]:
    yield f"at={shlex.quote(place)}"
    yield f"printf '%4d s  %s\\n' $SECONDS {shlex.quote(f'{place}: {command}')} >&2"
    if SERVER.search(command):
        command = re.sub(r"&\s*(#.*)?$", "", command)  # it is put there below
        yield f"down\nset -m\n{{ {command}\n}} &\nset +m\nup $!"
    else:
        yield command
