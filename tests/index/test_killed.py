"""kill -9 in the middle of a real rebuild: what was published still loads, and the next rebuild succeeds."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from index.catalog import current_release_id, release_ids
from index.errors import ReleasesBusy
from index.publish import prune, rebuild_lock
from index.release import Release

ROOT = Path(__file__).resolve().parents[2]
KILLED = -signal.SIGKILL
IMAGES = 40
TEXTS = 15


class Nursery:
    """One process with everything imported, which forks a real rebuild for each order (see nursery.py)."""

    def __init__(self, gallery, bundle):
        self._arguments = ["rebuild", "--gallery", str(gallery), "--bundle", str(bundle), "--batch-size", "8"]
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("nursery.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert self._process.stdout.readline() == "ready\n"

    def start(self, releases, *options, kill_at_step=None, kill_at_cpu_seconds=None):
        order = {
            "arguments": [*self._arguments, "--releases", str(releases), *options],
            "kill_at_step": kill_at_step,
            "kill_at_cpu_seconds": kill_at_cpu_seconds,
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self):
        """Exit status, steps made on the disk, processor time in seconds."""
        return json.loads(self._process.stdout.readline())

    def run(self, releases, *options, **kill):
        self.start(releases, *options, **kill)
        return self.wait()

    def close(self):
        self._process.kill()  # its own exit unloads torch, which takes seconds and shows nothing
        self._process.communicate()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("gallery")
    rows = []
    for number in range(IMAGES):
        draw(folder / f"{number:03d}.png", seed=number)
        rows.append(json.dumps({"image": f"{number:03d}.png", "title": f"dog {number % TEXTS}"}))
    (folder / "items.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def nursery(gallery, tiny_bundle):
    nursery = Nursery(gallery, tiny_bundle)
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def releases(nursery, tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    assert nursery.run(folder, "--no-cache")[0] == 0
    return folder


def check_whole(releases):
    """Verify and load the current release, and every other that has a release's name."""
    for release_id in release_ids(releases):
        release = Release.load(releases, release_id)
        assert (len(release.items), len(release.texts)) == (IMAGES, TEXTS)
    return Release.load(releases)


def vectors(release):
    return np.concatenate([block for _, block in release.images.blocks()])


def test_kill_before_any_step_on_the_disk_leaves_what_was_current(nursery, releases):
    status, steps, _ = nursery.run(releases, "--no-cache")
    assert status == 0
    reference = vectors(check_whole(releases))
    # The last steps are the publishing: the renames, CURRENT and what makes them durable. Then three elsewhere.
    chosen = [*random.Random(0).sample(range(2, steps - 8), 3), *range(steps - 8, steps + 1)]
    switched = False
    for step in sorted(chosen):
        before = current_release_id(releases)
        assert nursery.run(releases, "--no-cache", kill_at_step=step)[:2] == [KILLED, step]
        after = check_whole(releases).id
        assert (after != before) >= switched  # once past the switch, every later kill finds the new one current
        switched = after != before
        prune(releases, keep=1)
    assert switched
    assert nursery.run(releases)[0] == 0
    np.testing.assert_array_equal(vectors(check_whole(releases)), reference)
    assert not list(releases.glob(".staging-*"))


def test_kill_at_random_moments_leaves_releases_whole(nursery, releases):
    """Killed from outside, eight times, each run going on from where the killed ones were."""
    whole_seconds = nursery.run(releases, "--no-cache")[2]
    moments = random.Random(1)
    statuses = []
    for _ in range(8):
        moment = moments.uniform(0.05, 0.9) * whole_seconds
        statuses.append(nursery.run(releases, kill_at_cpu_seconds=moment)[0])
        check_whole(releases)
    assert statuses.count(KILLED) >= 4
    assert nursery.run(releases)[0] == 0


def test_work_finished_before_a_kill_is_not_done_again(nursery, releases):
    shutil.rmtree(releases / ".cache", ignore_errors=True)
    steps = nursery.run(releases, "--no-cache")[1]
    fresh = check_whole(releases)
    assert nursery.run(releases, kill_at_step=steps - 8)[0] == KILLED  # all is embedded, nothing is published
    assert current_release_id(releases) == fresh.id
    assert nursery.run(releases)[0] == 0
    resumed = check_whole(releases)
    assert resumed.manifest.counts.reused == IMAGES
    np.testing.assert_allclose(vectors(resumed), vectors(fresh), atol=1e-6)


def test_second_rebuild_beside_a_running_one_is_refused(nursery, releases):
    pid = nursery.start(releases, "--no-cache")
    while not list(releases.glob(".staging-*")):
        time.sleep(0.001)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ReleasesBusy, match=f"process {pid}"), rebuild_lock(releases):
            pass
    finally:
        os.kill(pid, signal.SIGCONT)
    assert nursery.wait()[0] == 0
    check_whole(releases)
