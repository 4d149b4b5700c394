"""Rules that every item keeps, whatever source it comes from."""

import json
import math
from datetime import date
from pathlib import Path

import orjson
import pytest

from index.errors import BadItem
from index.gallery import (
    Failure,
    GalleryItem,
    checked_id,
    clean_payload,
    path_below,
    texts_of,
    without_duplicates,
)
from index.image_files import ImageSource


@pytest.mark.parametrize("good", ["a.jpg", "animals/dog 1.webp", "ünïcode/😀.png", "a..b", "...", "x" * 1024])
def test_clean_relative_path_is_an_id(good):
    assert checked_id(good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "/etc/passwd",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        ".",
        "a\0b",
        "a\nb",
        "a\x7f",
        "\udcff.jpg",
        "x" * 1025,
        None,
        True,
        1.5,
        ["a"],
    ],
)
def test_id_that_could_leave_the_gallery_or_break_a_url_is_refused(bad):
    with pytest.raises(BadItem) as caught:
        checked_id(bad)
    assert caught.value.code == "bad_id"


def test_number_is_an_id():
    assert checked_id(12) == "12"


@pytest.mark.parametrize(
    ("path", "relative"),
    [("a.jpg", "a.jpg"), ("./b/../a.jpg", "a.jpg"), ("/data/pets/a.jpg", "a.jpg"), ("..a/b.jpg", "..a/b.jpg")],
)
def test_path_below_the_root_becomes_relative_to_it(path, relative):
    assert path_below(Path("/data/pets"), path) == relative


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("../secret.jpg", "outside_gallery"),
        ("/data/petshop/a.jpg", "outside_gallery"),
        (".", "outside_gallery"),
        ("http://example.org/a.jpg", "bad_path"),
        ("a\0.jpg", "bad_path"),
        ("\ud800.jpg", "bad_path"),
        ("", "bad_path"),
        (None, "bad_path"),
        (3, "bad_path"),
    ],
)
def test_path_elsewhere_is_refused(path, code):
    with pytest.raises(BadItem) as caught:
        path_below(Path("/data/pets"), path)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("columns", "texts"),
    [
        ({"title": " a  dog\n"}, ("a dog",)),
        ({"title": "Dog", "caption": "a dog runs"}, ("a dog runs",)),
        ({"caption": "one", "captions": ["two", "three", "two", "", None]}, ("two", "three")),
        ({"captions": [], "title": "Dog"}, ("Dog",)),
        ({"title": 1984}, ("1984",)),
        ({"title": "half \ud800 pair"}, ("half � pair",)),
        ({"title": None}, ()),
        ({}, ()),
    ],
)
def test_captions_are_the_texts_and_else_the_title(columns, texts):
    assert texts_of(columns) == texts


def test_payload_is_what_json_can_hold():
    odd = {
        "a": math.nan,
        "b": [1, math.inf],
        "c": date(2020, 1, 2),
        "d": b"raw",
        "e": {"\ud800": "\ud83d\ude00"},
    }
    assert clean_payload(odd) == {"a": None, "b": [1, None], "c": "2020-01-02", "e": {"�": "😀"}}


@pytest.mark.parametrize("small", [2**64 - 1, -(2**63), 0, True])
def test_integer_of_64_bits_stays_a_number(small):
    assert clean_payload({"barcode": small}) == {"barcode": small}


@pytest.mark.parametrize("large", [2**64, 2**70, -(2**63) - 1, 10**400])
def test_larger_integer_becomes_text_that_the_service_can_send(large):
    cleaned = clean_payload({"barcode": large, "more": [{"code": large}]})
    assert cleaned == {"barcode": str(large), "more": [{"code": str(large)}]}
    assert orjson.loads(orjson.dumps(cleaned)) == cleaned


def test_payload_may_nest_some_and_not_endlessly():
    def nested(depth):
        return {"in": nested(depth - 1)} if depth > 1 else {}

    assert clean_payload(nested(64)) == nested(64)
    for too_deep in (nested(65), {"list": [nested(63)]}, {"a": json.loads("[" * 64 + "]" * 64)}):
        with pytest.raises(BadItem, match="more than 64 deep") as caught:
            clean_payload(too_deep)
        assert caught.value.code == "bad_row"


def test_halves_of_pairs_are_mended_in_every_key_and_text():
    assert clean_payload({"\ud800": {"\udfff": "\udcff"}}) == {"�": {"�": "�"}}


def test_bottomless_payload_is_a_bad_row():
    nested: dict = {}
    nested["again"] = nested
    with pytest.raises(BadItem, match="nested"):
        clean_payload(nested)


def test_second_item_of_an_id_is_a_failure_and_the_first_stays():
    item, broken = GalleryItem("a", ImageSource("a")), Failure("b", "bad_row", "x")
    first, second, third = without_duplicates([item, item, broken])
    assert (first, third) == (item, broken)
    assert (second.item, second.code) == ("a", "duplicate_id")
