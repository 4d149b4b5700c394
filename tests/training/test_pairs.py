"""The spec's grammar and what holds for every format: options, ids, digest, names."""

from pathlib import Path

import pytest

from training.data.pairs import Pair, read_pairs
from training.errors import BadSpec, EmptyPairSet, MissingFile, PairsError


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A folder called letters with a CSV of images a to e, two captions each."""
    folder = tmp_path / "letters"
    folder.mkdir()
    rows = ["image,caption"]
    for letter in "abcde":
        (folder / f"{letter}.png").write_bytes(letter.encode())
        rows += [f"{letter}.png,The letter {letter}.", f"{letter}.png,{letter} again."]
    (folder / "captions.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def ids(spec: str) -> str:
    return "".join(image.image_id.removesuffix(".png") for image in read_pairs(spec).images)


def test_pairs_are_one_a_caption_and_share_the_images_id(letters: Path) -> None:
    pairs = read_pairs(f"csv:{letters}/captions.csv?limit=1")
    source = pairs.images[0].source
    assert list(pairs.pairs()) == [Pair("a.png", "The letter a.", source), Pair("a.png", "a again.", source)]
    assert (pairs.caption_count, source.read(), pairs.name) == (2, b"a", "letters")


def test_only_exclude_and_limit_choose_images_in_their_order(letters: Path) -> None:
    (letters / "held.txt").write_text("# held out\n\nb.png\nd.png\n", encoding="utf-8")
    (letters / "near.txt").write_text("a.png\nnot-in-this-set.png\n", encoding="utf-8")
    spec = f"csv:{letters}/captions.csv"
    assert ids(f"{spec}?only={letters}/held.txt") == "bd"
    assert ids(f"{spec}?exclude={letters}/held.txt,{letters}/near.txt") == "ce"
    assert ids(f"{spec}?exclude={letters}/near.txt&limit=2") == "bc"
    with pytest.raises(EmptyPairSet, match="no image is left"):
        read_pairs(f"{spec}?only={letters}/held.txt&exclude={letters}/held.txt")


def test_a_list_of_ids_may_begin_with_a_byte_order_mark_and_must_be_utf8(letters: Path) -> None:
    marked = letters / "marked.txt"
    marked.write_text("a.png\nb.png\n", encoding="utf-8-sig")
    assert ids(f"csv:{letters}/captions.csv?exclude={marked}") == "cde"
    marked.write_text("a.png\n", encoding="utf-16")
    with pytest.raises(MissingFile, match="not a text in UTF-8"):
        read_pairs(f"csv:{letters}/captions.csv?exclude={marked}")


@pytest.mark.parametrize("place", [".", "/"])
def test_a_folder_in_the_place_of_a_file_is_an_error_that_says_so(place: str) -> None:
    with pytest.raises(MissingFile, match="is a folder, not a file"):
        read_pairs(f"parquet:{place}")


def test_the_digest_follows_ids_and_captions_and_not_the_place(letters: Path, tmp_path: Path) -> None:
    before = read_pairs(f"csv:{letters}/captions.csv").digest
    assert read_pairs(f"csv:{letters}/captions.csv?limit=4").digest != before
    moved = letters.rename(tmp_path / "moved")
    assert read_pairs(f"csv:{moved}/captions.csv").digest == before
    text = (moved / "captions.csv").read_text(encoding="utf-8")
    (moved / "captions.csv").write_text(text.replace("e again", "E again"), encoding="utf-8")
    assert read_pairs(f"csv:{moved}/captions.csv").digest != before


def test_a_missing_image_is_counted_and_named_and_not_fatal(letters: Path) -> None:
    (letters / "c.png").unlink()
    pairs = read_pairs(f"csv:{letters}/captions.csv")
    assert [image.image_id for image in pairs.missing] == ["c.png"]
    assert pairs.missing[0].reason == f"no file {letters}/c.png"
    assert len(pairs.images) == 4


def test_paths_may_hold_colons_and_question_marks(letters: Path, tmp_path: Path) -> None:
    odd = letters.rename(tmp_path / "what?: letters")
    assert ids(f"csv:{odd}/captions.csv") == "abcde"
    tokens = odd / "to:kens.txt"
    tokens.write_text("a.png#0\tThe letter a.\n", encoding="utf-8")
    assert ids(f"flickr:{tokens}:{odd}") == "a"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("captions.csv", "'captions.csv' is not <format>:<file>"),
        ("", "is not <format>:<file>"),
        ("excel:book.xlsx", "unknown format 'excel'; there are karpathy, coco, flickr"),
        ("csv:a.csv?limit=few", "limit= takes a whole number, not 'few'"),
        ("csv:a.csv?limit=-1", "limit= takes a whole number, not '-1'"),
        ("csv:a.csv?capton=text", "csv has no option capton; it has caption=, exclude="),
        ("coco:a.json:b?split=test", "coco has no option split"),
        ("csv:a.csv?limit=1&limit=2", "limit= is given twice"),
        ("csv:a.csv?limit=1&only", "the option 'only' is not name=value"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused_with_what_can(spec: str, words: str) -> None:
    with pytest.raises(BadSpec) as caught:
        read_pairs(spec)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_named(letters: Path) -> None:
    for spec in (
        f"csv:{letters}/none.csv",
        f"karpathy:{letters}/none.csv:test",
        f"coco:{letters}/none.csv:{letters}",
    ):
        with pytest.raises(MissingFile, match=r"none\.csv: no such file"):
            read_pairs(spec)
    with pytest.raises(MissingFile, match="letters: is a folder, not a file"):
        read_pairs(f"csv:{letters}")
    with pytest.raises(MissingFile, match=r"ids\.txt: no such file"):
        read_pairs(f"csv:{letters}/captions.csv?only={letters}/ids.txt")
    with pytest.raises(MissingFile, match=r"a\.png: is a file, not a folder"):
        read_pairs(f"csv:{letters}/captions.csv?images={letters}/a.png")


def test_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    image = '{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A."}]}'
    (tmp_path / "dataset.json").write_text(f'{{"images": [{image}, {image}]}}', encoding="utf-8")
    with pytest.raises(PairsError, match=r"'a\.jpg' comes twice"):
        read_pairs(f"karpathy:{tmp_path}/dataset.json")
