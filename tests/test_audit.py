"""The verdict over pinned packages, from what pip-audit tells."""

import runpy
from pathlib import Path

verdict = runpy.run_path(str(Path(__file__).parents[1] / "requirements/audit.py"))["verdict"]

SOUND = {"name": "numpy", "version": "2.0", "vulns": []}
HOLED = {"name": "pillow", "version": "9.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["9.1"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found"}


def test_a_known_vulnerability_fails_and_says_which_version_mends_it():
    lines, status = verdict([SOUND, HOLED, UNKNOWN], {})
    assert status == 1
    assert lines == [
        "pillow 9.0: PYSEC-1 (fixed in 9.1)",
        "audit: 2 packages looked at, 1 not known to the index",
    ]


def test_an_accepted_one_is_still_told_and_fails_nothing():
    lines, status = verdict([HOLED], {"PYSEC-1": "we read no such files"})
    assert (lines[0], status) == ("pillow 9.0: PYSEC-1 (accepted: we read no such files)", 0)


def test_an_index_without_advisories_is_no_all_clear():
    assert verdict([UNKNOWN, UNKNOWN], {}) == (
        ["audit: no advisories can be had here: 2 packages were not looked at"],
        0,
    )
