"""A box of each image is the next one's, and its target is that share of the next one's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.data.pairs import read_pairs
from training.fit.recipe import Source
from training.fit.step.cutmix import GRID, Box, draw_box, followers
from training.fit.step.mixture import build_mixture


@pytest.mark.parametrize("side", [14, 28, 224])
def test_the_box_is_the_next_images_and_the_share_is_its_area(side: int) -> None:
    maps = torch.arange(3.0)[:, None, None, None].expand(3, 2, side, side)
    box = Box(top=2, left=5, side=7)
    mixed = box.paste(maps)
    for image in range(3):
        values, counts = mixed[image, 0].unique(return_counts=True)
        shares = dict(zip(values.tolist(), (counts / side**2).tolist(), strict=True))
        assert shares == {image: 0.75, (image + 1) % 3: box.share}
    assert mixed[0, 0, side * 2 // GRID, side * 5 // GRID] == 1
    assert maps[0].max() == 0


def test_pooled_features_have_no_boxes() -> None:
    with pytest.raises(ValueError, match=r"maps .* got \(4, 8\)"):
        Box(0, 0, 3).paste(torch.zeros(4, 8))


def test_boxes_come_as_often_as_asked_lie_inside_and_depend_on_the_key_alone() -> None:
    boxes = [draw_box(0.4, 7, step) for step in range(500)]
    assert boxes == [draw_box(0.4, 7, step) for step in range(500)]
    drawn = [box for box in boxes if box is not None]
    assert 150 < len(drawn) < 250
    assert all(box.top >= 0 and box.left >= 0 for box in drawn)
    assert all(max(box.top, box.left) + box.side <= GRID for box in drawn)
    assert {box.side for box in drawn} == set(range(1, GRID))
    assert not any(draw_box(0.0, step) for step in range(50))


def test_each_draw_follows_within_its_part(tmp_path: Path, coloured_pairs: Callable[..., str]) -> None:
    spec = coloured_pairs(tmp_path)
    mixture = build_mixture([Source(pairs=spec)], [read_pairs(spec)])
    draws = mixture.draw(mixture.examples[0][:6], 0, 0, 0, 0, views=1, captions=2)
    numbers = [draw.example.number for draw in followers(draws, part_size=6)]
    assert numbers == [1, 1, 2, 2, 0, 0, 4, 4, 5, 5, 3, 3]
