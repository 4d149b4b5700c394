"""The journal of live changes: what is committed is read again, and nothing dead stays on the disk."""

import os
import shutil
from contextlib import closing

import pytest
from journaling import (
    as_read,
    delete,
    ids,
    image_names,
    names,
    opened,
    put,
    read,
    thumbnail_count,
    used_bytes,
)

from index.errors import (
    IdempotencyKeyReused,
    ImageMissing,
    JournalBusy,
    JournalFailed,
    UnsupportedJournal,
)
from index.image_files import digest_of
from index.journal import answers, upkeep
from index.journal.changes import Delete, RequestKey
from index.journal.images import ImageStore
from index.journal.journal import Journal, compact
from index.journal.snapshot import open_snapshot

FLOOR_BYTES = 8 << 20  # reserve, log, free pages


@pytest.fixture
def releases(tmp_path):
    return tmp_path


@pytest.fixture
def journal(releases):
    with opened(releases) as writing:
        yield writing


def committed(journal, *sets):
    """The changes of all sets with their numbers."""
    outcomes = journal.commit(sets)
    journal.tidy()
    return [change for outcome in outcomes for change in outcome.changes]


def test_what_is_committed_is_read_again_with_numbers_that_rise(releases, journal):
    first = committed(journal, put("a/b ä.png", b"image"), delete("gone", "too"))
    second = committed(journal, put("c", texts=()))
    assert [change.sequence for change in first + second] == [1, 2, 3, 4]
    assert as_read(read(releases)) == as_read(first + second)
    journal.close()
    with opened(releases) as again:
        assert [change.sequence for change in committed(again, delete("x"))] == [5]
    assert [change.sequence for change in read(releases)] == [1, 2, 3, 4, 5]


def test_the_last_change_of_every_id_is_kept_and_nothing_of_those_before(releases, journal):
    images = [b"image %d" % number for number in range(4)]
    for number in range(3):
        last = committed(journal, put("same", images[number], seed=number))
    committed(journal, put("deleted", images[3]), put("twin", images[2]))
    gone = committed(journal, delete("deleted", "twin"))
    assert as_read(read(releases)) == as_read(last + gone)
    assert image_names(releases) == names(images[2])
    assert thumbnail_count(releases) == 1
    committed(journal, delete("same"))
    assert image_names(releases) == set()
    assert thumbnail_count(releases) == 0


def test_an_image_and_its_thumbnail_are_there_while_any_item_has_it(releases, journal):
    committed(journal, put("one", b"image"), put("two", b"image"))
    committed(journal, delete("one"))
    with closing(ImageStore(releases / "live")) as store:
        assert store.read(digest_of(b"image")) == b"image"
        assert store.thumbnail(digest_of(b"image")) == b"thumbnail of image"
        committed(journal, delete("two"))
        for read_one in (store.read, store.thumbnail):
            with pytest.raises(ImageMissing):
                read_one(digest_of(b"image"))


def test_a_damaged_image_is_told_until_it_is_put_again(releases, journal):
    committed(journal, put("one", b"image"))
    path = releases / "live" / "images" / digest_of(b"image").hex()
    path.write_bytes(b"imaga")
    with closing(ImageStore(releases / "live")) as store:
        with pytest.raises(ImageMissing, match="has changed"):
            store.read(digest_of(b"image"))
        committed(journal, put("one", b"image"))
        assert store.read(digest_of(b"image")) == b"image"


def test_one_id_put_10000_times_stays_within_twice_its_size(releases):
    """One in fifty with an image of its own; in groups, over a restart."""
    peak = number = 0
    for _ in range(2):
        with opened(releases) as journal:
            for _ in range(50):
                sets = []
                for _ in range(100):
                    data = os.urandom(50_000) if number % 50 == 49 else None
                    sets.append(put("same", data, seed=number))
                    number += 1
                committed(journal, *sets)
                peak = max(peak, used_bytes(releases / "live"))
        assert len(image_names(releases)) == 1
    assert number == 10_000
    assert peak < 2 * 50_000 + FLOOR_BYTES


def test_deleting_most_of_a_large_journal_gives_its_room_back(releases, journal):
    texts = tuple(f"a text {number}" for number in range(40))
    for start in range(0, 6_000, 1000):
        journal.commit([put(f"{number}", texts=texts) for number in range(start, start + 1000)])
    journal.tidy()
    full = used_bytes(releases / "live")
    for start in range(0, 5_000, 1000):
        committed(journal, delete(*(f"{number}" for number in range(start, start + 1000))))
    with open_snapshot(releases) as snapshot:
        alive = sum(
            len(change.vector) * 4 * 41 + 800 for change in snapshot.changes() if not isinstance(change, Delete)
        )
    assert full > 16 << 20
    assert used_bytes(releases / "live") < 2 * alive + FLOOR_BYTES


def test_a_reader_holds_one_state_and_the_log_is_cut_once_it_is_gone(releases, journal, monkeypatch):
    monkeypatch.setattr(upkeep, "MOST_LOG_BYTES", 1 << 20)
    committed(journal, put("before"))
    with open_snapshot(releases) as snapshot:
        for number in range(30):
            committed(journal, put(f"{number}", texts=tuple(f"{number} {n}" for n in range(900))))
        assert [change.id for change in snapshot.changes()] == ["before"]
        assert [change.id for change in snapshot.changes(after=1)] == []
    committed(journal, put("after"))
    assert (releases / "live" / "journal.sqlite-wal").stat().st_size <= 1 << 20
    assert len(read(releases)) == 32


