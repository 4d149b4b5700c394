"""`--require-gate`: only a bundle that passed, by a verdict that is its own and unchanged, is published."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from encoders.bundle import Bundle
from encoders.verdict import VERDICT, Check, Judged, Verdict
from index.__main__ import app
from index.catalog import current_release_id, read_manifest, release_ids

DIGEST = "d" * 64


def verdict_of(bundle: Bundle, *, passed: bool = True, fingerprint: str | None = None) -> bytes:
    check = Check(
        kind="floor", subject="squares, T→I R@10", figure=0.7, limit=0.6 if passed else 0.8, passed=passed
    )
    return Verdict(
        created=datetime(2026, 11, 23, tzinfo=UTC),
        passed=passed,
        candidate=Judged(name=bundle.name, fingerprint=fingerprint or bundle.fingerprint),
        policy="gate.toml",
        policy_digest=DIGEST,
        checks=(check,),
    ).file_content()


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def rebuild(bundle: Bundle, table: Path, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    def run(*arguments: object) -> tuple[int, str]:
        fixed = ["--bundle", bundle.path, "--gallery", table, "--releases", tmp_path / "releases"]
        result = CliRunner().invoke(app, ["rebuild", *map(str, [*fixed, *arguments])])
        return result.exit_code, result.output

    return run


def _edit(bundle: Bundle) -> None:
    path = bundle.with_file(VERDICT, verdict_of(bundle, passed=False)).path / VERDICT
    path.write_text(path.read_text().replace("false", "true"))  # the same length, another content


def _contradict(bundle: Bundle) -> None:
    content = json.loads(verdict_of(bundle, passed=False)) | {"passed": True}
    bundle.with_file(VERDICT, json.dumps(content).encode())


REFUSED: dict[str, tuple[Callable[[Bundle], Any], str]] = {
    "never judged": (lambda bundle: None, "the bundle tiny was never judged: python -m training gate"),
    "failed": (
        lambda bundle: bundle.with_file(VERDICT, verdict_of(bundle, passed=False)),
        "failed 1 of the gate's checks: floor squares, T→I R@10 is 0.7000, 0.8000 is required",
    ),
    "judged as another bundle": (
        lambda bundle: bundle.with_file(VERDICT, verdict_of(bundle, fingerprint="0" * 64)),
        "its verdict is for another bundle (000000000000, this is",
    ),
    "tampered with": (_edit, "verdict.json has "),
    "contradicting itself": (_contradict, "it says passed where a check failed"),
    "no verdict at all": (lambda bundle: bundle.with_file(VERDICT, b"{}"), "verdict.json is no verdict"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_required_gate_refuses_a_bundle_that_was(
    name: str, bundle: Bundle, rebuild: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert rebuild()[0] == 0
    releases = tmp_path / "releases"
    before = current_release_id(releases)
    manifest = (releases / before / "manifest.json").read_bytes()
    damage, message = REFUSED[name]
    damage(bundle)
    status, output = rebuild("--require-gate")
    assert (status, message in output) == (1, True), output
    assert (current_release_id(releases), release_ids(releases)) == (before, [before])
    assert (releases / before / "manifest.json").read_bytes() == manifest


def test_a_bundle_that_passed_is_published_with_its_verdict_in_the_manifest(
    bundle: Bundle, rebuild: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    bundle.with_file(VERDICT, verdict_of(bundle))
    assert rebuild("--require-gate")[0] == 0
    releases = tmp_path / "releases"
    gate = read_manifest(releases / current_release_id(releases)).gate
    assert gate is not None
    assert (gate.passed, gate.policy, gate.policy_digest, gate.checks, gate.failed) == (
        True, "gate.toml", DIGEST, 1, 0
    )  # fmt: skip


def test_a_named_policy_must_be_the_one_that_judged(
    bundle: Bundle, rebuild: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    bundle.with_file(VERDICT, verdict_of(bundle))
    (tmp_path / "strict.toml").write_text("[parity]\n")
    status, output = rebuild("--gate-policy", tmp_path / "strict.toml")
    assert (status, f"was judged by gate.toml ({DIGEST[:12]})" in output) == (1, True), output
    status, output = rebuild("--gate-policy", tmp_path / "none.toml")
    assert (status, "cannot read the policy" in output) == (1, True)


def test_without_the_requirement_a_failed_bundle_is_published_and_marked_as_failed(
    bundle: Bundle, rebuild: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    assert rebuild()[0] == 0
    releases = tmp_path / "releases"
    assert "gate" not in json.loads((releases / current_release_id(releases) / "manifest.json").read_text())
    bundle.with_file(VERDICT, verdict_of(bundle, passed=False))
    assert rebuild()[0] == 0
    gate = read_manifest(releases / current_release_id(releases)).gate
    assert gate is not None
    assert (gate.passed, gate.failed) == (False, 1)
