"""The demo gallery as committed: whole, small and tidy, with queries whose right answers are in it."""

import json
import re
from pathlib import Path
from typing import Any

from PIL import Image

DEMO = Path(__file__).resolve().parent.parent / "demo"
GALLERY = DEMO / "gallery"
MOST_BYTES = 5_000_000
MOST_CATEGORIES = 20


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


ITEMS = lines_of(GALLERY / "items.jsonl")
TIDY_TITLE = re.compile(r"[A-Z0-9][A-Za-z0-9' ,.-]*[A-Za-z0-9]")


def test_every_item_has_an_image_that_decodes() -> None:
    for item in ITEMS:
        with Image.open(GALLERY / item["image"]) as image:
            image.load()
            assert max(image.size) <= 256, item["id"]


def test_the_gallery_holds_its_items_images_and_nothing_else_within_five_megabytes() -> None:
    found = {path.relative_to(GALLERY).as_posix() for path in GALLERY.rglob("*") if path.is_file()}
    assert found == {item["image"] for item in ITEMS} | {"items.jsonl"}
    assert sum(path.stat().st_size for path in GALLERY.rglob("*") if path.is_file()) <= MOST_BYTES


def test_there_are_one_to_two_thousand_items_with_ids_sources_and_titles_of_their_own() -> None:
    assert 1_200 <= len(ITEMS) <= 2_000
    for key in ("id", "image", "source", "title"):
        assert len({item[key].lower() for item in ITEMS}) == len(ITEMS), key


def test_titles_are_short_and_tidy_and_tags_clean() -> None:
    for item in ITEMS:
        assert TIDY_TITLE.fullmatch(item["title"]), item
        assert len(item["title"].split()) <= 9, item
        assert item["tags"], item
        assert item["tags"] == sorted({tag.strip().lower() for tag in item["tags"]}), item


def test_categories_are_few_and_licences_stated() -> None:
    assert len({item["category"] for item in ITEMS}) <= MOST_CATEGORIES
    assert {item["license"] for item in ITEMS} == {"Public domain"}


def test_every_query_expects_items_of_the_gallery() -> None:
    ids = {item["id"] for item in ITEMS}
    queries = lines_of(DEMO / "queries.jsonl")
    assert {"a dog", "red car", "birthday cake", "water skiing"} <= {query["query"] for query in queries}
    for query in queries:
        assert query["expected"], query
        assert set(query["expected"]) <= ids, set(query["expected"]) - ids
