"""The journal under kills at system calls, damage, lost files, full and read-only disks."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from journaling import as_read, delete, ids, image_names, opened, put, read
from typer.testing import CliRunner

from index.__main__ import app
from index.errors import CorruptJournal, JournalFailed, JournalFull, ReleaseError
from index.image_files import digest_of
from index.journal import reserve
from index.journal.changes import Upsert
from index.journal.images import ImageStore
from index.journal.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
KILLED = {-signal.SIGKILL, 128 + signal.SIGKILL}  # as strace passes it on


def journal_of(releases):
    return releases / "live" / "journal.sqlite"


def log_of(releases):
    return releases / "live" / "journal.sqlite-wal"


# What the killed process does: replaces and deletes, so that images, rows and thumbnails come and go.
WRITER = """
import sys
sys.path[:0] = {paths}
from pathlib import Path
from journaling import delete, opened, put
from index.journal import database
with opened(Path(sys.argv[1])) as journal:
    for number in range(6):
        data = b"%d" % number * 3000
        puts = [put(f"{{number % 2}}", data, seed=number), put("both", data)]
        for sets in (puts, [delete(f"{{(number + 1) % 2}}")]):
            print("sent", number, flush=True)
            journal.commit(sets)
            print("acknowledged", journal.sequence, flush=True)
            journal.tidy()
"""


class Killed:
    """Runs the writer, killed before its n-th call of a system call; strace, from Debian, sends the signal."""

    CALLS = ("fsync", "fdatasync", "pwrite64", "rename", "unlink", "ftruncate")

    def __init__(self, folder):
        self._folder = folder
        self._script = folder / "writer.py"
        self._script.write_text(WRITER.format(paths=[str(ROOT), str(Path(__file__).parent)]))

    def run(self, releases, *, call, before):
        """What it had acknowledged, and whether it was killed."""
        releases.mkdir()
        inject = f"inject={call}:signal=SIGKILL:when={before}"
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject]
        done = self._run([*command, sys.executable, str(self._script), str(releases)])
        lines = [line.split() for line in done.stdout.splitlines()]
        acknowledged = [int(number) for word, number in lines if word == "acknowledged"]
        return acknowledged[-1] if acknowledged else 0, done.returncode in KILLED

    def counts(self):
        """How often each call is made in a run that is not killed."""
        releases, log = self._folder / "whole", self._folder / "calls"
        releases.mkdir()
        command = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(self.CALLS)}"]
        assert self._run([*command, sys.executable, str(self._script), str(releases)]).returncode == 0
        found = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
        return {call: found.count(call) for call in self.CALLS}

    def _run(self, command):
        return subprocess.run(command, capture_output=True, text=True, check=False)


def may_trace():
    if shutil.which("strace") is None:
        return False
    return not subprocess.run(
        ["strace", "-o", "/dev/null", "true"], capture_output=True, check=False
    ).returncode


@pytest.mark.skipif(not may_trace(), reason="strace is not installed, or may not trace here")
def test_a_kill_before_any_system_call_loses_nothing_acknowledged(tmp_path):
    killed, chance = Killed(tmp_path), random.Random(7)
    counts = killed.counts()
    assert all(counts.values())
    states = states_by_sequence()
    for call, count in counts.items():
        for before in chance.sample(range(1, count + 1), min(count, 3)):
            releases = tmp_path / f"{call} {before}"
            acknowledged, was_killed = killed.run(releases, call=call, before=before)
            assert was_killed
            with opened(releases) as journal:
                assert acknowledged <= journal.sequence
                found = {change.id: change for change in read(releases)}
                assert {name: one.sequence for name, one in found.items()} == states[journal.sequence]
                images = {one.digest.hex() for one in found.values() if isinstance(one, Upsert)}
                assert image_names(releases) == images
                with closing(ImageStore(releases / "live")) as store:
                    for digest in images:
                        assert store.thumbnail(digest_of(store.read(bytes.fromhex(digest)))).startswith(
                            b"thumbnail"
                        )


def states_by_sequence():
    """What the writer's changes come to after each transaction: last number → id → its number."""
    states, state, sequence = {0: {}}, {}, 0
    for number in range(6):
        for group in ((f"{number % 2}", "both"), (f"{(number + 1) % 2}",)):
            for name in group:
                sequence += 1
                state[name] = sequence
            states[sequence] = dict(state)
    return states


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A journal that was closed, and one that was killed with all it did still in the log."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("closed", "killed"):
        releases = folder / name
        releases.mkdir()
        with opened(releases) as journal:
            for number in range(12):
                data = b"image %d" % number
                journal.commit([put(f"item {number % 9}", data, seed=number), delete(f"old {number}")])
                journal.tidy()
            if name == "killed":
                shutil.copytree(releases, folder / "as killed")
    return folder


