"""Tables and thumbnails of a release."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from index.errors import CorruptRelease, UnknownItem
from index.image_files import ImageSource, digest_of
from index.items import (
    ITEM_SCHEMA,
    ROWS_PER_GROUP,
    TEXT_SCHEMA,
    ItemRecord,
    ItemTable,
    TableWriter,
    TextTable,
    read_digests,
    text_row,
)
from index.thumbnails import ThumbnailFile, ThumbnailWriter, make_thumbnail


def record(item_id, **changes):
    fields = {"digest": digest_of(item_id.encode()), "source": ImageSource("p.png"), "width_pixels": 3}
    fields |= {"height_pixels": 4, "thumbnail": (5, 6), "payload": {"title": item_id}}
    return ItemRecord(id=item_id, **(fields | changes))


def test_items_come_back_by_row_and_by_id_over_several_row_groups(tmp_path):
    names = [f"{(number * 7919) % 5000}/é😀.jpg" for number in range(ROWS_PER_GROUP + 904)]
    with TableWriter(tmp_path / "i.parquet", ITEM_SCHEMA) as writer:
        for name in names:
            writer.append(record(name).as_row())
    table = ItemTable.read(tmp_path / "i.parquet")
    assert len(table) == len(names)
    assert [table.row(name) for name in names[::97]] == list(range(0, len(names), 97))
    assert table.payload(4100) == {"title": names[4100]}
    assert table.size_pixels(0) == (3, 4)
    assert table.thumbnail_range(0) == (5, 6)
    assert table.image_source(0) == ImageSource("p.png")
    assert sum(map(len, read_digests(tmp_path / "i.parquet"))) == len(names)
    for unknown in ("", "zzz", "\uffff"):
        with pytest.raises(UnknownItem):
            table.row(unknown)


def test_texts_know_their_items_and_keep_their_ids(tmp_path):
    with TableWriter(tmp_path / "t.parquet", TEXT_SCHEMA) as writer:
        writer.append(text_row(digest_of(b"a dog"), "a dog", [0, 2]))
        writer.append(text_row(digest_of(b"a cat"), "a cat", []))
    table = TextTable.read(tmp_path / "t.parquet")
    assert [table.text(row) for row in range(len(table))] == ["a dog", "a cat"]
    assert [table.item_rows(row) for row in range(2)] == [[0, 2], []]
    assert table.id(0) == digest_of(b"a dog").hex()[:20]
    assert table.payload(0) == {"text": "a dog", "item_count": 2}


def test_table_of_nothing_is_a_table(tmp_path):
    with TableWriter(tmp_path / "t.parquet", TEXT_SCHEMA):
        pass
    assert len(TextTable.read(tmp_path / "t.parquet")) == 0


def test_file_that_is_no_such_table_is_refused_by_name(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"id": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(CorruptRelease, match=r"a\.parquet"):
        ItemTable.read(tmp_path / "a.parquet")
    with pytest.raises(CorruptRelease, match=r"b\.parquet lacks the columns digest"):
        ItemTable.read(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((20, 10), (20, 10)), ((1000, 500), (256, 128)), ((5, 4000), (1, 256)), ((257, 257), (256, 256))],
)
def test_thumbnail_is_a_webp_that_fits_and_never_grows(size, expected):
    thumbnail = Image.open(io.BytesIO(make_thumbnail(Image.new("RGB", size, "red"))))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", expected)


def test_thumbnails_share_one_file_and_are_found_by_range(tmp_path):
    with ThumbnailWriter(tmp_path / "pack") as writer:
        places = [writer.append(data) for data in (b"one", b"", b"three")]
    pack = ThumbnailFile(tmp_path / "pack")
    assert [pack.read(*place) for place in places] == [b"one", b"", b"three"]
    with pytest.raises(CorruptRelease, match="ends before"):
        pack.read(3, 100)
    with pytest.raises(CorruptRelease, match="cannot be opened"):
        ThumbnailFile(tmp_path / "none")
