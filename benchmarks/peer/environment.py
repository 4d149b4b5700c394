"""What the race needs on disk: the peer's own environment, the model in transformers' form, and as our bundle.

All of it lies in one folder and is made once; a step that was interrupted is done again.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import open_clip

from benchmarks.http import BenchmarkFailed
from encoders.importing.run import import_model

HERE = Path(__file__).resolve().parent
MODEL = "vit-b-32-random"


@dataclass(frozen=True)
class Environment:
    python: Path
    clip_folder: Path
    bundle: Path

    @property
    def infinity(self) -> Path:
        return self.python.parent / "infinity_emb"


def prepare(folder: Path, *, say: Callable[[str], None]) -> Environment:
    """Make what is missing. Raises BenchmarkFailed with what pip or transformers said."""
    made = Environment(folder / "env/bin/python", folder / MODEL, folder / f"{MODEL}-bundle")
    _once(folder / "env/.installed", lambda: _install(made, folder / "env", say=say))
    _once(folder / f".{MODEL}", lambda: _write_model(made, say=say))
    return made


def _once(stamp: Path, make: Callable[[], None]) -> None:
    if not stamp.exists():
        make()
        stamp.touch()


def _install(made: Environment, env: Path, *, say: Callable[[str], None]) -> None:
    say("the peer's environment: several gigabytes, once")
    _run([sys.executable, "-m", "venv", "--clear", str(env)])
    _run([str(made.python), "-m", "pip", "install", "--quiet", "-r", str(HERE / "requirements.txt")])


def _write_model(made: Environment, *, say: Callable[[str], None]) -> None:
    say("a ViT-B/32 with random weights, for both")
    merges = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    _run([str(made.python), str(HERE / "clip_folder.py"), str(made.clip_folder), str(merges)])
    import_model(str(made.clip_folder), out=made.bundle, name=MODEL)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
