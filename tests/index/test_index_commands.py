"""python -m index as a person or a script uses it: what it prints, and what its exit status says."""

import io
import json
import os
import shutil

import pytest
from rich.console import Console
from typer.testing import CliRunner

from index.__main__ import app
from index.catalog import current_release_id, read_manifest, release_ids
from index.console import show_report
from index.gallery import Failure
from index.report import RebuildReport, Tally


@pytest.fixture
def index():
    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return run


def test_life_of_a_folder_of_releases(index, tmp_path, table, tiny_bundle, draw):
    releases = tmp_path / "releases"
    at = ("--releases", releases)
    make = ("rebuild", "--bundle", tiny_bundle, *at, "--gallery")
    assert index("current", *at)[0] == 1
    assert index("list", *at) == (0, f"no releases in {releases}\n")

    status, output = index(*make, table)
    first = current_release_id(releases)
    assert (status, index("current", *at)) == (0, (0, f"{first}\n"))
    assert f"published {first}: 12 images (0 reused), 4 texts" in output
    assert "recall@4 of texts against exact search" in output

    gallery = tmp_path / "gallery"
    draw(gallery / "ok.png")
    (gallery / "[bold]bad.png").write_bytes(b"")
    (gallery / "notes.md").write_text("")
    status, output = index(*make, gallery)
    second = current_release_id(releases)
    assert status == 3
    assert "1 failed: 1 undecodable_image" in output
    assert "[bold]bad.png: cannot decode 0 bytes" in output
    assert f"{second}/failures.jsonl" in output
    assert "1 files were passed over" in output

    assert f"→ │ {second}" in index("list", *at)[1]
    listed = json.loads(index("list", "--json", *at)[1])
    assert [(row["release"], row["current"], row["counts"]["failed"]) for row in listed] == [
        (first, False, 0), (second, True, 1)
    ]  # fmt: skip

    assert index("rollback", *at) == (0, f"current is now {first}\n")
    assert index("rollback", *at)[0] == 1
    assert index("rollback", second, *at)[0] == 0
    assert index("verify", "--all", *at) == (0, f"{first}: whole\n{second}: whole\n")

    (releases / first / "thumbnails.pack").write_bytes(b"")
    (releases / first / "texts.parquet").unlink()
    status, output = index("verify", first, *at)
    assert status == 1
    assert "texts.parquet is missing; thumbnails.pack has 0 bytes" in output
    assert index("verify", *at)[0] == 0
    assert index("rollback", *at)[0] == 1  # the first, which is not whole any more

    assert index("prune", "--keep", 1, *at) == (0, f"removed {first}\n")
    assert (release_ids(releases), index("prune", "--keep", 1, *at)[1]) == ([second], "nothing to remove\n")

    (releases / second / "manifest.json").write_text("{")
    assert second in index("list", *at)[1]
    (broken,) = json.loads(index("list", "--json", *at)[1])
    assert (broken["release"], broken["problem"] != "") == (second, True)
    assert index("verify", *at)[0] == 1


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_failures_are_shown_whatever_they_hold(published, encoding):
    failure = Failure("\udcff[b].png", "bad_row", "half \ud800 of a pair, \x1b[2J and é")
    report = RebuildReport(read_manifest(published / current_release_id(published)), Tally(), 1.0)
    report.tally.fail(failure)
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show_report(Console(file=written, width=200), report)
    written.seek(0)
    accent = {"utf-8": "é", "ascii": r"\xe9"}[encoding]
    assert rf"  \udcff[b].png: half \ud800 of a pair, \x1b[2J and {accent}" in written.read()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("rebuild", "--gallery", "none"), 1, "error: the gallery none does not exist"),
        (("rebuild",), 2, "--gallery"),
        (("rebuild", "--gallery", ".", "--precision", "fp8"), 1, "fp8"),
        (("rebuild", "--gallery", ".", "--bundle", "none"), 1, "no bundle at none"),
        (("verify", "../x"), 1, "no release '../x'"),
        (("rollback",), 1, "no folder of releases"),
        (("prune", "--keep", "0"), 2, "--keep"),
    ],
)
def test_wrong_arguments_are_one_clear_line_and_a_status(
    index, tmp_path, monkeypatch, arguments, status, message
):
    monkeypatch.chdir(tmp_path)
    code, output = index(*arguments)
    assert code == status
    assert message in output
    assert "Traceback" not in output


def test_what_may_not_be_read_or_written_is_told_with_what_helps(
    index, tmp_path, tiny_bundle, draw, held_by_modes
):
    gallery, bundle, releases = tmp_path / "gallery", tmp_path / "bundle", tmp_path / "releases"
    draw(gallery / "one.png").chmod(0)
    draw(gallery / "two.png", seed=2)
    shutil.copytree(tiny_bundle, bundle)
    releases.mkdir()
    rebuild = ("rebuild", "--gallery", gallery, "--bundle", bundle, "--releases", releases)

    for folder, power in ((gallery, "read"), (bundle, "read"), (releases, "write to")):
        folder.chmod(0o500 if folder is releases else 0)
        status, told = index(*rebuild)
        folder.chmod(0o755)
        assert status == 1
        assert f"{folder} belongs to {os.geteuid()}:{os.getegid()} with mode" in told
        assert f"user {os.geteuid()} may not {power}" in told

    help_for_all = (
        f"user {os.geteuid()} may not read what is in {gallery}: let everybody (chmod -R a+rX {gallery})"
    )
    status, told = index(*rebuild)
    assert (status, help_for_all in told) == (3, True)
    (gallery / "two.png").chmod(0)
    status, told = index(*rebuild)
    assert (status, "nothing is published" in told, help_for_all in told) == (1, True, True)
