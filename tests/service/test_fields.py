"""`/fields`: what there is to filter by, counted as the filters themselves count."""

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_service import ITEM_COUNT, Running

from index.items import ITEM_SCHEMA, ItemTable, TableWriter
from service.search import fields
from service.search.fields import FieldCounts


def table_of(folder: Path, payloads: list[dict[str, Any]]) -> ItemTable:
    """An item table of which only the payloads matter."""
    path = folder / "items.parquet"
    with TableWriter(path, ITEM_SCHEMA) as writer:
        for number, payload in enumerate(payloads):
            writer.append(
                dict.fromkeys(ITEM_SCHEMA.names)
                | {"id": str(number), "digest": bytes(32), "payload": json.dumps(payload)}
            )
    return ItemTable.read(path)


def counted(folder: Path, payloads: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {each["key"]: each for each in FieldCounts(table_of(folder, payloads)).report()["fields"]}


def test_fields_tell_kinds_common_values_and_ranges(client: httpx.Client, service: Running) -> None:
    answer = client.get("/fields").json()
    assert (answer["release"], answer["items"]) == (service.serving.state.release.id, ITEM_COUNT)
    found = {each["key"]: each for each in answer["fields"]}
    assert list(found) == ["title", "category", "year", "tags"]
    assert found["category"]["values"] == [
        {"value": "animals", "count": ITEM_COUNT // 2},
        {"value": "cars", "count": ITEM_COUNT // 2},
    ]
    assert (found["year"]["kind"], found["year"]["minimum"], found["year"]["maximum"]) == ("number", 2000, 2023)
    assert found["year"]["values"] == []  # each year once: the range tells all
    assert (found["tags"]["filled"], found["tags"]["distinct"]) == (1, 2)


def test_every_count_is_what_its_filter_lets_through(client: httpx.Client) -> None:
    for each in client.get("/fields").json()["fields"]:
        for value in each["values"]:
            condition = {"key": each["key"], "match": {"value": value["value"]}}
            body = {"query": "a dog", "k": 1000, "filter": {"must": [condition]}}
            assert len(client.post("/search/text", json=body).json()["results"]) == value["count"]


def test_fields_that_the_caller_holds_are_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/fields")
    again = client.get("/fields", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_fields_are_counted_once_for_all_who_ask_at_once(
    service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, asked = service.serving.state, []
    go_on = threading.Event()

    def counting() -> dict[str, Any]:
        asked.append(threading.current_thread().name)
        go_on.wait(10)
        return {"items": 0, "counted": 0, "fields": []}

    monkeypatch.setattr(state.fields, "_work", counting)
    monkeypatch.setattr(state.fields, "_result", None)
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        answers: list[int] = []
        callers = [
            threading.Thread(target=lambda: answers.append(httpx.get(f"{service.url}/fields").status_code))
            for _ in range(3)
        ]
        for caller in callers:
            caller.start()
        assert client.get("/healthz").status_code == 200  # the event loop is free meanwhile
        go_on.set()
        for caller in callers:
            caller.join(10)
    assert answers == [200, 200, 200]
    assert len(asked) == 1
    assert asked[0].startswith("aside")


def test_values_of_their_own_are_no_choice_and_prose_is_none_either(tmp_path: Path) -> None:
    prose = "x" * 101
    payloads = [{"title": f"nr {n}", "note": prose, "license": "CC0", "seen": n % 2 == 0} for n in range(30)]
    payloads[1]["title"] = payloads[0]["title"]  # by chance
    found = counted(tmp_path, payloads)
    assert found["title"]["values"] == found["note"]["values"] == []
    assert found["license"]["values"] == [{"value": "CC0", "count": 30}]
    assert found["seen"]["kind"] == "bool"
    assert {value["value"]: value["count"] for value in found["seen"]["values"]} == {True: 15, False: 15}


def test_objects_lists_and_mixtures_are_read_as_filters_read_them(tmp_path: Path) -> None:
    payloads = [
        {"maker": {"name": "Ann"}, "tags": ["red", "red", "old"], "size": size} for size in (1, "1", True)
    ]
    found = counted(tmp_path, [*payloads, {"size": None, "tags": [], "deep": {"er": []}}])
    assert found["maker.name"]["values"] == [{"value": "Ann", "count": 3}]
    assert found["tags"]["values"] == [{"value": "old", "count": 3}, {"value": "red", "count": 3}]
    assert (found["size"]["kind"], found["size"]["distinct"], found["size"]["filled"]) == ("mixed", 3, 3)
    assert "deep.er" not in found


def test_what_is_counted_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "MAX_ITEMS", 10)
    monkeypatch.setattr(fields, "MAX_FIELDS", 2)
    monkeypatch.setattr(fields, "MAX_DISTINCT", 3)
    payloads = [{"code": f"{n}", "kind": "a", "third": 1} for n in range(25)]
    answer = FieldCounts(table_of(tmp_path, payloads)).report()
    assert (answer["items"], answer["counted"]) == (25, 9)
    assert [each["key"] for each in answer["fields"]] == ["code", "kind"]
    assert (answer["fields"][0]["distinct"], answer["fields"][0]["more_distinct"]) == (3, True)
    assert answer["fields"][1]["values"] == [{"value": "a", "count": 9}]


def test_what_is_laid_over_a_release_counts_as_if_it_had_been_built_so(tmp_path: Path) -> None:
    colours = ("red", "red", "red", "blue", "blue", "green", "green")
    payloads = [{"colour": colour, "year": 2000 + n} for n, colour in enumerate(colours)]
    added = [{"colour": "blue", "size": 1.5}, {"colour": "white", "size": 1.5}]
    over = FieldCounts(table_of(tmp_path, payloads)).report(hidden=[0, 5, 6], added=added)
    built = FieldCounts(table_of(tmp_path, [*payloads[1:5], *added])).report()
    assert over["fields"][0]["values"] == [{"value": "blue", "count": 3}, {"value": "red", "count": 2}]
    ranges = {"minimum": None, "maximum": None}
    assert over | {"fields": [each | ranges for each in over["fields"]]} == built | {
        "fields": [each | ranges for each in built["fields"]]
    }


def test_laying_over_counts_no_more_than_the_items_that_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fields, "MAX_ITEMS", 10)
    counts = FieldCounts(table_of(tmp_path, [{"kind": "a"} for _ in range(20)]))  # every second one
    report = counts.report(hidden=[2, 3, 4], added=[{"kind": "a"}] * 5)
    assert (report["items"], report["counted"]) == (22, 11)
    assert report["fields"][0]["values"] == [{"value": "a", "count": 11}]
    assert counts.report()["fields"][0]["values"] == [{"value": "a", "count": 10}]
