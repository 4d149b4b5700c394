"""What a rebuild says of items that came, went, changed and stayed, against what was current before."""

import io
import json
import shutil
import tarfile

import pytest
from typer.testing import CliRunner

from index.__main__ import app
from index.catalog import current_release_id, read_manifest
from index.publish import rollback


@pytest.fixture
def gallery(tmp_path, draw):
    """Eight images with a title each, in a table that `write` writes anew."""

    def write(**titles: str):
        rows = [{"image": f"{name}.png", "title": title} for name, title in titles.items()]
        (tmp_path / "g/items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / "g"

    for number in range(8):
        draw(tmp_path / f"g/{'abcdefgh'[number]}.png", seed=number)
    return write


def told(report):
    since = report.manifest.difference
    return since and (since.release, since.added, since.removed, since.changed, since.unchanged)


def test_items_that_came_went_changed_and_stayed_are_counted(gallery, draw, tmp_path, index_gallery):
    titles = {name: "a dog" for name in "abcdef"}
    first = index_gallery(gallery(**titles), tmp_path / "r")
    assert told(first) is None
    same = index_gallery(gallery(**dict(reversed(titles.items()))), tmp_path / "r")
    assert told(same) == (first.release_id, 0, 0, 0, 6)
    draw(tmp_path / "g/c.png", seed=99)
    changed = titles | {"d": "a cat", "g": "new", "h": "new"}
    del changed["a"]
    second = index_gallery(gallery(**changed), tmp_path / "r")
    assert told(second) == (same.release_id, 2, 1, 2, 3)
    rollback(tmp_path / "r", first.release_id)
    assert told(index_gallery(gallery(**changed), tmp_path / "r")) == (first.release_id, 2, 1, 2, 3)


def test_a_text_that_only_belongs_to_other_items_now_is_a_change(draw, tmp_path, index_gallery):
    images = [draw(tmp_path / f"{number}.png", seed=number).read_bytes() for number in range(3)]

    def shard(*captions: str):
        with tarfile.open(tmp_path / "s.tar", "w") as tar:
            for number, caption in enumerate(captions):
                for name, data in ((f"{number}.png", images[number]), (f"{number}.txt", caption.encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        return tmp_path / "s.tar"

    first = index_gallery(shard("a dog", "a cat", "a car"), tmp_path / "r")
    second = index_gallery(shard("a cat", "a dog", "a car"), tmp_path / "r")
    assert told(second) == (first.release_id, 0, 0, 2, 1)


def test_a_current_release_that_cannot_be_read_hinders_no_rebuild(table, tmp_path, index_gallery, caplog):
    first = index_gallery(table, tmp_path)
    (tmp_path / first.release_id / "items.parquet").write_bytes(b"")
    assert told(index_gallery(table, tmp_path)) is None
    assert "what changed since the current release cannot be told" in caplog.text
    shutil.rmtree(tmp_path / current_release_id(tmp_path))
    assert told(index_gallery(table, tmp_path)) is None


def test_the_command_tells_it_in_its_last_lines_in_json_and_in_the_manifest(table, tmp_path, tiny_bundle):
    arguments = ["rebuild", "--gallery", str(table), "--bundle", str(tiny_bundle), "--releases", str(tmp_path)]
    run = CliRunner().invoke
    assert run(app, arguments).exit_code == 0
    first = current_release_id(tmp_path)
    assert f"+0, −0, 0 changed, 12 as before (since {first})" in run(app, arguments).stdout
    second = current_release_id(tmp_path)
    answer = json.loads(run(app, [*arguments, "--json"]).stdout)
    assert (answer["release"], "id" in answer) == (current_release_id(tmp_path), False)
    assert answer["difference"] == {"release": second, "added": 0, "removed": 0, "changed": 0, "unchanged": 12}
    assert (answer["failures"], answer["counts"]["reused"]) == ({}, 12)
    assert read_manifest(tmp_path / answer["release"]).difference.release == second
