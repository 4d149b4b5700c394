"""Galleries as people have them: folders, tables, tars."""

import io
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.errors import GalleryError
from index.gallery import Failure, GalleryItem
from index.sources import open_gallery


def entries(source, **options):
    return list(open_gallery(str(source), **options))


def ids(found):
    return [entry.id for entry in found if isinstance(entry, GalleryItem)]


def faults(found):
    return [(entry.item, entry.code) for entry in found if isinstance(entry, Failure)]


# --- folders


def test_folder_is_read_with_all_below_it_in_order(tmp_path, draw):
    for name in ("b/c/deep.png", "a.JPG", "z.webp", ".hidden.png", ".git/x.png"):
        draw(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    gallery = open_gallery(str(tmp_path))
    assert ids(list(gallery)) == ["a.JPG", "b/c/deep.png", "z.webp"]
    assert (gallery.skipped, gallery.fraction()) == (1, 1.0)


def test_links_in_circles_end_and_show_nothing_twice(tmp_path, draw):
    root, outside = tmp_path / "root", tmp_path / "outside"
    draw(root / "a/one.png")
    draw(outside / "two.png")
    (root / "a/loop").symlink_to(root)
    (root / "b").symlink_to(root / "a")
    (root / "out").symlink_to(outside)
    (root / "out_again").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (outside / "self").symlink_to(outside)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    assert ids(entries(root)) == ["a/one.png", "dangling.png", "out/two.png"]


def test_name_that_is_no_utf8_is_a_failure(tmp_path):
    with open(os.fsencode(tmp_path) + b"/bad\xff.png", "wb"):  # noqa: PTH123 - a path object would hide the byte
        pass
    assert [code for _, code in faults(entries(tmp_path))] == ["bad_id"]


def test_folder_that_may_not_be_read_is_a_failure(tmp_path, draw, held_by_modes):
    draw(tmp_path / "ok.png")
    (tmp_path / "locked").mkdir(mode=0)
    found = entries(tmp_path)
    assert (ids(found), faults(found)) == (["ok.png"], [("locked", "not_permitted")])


@pytest.mark.parametrize("name", ["", "items.jsonl"])
def test_gallery_that_may_not_be_read_is_refused_before_anything_else(tmp_path, held_by_modes, name):
    (tmp_path / "gallery").mkdir()
    locked = tmp_path / "gallery" / name
    if name:
        locked.write_bytes(b"")
    locked.chmod(0)
    with pytest.raises(GalleryError, match=f"the gallery {locked} cannot be read: Permission denied"):
        open_gallery(str(locked))
    locked.chmod(0o700)


def test_folder_with_a_table_is_that_table_and_with_two_is_refused(tmp_path):
    (tmp_path / "items.jsonl").write_text('{"image": "x.png"}\n')
    assert open_gallery(str(tmp_path)).kind == "jsonl"
    (tmp_path / "items.csv").write_text("image\n")
    with pytest.raises(GalleryError, match=r"items\.jsonl, items\.csv"):
        open_gallery(str(tmp_path))


# --- tables


def test_every_table_format_gives_the_same_items(tmp_path):
    rows = [
        {"image": "a.png", "title": 'a "red", dog', "year": 2001, "score": 0.5},
        {"image": "sub/b.png", "title": "ünï", "year": 2002, "score": 1.25},
    ]
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    csv = '\ufeffimage,title,year,score\r\na.png,"a ""red"", dog",2001,0.5\r\n\r\nsub/b.png,ünï,2002,1.25'
    (tmp_path / "t.csv").write_text(csv, encoding="utf-8")
    (tmp_path / "t.tsv").write_text(
        'image\ttitle\tyear\tscore\na.png\t"a ""red"", dog"\t2001\t0.5\nsub/b.png\tünï\t2002\t1.25\n'
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    jsonl, *others = [entries(tmp_path / f"t.{kind}") for kind in ("jsonl", "csv", "tsv", "parquet")]
    assert ids(jsonl) == ["a.png", "sub/b.png"]
    assert jsonl[0].texts == ('a "red", dog',)
    assert jsonl[0].payload == {"title": 'a "red", dog', "year": 2001, "score": 0.5}
    assert all(other == jsonl for other in others)


def test_id_column_names_the_item_and_root_says_where_images_lie(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/t.csv").write_text("id,path,code\n007,../a.png,007\n8,sub/b.png,1e5\n")
    found = entries(tmp_path / "lists/t.csv", root=tmp_path)
    assert faults(found) == [("t.csv:2", "outside_gallery")]
    assert (found[1].id, found[1].source.path, found[1].payload) == ("8", "sub/b.png", {"code": "1e5"})


def test_bad_rows_of_a_csv_are_failures_and_the_rest_gets_in(tmp_path):
    (tmp_path / "t.csv").write_bytes(
        b"image,title\nok.png,x\na,b,c\nb\xff.png,x\n,x\n/etc/x.png,x\nlast.png,y\n"
    )
    found = entries(tmp_path / "t.csv")
    assert ids(found) == ["ok.png", "last.png"]
    assert [code for _, code in faults(found)] == ["bad_row", "bad_row", "bad_path", "outside_gallery"]


def test_bad_lines_of_a_jsonl_are_failures_and_the_rest_gets_in(tmp_path):
    lines = [b'{"image": "ok.png"}', b"{", b'"text"', b'{"title": "x"}', b'{"image": "\xff"}', b'{"image": 3}',
             b'{"image": "a.png", "id": ""}', b'{"image": {"bytes": ""}}', b"[" * 100_000,
             b'{"path": "last.png"}']  # fmt: skip
    (tmp_path / "t.jsonl").write_bytes(b"\n".join(lines))
    found = entries(tmp_path / "t.jsonl")
    assert ids(found) == ["ok.png", "last.png"]
    assert [code for _, code in faults(found)] == [
        "bad_row", "bad_row", "bad_row", "bad_row", "bad_path", "bad_id", "bad_path", "bad_row"
    ]  # fmt: skip
    assert faults(found)[0][0] == "t.jsonl:2"


def test_quote_that_is_never_closed_costs_its_rows_only(tmp_path):
    filler = "".join(f"f{number}.png,{'x' * 200}\n" for number in range(1000))
    (tmp_path / "t.csv").write_text(f'image,title\na.png,"open\n{filler}')
    found = entries(tmp_path / "t.csv")
    assert faults(found)[0][1] == "bad_row"
    assert ids(found)[-1] == "f999.png"


def test_times_finer_than_python_knows_are_cut_to_microseconds(tmp_path):
    moment = 1_700_000_000_123_456_789
    columns = {
        "image": ["a.png"],
        "made": pa.array([moment], pa.timestamp("ns", "UTC")),
        "at": pa.array([1_001], pa.time64("ns")),
        "took": pa.array([1_001], pa.duration("ns")),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (item,) = entries(tmp_path / "t.parquet")
    assert item.payload == {
        "made": "2023-11-14T22:13:20.123456+00:00", "at": "00:00:00.000001", "took": "0:00:00.000001"
    }  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        pa.array([0, 10**12, 0], pa.timestamp("s")),  # the year 33658
        pa.Array.from_buffers(pa.string(), 3, [None, *pa.array([b"a", b"\xff", b"b"]).buffers()[1:]]),
        pa.array([[], [1_700_000_000_123_456_789], []], pa.list_(pa.timestamp("ns"))),
    ],
    ids=["after the last year", "no UTF-8", "nanoseconds in a list"],
)
def test_value_of_a_parquet_that_python_cannot_hold_costs_its_row_only(tmp_path, bad):
    pq.write_table(pa.table({"image": ["a.png", "b.png", "c.png"], "value": bad}), tmp_path / "t.parquet")
    found = entries(tmp_path / "t.parquet")
    assert (ids(found), faults(found)) == (["a.png", "c.png"], [("t.parquet:2", "bad_row")])


def test_halves_of_surrogate_pairs_in_a_jsonl_never_reach_the_tables(tmp_path):
    lines = [r'{"image": "a.png", "\ud800": {"\udfff": "\ud800"}}', r'{"image": "\ud800.png", "id": "b"}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    found = entries(tmp_path / "t.jsonl")
    assert found[0].payload == {"�": {"�": "�"}}
    assert faults(found) == [("t.jsonl:2", "bad_path")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"image," + b"x" * 140_000 + b"\n", "field larger than"),
        ("t.csv", "image,größe\n".encode("latin-1"), "not UTF-8"),
        ("t.csv", b"name,title\n", "'image' or 'path'"),
        ("t.csv", b"", "'image' or 'path'"),
        ("t.csv", b"image,title,title\n", "twice"),
        ("t.csv", "image,title\n".encode("utf-16"), "UTF-8"),
        ("t.parquet", b"PAR1 not really", "cannot be read"),
        ("t.txt", b"x", "is no gallery"),
        ("t.tar.gz", b"x", "unpack"),
    ],
)
def test_table_that_cannot_be_read_at_all_says_why(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GalleryError, match=message):
        entries(tmp_path / name)


def test_missing_gallery_is_said(tmp_path):
    with pytest.raises(GalleryError, match="does not exist"):
        open_gallery(str(tmp_path / "none"))
    with pytest.raises(GalleryError, match="no tar file matches"):
        open_gallery(str(tmp_path / "*.tar"))


# --- tars


def pack(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_samples_of_tars_are_read_by_offset_with_their_sidecars(tmp_path):
    meta = json.dumps({"title": "t", "year": 7}).encode()
    pack(
        tmp_path / "s-00.tar",
        [("x.jpg", b"IMAGE"), ("x.json", meta), ("x.txt", b"a dog\n"), ("x.seg.png", b"no")],
    )
    pack(
        tmp_path / "s-01.tar",
        [("d/x.json", meta), ("d/x.png", b"OTHER"), ("alone.txt", b"z"), ("y.webp", b"Y")],
    )
    found = entries(tmp_path / "s-{00..01}.tar")
    assert found == entries(tmp_path / "*.tar")
    assert ids(found) == ["s-00/x.jpg", "s-01/d/x.png", "s-01/y.webp"]
    assert faults(found) == [("s-01/alone", "bad_row")]
    assert found[0].texts == ("a dog",)
    assert found[0].payload == {"title": "t", "year": 7, "caption": "a dog"}
    assert found[1].texts == ("t",)
    assert [entry.source.read(tmp_path) for entry in found if isinstance(entry, GalleryItem)] == [
        b"IMAGE", b"OTHER", b"Y"
    ]  # fmt: skip


@pytest.mark.parametrize("cut_bytes", [700, 1536, 2000, 2560])
def test_cut_tar_is_a_failure_and_the_next_tar_is_read(tmp_path, cut_bytes):
    whole = pack(tmp_path / "b.tar", [("x.jpg", b"P" * 600), ("y.jpg", b"Q" * 600)]).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:cut_bytes])
    found = entries(tmp_path / "{a,b}.tar")
    assert faults(found) == [("a.tar", "cut_archive")]
    assert ids(found)[-2:] == ["b/x.jpg", "b/y.jpg"]


