"""WebDataset shards, indexed in place: real tar files, read back by offset."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from training.data.pairs import ImageSource, read_pairs
from training.data.readers.webdataset import expand_braces
from training.errors import BadRow, BadSpec, MissingFile, UnreadableImage


def write_shard(path: Path, members: dict[str, bytes], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]  # the mode is a parameter here
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_several_shards_give_captions_from_text_and_json_and_images_by_offset(tmp_path: Path) -> None:
    write_shard(tmp_path / "s-00.tar", {"001.jpg": b"first image", "001.txt": b" A  dog.\n", "001.json": b"{}"})
    write_shard(tmp_path / "s-01.tar", {
        "./001.json": json.dumps({"captions": ["A cat.", "a CAT.", "Puss."]}).encode(),
        "./001.webp": b"second image",
        "./002.jpeg": b"third image",
        "./003.txt": b"Words alone.",
    })  # fmt: skip
    pairs = read_pairs(f"webdataset:{tmp_path}/s-{{00..01}}.tar")
    assert [(image.image_id, image.captions, image.source.read()) for image in pairs.images] == [
        ("s-00.tar/001", ("A dog.",), b"first image"),
        ("s-01.tar/001", ("A cat.", "Puss."), b"second image"),
    ]
    assert [(image.image_id, image.reason) for image in pairs.missing] == [
        ("s-01.tar/002", "no caption"),
        ("s-01.tar/003", "captions without an image in the shard"),
    ]
    assert read_pairs(f"webdataset:{tmp_path}/s-*.tar").digest == pairs.digest


def test_named_json_fields_win_over_the_text(tmp_path: Path) -> None:
    fields = json.dumps({"title": "A title", "alt": "Another text"}).encode()
    shard = write_shard(tmp_path / "s.tar", {"1.png": b"p", "1.txt": b"The text", "1.json": fields})
    assert read_pairs(f"webdataset:{shard}?caption=title,alt").images[0].captions == ("A title", "Another text")


@pytest.mark.parametrize("kept_bytes", [700, 1024, 1536])
def test_a_shard_cut_anywhere_is_refused_instead_of_read_as_shorter(tmp_path: Path, kept_bytes: int) -> None:
    shard = write_shard(tmp_path / "s.tar", {"1.png": b"p", "1.txt": b"A dog."})  # 4 blocks, then the end
    shard.write_bytes(shard.read_bytes()[:kept_bytes])
    with pytest.raises(BadRow, match=r"s\.tar, row \d: .*cut"):
        read_pairs(f"webdataset:{shard}")


def test_a_compressed_shard_is_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {"1.png": b"p", "1.txt": b"A dog."}, mode="w:gz")
    with pytest.raises(BadRow, match="not an uncompressed tar"):
        read_pairs(f"webdataset:{shard}")


def test_broken_captions_name_shard_and_member(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {"1.png": b"p", "1.txt": b"fine", "2.png": b"p", "2.json": b"{"})
    with pytest.raises(BadRow, match=r"s\.tar, row 3: its \.json is not JSON"):
        read_pairs(f"webdataset:{shard}")


def test_a_shard_of_the_pattern_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "s-0.tar", {"1.png": b"p", "1.txt": b"A dog."})
    with pytest.raises(MissingFile, match=r"s-1\.tar: no such file"):
        read_pairs(f"webdataset:{tmp_path}/s-{{0..1}}.tar")


def test_braces_multiply_keep_their_width_and_refuse_nonsense() -> None:
    assert list(expand_braces("{a,b}-{08..10}.tar")) == [
        f"{a}-{n}.tar" for a in "ab" for n in ("08", "09", "10")
    ]
    for pattern in ("{9..1}.tar", "{one}.tar", "{0..99999999}.tar"):
        with pytest.raises(BadSpec, match=r"\{.*\} is n"):
            list(expand_braces(pattern))


def test_a_shard_that_shrank_after_it_was_indexed_is_noticed(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {"1.png": b"image", "1.txt": b"A dog."})
    source = read_pairs(f"webdataset:{shard}").images[0].source
    shard.write_bytes(shard.read_bytes()[:515])
    with pytest.raises(UnreadableImage, match="3 bytes at offset 512 instead of 5"):
        source.read()
    with pytest.raises(UnreadableImage, match="No such file"):
        ImageSource(tmp_path / "gone.png").read()
