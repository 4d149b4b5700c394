"""Ids that are no valid UTF-8 are refused wherever an id is taken, and never become another's."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from live_service import Running, dialled, image_file, running

from service.settings import Settings

PNG = {"content-type": "image/png"}
JSON = {"content-type": "application/json"}
REPLACED = "a\ufffdb"  # what the server makes of bytes that it cannot read; as an id of its own it is sound


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, releases: Path, settings_for: Callable[..., Settings]
) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("ids") / "releases"
    shutil.copytree(releases, folder)
    with running(settings_for(folder, live_changes=True)) as started:
        path = f"/items/{quote(REPLACED)}"
        assert started.client.put(path, content=image_file(1), headers=PNG).status_code == 200
        yield started


@pytest.mark.parametrize("broken", ["a%FFb", "a%C0%AFb", "a%ED%A0%80b", "a%E4b"])
@pytest.mark.parametrize(
    ("method", "route"),
    [("GET", "items"), ("GET", "images"), ("HEAD", "items"), ("PUT", "items"), ("DELETE", "items")],
)
def test_a_path_that_is_no_utf_8_names_no_item(client, service, method, route, broken):
    before = service.serving.live.sequence
    response = client.request(method, f"/{route}/{broken}", content=image_file(2), headers=PNG)
    assert response.status_code == 422
    if method != "HEAD":
        assert response.json()["error"]["code"] == "bad_id"
    assert service.serving.live.sequence == before
    assert client.get(f"/images/{quote(REPLACED)}").content == image_file(1)


def test_bare_bytes_in_a_path_name_no_item(service):
    for line in (b"GET /items/a\xffb HTTP/1.1", b"DELETE /items/a\xffb HTTP/1.1"):
        with dialled(service) as caller:
            caller.sendall(line + b"\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            assert caller.recv(4096).split()[1] in (b"400", b"422")
    assert service.client.get(f"/items/{quote(REPLACED)}").status_code == 200


@pytest.mark.parametrize("half", ["\\ud800", "\\udfff", "\\ud83d\\ud83d", "\\uDC00\\uD800"])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/items/batch", '{"put": [{"id": "aHALFb", "vector": [1.0]}]}', "put.0.id"),
        ("/items/batch", '{"delete": ["x", "aHALFb"]}', "delete.1"),
        ("/search/item", '{"id": "aHALFb"}', "id"),
        ("/search/batch", '{"queries": [{"id": "aHALFb"}]}', "queries.0.id"),
        (
            "/search/text",
            '{"query": "a", "filter": {"must": [{"has_id": ["aHALFb"]}]}}',
            "filter.must.0.has_id.0",
        ),
    ],
)
def test_half_a_surrogate_pair_in_json_names_no_item(client, service, path, body, param, half):
    before = service.serving.live.sequence
    response = client.post(path, content=body.replace("HALF", half), headers=JSON)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "bad_id"), response.text
    assert response.json()["error"]["param"] == param
    assert service.serving.live.sequence == before


def test_a_whole_surrogate_pair_in_json_is_one_character(client):
    assert client.put("/items/%F0%9F%98%80", content=image_file(3), headers=PNG).status_code == 200
    answer = client.post("/items/batch", content='{"delete": ["\\ud83d\\ude00"]}', headers=JSON)
    assert answer.json()["delete"][0]["id"] == "😀"
    assert "sequence" in answer.json()["delete"][0]


def test_a_filter_in_a_query_that_is_no_utf_8_is_refused(client):
    told = '{"must": [{"has_id": ["a%FFb"]}]}'
    response = client.post(f"/search/image?filter={told}", content=image_file(1), headers=PNG)
    assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_field")
    assert "not valid UTF-8" in response.json()["error"]["message"]


def test_a_line_break_stays_in_an_id_and_is_refused(service):
    """Starlette's own `path` would leave it out, and a change of one item would be another's."""
    client = service.client
    assert client.put("/items/sound", content=image_file(4), headers=PNG).status_code == 200
    for broken in ("sound%0A", "%0Asound", "so%0Aund"):
        for response in (
            client.put(f"/items/{broken}", content=image_file(5), headers=PNG),
            client.delete(f"/items/{broken}"),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (422, "bad_id")
        for route in ("items", "images"):
            response = client.get(f"/{route}/{broken}")
            assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_item")
    assert client.get("/images/sound").content == image_file(4)
