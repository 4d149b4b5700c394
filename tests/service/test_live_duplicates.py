"""`/duplicates`: exact, by pages, with live changes, and never in the way of searches."""

import io
import shutil
import threading

import numpy as np
import pytest
from live_service import ITEM_COUNT, image_file, running
from PIL import Image

from service.search import duplicates

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def service(tmp_path_factory, releases, settings_for):
    """With copies of some images, one of them written anew, and one item that is gone."""
    folder = tmp_path_factory.mktemp("duplicates") / "releases"
    shutil.copytree(releases, folder)
    with running(settings_for(folder, live_changes=True)) as started:
        for name, seed in (("copy of 2", 2), ("another of 2", 2), ("copy of 9", 9)):
            assert started.client.put(f"/items/{name}", content=image_file(seed), headers=PNG).is_success
        with Image.open(io.BytesIO(image_file(9))) as image:
            buffer = io.BytesIO()
            image.save(buffer, "BMP")
        bmp = {"content-type": "image/bmp"}
        assert started.client.put("/items/as bmp", content=buffer.getvalue(), headers=bmp).is_success
        assert started.client.put("/items/gone", content=image_file(9), headers=PNG).is_success
        assert started.client.delete("/items/gone").is_success
        yield started


def pages(client, **options):
    found, cursor = [], {}
    while cursor is not None:
        answer = client.get("/duplicates", params={**options, **cursor})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found.append(body)
        cursor = {"cursor": body["next"]} if body["next"] else None
    return found


def pairs(bodies):
    return {
        (item["id"], twin["id"]): (twin["score"], twin["identical"])
        for body in bodies
        for item in body["results"]
        for twin in item["duplicates"]
    }


def exact(service, least):
    """By comparing everything."""
    view = service.serving.state.view
    delta = view.delta
    rows = [*range(ITEM_COUNT), *(ITEM_COUNT + row for row in sorted(delta.row_of.values()))]
    vectors = np.stack([view.vector(row) for row in rows])
    scores = vectors @ vectors.T
    return {
        (view.id(rows[one]), view.id(rows[other])): float(scores[one, other])
        for one in range(len(rows))
        for other in range(one + 1, len(rows))
        if scores[one, other] >= least - 1e-6
    }


def test_copies_are_found_each_pair_once_and_say_whether_the_files_are_the_same(service):
    found = pairs(pages(service.client, min_score=1.0))
    items = service.serving.state.release.items
    second, ninth = items.id(2), items.id(9)
    assert {pair: identical for pair, (_, identical) in found.items()} == {
        (second, "copy of 2"): True,
        (second, "another of 2"): True,
        ("copy of 2", "another of 2"): True,
        (ninth, "copy of 9"): True,
        (ninth, "as bmp"): False,
        ("copy of 9", "as bmp"): False,
    }


@pytest.mark.parametrize(("queries", "rows"), [(256, 16_384), (3, 5), (1, 1)])
@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_pages_together_are_what_comparing_everything_gives(service, monkeypatch, queries, rows, limit):
    monkeypatch.setattr(duplicates, "MOST_QUERIES", queries)
    monkeypatch.setattr(duplicates, "ROWS_PER_SLICE", rows)
    least = sorted(exact(service, 0.5).values())[-20]
    bodies = pages(service.client, min_score=least, limit=limit)
    expected = exact(service, least)
    found = pairs(bodies)
    assert found.keys() == expected.keys()
    assert sum(len(item["duplicates"]) for body in bodies for item in body["results"]) == len(found)
    for pair, (score, _) in found.items():
        assert score == pytest.approx(expected[pair], abs=2e-6)
    assert bodies[-1]["scanned"] == bodies[-1]["total"]


def test_a_page_stops_when_its_time_is_over_and_the_next_goes_on(service, monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_QUERIES", 4)
    monkeypatch.setattr("service.routes.duplicates.MAX_SECONDS", 0.0)
    bodies = pages(service.client, min_score=1.0)
    assert len(bodies) == -(-(ITEM_COUNT + 5) // 4)
    assert len(pairs(bodies)) == 6


def test_of_very_many_copies_the_best_are_named_and_all_counted(service, monkeypatch):
    monkeypatch.setattr(duplicates, "MAX_NAMED", 1)
    (body,) = pages(service.client, min_score=1.0)
    first = body["results"][0]
    assert (len(first["duplicates"]), first["count"]) == (1, 2)


def test_searches_go_between_slices_and_a_second_scan_is_told_to_wait(service, monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_QUERIES", 1)
    monkeypatch.setattr(duplicates, "ROWS_PER_SLICE", 1)
    client, began, go_on = service.client, threading.Event(), threading.Event()
    compare = duplicates.Scan._compare

    def slowly(self, *arguments):
        began.set()
        go_on.wait(30)
        compare(self, *arguments)

    monkeypatch.setattr(duplicates.Scan, "_compare", slowly)
    answers = []
    scan = threading.Thread(target=lambda: answers.append(client.get("/duplicates", params={"min_score": 1})))
    scan.start()
    assert began.wait(30)
    refused = client.get("/duplicates")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"]
    go_on.set()
    assert client.post("/search/text", json={"query": "a dog"}).status_code == 200
    scan.join()
    assert answers[0].status_code == 200


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"min_score": 0.1}, "min_score"),
        ({"min_score": "x"}, "min_score"),
        ({"limit": 0}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "20200101T000000Z-aaaaaa.3"}, "cursor"),
    ],
)
def test_what_cannot_be_asked_is_named(service, options, param):
    response = service.client.get("/duplicates", params=options)
    assert (response.status_code, response.json()["error"]["param"]) == (422, param)
