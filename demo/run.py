"""What `make demo` does: index a gallery when it, or the encoder, has changed, then serve it.

Decides by names, sizes and times of the files alone, in well under a second: loading the encoder only to learn
that there is nothing to do takes longer than starting the service. (Of a table that names images elsewhere only
the table is looked at.) Runs on the standard library.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASES = ROOT / ".cache" / "demo"
READY_DEADLINE_SECONDS = 300.0
PUBLISHED_WITH_FAILURES = 3  # of `index rebuild`: all is served but what it has just named


def files_below(folder: Path) -> Iterator[Path]:
    """Every file of the folder, deep, in an order that does not depend on the file system."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def state_of(gallery: str, *, bundle: Path) -> str:
    """Digest that changes when a file of either is added, removed, renamed or rewritten."""
    digest = hashlib.sha256()
    for source in (*map(Path, glob.glob(gallery) or [gallery]), bundle):  # noqa: PTH207 — an absolute pattern
        for file in files_below(source) if source.is_dir() else [source]:
            try:
                status = file.stat()
            except OSError:  # a dangling link, or gone since it was listed: as good as absent
                continue
            digest.update(os.fsencode(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n"))
    return digest.hexdigest()


def releases_of(gallery: str) -> Path:
    """Each gallery has its own releases, so that going back to an earlier one costs nothing."""
    key = hashlib.sha256(os.fsencode(gallery)).hexdigest()[:8]
    name = re.sub(r"\W+", "-", Path(gallery).stem).strip("-")
    return RELEASES / f"{name}-{key}"


def run_index(*arguments: str) -> int:
    """Run a command of `index`; returns its exit status."""
    command = [sys.executable, "-m", "index", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False).returncode  # noqa: S603 — our own command


def index(gallery: str, *, bundle: Path, releases: Path) -> int:
    """Rebuild unless the stamp beside the releases says that nothing changed; returns the exit status."""
    stamp = releases.with_name(f"{releases.name}.indexed")
    state = state_of(gallery, bundle=bundle)
    if (releases / "CURRENT").is_file() and stamp.is_file() and stamp.read_text("ascii") == state:
        return 0
    releases.mkdir(parents=True, exist_ok=True)
    rebuild = ["rebuild", "--gallery", gallery, "--bundle", str(bundle), "--releases", str(releases)]
    status = run_index(*rebuild)
    if status not in (0, PUBLISHED_WITH_FAILURES):
        return status
    stamp.write_text(state, "ascii")
    return run_index("prune", "--keep", "2", "--releases", str(releases))


def is_taken(host: str, port: int) -> bool:
    """Whether something else listens there already, which would answer in our service's name."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def is_ready(address: str) -> bool:
    """Whether the service answers that it is ready."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5) as answer:  # noqa: S310 — our own address
            return bool(answer.status == 200)
    except OSError:
        return False


def serve(releases: Path, *, host: str, port: int) -> int:
    """Start the service, print its address once it is ready, stay till it ends; returns its exit status."""
    address = f"http://{host}:{port}"
    options = ["--releases", str(releases), "--host", host, "--port", str(port)]
    command = [sys.executable, "-m", "service", *options]
    service = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 — our own command
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the service too: it ends in its own time
    signal.signal(signal.SIGTERM, lambda *_: service.terminate())
    give_up = time.monotonic() + READY_DEADLINE_SECONDS
    while service.poll() is None and time.monotonic() < give_up:
        if is_ready(address):
            print(f"\n  Twinlens is ready: {address}   (Ctrl-C ends it)\n", flush=True)
            break
        time.sleep(0.1)
    return service.wait()


def main() -> int:
    """Parse the command line; the exit status is that of the step that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gallery", default=str(ROOT / "demo" / "gallery"))
    parser.add_argument("--bundle", type=Path, default=ROOT / "encoders" / "default")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    gallery = str(Path(arguments.gallery).expanduser().absolute())  # a folder, a table, or a pattern of tars
    bundle: Path = arguments.bundle.expanduser().absolute()
    if is_taken(arguments.host, arguments.port):
        free = arguments.port + 1
        print(f"port {arguments.port} is taken: make demo PORT={free}", file=sys.stderr)
        return 2
    releases = releases_of(gallery)
    return index(gallery, bundle=bundle, releases=releases) or serve(
        releases, host=arguments.host, port=arguments.port
    )


if __name__ == "__main__":
    sys.exit(main())
