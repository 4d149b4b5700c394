"""The journal of live changes on a real file system: kills, damage, full disks, and what compaction keeps."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from index.errors import CorruptJournal, ImageMissing, JournalBusy
from index.live.frames import END, HEADER_BYTES
from index.live.journal import COMPACT_FILES, Journal
from index.live.pictures import PictureStore
from index.live.reading import JOURNAL, LiveReader, file_name, live_files
from index.live.records import Delete, Put
from index.pictures import digest_of

ROOT = Path(__file__).resolve().parents[2]


def put(item_id, *, seed=0, texts=("one", "two"), digest=None):
    rows = np.random.default_rng(seed).standard_normal((1 + len(texts), 8)).astype(np.float32)
    return Put(
        id=item_id,
        payload={"title": "ä", "n": [1, {"deep": None}]},
        vector=rows[0],
        fingerprint="f" * 64,
        texts=texts,
        text_vectors=rows[1:],
        digest=digest,
        width_pixels=3,
        height_pixels=4,
    )


def read(folder):
    return list(LiveReader(folder))


def as_read(changes):
    """What a change is, in what can be compared."""
    return [
        (change.sequence, change.id)
        if isinstance(change, Delete)
        else (
            change.sequence,
            change.id,
            change.payload,
            change.texts,
            change.vector.tolist(),
            change.text_vectors.tolist(),
            change.digest,
            change.fingerprint,
            (change.width_pixels, change.height_pixels),
        )
        for change in changes
    ]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "live"


@pytest.fixture
def journal(folder):
    opened = Journal(folder)
    yield opened
    opened.close()


def file_of(folder):
    """The only journal, or the newest."""
    return live_files(folder)[0][-1].path


def test_what_was_appended_is_read_again_with_numbers_that_rise(folder, journal):
    first = journal.append([put("a/b ä.png", digest=b"d" * 32), Delete("gone")])
    second = journal.append([put("a/b ä.png", seed=1, texts=())])
    assert [change.sequence for change in first + second] == [1, 2, 3]
    assert as_read(read(folder)) == as_read(first + second)
    journal.close()
    again = Journal(folder)
    assert [change.sequence for change in again.append([Delete("x")])] == [4]
    again.close()
    assert [change.sequence for change in read(folder)] == [1, 2, 3, 4]


def test_a_journal_cut_at_any_byte_gives_back_every_whole_append_and_takes_new_ones(folder, tmp_path):
    journal = Journal(folder)
    ends = [0]
    for number in range(3):
        journal.append([put(f"{number}", texts=()), Delete(f"old {number}")])
        ends.append(file_of(folder).stat().st_size)
    journal.close()
    content = file_of(folder).read_bytes()
    name = file_of(folder).name
    for length in range(len(content) + 1):
        cut = tmp_path / "cut"
        cut.mkdir(exist_ok=True)
        (cut / name).write_bytes(content[:length])
        whole = 2 * sum(end <= length for end in ends[1:])
        assert [change.sequence for change in read(cut)] == list(range(1, whole + 1))
        if length % 37 == 0:
            mended = Journal(cut)
            assert [change.sequence for change in mended.append([Delete("new")])] == [whole + 1]
            mended.close()
            assert [change.sequence for change in read(cut)] == list(range(1, whole + 2))
            shutil.rmtree(cut)


def test_room_that_a_power_cut_left_unwritten_is_a_torn_tail(folder):
    journal = Journal(folder)
    journal.append([put("kept")])
    path, whole = file_of(folder), file_of(folder).stat().st_size
    journal.append([put("lost")])
    journal.close()
    content = path.read_bytes()
    middle = whole + HEADER_BYTES + 20
    for torn in (content[:whole] + bytes(500), content[:middle] + bytes(len(content) - middle)):
        path.write_bytes(torn)
        assert [change.id for change in read(folder)] == ["kept"]


def test_any_flipped_bit_is_told_and_never_skipped(folder):
    journal = Journal(folder)
    for number in range(3):
        journal.append([put(f"{number}", texts=())])
    journal.close()
    path = file_of(folder)
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(changed))
        with pytest.raises(CorruptJournal, match=path.name):
            read(folder)
        with pytest.raises(CorruptJournal):
            Journal(folder)
    assert content.endswith(END)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_journal_that_is_missing_is_told(folder, missing):
    for number in range(3):
        journal = Journal(folder)
        journal.append([Delete(f"{number}")])
        journal.close()
    paths = [file.path for file in live_files(folder)[0]]
    assert len(paths) == 3
    paths[missing].unlink()
    with pytest.raises(CorruptJournal, match="missing"):
        read(folder)


def test_a_snapshot_that_is_missing_is_told(folder, journal):
    journal.append([Delete("a")])
    journal.compact()
    journal.append([Delete("b")])
    (snapshot,) = folder.glob("snapshot-*")
    snapshot.unlink()
    with pytest.raises(CorruptJournal, match="those after 0 are missing"):
        read(folder)


def test_compaction_keeps_the_last_of_every_id_tombstones_and_the_pictures_that_are_shown(folder, journal):
    pictures = [b"picture %d" % number for number in range(5)]
    digests = [digest_of(picture) for picture in pictures]
    for number in range(4):
        with journal.pictures.kept(digests[number], pictures[number], b"thumbnail"):
            journal.append([put("same", seed=number, digest=digests[number])])
    journal.append([put("deleted", digest=b"x" * 32), Delete("deleted")])
    last = as_read(read(folder))
    with journal.pictures.kept(digests[4], pictures[4], b"t"):
        journal.compact()
        assert journal.pictures.read(digests[4]) == pictures[4]
    assert as_read(read(folder)) == [last[3], last[5]]
    assert journal.pictures.read(digests[3]) == pictures[3]
    with pytest.raises(ImageMissing):
        journal.pictures.read(digests[2])
    assert [change.sequence for change in journal.append([Delete("next")])] == [7]
    journal.close()
    assert [change.sequence for change in read(folder)] == [4, 6, 7]


def test_a_compaction_that_cannot_begin_a_journal_takes_no_change_with_it(folder, journal):
    journal.append([Delete("a")])
    in_the_way = folder / file_name(JOURNAL, 2)
    in_the_way.mkdir()
    with pytest.raises(IsADirectoryError):
        journal.compact()
    in_the_way.rmdir()
    journal.append([Delete("b")])
    assert [change.id for change in read(folder)] == ["a", "b"]


def test_a_service_that_is_started_again_and_again_leaves_few_files(folder):
    for number in range(COMPACT_FILES + 3):
        journal = Journal(folder)
        journal.append([Delete(f"{number}")])
        journal.close()
    assert len(list(folder.glob("*.log"))) < 6
    assert len(read(folder)) == COMPACT_FILES + 3


def test_a_kill_before_any_step_of_compaction_loses_nothing(folder, tmp_path):
    """The process kills itself before its n-th change of the folder, for every n."""
    script = """
