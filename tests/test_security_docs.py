"""docs/security.md names files of tests and settings: they must be there."""

import re
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[1]


def test_every_file_of_tests_that_is_named_exists():
    named = set(
        re.findall(r"`((?:\w+/)?test_\w+\.py)`", (ROOT / "docs/security.md").read_text(encoding="utf-8"))
    )
    assert named
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []


def test_every_setting_that_is_named_exists():
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"TWINLENS_([A-Z_]+)", text)}
    named |= set(
        re.findall(
            r"`((?:max|key|keys|address|header|body|send|cors|allowed|trusted|image|metrics)_\w+)`", text
        )
    )
    assert named - set(Settings.model_fields) == {"max_concurrent"}  # a key's own
