"""What a run says at its very end of tests that it left out, and which files of tests `make check` refuses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from system_programs import COMMAND, left_out

ROOT = Path(__file__).resolve().parent.parent


def test_a_run_ends_with_what_was_missing_how_many_tests_and_the_command(tmp_path):
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "from system_programs import needs\n"
        "@needs('strace')\n@pytest.mark.parametrize('n', range(3))\ndef test_traced(n): pass\n"
        "@needs('nginx', 'openssl')\ndef test_proxied(): pass\n"
        "def test_runs(): pass\n"
    )
    told = "import system_programs as s, pytest, sys; s.PROGRAMS = {name: lambda: None for name in s.PROGRAMS};"
    told += (
        f"sys.exit(pytest.main(['-q', '-p', 'conftest', '--rootdir', {str(tmp_path)!r}, {str(tmp_path)!r}]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", told],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    *_, words, closing = run.stdout.strip().splitlines()
    assert words.startswith("4 tests were left out: 1 for want of nginx, openssl; 3 for want of strace")
    assert words.endswith(f"sudo {COMMAND}")
    assert "1 passed, 4 skipped" in closing


def test_tests_left_out_for_other_reasons_are_not_called_missing():
    assert left_out(["Skipped: may not mount a file system here", "Skipped: needs CUDA"]) is None
    assert os.access(ROOT / COMMAND, os.X_OK)


@pytest.mark.parametrize(("names", "status"), [(("test_x.py", "test_x.py"), 2), (("conftest.py",) * 2, 0)])
def test_make_check_names_files_of_tests_that_pytest_would_refuse(tmp_path, names, status):
    for folder, name in zip(("one", "two"), names, strict=True):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / "tests" / folder / name).touch()
    run = subprocess.run(
        ["make", "--file", ROOT / "Makefile", "test-names"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == status
    assert ("give one another: test_x.py" in run.stderr) == bool(status)
