"""The batch job in this process: what gets in, what does not, what is reused, how much is held."""

import io
import json
import os
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from encoders.encoder import Encoder
from encoders.errors import BundleError
from index.cache import EmbeddingCache
from index.catalog import current_release_id, release_ids
from index.embed import BATCHES_AHEAD, Embedder
from index.errors import GalleryError, NoRelease, PublishRefused
from index.gallery import Failure, GalleryItem
from index.image_files import ImageSource
from index.items import TextTable
from index.release import Release
from index.texts import TextCollector
from index.vectors import VectorIndex


def ledger(releases):
    lines = (releases / current_release_id(releases) / "failures.jsonl").read_text().splitlines()
    return {entry["item"]: entry["code"] for entry in map(json.loads, lines)}


def test_bad_items_go_to_the_ledger_and_take_no_other_with_them(tmp_path, draw, index_gallery):
    gallery = tmp_path / "gallery"
    for number in range(20):
        draw(gallery / f"ok/{number:02d}.png", seed=number)
    whole = (gallery / "ok/00.png").read_bytes()
    bad = {
        "cut.png": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.webp": b"<html>not found</html>",
    }
    for name, data in bad.items():
        (gallery / "ok" / f"05_{name}").write_bytes(data)
    os.mkfifo(gallery / "ok/06_pipe.png")
    (gallery / "ok/07_gone.png").symlink_to(gallery / "nowhere.png")
    draw(gallery / "ok/08_huge.png", size=(200, 100))
    report = index_gallery(gallery, tmp_path / "releases", max_pixels=10_000)
    release = Release.load(tmp_path / "releases")
    assert [release.items.id(row) for row in range(20)] == [f"ok/{number:02d}.png" for number in range(20)]
    assert ledger(tmp_path / "releases") == {
        "ok/05_cut.png": "undecodable_image",
        "ok/05_empty.jpg": "undecodable_image",
        "ok/05_text.webp": "undecodable_image",
        "ok/06_pipe.png": "not_a_file",
        "ok/07_gone.png": "missing",
        "ok/08_huge.png": "image_too_large",
    }
    assert (report.tally.failures.total(), report.manifest.counts.failed, report.manifest.counts.images) == (
        6,
        6,
        20,
    )


def test_thumbnail_of_a_transparent_image_lies_on_white_and_upright(tmp_path, index_gallery):
    (tmp_path / "g").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGBA", (40, 20), (255, 0, 0, 0)).save(tmp_path / "g/clear.png", exif=exif)
    index_gallery(tmp_path / "g", tmp_path / "r")
    release = Release.load(tmp_path / "r")
    thumbnail = Image.open(io.BytesIO(release.thumbnail(0)))
    assert (thumbnail.size, release.items.size_pixels(0)) == ((20, 40), (20, 40))
    assert np.asarray(thumbnail.convert("RGB")).min() > 250


def test_unchanged_images_are_reused_and_changed_ones_are_not(tmp_path, draw, index_gallery):
    gallery, releases = tmp_path / "g", tmp_path / "r"
    for number in range(6):
        draw(gallery / f"{number}.png", seed=number)
    first = index_gallery(gallery, releases)
    draw(gallery / "2.png", seed=77)
    (gallery / "3.png").rename(gallery / "9.png")
    (gallery / "5.png").unlink()
    second = index_gallery(gallery, releases)
    without = index_gallery(gallery, releases, use_cache=False)
    assert [report.manifest.counts.reused for report in (first, second, without)] == [0, 4, 0]
    cached, fresh = [Release.load(releases, report.release_id) for report in (second, without)]
    assert [cached.items.id(row) for row in range(5)] == ["0.png", "1.png", "2.png", "4.png", "9.png"]
    for row in range(5):
        np.testing.assert_allclose(cached.images.reconstruct(row), fresh.images.reconstruct(row), atol=1e-6)
        assert cached.thumbnail(row) == fresh.thumbnail(row)


def test_lower_cap_on_pixels_holds_for_remembered_images_too(tmp_path, table, index_gallery):
    index_gallery(table, tmp_path)
    with pytest.raises(PublishRefused, match="24×16 pixels is over the cap of 300"):
        index_gallery(table, tmp_path, max_pixels=300)


def test_trouble_after_publishing_is_a_warning(tmp_path, table, index_gallery, caplog):
    (tmp_path / ".cache/old-fp32-v0.sqlite").mkdir(parents=True)  # no file, so it cannot be unlinked
    report = index_gallery(table, tmp_path)
    assert current_release_id(tmp_path) == report.release_id
    assert "could not be trimmed" in caplog.text


def test_another_encoder_reuses_nothing(tmp_path, table, index_gallery, other_tiny_bundle):
    first = index_gallery(table, tmp_path)
    second = index_gallery(table, tmp_path, bundle=other_tiny_bundle)
    third = index_gallery(table, tmp_path, bundle=other_tiny_bundle)
    assert second.manifest.fingerprint != first.manifest.fingerprint
    assert [report.manifest.counts.reused for report in (second, third)] == [0, 12]
    assert len(list((tmp_path / ".cache").glob("*.sqlite"))) == 2