def copied(source, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


@pytest.mark.parametrize(("name", "file"), [("closed", journal_of), ("as killed", log_of)])
def test_a_flipped_bit_is_told_or_harms_nothing(whole, tmp_path, name, file):
    """In a page that nothing uses, for example, it harms nothing; it never makes a change go missing."""
    expected = as_read(read(whole / name))
    releases = copied(whole / name, tmp_path / "releases")
    content = file(releases).read_bytes()
    chance, told = random.Random(3), 0
    places = [*range(100), *chance.sample(range(100, len(content)), 250)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << chance.randrange(8)
        file(releases).write_bytes(changed)
        error = failure(read, releases)
        if error is None:
            assert as_read(read(releases)) == expected
        else:
            assert isinstance(error, CorruptJournal)
            assert str(releases / "live") in str(error)
            told += 1
    assert told > 30
    damage(file(releases), content)
    assert isinstance(failure(Journal, releases), CorruptJournal)


def failure(attempt, *arguments):
    """What it raises, or None."""
    try:
        attempt(*arguments)
    except ReleaseError as error:
        return error
    return None


def damage(path, content):
    """In the middle of what is used."""
    place = content.index(b'{"payload"') + 5
    path.write_bytes(content[:place] + b"X" + content[place + 1 :])


def test_a_damaged_journal_is_refused_and_left_as_it_is(whole, tmp_path):
    """Also the log: closing the last connection would delete it, with what could yet be saved."""
    releases = copied(whole / "as killed", tmp_path / "releases")
    damage(log_of(releases), log_of(releases).read_bytes())
    before = log_of(releases).read_bytes()
    for _ in range(2):
        with pytest.raises(CorruptJournal, match="was acknowledged: changes are lost"):
            Journal(releases)
    assert log_of(releases).read_bytes() == before


def test_a_log_cut_anywhere_is_told_and_holds_whole_groups_once_loss_is_accepted(whole, tmp_path):
    content = log_of(whole / "as killed").read_bytes()
    complete = {change.id: change.sequence for change in read(whole / "as killed")}
    seen = set()
    for length in random.Random(5).sample(range(len(content)), 30):
        releases = copied(whole / "as killed", tmp_path / "releases")
        log_of(releases).write_bytes(content[:length])
        with suppress(CorruptJournal):
            assert {change.id: change.sequence for change in read(releases)} == complete
        with opened(releases, accept_loss=True) as journal:
            left = max([change.sequence for change in read(releases)], default=0)
            assert left % 2 == 0  # each group made two changes
            seen.add(left)
            journal.commit([delete("new")])
            assert journal.sequence == 25
    assert len(seen) > 3


def test_lost_files_are_told_until_the_loss_is_accepted(tmp_path):
    with opened(tmp_path) as journal:
        journal.commit([put("a", b"image"), delete("b")])
    saved = shutil.copytree(tmp_path / "live", tmp_path / "saved")
    for lose in (lambda: journal_of(tmp_path).write_bytes(b""), lambda: shutil.rmtree(tmp_path / "live")):
        lose()
        for attempt in (Journal, read):
            with pytest.raises(
                CorruptJournal, match=r"holds no change, and change 2 was acknowledged.*--accept-loss"
            ):
                attempt(tmp_path)
    saved.rename(tmp_path / "live")
    assert ids(tmp_path) == ["a", "b"]
    with pytest.raises(CorruptJournal, match="ends with change 2, and change 500 was acknowledged"):
        Journal(tmp_path, known=500)
    with opened(tmp_path, known=500, accept_loss=True) as journal:
        journal.commit([delete("c")])
    assert [change.sequence for change in read(tmp_path, known=501)] == [1, 2, 501]


def test_compact_accepts_loss_only_when_it_is_told_to(tmp_path):
    def run(*options):
        return CliRunner().invoke(app, ["compact", "--releases", str(tmp_path), *options])

    assert "no live changes" in run().output
    with opened(tmp_path) as journal:
        journal.commit([put("a")])
    shutil.rmtree(tmp_path / "live")
    assert "holds no change, and change 1 was acknowledged" in run().output
    assert run("--accept-loss").exit_code == 0
    assert run().exit_code == 0
    with opened(tmp_path) as journal:
        assert run().exit_code == 1
        journal.commit([put("b")])
        assert journal.sequence == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 16 MiB."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("may not mount a file system here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(folder):
    """To the last byte, as another program may."""
    with suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def put_until_full(journal, *, prefix=""):
    """The ids that went in; images of 200 kB, then bare vectors."""
    accepted = []
    for kind in ("image", "vector"):
        for number in range(100_000):
            name = f"{prefix}{kind} {number}"
            data = os.urandom(200_000) if kind == "image" else None
            error = failure(journal.commit, [put(name, data, texts=())])
            if error is not None:
                break
            journal.tidy()
            accepted.append(name)
        assert isinstance(error, JournalFull)
        assert str(journal.folder) in str(error)
    return accepted


def test_on_a_full_disk_puts_leave_nothing_and_deletes_work_and_make_room(small_disk):
    with opened(small_disk) as journal:
        accepted = put_until_full(journal)
        assert len(accepted) > 30
        assert ids(small_disk) == accepted
        assert len(image_names(small_disk)) == sum("image" in name for name in accepted)
        fill(small_disk)
        assert shutil.disk_usage(small_disk).free == 0
        images = [name for name in accepted if "image" in name]
        journal.commit([delete(images[0])])
        journal.tidy()
        journal.commit([delete(*images[1:])])
        journal.tidy()
        assert shutil.disk_usage(small_disk).free > 200_000 * (len(images) - 1) - reserve.LEAST_BYTES
        assert image_names(small_disk) == set()
        again = put_until_full(journal, prefix="again ")
        assert len(again) >= len(images) - 12
    with opened(small_disk) as journal:
        assert {change.id for change in read(small_disk)} == {*accepted, *again}
        journal.commit([delete(again[0])])


@pytest.mark.parametrize(
    "name",
    [
        "live",
        "live/journal.sqlite",
        "live/journal.sqlite-wal",
        "live/journal.sqlite-shm",
        "live/images",
        ".live.lock",
        ".live.acknowledged",
    ],
)
def test_nothing_is_acknowledged_while_a_file_is_moved_away(tmp_path, name):
    with opened(tmp_path) as journal:
        journal.commit([put("before")])
        (tmp_path / name).rename(tmp_path / "elsewhere")
        for change in (put("lost"), delete("before")):
            with pytest.raises(JournalFailed, match=f"{re.escape(str(tmp_path))}.* was moved"):
                journal.commit([change])
        (tmp_path / "elsewhere").rename(tmp_path / name)
        journal.commit([put("after")])
    assert ids(tmp_path) == ["before", "after"]


def test_a_reserve_that_was_deleted_is_made_anew(tmp_path):
    file = tmp_path / "live" / reserve.RESERVE_NAME
    with opened(tmp_path) as journal:
        journal.commit([put("a")])
        file.unlink()
        journal.commit([put("b")])
        assert file.stat().st_blocks * 512 >= reserve.LEAST_BYTES


def test_a_journal_on_a_full_disk_opens_compacts_and_takes_deletes_after_a_kill(small_disk):
    script = (
        WRITER.format(paths=[str(ROOT), str(Path(__file__).parent)]) + "    import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(small_disk)], capture_output=True, check=False)
    assert done.returncode in KILLED
    (small_disk / "live" / "images" / digest_of(b"orphan").hex()).write_bytes(bytes(500_000))
    fill(small_disk)
    told = CliRunner().invoke(app, ["compact", "--releases", str(small_disk)])
    assert told.exit_code == 0, told.output
    assert float(re.search(r"freed ([0-9.]+) MB", told.output)[1]) >= 0.5
    with opened(small_disk) as journal:
        journal.commit([delete("both")])


def test_a_file_that_may_not_grow_is_told_as_no_room(tmp_path):
    """A limit of the process stands for a quota: SQLite does not say which errno it met."""
    script = f"""
import sys
sys.path[:0] = {[str(ROOT), str(Path(__file__).parent)]}
from pathlib import Path
from journaling import delete, opened, put
from index.errors import JournalFull
with opened(Path(sys.argv[1])) as journal:
    journal.commit([put("first")])
    try:
        journal.commit([put("large", texts=tuple(f"a text {{n}}" for n in range(120_000)))])
    except JournalFull as error:
        print(error)
    journal.commit([delete("last")])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, resource.RLIM_INFINITY)),
    )
    assert done.returncode == 0, done.stderr
    assert f"there is no room in {tmp_path / 'live'}" in done.stdout
    assert ids(tmp_path) == ["first", "last"]


@pytest.mark.parametrize("name", ["closed", "as killed"])
def test_a_journal_on_a_read_only_disk_is_read(whole, tmp_path, name):
    releases = copied(whole / name, tmp_path / "releases")
    for options in (["--bind"], ["-o", "remount,ro,bind"]):
        made = subprocess.run(
            ["mount", *options, str(releases), str(releases)], capture_output=True, check=False
        )
        if made.returncode:
            pytest.skip("may not mount a file system here")
    try:
        assert as_read(read(releases)) == as_read(read(whole / name))
        with closing(ImageStore(releases / "live")) as store:
            assert store.thumbnail(digest_of(b"image 11")) == b"thumbnail of image 11"
    finally:
        subprocess.run(["umount", "-l", str(releases)], check=True)


def test_a_reader_changes_nothing_on_the_disk(whole, tmp_path):
    releases = copied(whole / "closed", tmp_path / "releases")
    before = {path: path.stat().st_mtime_ns for path in releases.rglob("*")}
    assert read(releases)
    assert {path: path.stat().st_mtime_ns for path in releases.rglob("*")} == before
