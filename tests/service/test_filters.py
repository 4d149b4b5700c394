"""Filters: what one may ask for is bounded, and unknown keys do not have every payload read again."""

import operator
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_service import Running, running

from index.image_files import ImageSource
from index.items import ITEM_SCHEMA, ItemRecord, ItemTable
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
    assert passing(payload_filter, {"must": {"key": "year", "range": {"gte": 1}}}) == [
        0
    ]  # 10**400 is kept as text
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


NEAR = st.sampled_from([2**53, 2**54, 2**63, 2**64, 10**18]).flatmap(
    lambda power: st.integers(power - 3, power + 3) | st.integers(-power - 3, -power + 3)
)
KEPT = st.integers(-(2**63), 2**64 - 1)  # integers beyond 64 bits are kept as text
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | NEAR.map(float)
NUMBERS = KEPT | NEAR.filter(lambda number: -(2**63) <= number < 2**64) | FLOATS | st.integers(-3, 3)
VALUES = NUMBERS | st.booleans() | st.sampled_from(["1", "9007199254740993", "true"])
BOUNDS = NUMBERS | st.integers() | st.sampled_from([10**400, -(10**400), 2**64, 2**1024])
OPERATORS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}


def elements(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(VALUES | st.lists(VALUES, max_size=3), max_size=12),
    bounds=st.dictionaries(st.sampled_from(list(OPERATORS)), BOUNDS, min_size=1, max_size=2),
)
def test_a_range_compares_numbers_as_python_does(values, bounds):
    payload_filter = PayloadFilter(counted_items([{"n": value} for value in values]))
    expected = [
        row
        for row, value in enumerate(values)
        if any(
            is_number(one) and all(OPERATORS[name](one, bound) for name, bound in bounds.items())
            for one in elements(value)
        )
    ]
    assert passing(payload_filter, {"key": "n", "range": bounds}) == expected


@settings(max_examples=200, deadline=None)
@given(values=st.lists(VALUES, max_size=12), data=st.data())
def test_a_match_takes_numbers_for_the_same_where_python_does(values, data):
    wanted = data.draw(st.sampled_from(values) | BOUNDS if values else BOUNDS)
    payload_filter = PayloadFilter(counted_items([{"n": value} for value in values]))
    same_kind = is_number if is_number(wanted) else lambda value: type(value) is type(wanted)
    expected = [row for row, value in enumerate(values) if same_kind(value) and value == wanted]
    for match in ({"value": wanted}, {"any": [wanted]}):
        assert passing(payload_filter, {"key": "n", "match": match}) == expected
    others = [row for row in range(len(values)) if row not in expected]
    assert passing(payload_filter, {"key": "n", "match": {"except": [wanted]}}) == others


@pytest.mark.parametrize("bound", [True, "5", [5], float("nan"), float("inf")])
def test_a_bound_that_is_no_number_is_refused(bound):
    with pytest.raises(InvalidField, match=r"filter: range\.gte: .*finite numbers"):
        parse_filter({"key": "year", "range": {"gte": bound}})


def test_integers_beyond_floats_are_told_and_filtered_exactly_in_a_live_gallery(
    releases, settings_for, tmp_path
):
    shutil.copytree(releases, tmp_path / "releases")
    big = 2**53 + 1
    with running(settings_for(tmp_path / "releases", live_changes=True)) as service:
        for number in (big, big + 1, 2**64 - 1, 2.0**53, True, str(big)):
            asked = {"payload": {"n": number}, "vector": [1.0] * 16, "model_fingerprint": fingerprint(service)}
            assert service.client.put(f"/items/{number!r}", json=asked).status_code == 200

        def found(condition: dict[str, Any]) -> list[Any]:
            asked = {"query": "a", "k": 100, "filter": {"must": [{"key": "n", **condition}]}}
            results = service.client.post("/search/text", json=asked).json()["results"]
            return sorted((hit["payload"]["n"] for hit in results), key=str)

        assert found({"match": {"value": big}}) == [big]
        assert found({"match": {"value": 2**53}}) == [2.0**53]
        assert found({"range": {"gt": big}}) == [2**64 - 1, big + 1]
        assert found({"range": {"gt": 2**53, "lte": big}}) == [big]
        assert found({"range": {"gte": 2**64}}) == []
        (field,) = [each for each in service.client.get("/fields").json()["fields"] if each["key"] == "n"]
        assert (field["minimum"], field["maximum"]) == (2**53, 2**64 - 1)


def fingerprint(service: Running) -> str:
    return service.serving.state.encoder.fingerprint


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
