"""Ask for known vulnerabilities of the pinned packages: `python requirements/audit.py`.

pip-audit does the asking, in an environment of its own that is thrown away, so that it pins nothing here.
Without the network, or where the package index answers but knows no advisories, it says so in one line and
ends with 0: no news is no verdict. It ends with 1 when a pinned package has a known vulnerability that
`ACCEPTED` does not name.

Runs on the standard library alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOOL = "pip-audit>=2.9,<3"
LIMIT_SECONDS = 300
# Advisories that do not concern us: id -> why. They are still printed.
ACCEPTED: Mapping[str, str] = {}


def verdict(dependencies: Iterable[Mapping[str, Any]], accepted: Mapping[str, str]) -> tuple[list[str], int]:
    """The lines to print and the exit status, from pip-audit's JSON."""
    known = [each for each in dependencies if "vulns" in each]
    unknown = [each["name"] for each in dependencies if "vulns" not in each]
    lines, worst = [], 0
    for each in known:
        for advisory in each["vulns"]:
            reason = accepted.get(advisory["id"])
            fixed = ", ".join(advisory.get("fix_versions", [])) or "no version yet"
            words = f"accepted: {reason}" if reason else f"fixed in {fixed}"
            lines.append(f"{each['name']} {each['version']}: {advisory['id']} ({words})")
            worst = worst if reason else 1
    if not known:
        return [f"audit: no advisories can be had here: {len(unknown)} packages were not looked at"], 0
    lines.append(f"audit: {len(known)} packages looked at, {len(unknown)} not known to the index")
    return lines, worst


def ask(folder: Path) -> list[Mapping[str, Any]]:
    """What pip-audit says of every lock file. Raises OSError or SubprocessError when it cannot be had."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    _run(python, "pip", "install", "--quiet", "--disable-pip-version-check", TOOL)
    locks = [part for lock in sorted(HERE.glob("*.txt")) for part in ("--requirement", str(lock))]
    options = ["--disable-pip", "--require-hashes", "--progress-spinner", "off", "--format", "json"]
    return list(json.loads(_run(python, "pip_audit", *options, *locks, statuses=(0, 1)))["dependencies"])


def _run(python: Path, *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
    command = [str(python), "-m", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)  # noqa: S603 - our own words
    if done.returncode not in statuses or (1 in statuses and not done.stdout.strip()):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise OSError(f"{arguments[0]}: {last[:200]}")
    return done.stdout


def main() -> int:
    """Print the verdict; the exit status."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            dependencies = ask(Path(folder))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"audit: not done, pip-audit or its data cannot be had here: {error}")
        return 0
    lines, status = verdict(dependencies, ACCEPTED)
    print("\n".join(lines))
    return status


if __name__ == "__main__":
    sys.exit(main())
