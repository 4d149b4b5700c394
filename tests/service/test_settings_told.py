"""Every setting is told: by `--help`, and in docs/settings.md; and every one is an option that works."""

import os
import subprocess
import sys
from pathlib import Path

from docs.settings import PAGE, page
from service.options import all_settings
from service.settings import GROUPS, Settings

ROOT = Path(__file__).parents[2]


def service(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m service` as a person runs it, on a screen wide enough that no line breaks."""
    environment = os.environ | {"COLUMNS": "400", "NO_COLOR": "1"} | variables
    return subprocess.run(
        [sys.executable, "-m", "service", *options],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_help_tells_every_setting_with_its_variable_and_its_default():
    told = service("--help").stdout.splitlines()
    for each in all_settings():
        (line,) = (line for line in told if f"{each.variable}]" in line or f" {each.variable} " in line)
        assert each.is_secret or f"--{each.name.replace('_', '-')} " in line, line
        assert each.words in line, line
        assert each.default in line, line


def test_a_secret_is_no_option_as_others_can_read_a_command_line():
    run = service("--releases", "r", "--image-secret", "x" * 32)
    assert (run.returncode, "No such option" in run.stderr) == (2, True)


def test_every_setting_has_words_and_stands_in_a_group():
    assert all(each.words and each.group for each in all_settings())
    assert GROUPS.keys() <= Settings.model_fields.keys()


def test_the_page_of_settings_is_the_one_that_they_give():
    assert PAGE.read_text("utf-8") == page(), "write it anew: `.venv/bin/python -m docs.settings`"


def test_an_option_is_taken_and_checked_like_its_variable_and_counts_more():
    run = service("--releases", "r", "--max-images", "999", TWINLENS_MAX_IMAGES="1")
    assert run.returncode == 2
    assert "max_images=999 exceeds image_queue=256" in run.stderr
    run = service("--releases", "r", "--max-images", "many")
    assert (run.returncode, "max_images (TWINLENS_MAX_IMAGES) = 'many'" in run.stderr) == (2, True)