def test_tars_and_parquet_are_indexed_and_their_images_open_again(tmp_path, table, index_gallery):
    images = sorted((table / "images").iterdir())
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for image in images:
            tar.add(image, image.name)
    index_gallery(tmp_path / "s.tar", tmp_path / "r")
    release = Release.load(tmp_path / "r")
    row = release.items.row("s/03.png")
    assert release.open_image(row) == images[3].read_bytes()
    assert (len(release.texts), release.manifest.recall["images"].queries) == (0, "images")


def test_texts_from_a_file_take_the_place_of_the_gallerys(tmp_path, table, index_gallery):
    lines = b"\xef\xbb\xbfa red  dog\n\n \na cat\na red dog\nbad \xff line\n" + b"a dog " * 30
    (tmp_path / "t.txt").write_bytes(lines)
    report = index_gallery(table, tmp_path / "r", texts=tmp_path / "t.txt")
    texts = Release.load(tmp_path / "r").texts_table
    assert [texts.text(row) for row in range(3)] == ["a red dog", "a cat", ("a dog " * 30).strip()]
    assert [texts.item_rows(row) for row in range(3)] == [[], [], []]
    assert (report.manifest.counts.texts_cut, ledger(tmp_path / "r")) == (1, {"t.txt:6": "bad_text"})


def test_nothing_is_published_when_nothing_gets_in_and_what_was_current_stays(tmp_path, table, index_gallery):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.png").write_bytes(b"x")
    with pytest.raises(PublishRefused, match="0 failed"):
        index_gallery(tmp_path / "empty", tmp_path / "r")
    with pytest.raises(NoRelease):
        current_release_id(tmp_path / "r")
    first = index_gallery(table, tmp_path / "r")
    with pytest.raises(PublishRefused, match=r"a\.png: cannot decode"):
        index_gallery(tmp_path / "broken", tmp_path / "r")
    assert release_ids(tmp_path / "r") == [current_release_id(tmp_path / "r")] == [first.release_id]


def test_wrong_inputs_are_said_before_anything_is_done(tmp_path, table, index_gallery):
    with pytest.raises(GalleryError, match=r"none\.txt"):
        index_gallery(table, tmp_path, texts=tmp_path / "none.txt")
    with pytest.raises(BundleError):
        index_gallery(table, tmp_path, bundle=tmp_path / "none")
    assert not any(path.name.startswith(".staging") for path in tmp_path.iterdir())


@pytest.fixture
def embedder(tiny_bundle, tmp_path):
    encoder = Encoder.load(tiny_bundle, max_batch=4)
    return Embedder(
        encoder=encoder, cache=EmbeddingCache(None, dim=encoder.dim), root=tmp_path, decode_threads=2
    )


def test_reading_runs_ahead_by_a_few_batches_and_no_more(embedder, draw, tmp_path):
    draw(tmp_path / "p.png")
    pulled = 0

    def stream():
        nonlocal pulled
        for pulled in range(1, 201):
            yield GalleryItem(str(pulled), ImageSource("p.png"))

    furthest = 0
    for taken, result in enumerate(embedder.embed_images(stream()), start=1):
        assert result.item.id == str(taken)
        furthest = max(furthest, pulled - taken)
    assert taken == 200
    assert furthest <= BATCHES_AHEAD * 4


def test_stopping_early_leaves_no_threads_behind(embedder, draw, tmp_path):
    draw(tmp_path / "p.png")
    before = set(threading.enumerate())
    results = embedder.embed_images(GalleryItem(str(number), ImageSource("p.png")) for number in range(100))
    next(results)
    assert set(threading.enumerate()) > before
    results.close()
    assert set(threading.enumerate()) <= before


def test_vector_that_is_not_finite_is_a_failure_of_its_own_item(embedder, draw, tmp_path, monkeypatch):
    for number in range(4):
        draw(tmp_path / f"{number}.png", seed=number)
    encode = embedder.encoder.encode_pixels

    def poisoned(pixels):
        vectors = encode(pixels)
        vectors[2] = np.nan
        return vectors

    monkeypatch.setattr(embedder.encoder, "encode_pixels", poisoned)
    items = [GalleryItem(str(number), ImageSource(f"{number}.png")) for number in range(4)]
    results = list(embedder.embed_images([*items, Failure("x", "bad_row", "y")]))
    assert [getattr(result, "code", "ok") for result in results] == ["ok", "ok", "not_finite", "ok", "bad_row"]


def test_text_whose_vector_is_not_finite_is_left_out_and_the_others_keep_their_items(
    embedder, tmp_path, monkeypatch
):
    encode = embedder.encoder.encode_texts

    def poisoned(texts):
        made = encode(texts)
        made.vectors[list(texts).index("a cat")] = np.nan
        return made

    monkeypatch.setattr(embedder.encoder, "encode_texts", poisoned)
    with TextCollector(embedder, tmp_path / "spool") as collector:
        for row, text in enumerate(["a dog", "a cat", "a red dog", "a dog"]):
            collector.add(text, row)
        collector.write(table=tmp_path / "t.parquet", vectors=tmp_path / "t.faiss")
    assert [(failure.item, failure.code) for failure in collector.failures] == [("a cat", "not_finite")]
    table = TextTable.read(tmp_path / "t.parquet")
    assert [(table.text(row), table.item_rows(row)) for row in range(len(table))] == [
        ("a dog", [0, 3]), ("a red dog", [2])
    ]  # fmt: skip
    assert len(VectorIndex.read(tmp_path / "t.faiss")) == 2
