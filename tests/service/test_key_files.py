"""The file of keys: what its commands keep of it, and which changes a running service takes up."""

import os
from pathlib import Path

import pytest
from live_service import running, wait_until

from service.access.keys import create_key, digest_of, revoke_key


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "keys.json"


def test_a_changed_file_stays_as_readable_as_it_was(keys_file):
    create_key(keys_file, "shop", scopes=("read",))
    keys_file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(keys_file, 10001, 10002)  # the service's user, and whoever keeps its backups
    before = keys_file.stat()
    revoke_key(keys_file, "shop")
    after = keys_file.stat()
    assert after.st_ino != before.st_ino  # replaced whole
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_change_that_leaves_size_and_time_as_they_were_is_taken_up_too(releases, settings_for, keys_file):
    key = create_key(keys_file, "shop", scopes=("read",))
    with running(settings_for(releases, keys_file=keys_file)) as service:

        def status() -> int:
            return service.client.get("/release", headers={"x-api-key": key}).status_code

        assert status() == 200
        before = keys_file.stat()
        keys_file.write_text(keys_file.read_text().replace(digest_of(key).hex(), "0" * 64))
        os.utime(keys_file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert keys_file.stat().st_size == before.st_size
        wait_until(lambda: status() == 401)
