"""The wheel, the lock and the Makefile, as a user meets them."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("dev", "service", "training")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built by the backend that pip would call."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(folder)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def run_without_packages(arguments, *, folder):
    """Run this interpreter with only the standard library and `folder` in sight (-S hides site-packages)."""
    command = [sys.executable, "-S", "-E", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def pins(role):
    lock = (ROOT / "requirements" / f"{role}.txt").read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock, flags=re.MULTILINE))


def test_wheel_has_all_that_runs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"encoders", "training", "index", "service"}
    assert {f"{package}/py.typed" for package in tops} <= set(names)
    tracked = subprocess.run(
        ["git", "ls-files", "encoders/default", "service/web"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert set(tracked) <= set(names)


@pytest.mark.parametrize("role", ["service", "index", "training"])
def test_role_without_its_packages_names_the_extra_to_install(wheel, tmp_path, role):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    run = run_without_packages(["-m", role, "--help"], folder=tmp_path)
    assert run.returncode == 1
    assert f"pip install 'twinlens[{role}]'" in run.stderr
    assert "Traceback" not in run.stderr


def test_locks_agree_with_each_other_and_name_no_place_on_disk_or_net():
    dev = pins("dev")
    for role in LOCKS:
        differing = {name: version for name, version in pins(role).items() if dev.get(name, version) != version}
        assert differing == {}, role
        assert not re.search(
            r"^-|file:|https?:|/home/|/opt/", (ROOT / "requirements" / f"{role}.txt").read_text("utf-8"), re.M
        )


def test_every_pin_has_a_hash():
    for role in LOCKS:
        lock = (ROOT / "requirements" / f"{role}.txt").read_text("utf-8")
        bare = [
            line for line in lock.splitlines() if "==" in line and "#" not in line and not line.endswith("\\")
        ]
        assert bare == [], role


def test_service_lock_has_no_training_plotting_or_testing_packages():
    unwanted = {"tensorboard", "matplotlib", "scipy", "scikit-learn", "sentence-transformers", "pytest", "ruff"}
    assert unwanted & pins("service").keys() == set()


def test_cpu_lock_leaves_cuda_out_and_takes_faiss_for_the_cpu():
    program = (
        "import pathlib, install\n"
        "torch, rest = install.cpu_lock(pathlib.Path('service.txt').read_text('utf-8'))\n"
        "print(torch)\nprint(rest)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "requirements", capture_output=True, text=True, check=True,
    )  # fmt: skip
    torch, rest = run.stdout.split("\n", 1)
    assert torch == f"['torch=={pins('service')['torch']}', 'torchvision=={pins('service')['torchvision']}']"
    assert not re.search(r"^(nvidia|cuda|triton|torch|faiss-gpu)", rest, re.MULTILINE)
    assert re.search(r"^faiss-cpu==\S+ +\\$", rest, re.MULTILINE)


def test_what_comes_from_another_index_is_said_to_come_without_a_hash():
    program = "import install\ninstall.pip_install = print\ninstall.install('service', torch_index='https://cpu.example')"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT / "requirements", capture_output=True, text=True, check=True,
    )  # fmt: skip
    torch = [f"{name}=={pins('service')[name]}" for name in ("torch", "torchvision")]
    assert run.stderr == f"{' and '.join(torch)} come from https://cpu.example by version, without a hash\n"
    from_torch, rest = run.stdout.splitlines()
    assert from_torch == f"--no-deps --index-url https://cpu.example {' '.join(torch)}"
    assert rest.startswith("--require-hashes ")


def test_extras_and_lock_hold_one_faiss_per_platform():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]["index"]
    gpu, cpu = (next(line for line in extras if line.startswith(name)) for name in ("faiss-gpu", "faiss-cpu"))
    assert gpu.endswith("sys_platform == 'linux' and platform_machine == 'x86_64'")
    assert cpu.endswith("sys_platform != 'linux' or platform_machine != 'x86_64'")


ROLE_EXTRAS = {"encoders": [], "training": ["training"], "index": ["index"], "service": ["index", "service"]}
BROUGHT_BY_ANOTHER = {"starlette": "fastapi", "pydantic_core": "pydantic"}


def imported_modules(package):
    """Top-level names that the package's files import, less the standard library's and our own."""
    trees = [ast.parse(file.read_text("utf-8")) for file in (ROOT / package).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - ROLE_EXTRAS.keys()


@pytest.mark.parametrize("package", ROLE_EXTRAS)
def test_role_declares_every_package_it_imports(package):
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    requirements = [*project["dependencies"]]
    for extra in ROLE_EXTRAS[package]:
        requirements += project["optional-dependencies"][extra]
    declared = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requirements}
    distributions = packages_distributions()
    for module in imported_modules(package):
        names = {name.lower().replace("_", "-") for name in distributions.get(module, [module])}
        assert names & declared or BROUGHT_BY_ANOTHER.get(module) in declared, module


def test_tracked_files_stay_under_56_megabytes():
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    files = [ROOT / name for name in tracked.split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 56_000_000


def test_make_alone_says_what_every_target_does():
    run = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("demo", "test", "check", "train", "index", "serve", "bench", "image"):
        assert re.search(rf"^  make {target} +\w", run.stdout, re.MULTILINE), target


def test_too_old_or_no_python_is_said_plainly(tmp_path):
    run = subprocess.run(
        ["make", "PYTHON=", f"VENV={tmp_path}/none", f"{tmp_path}/none/.installed"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode != 0
    assert "Python 3.11 or newer" in run.stderr


def test_a_mistyped_training_command_is_told_before_torch_is_loaded() -> None:
    told = "import sys, training.__main__; print([m for m in ('torch', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
