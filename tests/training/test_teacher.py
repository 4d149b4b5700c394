"""What a teacher makes of a batch."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from encoders.images import decode_image
from training.data.pairs import read_pairs
from training.fit.recipe import Source
from training.fit.step.cutmix import Box, followers
from training.fit.step.mixture import Mixture, build_mixture
from training.fit.step.teacher import Teacher


@pytest.fixture
def mixture(tmp_path: Path, coloured_pairs: Callable[..., str]) -> Mixture:
    spec = f"{coloured_pairs(tmp_path / 'data')}?limit=6"
    return build_mixture([Source(pairs=spec, word_dropout=0.5)], [read_pairs(spec)])


def teacher_of(bundle: Path, cache: Path) -> Teacher:
    return Teacher(Bundle.open(bundle), cache=cache, device=torch.device("cpu"), threads=1)


def test_it_sees_plain_images_and_whole_captions_and_keeps_what_it_made_of_them(
    tiny_bundle: Path, tmp_path: Path, mixture: Mixture
) -> None:
    teacher = teacher_of(tiny_bundle, tmp_path / "cache")
    assert [len(some) for some in teacher.missing(mixture)] == [6, 12]
    teacher.compute(mixture, on_batch=lambda _: None)
    assert teacher_of(tiny_bundle, tmp_path / "cache").missing(mixture) == ([], [])

    draws = mixture.draw(mixture.examples[0], 0, 0, 0, 0, views=0, captions=2)
    assert any(draw.caption not in draw.example.captions for draw in draws), "no caption was shortened"
    images, texts = teacher.rows(draws, None, part_size=len(draws))
    encoder = Encoder.load(tiny_bundle, device="cpu")
    plain = encoder.encode_images([decode_image(draw.example.image.source.read()) for draw in draws])
    torch.testing.assert_close(images, torch.from_numpy(plain), rtol=0, atol=2e-3)
    for draw, row in zip(draws, texts.numpy(), strict=True):
        whole = encoder.encode_texts(draw.example.captions).vectors
        assert np.abs(whole - row).max(axis=1).min() < 2e-3


def test_a_mixed_image_is_the_mean_of_two_by_the_share_of_the_box(
    tiny_bundle: Path, tmp_path: Path, mixture: Mixture
) -> None:
    teacher = teacher_of(tiny_bundle, tmp_path / "cache")
    teacher.compute(mixture, on_batch=lambda _: None)
    draws = mixture.draw(mixture.examples[0], 0, 0, 0, 0, views=1)
    box = Box(top=0, left=0, side=7)
    own, _ = teacher.rows(draws, None, part_size=6)
    others, _ = teacher.rows(followers(draws, 6), None, part_size=6)
    mixed, _ = teacher.rows(draws, box, part_size=6)
    expected = torch.nn.functional.normalize(0.75 * own + 0.25 * others, dim=1)
    torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-3)
