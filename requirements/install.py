"""Install one role's pinned packages: `python requirements/install.py service [--torch-index URL]`.

Roles are the lock files beside this one: `dev` (everything, and the tools), `service`, `training`.

Every package is installed by its hash. With --torch-index (the address of PyTorch's CPU builds) torch and
torchvision come from there instead, in the versions the lock pins and without a hash: those builds are other
files than PyPI's, and only that index vouches for them. CUDA's libraries then stay out and faiss-cpu takes
faiss-gpu's place: about 1 GB instead of 6.

Runs on the standard library alone.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
FROM_TORCH_INDEX = ("torch", "torchvision")
CUDA_ONLY = re.compile(r"nvidia-|cuda-|triton$|faiss-gpu$")


def split_lock(lock: str) -> dict[str, str]:
    """Return the lock's entries, each with its hashes, by package name."""
    entries = re.split(r"^(?=[a-zA-Z0-9])", lock, flags=re.MULTILINE)[1:]
    return {entry.split("==", 1)[0]: entry for entry in entries}


def cpu_lock(lock: str) -> tuple[list[str], str]:
    """Return what PyTorch's own index gives (`torch==2.14.1`), and the rest of the lock without CUDA."""
    entries = split_lock(lock)
    torch = [entries[name].split()[0] for name in FROM_TORCH_INDEX]
    rest = {
        name: entry
        for name, entry in entries.items()
        if name not in FROM_TORCH_INDEX and not CUDA_ONLY.match(name)
    }
    if "faiss-cpu" in rest:  # its marker keeps it off Linux x86-64, where faiss-gpu has just been left out
        rest["faiss-cpu"] = re.sub(r" ;[^\\\n]*", " ", rest["faiss-cpu"], count=1)
    return torch, "".join(rest.values())


def pip_install(*arguments: str) -> None:
    """Run pip under this interpreter; raises CalledProcessError with pip's own words above it."""
    subprocess.run([sys.executable, "-m", "pip", "install", *arguments], check=True)  # noqa: S603


def install(role: str, *, torch_index: str | None) -> None:
    """Install the role's lock file, whole or without CUDA."""
    lock = HERE / f"{role}.txt"
    if torch_index is None:
        pip_install("--require-hashes", "-r", str(lock))
        return
    torch, rest = cpu_lock(lock.read_text("utf-8"))
    print(f"{' and '.join(torch)} come from {torch_index} by version, without a hash", file=sys.stderr)
    pip_install("--no-deps", "--index-url", torch_index, *torch)
    with tempfile.TemporaryDirectory() as folder:
        trimmed = Path(folder) / lock.name
        trimmed.write_text(rest, "utf-8")
        pip_install("--require-hashes", "--no-deps", "-r", str(trimmed))


def main() -> int:
    """Parse the command line; the exit status is pip's."""
    roles = sorted(path.stem for path in HERE.glob("*.txt"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("role", choices=roles)
    parser.add_argument("--torch-index", metavar="URL", default=None, help="PyTorch's index of CPU builds")
    arguments = parser.parse_args()
    try:
        install(arguments.role, torch_index=arguments.torch_index or None)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd)}\nfailed: what pip says above is why", file=sys.stderr)
        return int(error.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
