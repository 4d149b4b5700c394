from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.pairs import read_pairs
from training.errors import EmptyPairSet
from training.fit.recipe import Source
from training.fit.step.mixture import Mixture, build_mixture, caption_ids, distinct_views, image_ids


@pytest.fixture
def two_sources(tmp_path: Path, coloured_pairs: Callable[..., str]) -> Mixture:
    specs = [coloured_pairs(tmp_path / name, seed=seed) for seed, name in enumerate(("many", "few"))]
    sources = [
        Source(pairs=spec, weight=weight, word_dropout=dropout)
        for spec, weight, dropout in zip(specs, (0.5, 2), (0.0, 0.4), strict=True)
    ]
    return build_mixture(sources, [read_pairs(spec) for spec in specs])


def test_weights_say_how_often_an_image_is_seen_in_an_epoch(two_sources: Mixture) -> None:
    seen = Counter(example.number for example in two_sources.epoch(0, 0, 0))
    assert sorted(Counter(seen[number] for number in range(30)).items()) == [(0, 15), (1, 15)]
    assert all(seen[number] == 2 for number in range(30, 60))


def test_an_epoch_depends_on_its_key_alone(two_sources: Mixture) -> None:
    assert two_sources.epoch(0, 1, 2) == two_sources.epoch(0, 1, 2)
    assert two_sources.epoch(0, 1, 2) != two_sources.epoch(0, 1, 3)
    order = two_sources.epoch(0, 1, 2)
    assert two_sources.draw(order, 0, 1, 2, 0, views=3) == two_sources.draw(order, 0, 1, 2, 0, views=3)
    assert two_sources.draw(order, 0, 1, 2, 0, views=3) != two_sources.draw(order, 0, 1, 2, 1, views=3)


def test_views_stay_within_what_is_kept_and_are_never_the_plain_image_when_nothing_is(
    two_sources: Mixture,
) -> None:
    order = two_sources.epoch(0, 0, 0)
    kept = {draw.view for step in range(9) for draw in two_sources.draw(order, 0, 0, 0, step, views=3)}
    assert kept == {0, 1, 2}
    assert 0 not in {draw.view for draw in two_sources.draw(order, 0, 0, 0, 0, views=0)}


def test_captions_drawn_together_are_one_view_of_one_image_which_is_embedded_once(
    two_sources: Mixture,
) -> None:
    images = two_sources.epoch(0, 0, 0)[:10]
    draws = two_sources.draw(images, 0, 0, 0, 0, views=3, captions=5)
    assert len(draws) == 50
    for number, example in enumerate(images):
        group = draws[number * 5 : number * 5 + 5]
        assert {draw.example for draw in group} == {example}
        assert len({draw.view for draw in group}) == 1
        assert len({draw.caption_id for draw in group}) == len(example.captions) == 2
    distinct, rows = distinct_views(draws)
    assert len({(draw.example.image.digest, draw.view) for draw in draws}) == len(distinct) <= 10
    assert [(distinct[row].example, distinct[row].view) for row in rows] == [
        (draw.example, draw.view) for draw in draws
    ]


def test_a_copy_of_an_image_from_another_source_keeps_its_own_view(
    tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    spec = coloured_pairs(tmp_path)
    twice = build_mixture([Source(pairs=spec), Source(pairs=spec)], [read_pairs(spec)] * 2)
    draws = twice.draw([examples[0] for examples in twice.examples], 0, 0, 0, 0, views=1, captions=2)
    distinct, rows = distinct_views(draws)
    assert [draw.example.source for draw in distinct] == [0, 1]
    assert rows.tolist() == [0, 0, 1, 1]
    assert len(set(image_ids(draws).tolist())) == 1


def test_a_view_always_leaves_out_the_same_words_and_the_plain_one_none(two_sources: Mixture) -> None:
    example = two_sources.examples[1][0]
    caption = max(example.captions, key=len)
    assert two_sources.shown(example, caption, 0) == caption
    shown = {two_sources.shown(example, caption, view) for view in range(1, 30)}
    assert len(shown) > 5
    assert two_sources.shown(example, caption, 7) == two_sources.shown(example, caption, 7)


def test_words_drop_out_where_the_source_says_so_and_the_caption_keeps_its_identity(
    two_sources: Mixture,
) -> None:
    draws = [
        draw
        for step in range(5)
        for draw in two_sources.draw(two_sources.epoch(0, 0, 0), 0, 0, 0, step, views=4)
    ]
    whole = {caption for example in two_sources.examples[0] for caption in example.captions}
    assert all(draw.caption in whole for draw in draws if draw.example.source == 0)
    shortened = [draw for draw in draws if draw.example.source == 1 and draw.caption not in whole]
    assert len(shortened) > 10
    by_caption = {draw.caption_id for draw in draws}
    assert len(by_caption) == len(whole)


def test_equal_captions_and_equal_images_have_equal_ids(two_sources: Mixture) -> None:
    draws = [
        draw
        for step in range(8)
        for draw in two_sources.draw(list(two_sources.examples[0][:2]) * 2, 0, 0, 0, step, views=1)
    ]
    images, captions = image_ids(draws), caption_ids(draws)
    for row, draw in enumerate(draws):
        same_image = [other.example.number == draw.example.number for other in draws]
        same_caption = [other.caption == draw.caption for other in draws]
        assert (images == images[row]).tolist() == same_image
        assert (captions == captions[row]).tolist() == same_caption


def test_a_source_without_a_single_usable_image_is_an_error(
    tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    spec = coloured_pairs(tmp_path)
    for image in tmp_path.glob("*.png"):
        image.write_bytes(b"nothing")
    with pytest.raises(EmptyPairSet, match="none of its 30 images decodes"):
        build_mixture([Source(pairs=spec)], [read_pairs(spec)])
