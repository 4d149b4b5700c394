"""Flickr's token files, Kaggle's results.csv, CSV, JSONL and Parquet."""

import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from training.data.pairs import PairSet, read_pairs
from training.errors import BadRow, BadSpec, MissingColumn, MissingFile

FIXTURES = Path(__file__).parent / "fixtures"


def put(folder: Path, *names: str) -> Path:
    """Files that exist; nothing here decodes them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"an image")
    return folder


def captions(pairs: PairSet) -> dict[str, tuple[str, ...]]:
    return {image.image_id: image.captions for image in pairs.images}


def test_flickr_tokens_keep_captions_whole_and_count_the_phantom_as_missing(tmp_path: Path) -> None:
    put(tmp_path, "1000268201_693b08cb0e.jpg", "2258277193_586949ec62.jpg")
    pairs = read_pairs(f"flickr:{FIXTURES}/Flickr8k.token.txt:{tmp_path}")
    assert captions(pairs) == {
        "1000268201_693b08cb0e.jpg": ("A dog jumps .", 'The dog , "Rex" , is in the air # 1 .'),
        "2258277193_586949ec62.jpg": ("People wait for a train .",),
    }
    assert [(image.image_id, image.reason) for image in pairs.missing] == [
        ("2258277193_586949ec62.jpg.1", "a phantom entry: published without a file")
    ]


def test_a_token_line_without_its_tab_is_named_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "tokens.txt"
    file.write_text("a.jpg#0\tA dog .\nb.jpg#0 A cat .\n")
    with pytest.raises(BadRow, match=r"tokens\.txt, row 2: .*: 'b\.jpg#0 A cat \.'"):
        read_pairs(f"flickr:{file}:{tmp_path}")


def test_kaggle_reads_the_row_that_lacks_a_delimiter_and_captions_with_quotes(
    tmp_path: Path,
) -> None:
    put(tmp_path, "1000092795.jpg", "2199200615.jpg")
    pairs = read_pairs(f"kaggle:{FIXTURES}/results.csv:{tmp_path}")
    assert captions(pairs) == {
        "1000092795.jpg": ("Two people paint a fence .", '2 men , "outside" , talk .'),
        "2199200615.jpg": ("A dog is running .", "A dog runs across the grass ."),
    }


def test_a_plain_csv_is_not_taken_for_kaggles(tmp_path: Path) -> None:
    with pytest.raises(MissingColumn, match="starts with 'image,caption'"):
        read_pairs(f"kaggle:{FIXTURES}/captions.csv:{tmp_path}")


def test_csv_groups_rows_by_image_and_drops_what_an_image_already_has(tmp_path: Path) -> None:
    images = put(tmp_path, "cat.png", "dog.png")
    pairs = read_pairs(f"csv:{FIXTURES}/captions.csv?images={images}")
    assert captions(pairs) == {"cat.png": ('A cat, on a "mat".', "A cat sits."), "dog.png": ("A dog.",)}
    assert [image.image_id for image in pairs.missing] == ["gone.png"]


def test_csv_takes_other_columns_tabs_a_byte_order_mark_and_line_breaks_in_a_cell(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png")
    (tmp_path / "a.tsv").write_bytes('\ufefffile\ttext\tsplit\r\na.png\t"two\r\nlines"\ttrain\r\n'.encode())
    assert captions(read_pairs(f"csv:{tmp_path}/a.tsv?image=file&caption=text&split=train")) == {
        "a.png": ("two lines",)
    }


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        (b"image,caption\na.png,A cat, sitting\n", BadRow, "row 2: 3 fields where the header has 2"),
        (b'image,caption\na.png,"A cat\n', BadRow, "not CSV in UTF-8"),
        (b"image,caption\na.png,caf\xe9\n", BadRow, "not CSV in UTF-8"),
        (b"image,caption\n,A cat\n", BadRow, "row 2: 'image' is not the path of an image: ''"),
        (b"photo,caption\na.png,A cat\n", MissingColumn, "no column 'image' .* it has caption, photo"),
        (b"image,text\na.png,A cat\n", MissingColumn, "no column 'caption or captions'"),
        (b"", MissingColumn, "it has none"),
    ],
)  # fmt: skip
def test_a_bad_csv_is_refused_with_row_and_value(
    tmp_path: Path, content: bytes, error: type[Exception], words: str
) -> None:
    file = put(tmp_path, "a.png") / "captions.csv"
    file.write_bytes(content)
    with pytest.raises(error, match=words) as caught:
        read_pairs(f"csv:{file}")
    assert str(file) in str(caught.value)


def test_jsonl_makes_a_caption_a_column_joins_tags_and_skips_empty_ones(tmp_path: Path) -> None:
    images = put(tmp_path, "cat.png", "dog.png", "sun.png")
    pairs = read_pairs(f"jsonl:{FIXTURES}/items.jsonl?images={images}&caption=title,description,tags")
    assert captions(pairs) == {"cat.png": ("Cat", "pet, animal"), "dog.png": ("Dog",)}
    assert [(image.image_id, image.reason.partition(" /")[0]) for image in pairs.missing] == [
        ("sun.png", "no caption"),
        ("gone.png", "no file"),
    ]


def test_a_captions_column_and_a_bracketed_one_spread_their_lists(tmp_path: Path) -> None:
    images = put(tmp_path, "cat.png", "dog.png")
    assert captions(read_pairs(f"jsonl:{FIXTURES}/captions.jsonl?images={images}")) == {
        "cat.png": ("A cat.", "An animal."),
        "dog.png": ("A dog.",),
    }
    pairs = read_pairs(f"jsonl:{FIXTURES}/items.jsonl?images={images}&caption=tags[]")
    assert captions(pairs) == {"cat.png": ("pet", "animal")}


def test_a_split_column_chooses_rows(tmp_path: Path) -> None:
    images = put(tmp_path, "cat.png", "dog.png")
    pairs = read_pairs(f"jsonl:{FIXTURES}/items.jsonl?images={images}&caption=title&split=test")
    assert (captions(pairs), pairs.missing) == ({"dog.png": ("Dog",)}, ())


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        ('{"image": "a.png", "caption": "A', BadRow, "row 2: not JSON"),
        ('["a.png", "A cat"]', BadRow, "row 2: not a JSON object"),
        ('{"caption": "A cat"}', BadRow, "row 2: no 'image' among its fields: 'caption'"),
        (
            '{"image": "a.png", "caption": {"en": "A cat"}}',
            BadRow,
            "row 2: 'caption' is neither a text nor a list",
        ),
        ('{"image": {"bytes": "…"}, "caption": "A cat"}', BadRow, "row 2: 'image' holds the image itself"),
    ],
)
def test_a_bad_jsonl_line_is_refused_with_row_and_value(
    tmp_path: Path, line: str, error: type[Exception], words: str
) -> None:
    file = put(tmp_path, "a.png") / "items.jsonl"
    file.write_text('{"image": "a.png", "caption": "A cat"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(error, match=words):
        read_pairs(f"jsonl:{file}")


def test_a_misspelt_column_is_told_from_one_that_a_row_lacks(tmp_path: Path) -> None:
    images = put(tmp_path, "cat.png")
    with pytest.raises(MissingColumn, match=r"no column 'titel' .* it has description, image, split"):
        read_pairs(f"jsonl:{FIXTURES}/items.jsonl?images={images}&caption=titel")


def test_parquet_reads_a_glob_of_files_and_relative_images(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png")
    for name in ("a", "b"):
        rows = [{"image": f"images/{name}.png", "captions": [f"Image {name}.", "One more."], "unused": 1.5}]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"part-{name}.parquet")
    assert captions(read_pairs(f"parquet:{tmp_path}/part-?.parquet")) == {
        "images/a.png": ("Image a.", "One more."),
        "images/b.png": ("Image b.", "One more."),
    }


def test_parquet_that_is_none_or_holds_the_images_is_refused(tmp_path: Path) -> None:
    table = pyarrow.table({"image": [b"\x89PNG"], "caption": ["A cat"]})
    pyarrow.parquet.write_table(table, tmp_path / "bytes.parquet")
    with pytest.raises(BadRow, match="row 1: 'image' holds the image itself"):
        read_pairs(f"parquet:{tmp_path}/bytes.parquet")
    shutil.copy(FIXTURES / "captions.csv", tmp_path / "text.parquet")
    with pytest.raises(MissingFile, match="not a readable Parquet file"):
        read_pairs(f"parquet:{tmp_path}/text.parquet")
    with pytest.raises(MissingFile, match="no such file"):
        read_pairs(f"parquet:{tmp_path}/none-*.parquet")
    with pytest.raises(BadSpec, match="lists an empty column name"):
        read_pairs(f"parquet:{tmp_path}/bytes.parquet?caption=caption,")