import os, signal, sys
from pathlib import Path
from index.live.journal import Journal
from index.live.records import Delete
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])
journal = Journal(folder)
journal.append([Delete("a"), Delete("b"), Delete("a")])
steps = 0
def hook(event, arguments):
    global steps
    if event in {"open", "os.rename", "os.remove", "os.truncate"} and str(folder) in str(arguments[0]):
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
journal.compact()
print(steps)
"""
    statuses = []
    for kill_at in range(1, 40):
        target = tmp_path / f"live {kill_at}"
        done = subprocess.run(
            [sys.executable, "-c", script, target, str(kill_at)], cwd=ROOT, capture_output=True, check=False
        )
        statuses.append(done.returncode)
        states = {change.id: change.sequence for change in read(target)}
        assert states == {"b": 2, "a": 3}
        journal = Journal(target)
        assert [change.sequence for change in journal.append([Delete("c")])] == [4]
        journal.close()
        assert not live_files(target)[1]
        if done.returncode == 0:
            break
    assert statuses[-1] == 0
    assert statuses[:-1] == [-signal.SIGKILL] * (len(statuses) - 1)
    assert len(statuses) > 4


def test_a_second_writer_is_told_who_holds_the_changes(folder, journal):
    with pytest.raises(JournalBusy, match=f"process {os.getpid()}"):
        Journal(folder)


def test_numbers_rise_beyond_what_releases_know_even_when_the_folder_was_lost(folder):
    lost = Journal(folder, floor=500)
    assert [change.sequence for change in lost.append([Delete("a")])] == [501]
    lost.close()
    behind = Journal(folder, floor=900)
    assert [change.sequence for change in behind.append([Delete("b")])] == [901]
    behind.close()
    assert [change.sequence for change in read(folder)] == [501, 901]


def limited(folder, script, *, file_bytes):
    """Run a script that may write files of so many bytes at most."""
    return subprocess.run(
        [sys.executable, "-c", script, folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY)),
    )


def test_without_room_a_change_is_refused_whole_and_smaller_ones_still_fit(folder):
    script = """
