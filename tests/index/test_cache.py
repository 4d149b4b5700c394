"""The cache of embeddings: what it gives back, and that nothing broken ever comes out of it."""

import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest

from index.cache import EmbeddingCache, SeenImage, SeenText, cache_path, remove_other_caches
from index.image_files import digest_of

DIM = 4
FLIPS_APART = 23  # some fifty of them, at another bit each time; they take 20 ms each


def image(name, value=1.0):
    return SeenImage(digest_of(name.encode()), 3, 2, np.full(DIM, value, np.float32), b"thumb " + name.encode())


@pytest.fixture
def path(tmp_path):
    return cache_path(tmp_path, "f" * 64, "fp32")


def test_what_was_added_is_there_after_reopening_and_from_any_thread(path):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image("a"), image("b", 2.0)])
        cache.add_texts([SeenText(digest_of(b"t"), True, np.arange(DIM, dtype=np.float32))])
    found = []
    with EmbeddingCache(path, dim=DIM) as cache:
        thread = threading.Thread(target=lambda: found.append(cache.image(digest_of(b"b"))))
        thread.start()
        thread.join()
        text = cache.text(digest_of(b"t"))
        assert cache.image(digest_of(b"c")) is None
    assert (found[0].thumbnail, found[0].width_pixels, found[0].vector.tolist()) == (b"thumb b", 3, [2.0] * DIM)
    assert (text.truncated, text.vector.tolist()) == (True, [0, 1, 2, 3])


def test_cache_of_nothing_remembers_nothing():
    with EmbeddingCache(None, dim=DIM) as cache:
        cache.add_images([image("a")])
        cache.keep_only([], [])
        assert cache.image(digest_of(b"a")) is None


def test_row_that_was_changed_is_not_believed(path):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image("a"), image("b")])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE images SET thumbnail = ? WHERE digest = ?", (b"other", digest_of(b"a")))
    connection.close()
    with EmbeddingCache(path, dim=DIM) as cache:
        assert cache.image(digest_of(b"a")) is None
        assert cache.image(digest_of(b"b")) is not None
    with EmbeddingCache(path, dim=DIM + 1) as cache:
        assert cache.image(digest_of(b"b")) is None


@pytest.mark.parametrize("damage", [b"this is no database, and long enough to be read as a header" * 3, b""])
def test_broken_file_is_replaced_by_a_working_one(path, damage, caplog):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image("a")])
    path.write_bytes(damage)
    with EmbeddingCache(path, dim=DIM) as cache:
        assert cache.image(digest_of(b"a")) is None
        cache.add_images([image("a")])
        assert cache.image(digest_of(b"a")) is not None
    assert ("broken" in caplog.text) == bool(damage)


def test_file_that_breaks_while_in_use_costs_the_cache_and_nothing_else(path, caplog):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image(str(number)) for number in range(2000)])
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with EmbeddingCache(path, dim=DIM) as cache:
        assert all(cache.image(digest_of(str(number).encode())) is None for number in range(0, 2000, 100))
        cache.add_images([image("x")])
    assert "cache" in caplog.text
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image("x")])
        assert cache.image(digest_of(b"x")) is not None


def test_no_flipped_byte_raises_or_gives_anything_wrong_or_stays(path):
    """Everywhere in a file of three rows: headers, schema, types, lengths, content."""
    images = {name: image(name, value) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))}
    text = SeenText(digest_of(b"t"), True, np.arange(DIM, dtype=np.float32))
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images(list(images.values()))
        cache.add_texts([text])
    whole = path.read_bytes()
    used = [place for place, byte in enumerate(whole) if byte]
    for turn, place in enumerate(used[::FLIPS_APART]):
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << turn % 8]) + whole[place + 1 :])
        with EmbeddingCache(path, dim=DIM) as cache:
            for name, true in images.items():
                found = cache.image(digest_of(name.encode()))
                assert found is None or (found.thumbnail, found.width_pixels) == (true.thumbnail, 3)
                assert found is None or np.array_equal(found.vector, true.vector)
            seen = cache.text(text.digest)
            assert seen is None or (seen.truncated, seen.vector.tolist()) == (True, [0, 1, 2, 3])
            cache.add_images(list(images.values()))
        with EmbeddingCache(path, dim=DIM) as cache:  # by now the damage is found, and the file is a new one
            cache.add_images([images["a"]])
            assert cache.image(images["a"].digest) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE images SET thumbnail = 'text'",
        "UPDATE images SET thumbnail = CAST(thumbnail AS TEXT)",
        "UPDATE images SET vector = 7",
        "UPDATE images SET thumbnail = CAST(x'ff' AS TEXT)",
        "UPDATE images SET width = NULL",
    ],
)
def test_value_of_another_type_is_not_believed(path, statement):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image("a")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
    with EmbeddingCache(path, dim=DIM) as cache:
        assert cache.image(digest_of(b"a")) is None


def test_cache_that_another_process_holds_is_left_alone(path, caplog):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image("a")])
        with EmbeddingCache(path, dim=DIM) as second:
            assert second.image(digest_of(b"a")) is None
    assert "locked" in caplog.text
    with EmbeddingCache(path, dim=DIM) as cache:
        assert cache.image(digest_of(b"a")) is not None


def test_full_disk_costs_no_row_that_is_there(path, caplog):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image("a")])
    with EmbeddingCache(path, dim=DIM) as cache:
        cache._connection.execute("PRAGMA max_page_count = 1")  # SQLite's own way to be full
        cache.add_images([image(str(number)) for number in range(1000)])
        assert cache.image(digest_of(b"a")) is None
    assert "full" in caplog.text
    with EmbeddingCache(path, dim=DIM) as cache:
        assert cache.image(digest_of(b"a")) is not None


def test_only_what_is_kept_stays_and_the_file_shrinks(path):
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.add_images([image(str(number)) for number in range(2000)])
    before_bytes = path.stat().st_size
    with EmbeddingCache(path, dim=DIM) as cache:
        cache.keep_only([[digest_of(b"1")], [digest_of(b"2"), digest_of(b"1")]], [])
        assert cache.image(digest_of(b"2")) is not None
        assert cache.image(digest_of(b"3")) is None
    assert path.stat().st_size < before_bytes / 4


def test_caches_of_encoders_that_no_release_has_are_removed(tmp_path):
    kept, gone = cache_path(tmp_path, "a" * 64, "bf16"), cache_path(tmp_path, "b" * 64, "fp32")
    old_format = kept.with_name(kept.name.replace("-v", "-v0"))
    for file in (kept, gone, old_format):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    remove_other_caches(tmp_path, {"a" * 64})
    assert list(kept.parent.iterdir()) == [kept]
