"""A release as a service reads it, and every way in which it can be unfit."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from encoders.encoder import Encoder
from encoders.errors import FingerprintMismatch
from encoders.images import decode_image
from index.catalog import current_release_id, find_problems, read_manifest
from index.errors import CorruptRelease, ImageMissing, NoRelease, UnknownRelease, UnsupportedRelease
from index.release import Release
from index.vectors import VectorWriter


@pytest.fixture
def releases(published, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(published, tmp_path / "releases")


def only(releases):
    return releases / current_release_id(releases)


def test_release_holds_what_the_encoder_makes_of_the_gallery(published, table, tiny_bundle):
    release = Release.load(published)
    encoder = Encoder.load(tiny_bundle)
    assert (release.fingerprint, len(release.items), len(release.texts_table)) == (encoder.fingerprint, 12, 4)
    for row in range(12):
        image = decode_image((table / release.items.id(row)).read_bytes())
        np.testing.assert_allclose(
            release.images.reconstruct(row), encoder.encode_images([image])[0], atol=1e-6
        )
    texts = [release.texts_table.text(row) for row in range(4)]
    vectors = encoder.encode_texts(texts).vectors
    np.testing.assert_allclose([release.texts.reconstruct(row) for row in range(4)], vectors, atol=1e-6)
    assert texts[0] == "a red square"
    assert release.texts_table.item_rows(0) == [0, 4, 8]
    assert release.items.payload(3) == {"title": "a black square", "year": 2003}
    assert {name: measured.recall for name, measured in release.manifest.recall.items()} == {
        "images": 1,
        "texts": 1,
    }
    assert release.manifest.recall["images"].queries == "texts"


def test_images_come_from_the_release_and_from_the_gallery(published, table):
    release = Release.load(published)
    assert release.open_image(2) == (table / "images/02.png").read_bytes()
    assert Image.open(io.BytesIO(release.thumbnail(2))).size == (24, 16)


def test_gallery_that_moved_is_found_again_by_its_new_root(published, table, tmp_path):
    moved = shutil.copytree(table, tmp_path / "moved")
    release = Release.load(published, gallery_root=moved)
    (moved / "images/01.png").unlink()
    (moved / "images/02.png").write_bytes((moved / "images/03.png").read_bytes())
    assert release.open_image(3)
    with pytest.raises(ImageMissing, match="does not exist"):
        release.open_image(1)
    with pytest.raises(ImageMissing, match="has changed") as caught:
        release.open_image(2)
    assert caught.value.code == "changed"


def test_one_flipped_bit_in_any_file_is_found_and_named(releases):
    path = only(releases)
    manifest = read_manifest(path)
    for name in manifest.files:
        data = (path / name).read_bytes()
        if not data:
            continue
        middle = len(data) // 2
        (path / name).unlink()  # the bundle's files may be links that others share
        (path / name).write_bytes(data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :])
        assert [problem.split()[0] for problem in find_problems(path, manifest)] == [name]
        with pytest.raises(CorruptRelease, match=name):
            Release.load(releases)
        (path / name).write_bytes(data)
    assert Release.load(releases)


def test_no_flipped_bit_of_the_manifest_goes_unseen(releases):
    path = only(releases)
    whole = (path / "manifest.json").read_bytes()
    for place in range(0, len(whole) * 8, 41):  # coprime to 8: every bit position, every part of the file
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (path / "manifest.json").write_bytes(flipped)
        with pytest.raises((CorruptRelease, UnsupportedRelease)):
            read_manifest(path)


@pytest.mark.parametrize(
    "name", ["image_vectors.faiss", "items.parquet", "thumbnails.pack", "bundle/model.safetensors"]
)
def test_missing_or_cut_file_is_named(releases, name):
    file = only(releases) / name
    data = file.read_bytes()
    file.unlink()
    with pytest.raises(CorruptRelease, match=f"{name.split('/')[-1]}.* missing"):
        Release.load(releases)
    file.write_bytes(data[:-1])
    with pytest.raises(CorruptRelease, match=f"{name.split('/')[-1]} has {len(data) - 1} bytes"):
        Release.load(releases)


def test_cut_vectors_are_refused_without_verifying_too(releases):
    file = only(releases) / "image_vectors.faiss"
    file.write_bytes(file.read_bytes()[:-64])
    with pytest.raises(CorruptRelease, match="image_vectors"):
        Release.load(releases, verify=False)


def test_tables_that_do_not_match_the_vectors_are_refused(releases):
    path = only(releases)
    shutil.copyfile(path / "text_vectors.faiss", path / "image_vectors.faiss")
    with pytest.raises(CorruptRelease, match=r"image_vectors\.faiss holds 4 rows, the manifest says 12"):
        Release.load(releases, verify=False)


def test_vectors_or_a_manifest_of_another_width_are_refused(releases):
    path = only(releases)
    manifest = read_manifest(path)
    wider = VectorWriter(manifest.dim + 1)
    wider.add(np.zeros((12, manifest.dim + 1), np.float32))
    wider.write(path / "image_vectors.faiss")
    with pytest.raises(CorruptRelease, match=rf"image_vectors\.faiss has {manifest.dim + 1} dimensions"):
        Release.load(releases, verify=False)
    manifest.model_copy(update={"dim": manifest.dim + 1}).write(path)
    with pytest.raises(CorruptRelease, match=f"embeds in {manifest.dim} dimensions"):
        Release.load(releases, verify=False)


def test_another_encoder_inside_raises_with_both_fingerprints(releases, tiny_bundle, other_tiny_bundle):
    bundle = only(releases) / "bundle"
    shutil.rmtree(bundle)
    shutil.copytree(other_tiny_bundle, bundle)
    built, serving = [
        json.loads((path / "bundle.json").read_text())["fingerprint"] for path in (tiny_bundle, bundle)
    ]
    with pytest.raises(FingerprintMismatch, match=f"{built}.*{serving}"):
        Release.load(releases)


def test_newer_format_is_refused_as_such(releases):
    manifest = only(releases) / "manifest.json"
    content = json.loads(manifest.read_text()) | {"format_version": 9, "something": "new"}
    manifest.write_text(json.dumps(content))
    with pytest.raises(UnsupportedRelease, match="version 9"):
        Release.load(releases)


def test_release_under_another_name_is_refused(releases):
    path = only(releases)
    path.rename(releases / "20200101T000000Z-aaaaaa")
    with pytest.raises(CorruptRelease, match=path.name):
        Release.load(releases, "20200101T000000Z-aaaaaa")


def test_nothing_published_unknown_and_broken_current_are_told_apart(releases, tmp_path):
    with pytest.raises(NoRelease, match="rebuild"):
        Release.load(tmp_path / "none")
    for unknown in ("20200101T000000Z-aaaaaa", "../releases", ""):
        with pytest.raises(UnknownRelease):
            Release.load(releases, unknown) if unknown else Release.load(releases, "x")
    (releases / "CURRENT").write_text("../../etc\n")
    with pytest.raises(CorruptRelease, match="no release id"):
        Release.load(releases)
