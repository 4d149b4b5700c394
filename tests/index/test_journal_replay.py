"""Rebuilds take live changes in: puts, replacements, deletes, bare vectors, texts; and `changes` shows them."""

import io
import json
import shutil

import numpy as np
import pytest
from journaling import delete, image_names, opened
from PIL import Image
from typer.testing import CliRunner

from index.__main__ import app
from index.errors import CorruptJournal, ImageMissing
from index.image_files import digest_of
from index.journal.changes import ChangeSet, NewImage, Upsert
from index.release import Release
from index.thumbnails import make_thumbnail

DIM = 16


def drawn(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue(), make_thumbnail(Image.fromarray(noise))


def unit(seed):
    vector = np.random.default_rng(seed).standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def put_image(journal, item_id, seed, *, payload=None, texts=()):
    data, thumbnail = drawn(seed)
    vectors = np.stack([unit(n) for n in range(len(texts))]) if texts else np.empty((0, DIM), np.float32)
    upsert = Upsert(item_id, payload or {}, unit(seed), "0" * 64, texts, vectors, digest_of(data), 30, 20)
    commit(journal, ChangeSet([upsert], {upsert.digest: NewImage(data, thumbnail)}))
    return data


def commit(journal, *sets):
    journal.commit(sets)
    journal.tidy()


@pytest.fixture
def releases(tmp_path, table, index_gallery):
    index_gallery(table, tmp_path / "releases")
    return tmp_path / "releases"


@pytest.fixture
def journal(releases):
    with opened(releases) as writing:
        yield writing


def ids(release):
    return [release.items.id(row) for row in range(len(release.items))]


def test_a_release_without_live_changes_is_what_it_was(releases, journal, table, index_gallery):
    manifest = json.loads((Release.load(releases).path / "manifest.json").read_text())
    assert "live_sequence" not in manifest
    index_gallery(table, releases)
    assert Release.load(releases).manifest.live_sequence is None


def test_what_was_put_replaced_and_deleted_is_in_the_next_release(releases, journal, table, index_gallery):
    before = Release.load(releases)
    data = put_image(journal, "new/ä.png", 50, payload={"year": 1}, texts=("a red square", "a new text"))
    put_image(journal, "images/03.png", 51, payload={"year": 2})
    commit(journal, delete("images/04.png", "never was"))
    put_image(journal, "soon gone", 52)
    commit(journal, delete("soon gone"))
    report = index_gallery(table, releases)
    assert not report.tally.failures
    release = Release.load(releases)
    expected = [name for name in ids(before) if name not in ("images/03.png", "images/04.png")]
    assert sorted(ids(release)) == sorted([*expected, "new/ä.png", "images/03.png"])
    assert (release.manifest.live_sequence, release.manifest.format_version) == (6, 4)
    new = release.items.row("new/ä.png")
    assert release.items.payload(new) == {"year": 1}
    assert release.open_image(new) == data
    assert release.thumbnail(new)
    replaced = release.images.reconstruct(release.items.row("images/03.png"))
    assert float(replaced @ before.images.reconstruct(before.items.row("images/03.png"))) < 0.999
    texts = {release.texts_table.text(row): row for row in range(len(release.texts_table))}
    assert [release.items.id(row) for row in release.texts_table.item_rows(texts["a new text"])] == [
        "new/ä.png"
    ]
    assert new in release.texts_table.item_rows(texts["a red square"])


def test_a_deleted_item_stays_out_of_every_rebuild_until_it_is_put_again(
    releases, journal, table, index_gallery
):
    commit(journal, delete("images/04.png"))
    for compacted in (False, True):
        if compacted:
            journal.compact()
        index_gallery(table, releases)
        assert "images/04.png" not in ids(Release.load(releases))
    put_image(journal, "images/04.png", 60)
    index_gallery(table, releases)
    assert "images/04.png" in ids(Release.load(releases))


def test_a_bare_vector_is_taken_as_it_is_and_of_another_encoder_goes_to_the_ledger(
    releases, journal, table, index_gallery
):
    fingerprint = Release.load(releases).fingerprint
    commit(
        journal,
        ChangeSet([Upsert("bare", {"n": 1}, unit(5), fingerprint), Upsert("other", {}, unit(6), "f" * 64)]),
    )
    report = index_gallery(table, releases)
    assert dict(report.tally.failures) == {"other_encoder": 1}
    release = Release.load(releases)
    row = release.items.row("bare")
    np.testing.assert_array_equal(release.images.reconstruct(row), unit(5))
    assert release.items.payload(row) == {"n": 1}
    for read in (release.open_image, release.thumbnail):
        with pytest.raises(ImageMissing) as missing:
            read(row)
        assert missing.value.code == "no_image"
    (entry,) = map(json.loads, (release.path / "failures.jsonl").read_text().splitlines())
    assert (entry["item"], entry["code"]) == ("other", "other_encoder")


def test_what_was_put_stays_whole_through_rebuild_compaction_and_rebuild(
    releases, journal, table, index_gallery
):
    images = {name: put_image(journal, name, seed) for seed, name in enumerate(("new/1", "new/2", "new/3"), 70)}
    put_image(journal, "new/2", 80)
    images["new/2"] = put_image(journal, "new/2", 81)
    for _ in range(2):
        index_gallery(table, releases)
        release = Release.load(releases)
        assert len(release.items) == 15
        assert {name: release.open_image(release.items.row(name)) for name in images} == images
        journal.compact()
    assert len(image_names(releases)) == 3


def test_an_item_replaced_while_a_rebuild_reads_it_is_no_failure(releases, journal, table, index_gallery):
    """One is put again, one deleted; the image of a third is truly gone."""
    before = [put_image(journal, name, seed) for seed, name in enumerate(("again", "deleted", "lost"), 70)]
    changed = []

    def change(tally):
        if not changed:  # the gallery's first items are embedded; those of the journal are read last
            changed.append(put_image(journal, "again", 90))
            commit(journal, delete("deleted"))
            (releases / "live" / "images" / digest_of(before[2]).hex()).unlink()

    report = index_gallery(table, releases, on_progress=change, batch_size=1)
    assert (report.tally.changed_meanwhile, dict(report.tally.failures)) == (2, {"missing": 1})
    release = Release.load(releases)
    assert release.manifest.live_sequence == 3
    (entry,) = map(json.loads, (release.path / "failures.jsonl").read_text().splitlines())
    assert entry["item"] == "lost"
    index_gallery(table, releases)
    release = Release.load(releases)
    assert release.open_image(release.items.row("again")) == changed[0]


def test_damaged_changes_stop_a_rebuild_and_what_is_current_stays(releases, journal, table, index_gallery):
    put_image(journal, "new", 1)
    journal.close()
    current = Release.load(releases).id
    path = releases / "live" / "journal.sqlite"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"payload"', b'"pxyload"'))
    with pytest.raises(CorruptJournal, match=str(path)):
        index_gallery(table, releases)
    assert Release.load(releases).id == current


def test_a_rebuild_without_changes_that_a_release_holds_is_refused(releases, journal, table, index_gallery):
    put_image(journal, "new", 1)
    index_gallery(table, releases)
    current = Release.load(releases).id
    shutil.move(releases / "live", releases / "elsewhere")
    with pytest.raises(CorruptJournal, match="holds no change, and change 1 was acknowledged"):
        index_gallery(table, releases)
    assert Release.load(releases).id == current
    shutil.move(releases / "elsewhere", releases / "live")
    index_gallery(table, releases)


def test_changes_lists_what_waits_for_a_rebuild(releases, journal, table, index_gallery):
    def listed(*options):
        done = CliRunner().invoke(app, ["changes", "--releases", str(releases), *options])
        assert done.exit_code == 0, done.output
        return done.output

    assert "no changes" in listed()
    put_image(journal, "new", 1, payload={"a": 1})
    put_image(journal, "new", 2, payload={"a": 2}, texts=("one",))
    commit(journal, delete("images/04.png"))
    rows = json.loads(listed("--json"))
    assert [(row["sequence"], row["change"], row["id"]) for row in rows] == [
        (2, "put", "new"),
        (3, "delete", "images/04.png"),
    ]
    assert (rows[0]["payload"], rows[0]["texts"]) == ({"a": 2}, ["one"])
    assert "images/04.png" in listed()
    index_gallery(table, releases)
    assert json.loads(listed("--json")) == []
