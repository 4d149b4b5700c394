"""docs/security.md names tests as its proof: they must be there."""

import re
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[1]


def test_every_test_that_is_named_as_proof_exists():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/security.md").read_text(encoding="utf-8")))
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 30
    assert named - set(re.findall(r"^def (test_\w+)", written, re.MULTILINE)) == set()


def test_every_setting_that_is_named_exists():
    text = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = {name.lower() for name in re.findall(r"TWINLENS_([A-Z_]+)", text)}
    named |= set(
        re.findall(
            r"`((?:max|key|keys|address|header|body|send|cors|allowed|trusted|image|metrics)_\w+)`", text
        )
    )
    assert named - set(Settings.model_fields) == {"max_concurrent"}  # a key's own
