"""`python -m docs.check [PAGE…]`: what `make docs-check` does. See the package."""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from docs.check.blocks import Block, PageError, blocks_of, commands_of
from docs.check.clone import environment, give_files, make_clone
from docs.check.names import faults
from docs.check.script import is_run, script_of

ROOT = Path(__file__).resolve().parents[2]
FIRST = ("docs/training.md", "README.md")  # others use what these make
TAIL_LINES = 40


def pages() -> list[str]:
    """All that are held to their word, in the order in which they are run."""
    others = ["client/README.md", "deploy/README.md"]
    others += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
    return [*FIRST, *(page for page in others if page not in FIRST)]


def main() -> int:
    """Run the pages; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.check", description=__doc__)
    parser.add_argument(
        "pages", nargs="*", default=pages(), metavar="PAGE", help="as docs/api.md; all unless named"
    )
    parser.add_argument("--long", action="store_true", help="what is marked as long, too")
    parser.add_argument("--fresh", action="store_true", help="let the clone make an environment of its own")
    options = parser.parse_args()
    texts = {page: (ROOT / page).read_text("utf-8") for page in options.pages}
    try:
        found = {page: list(blocks_of(page, text)) for page, text in texts.items()}
    except PageError as error:
        print(f"docs-check: {error}")
        return 1
    wrong = list(faults(texts, python=ROOT / ".venv/bin/python", root=ROOT))
    with tempfile.TemporaryDirectory(prefix="twinlens-docs-") as folder:
        wrong += run_pages(found, Path(folder), fresh=options.fresh, long=options.long)
    report([each for blocks in found.values() for each in blocks], wrong, long=options.long)
    return 1 if wrong else 0


def run_pages(found: Mapping[str, Sequence[Block]], scratch: Path, *, fresh: bool, long: bool) -> Iterable[str]:
    """Run every page in one clone; a line for each that failed, and what it said before."""
    home = scratch / "home"
    clone = make_clone(ROOT, scratch, fresh=fresh)
    give_files(clone, home)
    port = _free_port()
    variables = environment(clone, scratch, home, port=port)
    failed = []
    for page, blocks in found.items():
        script = "\n".join(script_of(blocks, clone, long=long, port=port))
        began = time.monotonic()
        said = scratch / "said"
        with said.open("w", encoding="utf-8") as output:
            run = subprocess.run(  # noqa: S603 - what our own pages say
                ["bash", "-c", script],  # noqa: S607
                cwd=clone, env=variables, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
            )  # fmt: skip
        tail = said.read_text("utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        print(f"docs-check: {page}: {time.monotonic() - began:.0f} s", flush=True)
        if run.returncode:
            print("\n".join(tail), flush=True)
            failed.append(tail[-1] if tail else f"{page}: failed with status {run.returncode}")
    return failed


def report(blocks: Sequence[Block], wrong: Sequence[str], *, long: bool) -> None:
    """What was run, what was not and why, what is wrong."""
    shell = [each for each in blocks if each.language == "sh" and each.mark != "before"]
    count = sum(1 for each in shell if is_run(each, long=long) for _ in commands_of(each))
    left = [each for each in shell if not is_run(each, long=long)]
    print(f"\ndocs-check: {count} commands {'to run' if wrong else 'run'}; {len(left)} blocks not run:")
    for each in left:
        print(f"  {each.place}: {each.mark}: {each.reason}")
    for line in wrong:
        print(f"WRONG {line}")
    print(f"docs-check: {'wrong in ' + str(len(wrong)) + ' places' if wrong else 'all is as the pages say'}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
