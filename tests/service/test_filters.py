"""Filters: what one may ask for is bounded, and unknown keys do not have every payload read again."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from live_service import running

from index.items import ITEM_SCHEMA, ItemRecord, ItemTable
from index.pictures import ImageSource
from service.errors import InvalidField
from service.search.filters import MAX_CONDITIONS, PayloadFilter, parse_filter

PAYLOADS: tuple[dict[str, Any], ...] = (
    {"year": 2000, "camera": {"maker": "a", "lens": {"mm": 50}}, "a.b": 1},
    {"year": 10**400, "tags": ["x", "y"]},
    {"year": True, "camera": "none"},
)


class CountedItems(ItemTable):
    """Counts how often every payload is read."""

    passes = 0

    def payloads(self) -> Iterator[dict[str, Any]]:
        self.passes += 1
        return super().payloads()


def counted_items(payloads: Sequence[dict[str, Any]]) -> CountedItems:
    rows = [
        ItemRecord(f"{row}.png", bytes(32), ImageSource(f"{row}.png"), 1, 1, (0, 1), payload).as_row()
        for row, payload in enumerate(payloads)
    ]
    return CountedItems(pa.Table.from_pylist(rows, schema=ITEM_SCHEMA))


@pytest.fixture
def items() -> CountedItems:
    return counted_items(PAYLOADS)


def passing(payload_filter: PayloadFilter, raw: dict[str, Any]) -> list[int]:
    condition = parse_filter(raw)
    assert condition is not None
    return payload_filter.mask(condition).nonzero()[0].tolist()


def keyed(key: str, value: object) -> dict[str, Any]:
    return {"key": key, "match": {"value": value}}


def test_all_keys_of_a_filter_cost_one_pass_and_unknown_or_known_ones_none_after_it(items):
    payload_filter = PayloadFilter(items)
    assert passing(payload_filter, {"should": [keyed("year", 2000), keyed("tags", "y")]}) == [0, 1]
    assert items.passes == 1
    assert passing(payload_filter, {"should": [keyed(f"tags.{n}", 1) for n in range(MAX_CONDITIONS)]}) == []
    assert passing(payload_filter, {"must_not": [{"is_empty": {"key": "tags"}}]}) == [1]
    assert items.passes == 1


def test_nested_dotted_and_enormous_values_are_reached(items):
    payload_filter = PayloadFilter(items)
    assert passing(payload_filter, {"must": keyed("camera.lens.mm", 50)}) == [0]
    assert passing(payload_filter, {"must": keyed("camera.maker", "a")}) == [0]
    assert passing(payload_filter, {"must": keyed("a.b", 1)}) == [0]
    assert passing(payload_filter, {"must": {"key": "year", "range": {"gte": 1}}}) == [0]
    assert passing(payload_filter, {"must": {"is_empty": {"key": "camera.lens"}}}) == [1, 2]


def test_empty_is_what_is_missing_null_or_a_list_of_nothing_and_no_object():
    values = ({}, {"a": None}, {"a": []}, {"a": {}}, {"a": [{"b": 1}]}, {"a": ""}, {"a": [None]}, {"a": 0})
    payload_filter = PayloadFilter(counted_items(values))
    assert passing(payload_filter, {"must": {"is_empty": {"key": "a"}}}) == [0, 1, 2]


def test_a_list_passes_an_except_by_any_element_that_is_none_of_them():
    payload_filter = PayloadFilter(counted_items([{"tags": ["x", "y", "x"]}, {"tags": "x"}, {"tags": []}, {}]))
    for unwanted, passed in (
        (["x"], [0]),
        (["y", "y"], [0, 1]),
        (["x", "y"], []),
        (["z", 1], [0, 1]),
        ([], [0, 1]),
    ):
        assert passing(payload_filter, {"must": {"key": "tags", "match": {"except": unwanted}}}) == passed


def test_a_number_is_the_same_however_it_is_written_and_is_no_text_and_no_truth():
    years = (2000, 2000.0, "2000", 2000.5, 1, 1.0, True, "true", 2**53 + 1, 2**53)
    payload_filter = PayloadFilter(counted_items([{"year": year} for year in years]))
    found = (
        (2000, [0, 1]),
        ("2000", [2]),
        (2000.5, [3]),
        (1, [4, 5]),
        (True, [6]),
        (2**53 + 1, [8]),
        (2.0**53, [9]),
    )
    for value, rows in found:
        assert passing(payload_filter, {"must": keyed("year", value)}) == rows


@pytest.mark.parametrize(
    "raw",
    [
        {"should": [keyed(f"k{n}", 1) for n in range(300)]},
        {"must": [{"should": [keyed(f"k{n}", 1) for n in range(40)]}, {"must": [keyed("a", 1)] * 40}]},
        {"must": {"key": "year", "match": {"any": list(range(1001))}}},
        {"must": {"key": "year", "match": {"except": list(range(1001))}}},
        {"has_id": ["a"] * 1001},
        {"must": [{"has_id": ["a"] * 1000}] * 5},
        {"must": {"key": "a", "match": {"any": [[{}] * 4999]}}},
    ],
)
def test_a_filter_that_asks_for_too_much_is_refused_with_the_bound(raw):
    with pytest.raises(InvalidField, match=r"\b(64|1000|5000)\b"):
        parse_filter(raw)


def test_the_payloads_of_a_large_gallery_are_read_beside_the_search_thread(releases, settings_for, monkeypatch):
    """Searches go on meanwhile, and several filters that need the same share one reading."""
    monkeypatch.setattr("service.search.columns.INLINE_VALUES", 0)
    with running(settings_for(releases)) as service:
        release = service.serving.state.release
        began, go_on, readings = threading.Event(), threading.Event(), []
        payloads = type(release.items).payloads

        def slowly(items):
            readings.append(threading.current_thread().name)
            began.set()
            go_on.wait(30)
            yield from payloads(items)

        monkeypatch.setattr(type(release.items), "payloads", slowly)
        asked = {"query": "a cat", "k": 50, "filter": {"must": [{"key": "year", "range": {"gte": 2010}}]}}
        with ThreadPoolExecutor(3) as pool:
            waiting = [pool.submit(service.client.post, "/search/text", json=asked) for _ in range(3)]
            assert began.wait(30)
            assert service.client.post("/search/text", json={"query": "a dog"}).status_code == 200
            go_on.set()
            answers = [future.result() for future in waiting]
        for answer in answers:
            years = [hit["payload"]["year"] for hit in answer.json()["results"]]
            assert sorted(years) == list(range(2010, 2024))
        assert len(readings) == 1
        assert readings[0].startswith("gather")