def test_tar_that_may_not_be_read_is_a_failure_and_the_next_is_read(tmp_path, held_by_modes):
    for name in ("a", "b"):
        pack(tmp_path / f"{name}.tar", [("x.jpg", b"P")])
    (tmp_path / "a.tar").chmod(0)
    found = entries(tmp_path / "*.tar")
    assert (ids(found), faults(found)) == (["b/x.jpg"], [("a.tar", "not_permitted")])


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_file_that_is_no_tar_is_a_failure(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    assert faults(entries(tmp_path / "a.tar")) == [("a.tar", "cut_archive")]


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "no,number"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"},
        {"size": "-1024"},
        {"size": str(10**30)},
    ],
)
def test_hostile_header_of_a_tar_ends_it_and_nothing_else(tmp_path, headers):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("first.jpg"))
        bad = tarfile.TarInfo("bad.jpg")
        bad.pax_headers = headers
        tar.addfile(bad)
    pack(tmp_path / "b.tar", [("x.jpg", b"P")])
    found = entries(tmp_path / "{a,b}.tar")
    assert faults(found) == [("a.tar", "cut_archive")]
    assert ids(found)[-1] == "b/x.jpg"


def test_broken_sidecar_costs_its_own_sample_only(tmp_path):
    pack(
        tmp_path / "a.tar",
        [("x.jpg", b"P"), ("x.json", b"{"), ("y.jpg", b"Q"), ("y.txt", b"\xff"), ("z.jpg", b"R")],
    )
    found = entries(tmp_path / "a.tar")
    assert (ids(found), faults(found)) == (["a/z.jpg"], [("a/x", "bad_row"), ("a/y", "bad_row")])
