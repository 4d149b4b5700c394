from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from training.errors import EmptyPairSet
from training.mixture import Mixture, build_mixture, caption_ids, image_ids
from training.pairs import read_pairs
from training.recipe import Source


@pytest.fixture
def two_sources(tmp_path: Path, coloured_pairs: Callable[..., str]) -> Mixture:
    specs = [coloured_pairs(tmp_path / name, seed=seed) for seed, name in enumerate(("many", "few"))]
    sources = [
        Source(pairs=spec, weight=weight, word_dropout=dropout)
        for spec, weight, dropout in zip(specs, (0.5, 2), (0.0, 0.4), strict=True)
    ]
    return build_mixture(sources, [read_pairs(spec) for spec in specs])


def test_weights_say_how_often_a_picture_is_seen_in_an_epoch(two_sources: Mixture) -> None:
    seen = Counter(example.number for example in two_sources.epoch(0, 0, 0))
    assert sorted(Counter(seen[number] for number in range(30)).items()) == [(0, 15), (1, 15)]
    assert all(seen[number] == 2 for number in range(30, 60))


def test_an_epoch_depends_on_its_key_alone(two_sources: Mixture) -> None:
    assert two_sources.epoch(0, 1, 2) == two_sources.epoch(0, 1, 2)
    assert two_sources.epoch(0, 1, 2) != two_sources.epoch(0, 1, 3)
    order = two_sources.epoch(0, 1, 2)
    assert two_sources.draw(order, 3, 0, 1, 2, 0) == two_sources.draw(order, 3, 0, 1, 2, 0)
    assert two_sources.draw(order, 3, 0, 1, 2, 0) != two_sources.draw(order, 3, 0, 1, 2, 1)


def test_views_stay_within_what_is_kept_and_are_never_the_plain_picture_when_nothing_is(
    two_sources: Mixture,
) -> None:
    order = two_sources.epoch(0, 0, 0)
    kept = {draw.view for step in range(9) for draw in two_sources.draw(order, 3, 0, 0, 0, step)}
    assert kept == {0, 1, 2}
    assert 0 not in {draw.view for draw in two_sources.draw(order, 0, 0, 0, 0, 0)}


def test_words_drop_out_where_the_source_says_so_and_the_caption_keeps_its_identity(
    two_sources: Mixture,
) -> None:
    draws = [
        draw for step in range(5) for draw in two_sources.draw(two_sources.epoch(0, 0, 0), 1, 0, 0, 0, step)
    ]
    whole = {caption for example in two_sources.examples[0] for caption in example.captions}
    assert all(draw.caption in whole for draw in draws if draw.example.source == 0)
    shortened = [draw for draw in draws if draw.example.source == 1 and draw.caption not in whole]
    assert len(shortened) > 10
    by_caption = {draw.caption_id for draw in draws}
    assert len(by_caption) == len(whole)


def test_equal_captions_and_equal_pictures_have_equal_ids(two_sources: Mixture) -> None:
    draws = [
        draw
        for step in range(8)
        for draw in two_sources.draw(list(two_sources.examples[0][:2]) * 2, 1, 0, 0, 0, step)
    ]
    pictures, captions = image_ids(draws), caption_ids(draws)
    for row, draw in enumerate(draws):
        same_picture = [other.example.number == draw.example.number for other in draws]
        same_caption = [other.caption == draw.caption for other in draws]
        assert (pictures == pictures[row]).tolist() == same_picture
        assert (captions == captions[row]).tolist() == same_caption


def test_a_source_without_a_single_usable_picture_is_an_error(
    tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    spec = coloured_pairs(tmp_path)
    for picture in tmp_path.glob("*.png"):
        picture.write_bytes(b"nothing")
    with pytest.raises(EmptyPairSet, match="none of its 30 pictures decodes"):
        build_mixture([Source(pairs=spec)], [read_pairs(spec)])
