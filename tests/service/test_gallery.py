"""`/items` and `/images`: payloads and images by id, whatever the id looks like; never anything else."""

import io
import shutil
from urllib.parse import quote

import pytest
from live_service import image_file, publish, running
from PIL import Image

WIDE = "cars/green ä#?% 1.png"  # 320×40


def test_an_item_tells_its_payload(client):
    answer = client.get(f"/items/{quote(WIDE)}").json()
    assert answer["id"] == WIDE
    assert answer["payload"] == {
        "title": "a green car",
        "category": "cars",
        "year": 2001,
        "tags": ["first", "odd"],
    }
    assert (answer["width"], answer["height"]) == (320, 40)


def test_an_image_is_the_very_file_and_side_gives_its_thumbnail(client, gallery):
    original = client.get(f"/images/{quote(WIDE)}")
    thumbnail = client.get(f"/images/{quote(WIDE)}?side=200")
    larger = client.get(f"/images/{quote(WIDE)}?side=300")
    assert original.content == larger.content == (gallery / WIDE).read_bytes()
    assert original.headers["content-type"] == "image/png"
    assert thumbnail.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(thumbnail.content)).size == (256, 32)
    assert thumbnail.headers["x-content-type-options"] == "nosniff"


def test_an_image_that_the_caller_has_is_not_sent_again(client):
    first = client.get(f"/images/{quote(WIDE)}?side=100")
    again = client.get(f"/images/{quote(WIDE)}?side=100", headers={"if-none-match": first.headers["etag"]})
    other = client.get(f"/images/{quote(WIDE)}", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "max-age" in again.headers["cache-control"]
    assert other.status_code == 200
    anything = client.get(f"/images/{quote(WIDE)}", headers={"if-none-match": "*"})
    assert (anything.status_code, anything.headers["etag"]) == (304, other.headers["etag"])


def test_head_of_an_image_or_an_item_tells_what_get_would(client):
    for path in (f"/images/{quote(WIDE)}", f"/images/{quote(WIDE)}?side=100", f"/items/{quote(WIDE)}"):
        head, full = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert head.headers[name] == full.headers[name]
        assert head.headers.get("etag") == full.headers.get("etag")


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "items.jsonl", "cars", "a%00b"],
)
def test_only_ids_of_the_release_are_answered(client, path):
    for route in ("images", "items"):
        response = client.get(f"/{route}/{path}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] in {"unknown_item", "not_found"}


def test_a_side_out_of_range_is_422(client):
    for side in ("0", "9000", "big"):
        response = client.get(f"/images/{quote(WIDE)}?side={side}")
        assert (response.status_code, response.json()["error"]["param"]) == (422, "side")


def test_when_the_file_has_moved_the_thumbnail_still_shows(tmp_path, gallery, tiny_bundle, settings_for):
    moved = shutil.copytree(gallery, tmp_path / "gallery")
    publish(tmp_path / "releases", moved, tiny_bundle)
    (moved / WIDE).write_bytes(image_file(999))
    with running(settings_for(tmp_path / "releases")) as service:
        changed = service.client.get(f"/images/{quote(WIDE)}")
        assert (changed.status_code, changed.json()["error"]["code"]) == (404, "image_missing")
        assert str(tmp_path) not in changed.text
        shutil.rmtree(moved)
        gone = service.client.get(f"/images/{quote(WIDE)}")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "image_missing")
        assert str(tmp_path) not in gone.text
        assert WIDE in gone.json()["error"]["message"]
        for side in (100, 1000):
            shown = service.client.get(f"/images/{quote(WIDE)}?side={side}")
            assert (shown.status_code, shown.headers["content-type"]) == (200, "image/webp")
    with running(settings_for(tmp_path / "releases", gallery_root=gallery)) as service:
        assert service.client.get(f"/images/{quote(WIDE)}").content == (gallery / WIDE).read_bytes()
