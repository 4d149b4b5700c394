"""The contact sheet of a recipe's augmentations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from encoders.images import Preprocessing, to_pixels
from training.__main__ import app
from training.augmentation.augment import NO_AUGMENTATION, Augmentation
from training.data.pairs import ImageSource
from training.fit.contact_sheet import CELL, GAP, LINE, Pipeline, contact_sheet, described, pipelines_of
from training.fit.recipe import Source
from training.fit.views.views import TrainingImage, image_digest

RECIPE = """
name = "r"
[start]
bundle = "{bundle}"
[[sources]]
pairs = "csv:photos.csv"
[[sources]]
pairs = "csv:drawings.csv"
augmentation = "drawings"
[[phases]]
name = "p"
epochs = 1
"""


def run(tmp_path: Path, bundle: Path, folder: Path, *options: str) -> Result:
    (tmp_path / "recipe.toml").write_text(RECIPE.format(bundle=bundle))
    arguments = ["augment", tmp_path / "recipe.toml", "--images", folder, "--out", tmp_path / "sheet.png"]
    return CliRunner().invoke(app, [*map(str, arguments), *options])


def test_the_plain_image_comes_first_and_every_view_after_it_differs(
    tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    coloured_pairs(tmp_path)
    source = ImageSource(tmp_path / "red-blue-0.png")
    image = TrainingImage(source, image_digest(source), flippable=True)
    spec = Preprocessing(height=CELL, width=CELL)
    sheet = contact_sheet(
        [("red-blue-0.png", image)], [Pipeline(("a",), Augmentation())], preprocessing=spec, views=3, seed=0
    )
    top = sheet.height - 2 * GAP - (CELL + LINE + GAP)
    cells = [
        np.asarray(sheet.crop((left, top, left + CELL, top + CELL)))
        for left in (GAP + place * (CELL + GAP) for place in range(4))
    ]
    np.testing.assert_array_equal(cells[0], to_pixels(Image.open(source.path).convert("RGB"), spec))
    assert len({cell.tobytes() for cell in cells}) == 4


def test_sources_of_one_augmentation_share_a_block_that_says_what_is_on() -> None:
    jpeg = {"a": 0.2, "b": 0.9, "c": 0.2}
    given = {name: Source(pairs="csv:x", augmentation=Augmentation(jpeg=share)) for name, share in jpeg.items()}
    assert [one.sources for one in pipelines_of(given)] == [("a", "c"), ("b",)]
    assert described(NO_AUGMENTATION) == "none"
    assert described(Augmentation()).startswith("standard; crop_area 0.5 to 1 (0.75 to 1.33); flip 0.5; ")
    assert "jpeg 0.9 (20 to 80)" in described(Augmentation(jpeg=0.9))
    assert "noise" not in described(Augmentation())


def test_the_command_draws_a_block_for_each_source_and_names_what_it_leaves_out(
    tmp_path: Path, tiny_bundle: Path, coloured_pairs: Callable[..., str]
) -> None:
    folder = tmp_path / "mine"
    coloured_pairs(folder)
    (folder / "a-broken.png").write_bytes(b"nothing")
    result = run(tmp_path, tiny_bundle, folder, "--views", "4", "--count", "2")
    assert result.exit_code == 0, result.output
    assert "left out: a-broken.png" in result.output
    assert "2 images, 4 views each: black-blue-0.png, black-green-0.png" in result.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 5 * (CELL + GAP) + GAP
        assert sheet.height > 2 * 2 * CELL


@pytest.mark.parametrize("missing", [True, False])
def test_a_folder_without_images_is_an_error_that_names_it(
    tmp_path: Path, tiny_bundle: Path, missing: bool
) -> None:
    folder = tmp_path / "empty"
    if not missing:
        folder.mkdir()
    result = run(tmp_path, tiny_bundle, folder)
    assert result.exit_code == 2
    assert str(folder) in result.output
    assert not (tmp_path / "sheet.png").exists()