import sys
from pathlib import Path
from index.errors import JournalFull
from index.live.journal import Journal
from index.live.records import Delete
journal = Journal(Path(sys.argv[1]))
journal.append([Delete("first")])
try:
    journal.append([Delete("x" * 3000)])
except JournalFull as error:
    print(error)
journal.append([Delete("last")])
try:
    with journal.pictures.kept(b"d" * 32, b"p" * 5000, b"t"):
        print("kept")
except JournalFull as error:
    print(error)
"""
    done = limited(folder, script, file_bytes=2000)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("File too large") == 2
    assert "kept" not in done.stdout.splitlines()
    assert [(change.sequence, change.id) for change in read(folder)] == [(1, "first"), (2, "last")]
    assert [path.name for path in (folder / "pictures").iterdir()] == [(b"d" * 32).hex() + ".webp"]


def test_without_room_for_a_snapshot_changes_go_on_and_nothing_is_left_of_it(folder):
    script = """
import sys
from pathlib import Path
from index.live import journal
from index.live.records import Delete
journal.COMPACT_BYTES = 2500
writing = journal.Journal(Path(sys.argv[1]))
writing.append([Delete("a" * 900)])
writing.append([Delete("b" * 900)])
writing.close()
writing = journal.Journal(Path(sys.argv[1]))
writing.append([Delete("c" * 900)])
writing.append([Delete("d")])
"""
    done = limited(folder, script, file_bytes=2000)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("could not be compacted") == 1
    assert [change.id[0] for change in read(folder)] == ["a", "b", "c", "d"]
    assert not [path.name for path in folder.iterdir() if not path.name.endswith((".log", "pictures", ".lock"))]


def test_a_picture_kept_twice_is_there_once(tmp_path):
    store, digest = PictureStore(tmp_path / "pictures"), digest_of(b"picture")
    for _ in range(2):
        with store.kept(digest, b"picture", b"thumbnail"):
            assert store.read(digest) == b"picture"
    assert store.thumbnail(digest) == b"thumbnail"
    assert len(list((tmp_path / "pictures").iterdir())) == 2


def test_a_picture_that_was_damaged_is_told_until_it_is_put_again(tmp_path):
    store, digest = PictureStore(tmp_path / "pictures"), digest_of(b"picture")
    with store.kept(digest, b"picture", b"thumbnail"):
        pass
    (tmp_path / "pictures" / digest.hex()).write_bytes(b"pictura")
    with pytest.raises(ImageMissing, match="has changed"):
        store.read(digest)
    with store.kept(digest, b"picture", b"thumbnail"):
        assert store.read(digest) == b"picture"