def test_compacting_sweeps_what_a_kill_left_behind(releases):
    with opened(releases) as journal:
        committed(journal, put("kept", b"image"))
    images = releases / "live" / "images"
    (images / digest_of(b"nobody's").hex()).write_bytes(bytes(100_000))
    (images / f".{digest_of(b'half').hex()}").write_bytes(bytes(100_000))
    assert compact(releases) >= 200_000
    assert image_names(releases) == names(b"image")
    assert compact(releases) == 0


def test_a_second_writer_is_told_who_writes(releases, journal):
    for attempt in (Journal, compact):
        with pytest.raises(JournalBusy, match=rf"process {os.getpid()} on .* writes changes to {releases}"):
            attempt(releases)


def test_changes_of_an_earlier_form_are_refused_with_what_to_do(releases):
    (releases / "live").mkdir()
    (releases / "live" / "journal-00000000000000000001.log").write_bytes(b"TLJ1")
    for attempt in (Journal, compact, read):
        with pytest.raises(UnsupportedJournal, match=r"form of an earlier version .*Rebuild"):
            attempt(releases)
    assert [path.name for path in (releases / "live").iterdir()] == ["journal-00000000000000000001.log"]


class TestMovedAway:
    """live/ is moved, deleted or replaced under whoever writes there."""

    @pytest.mark.parametrize(
        "what", ["live", "live/journal.sqlite", "live/journal.sqlite-wal", "live/images", ".live.lock"]
    )
    def test_nothing_is_acknowledged_until_it_is_put_back(self, releases, what):
        with opened(releases) as journal:
            committed(journal, put("before", b"image"))
            (releases / what).rename(releases / "elsewhere")
            for change in (put("lost", b"another"), delete("before")):
                with pytest.raises(JournalFailed, match="moved, deleted or replaced"):
                    journal.commit([change])
            (releases / "elsewhere").rename(releases / what)
            committed(journal, put("after"))
        assert ids(releases) == ["before", "after"]

    def test_a_second_writer_is_refused_beside_the_first(self, releases):
        with opened(releases):
            (releases / "live").rename(releases / "elsewhere")
            with pytest.raises(JournalBusy):
                Journal(releases)
            assert not (releases / "live").exists()
            (releases / "elsewhere").rename(releases / "live")

    def test_what_was_put_in_its_place_is_left_alone(self, releases, tmp_path):
        """Closing a database deletes the log at its path; there lies another's by now."""
        other = tmp_path / "other"
        other.mkdir()
        with opened(other) as journal:
            committed(journal, put("theirs"))
            shutil.copytree(other / "live", tmp_path / "copy")
        with opened(releases) as journal:
            committed(journal, put("ours"))
            (releases / "live").rename(releases / "elsewhere")
            (tmp_path / "copy").rename(releases / "live")
            with pytest.raises(JournalFailed):
                journal.commit([delete("ours")])
        assert ids(releases) == ["theirs"]


class TestIdempotency:
    """A request with a key is carried out once; what was answered is answered again."""

    def key(self, name="key", content="content"):
        return RequestKey(digest_of(name.encode()), digest_of(content.encode()))

    def answer(self, changes):
        return b"changes " + b" ".join(b"%d" % change.sequence for change in changes)

    def sent(self, journal, *sets):
        return [
            (outcome.answer, outcome.replayed) if not isinstance(outcome, Exception) else type(outcome)
            for outcome in journal.commit(sets)
        ]

    def test_the_same_request_again_gives_the_first_answer_also_after_a_restart(self, releases):
        once = put("a", b"image", key=self.key(), answer=self.answer)
        with opened(releases) as journal:
            assert self.sent(journal, once) == [(b"changes 1", False)]
            assert self.sent(journal, once) == [(b"changes 1", True)]
        with opened(releases) as journal:
            assert self.sent(journal, once, put("b"), once) == [
                (b"changes 1", True),
                (None, False),
                (b"changes 1", True),
            ]
            assert journal.answer_to(self.key()).answer == b"changes 1"
        assert [(change.sequence, change.id) for change in read(releases)] == [(1, "a"), (2, "b")]

    def test_two_at_once_are_carried_out_once_and_leave_one_image(self, releases, journal):
        first = put("a", b"first", key=self.key(), answer=self.answer)
        assert self.sent(journal, first, put("a", b"second", key=self.key(), answer=self.answer)) == [
            (b"changes 1", False),
            (b"changes 1", True),
        ]
        journal.tidy()
        assert image_names(releases) == names(b"first")

    def test_a_key_of_another_request_is_refused_and_changes_nothing(self, releases, journal):
        assert self.sent(journal, put("a", key=self.key(), answer=self.answer)) == [(b"changes 1", False)]
        other = put("b", b"image", key=self.key(content="other"), answer=self.answer)
        assert self.sent(journal, other, put("c")) == [IdempotencyKeyReused, (None, False)]
        journal.tidy()
        assert ids(releases) == ["a", "c"]
        assert image_names(releases) == set()
        assert isinstance(journal.answer_to(self.key(content="other")), IdempotencyKeyReused)

    @pytest.mark.parametrize(("limit", "value"), [("MOST_ANSWERS", 3), ("MOST_BYTES", 30), ("KEPT_SECONDS", 0)])
    def test_answers_are_kept_up_to_a_number_a_size_and_an_age(self, journal, monkeypatch, limit, value):
        monkeypatch.setattr(answers, limit, value)
        keys = [self.key(f"{number}") for number in range(6)]
        for number, key in enumerate(keys):
            journal.commit([put(f"{number}", key=key, answer=lambda _: b"0123456789")])
        kept = [journal.answer_to(key) is not None for key in keys]
        assert kept == [False] * 3 + [True] * 3 if value else kept == [False] * 6
        rows = journal._connection.execute("SELECT count(*) FROM answers").fetchone()[0]
        assert rows == (3 if value else 1)
