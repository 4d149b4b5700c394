"""No code that runs what a file says: what the linter (ruff S301 to S302) cannot see of unpickling."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SERVED = ("encoders", "index", "service")
# Reads a published checkpoint, with torch's unpickler that makes tensors and nothing else.
WEIGHTS_ONLY = {"encoders/importing/open_clip_models.py", "training/fit/start.py"}
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def test_nothing_imports_what_unpickles():
    for name, module in modules(*SERVED, "training"):
        for node in ast.walk(module):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            assert UNPICKLERS.isdisjoint(part.partition(".")[0] for part in imported), name


def test_torch_and_numpy_read_data_and_nothing_else():
    for name, module in modules(*SERVED, "training"):
        for node in ast.walk(module):
            if not isinstance(node, ast.Call):
                continue
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if ast.unparse(node.func) == "torch.load":
                assert given.get("weights_only") == "True", name
                assert name in WEIGHTS_ONLY, name
            assert given.get("allow_pickle", "False") == "False", name
            assert given.get("weights_only", "True") == "True", name
