from io import StringIO

import pytest
from rich.console import Console

from training.evaluation.progress import RunProgress, progress_on


def test_what_the_cache_had_counts_as_done_and_costs_no_time() -> None:
    now = iter([0.0, 1.0, 21.0]).__next__
    progress = RunProgress(Console(file=StringIO()), clock=now)
    progress.plan(images=100, captions=0)
    tell = progress.at("tiny, ")
    assert progress.seconds_left is None
    tell("photos: images", 50, 100)
    assert progress.share == 0.5
    assert progress.seconds_left == 1  # what was spent before the stage, once more
    tell("photos: images", 90, 100)
    assert progress.seconds_left == pytest.approx(10 * 20 / 40 + 1 * 0.1 / 0.9)


def test_a_stage_ends_with_a_line_that_says_how_far_the_whole_run_is() -> None:
    out = StringIO()
    with progress_on(Console(file=out, width=40)) as progress:
        progress.plan(images=20, captions=0)
        for done in (0, 5, 10):
            progress.at("")("[photos]: images", done, 10)
    [line] = out.getvalue().splitlines()
    assert line.startswith("[photos]: images: 10 of 10, ")
    assert "50% of the run, " in line
    assert line.endswith(" left")


def test_a_terminal_gets_one_bar_for_the_run_and_one_for_the_stage() -> None:
    out = StringIO()
    with progress_on(Console(file=out, force_terminal=True, width=100)) as progress:
        progress.plan(images=10, captions=100)
        progress.at("")("photos, blur 3: images", 0, 10)
        progress.at("")("photos, blur 3: images", 10, 10)
        progress.at("")("photos: captions", 0, 100)
    last = out.getvalue().rsplit("whole run", 1)[1]
    assert "50% of the run" in last
    assert "photos: captions" in last
    assert "blur" not in last
