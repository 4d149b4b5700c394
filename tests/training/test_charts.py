from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_report import dataset, report

from training.evaluation.charts import COLOURS, draw_curves, draw_heat_map
from training.evaluation.metrics import Estimate, Summary
from training.evaluation.report import DatasetReport, RetrievalReport
from training.shift.condition import Condition

ALL_LOST, ALL_KEPT = "#f0712c", "#f5f6f7"
LEGEND_PIXELS = 60


def measured(share: float, corruption: str = "", severity: int = 0, *, name: str = "photos") -> DatasetReport:
    """Both ways, with R@1 at a tenth of R@10, which is `share`."""
    recall = {k: Estimate(part, part, part) for k, part in ((1, share / 10), (10, share))}
    figures = Summary(recall, Estimate(0.2, 0.1, 0.3), median_rank=4.5, queries=500, tied_queries=0)
    condition = Condition(corruption=corruption, severity=severity) if corruption else None
    return dataset(
        name, condition=condition, figures=dict.fromkeys(("text_to_image", "image_to_text"), figures)
    )


def drawn(
    draw: Callable[[Sequence[RetrievalReport], str, Path], None], path: Path, *reports: RetrievalReport
) -> NDArray[np.int64]:
    draw(reports, "photos", path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return np.asarray(Image.open(path).convert("RGB"), dtype=np.int64)


def coloured(pixels: NDArray[np.int64], colour: str) -> NDArray[np.bool_]:
    """Where (height, width) the image has the colour, to a level or two."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return np.asarray(np.abs(pixels - wanted).max(axis=2) <= 2)


def test_a_heat_map_colours_each_cell_by_what_is_kept_of_the_clean_recall(tmp_path: Path) -> None:
    rows = [measured(0.5), measured(0.5, "blur", 1), measured(0.0, "blur", 2), measured(0.0, "noise", 2)]
    pixels = drawn(draw_heat_map, tmp_path / "heat.png", report("a", *rows, measured(0.9, "jpeg", 1, name="y")))
    kept, lost = coloured(pixels, ALL_KEPT), coloured(pixels, ALL_LOST)
    assert 1.8 < lost.sum() / kept.sum() < 2.1  # blur 2 and noise 2 against blur 1; noise 1 was not measured
    columns = np.select([kept.sum(axis=0) > 20, lost.sum(axis=0) > 20], [1, 2])  # cells, not letters
    assert [colour for colour, _ in groupby(columns[columns > 0])] == [1, 2, 1, 2]  # severities, both ways


def test_curves_begin_at_the_clean_recall_and_fall_in_the_panel_of_the_corruption_alone(tmp_path: Path) -> None:
    old = report("old", measured(0.8), measured(0.8, "blur", 5), measured(0.8, "noise", 5))
    new = report("$new$", measured(0.8), measured(0.1, "noise", 5))
    pixels = drawn(draw_curves, tmp_path / "curves.png", old, new)[:-LEGEND_PIXELS]
    blue, orange = (coloured(pixels, colour) for colour in COLOURS[:2])
    lowest = [np.flatnonzero(side.any(axis=1)).max() for side in np.array_split(blue, 2, axis=1)]
    assert lowest[0] == lowest[1]
    left, right = np.array_split(orange, 2, axis=1)
    assert not left.any()  # it was not measured under blur
    rows = np.flatnonzero(right.any(axis=1))
    assert rows.max() > lowest[0] + 100
    assert np.flatnonzero(right[rows.min()]).max() < np.flatnonzero(right[rows.max()]).min()  # downwards


@pytest.mark.parametrize("draw", [draw_curves, draw_heat_map])
def test_a_set_that_nothing_was_done_to_has_no_such_image(
    draw: Callable[[Sequence[RetrievalReport], str, Path], None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="photos was measured under no corruption"):
        draw([report("a", measured(0.8))], "photos", tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
