"""A bundle is whole or one clear error; it is replaced at once or not at all."""

import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoders.bundle import MANIFEST, WEIGHTS, Bundle, BundleConfig, read_files, write_bundle
from encoders.encoder import load_towers
from encoders.errors import BundleError, CorruptBundle, MissingBundle, UnsupportedBundle
from encoders.images import Preprocessing
from encoders.texts import TokenizerSpec
from encoders.verifying import verify_bundle


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit_manifest(folder: Path, **changes: Any) -> None:
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))


def edit_files(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads((folder / MANIFEST).read_text())
    change(raw["files"])
    (folder / MANIFEST).write_text(json.dumps(raw))


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], type[BundleError], str]] = {
    "no folder": (shutil.rmtree, MissingBundle, "no such folder"),
    "no manifest": (lambda path: (path / MANIFEST).unlink(), MissingBundle, r"it has no bundle\.json"),
    "an empty manifest": (lambda path: (path / MANIFEST).write_bytes(b""), CorruptBundle, "does not parse"),
    "a cut manifest": (
        lambda path: (path / MANIFEST).write_bytes((path / MANIFEST).read_bytes()[:300]),
        CorruptBundle,
        "does not parse",
    ),
    "a manifest in no encoding": (
        lambda path: (path / MANIFEST).write_bytes(b"\xff\xfe"),
        CorruptBundle,
        "does not parse",
    ),
    "a manifest of something else": (
        lambda path: (path / MANIFEST).write_text('{"kind": "other"}'),
        UnsupportedBundle,
        "is not a Twinlens bundle's",
    ),
    "a manifest that is a list": (
        lambda path: (path / MANIFEST).write_text("[]"),
        UnsupportedBundle,
        "is not a Twinlens bundle's",
    ),
    "a newer format": (
        lambda path: edit_manifest(path, format=3, surprise=True),
        UnsupportedBundle,
        "has bundle format 3, this Twinlens reads up to 2: upgrade it",
    ),
    "no format": (lambda path: edit_manifest(path, format=None), UnsupportedBundle, "bundle format None"),
    "an unknown field": (lambda path: edit_manifest(path, surprise=True), CorruptBundle, "surprise"),
    "a scale below 0": (lambda path: edit_manifest(path, logit_scale=-1), CorruptBundle, "logit_scale"),
    "another fingerprint": (
        lambda path: edit_manifest(path, fingerprint="0" * 64),
        CorruptBundle,
        "fingerprint is 0000",
    ),
    "missing weights": (
        lambda path: (path / WEIGHTS).unlink(),
        CorruptBundle,
        r"model\.safetensors is missing",
    ),
    "cut weights": (
        lambda path: (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-1]),
        CorruptBundle,
        r"model\.safetensors has \d+ bytes",
    ),
    "changed weights": (
        lambda path: flip_a_bit(path / WEIGHTS),
        CorruptBundle,
        r"model\.safetensors has SHA-256",
    ),
    "a changed tokenizer": (
        lambda path: flip_a_bit(path / "tokenizer" / "tokenizer.json"),
        CorruptBundle,
        r"tokenizer\.json has SHA-256",
    ),
    "weights without a checksum": (
        lambda path: edit_files(path, lambda files: files.pop(WEIGHTS)),
        CorruptBundle,
        r"names no checksum for model\.safetensors",
    ),
    "a path that climbs out": (
        lambda path: edit_files(path, lambda files: files.update({"../escaped": files[WEIGHTS]})),
        CorruptBundle,
        r"names \.\./escaped, which lies outside",
    ),
    "a path from the root": (
        lambda path: edit_files(path, lambda files: files.update({"/etc/hostname": files[WEIGHTS]})),
        CorruptBundle,
        "lies outside",
    ),
    "a text tower of a hub": (
        lambda path: edit_manifest(
            path,
            towers={
                **json.loads((path / MANIFEST).read_text())["towers"],
                "text_cfg": {"hf_model_name": "a/b"},
            },
        ),
        CorruptBundle,
        "its own folder",
    ),
    "an image tower of a hub": (
        lambda path: edit_manifest(
            path,
            towers={
                **json.loads((path / MANIFEST).read_text())["towers"],
                "vision_cfg": {"timm_model_name": "hf-hub:a/b"},
            },
        ),
        CorruptBundle,
        "names no hub",
    ),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_bundle_is_one_clear_error(
    bundle: Path, damage: Callable[[Path], object], error: type[BundleError], message: str
) -> None:
    damage(bundle)
    with pytest.raises(error, match=message):
        Bundle.open(bundle)


def test_a_link_that_leads_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / WEIGHTS).rename(tmp_path / "elsewhere")
    (bundle / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptBundle, match="lies outside"):
        Bundle.open(bundle)


def rewritten(source: Path, out: Path, **changes: Any) -> Bundle:
    opened = Bundle.open(source)
    config = opened.config.model_copy(update=changes)
    state = changes.pop("state", load_towers(opened).state_dict())
    return write_bundle(out, config=config, state=state, files=changes.pop("files", read_files(opened)))


def test_the_fingerprint_covers_what_changes_an_embedding(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    state = load_towers(opened).state_dict()
    key = next(name for name, tensor in state.items() if tensor.dim() == 4)
    nudged = {**state, key: state[key] + 1e-6}
    text = read_files(opened)
    layers = text["text/config.json"].replace(b'"pad_token_id": 0', b'"pad_token_id": 1')
    words = text["tokenizer/tokenizer.json"].replace(b'"dog"', b'"Dog"')
    wider = opened.config.towers.model_copy(update={"quick_gelu": True})
    changed = {
        "weights": rewritten(bundle, tmp_path / "a", state=nudged),
        "preprocessing": rewritten(
            bundle, tmp_path / "b", preprocessing=Preprocessing(height=32, width=32, fill=9)
        ),
        "tokenizer settings": rewritten(
            bundle, tmp_path / "c", tokenizer=TokenizerSpec(kind="tokenizers", context_length=15)
        ),
        "tokenizer file": rewritten(bundle, tmp_path / "d", files={**text, "tokenizer/tokenizer.json": words}),
        "text configuration": rewritten(bundle, tmp_path / "e", files={**text, "text/config.json": layers}),
        "towers": rewritten(bundle, tmp_path / "f", towers=wider),
    }
    fingerprints = {opened.fingerprint, *(other.fingerprint for other in changed.values())}
    assert len(fingerprints) == 1 + len(changed)


def test_the_fingerprint_covers_nothing_else(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    other = rewritten(bundle, tmp_path / "other", name="renamed", provenance={"data": "other"}, logit_scale=9.0)
    reported = other.with_file("report.json", b"{}")
    assert other.fingerprint == opened.fingerprint == reported.fingerprint
    assert Bundle.open(tmp_path / "other").config.files["report.json"].bytes == 2
    assert "report.json" in reported.files


def test_a_report_can_be_replaced_and_what_the_fingerprint_covers_cannot(bundle: Path) -> None:
    held = (bundle / WEIGHTS).stat().st_ino
    first = Bundle.open(bundle).with_file("report.json", b"{}")
    first.with_file("report.json", b'{"recall": 1}')
    assert (bundle / "report.json").read_bytes() == b'{"recall": 1}'
    assert (bundle / WEIGHTS).stat().st_ino == held, "the weights are not copied for it"
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle"]
    Bundle.open(bundle)
    for name in (WEIGHTS, MANIFEST, "tokenizer/tokenizer.json"):
        with pytest.raises(ValueError, match="write a new bundle"):
            first.with_file(name, b"")


def test_a_folder_that_is_no_bundle_is_never_replaced(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"mine")
    with pytest.raises(UnsupportedBundle, match="is no bundle: name another folder"):
        rewritten(bundle, tmp_path / "photos")
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"mine"


def test_a_write_that_fails_leaves_the_old_bundle_and_no_litter(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    with pytest.raises(AttributeError):
        write_bundle(bundle, config=opened.config, state={"a": None}, files=read_files(opened))  # type: ignore[dict-item]
    assert Bundle.open(bundle).fingerprint == opened.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_weights_that_do_not_fit_the_towers_are_one_clear_error(bundle: Path, tmp_path: Path) -> None:
    state = load_towers(Bundle.open(bundle)).state_dict()
    state.pop("logit_scale")
    broken = rewritten(bundle, tmp_path / "broken", state=state)
    with pytest.raises(CorruptBundle, match=r"do not fit the towers(.|\n)*logit_scale"):
        load_towers(broken)
    with pytest.raises(CorruptBundle, match="do not fit the towers"):
        verify_bundle(tmp_path / "broken")


def test_verifying_a_sound_bundle_embeds_with_it(bundle: Path) -> None:
    assert verify_bundle(bundle).name == "tiny"


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "x" * 101])
def test_a_name_that_no_path_or_header_could_hold_is_refused(bundle: Path, name: str) -> None:
    raw = json.loads((bundle / MANIFEST).read_text())
    with pytest.raises(ValueError, match="name"):
        BundleConfig.model_validate({**raw, "name": name})


FILE_CALLS = ("fsync", "rename", "replace", "rmdir", "unlink", "link")


def die_at(step: int, work: Callable[[], object]) -> None:
    """Do the work in this (forked) process, and kill it at its `step`th call that changes the disk."""
    calls = itertools.count()

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    signal.alarm(60)
    for name in FILE_CALLS:
        setattr(os, name, watched(getattr(os, name)))
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def states_through_kills(path: Path, work: Callable[[], object]) -> tuple[set[str], int]:
    """What the bundle was found to be after a kill at each step, and at how many steps."""
    seen = set()
    for step in itertools.count():
        if (child := os.fork()) == 0:
            die_at(step, work)
        status = os.waitpid(child, 0)[1]
        found = Bundle.open(path)
        seen.add(f"{found.config.provenance} {found.files}")
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return seen, step
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("unreachable")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two renames stand in for one exchange")
def test_a_bundle_survives_a_kill_at_every_step_of_its_replacement(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    state, files = load_towers(opened).state_dict(), read_files(opened)
    config = opened.config.model_copy(update={"provenance": {"write": "second"}})
    for work in (
        lambda: write_bundle(bundle, config=config, state=state, files=files),
        lambda: Bundle.open(bundle).with_file("report.json", b"{}"),
    ):
        states, kills = states_through_kills(bundle, work)
        assert len(states) == 2, "it held the old bundle, then the new one, and never anything else"
        assert kills >= 10


def test_other_users_may_read_every_file(bundle: Path) -> None:
    modes = {path.relative_to(bundle).as_posix(): path.stat().st_mode & 0o044 for path in bundle.rglob("*")}
    assert set(modes.values()) == {0o044}, modes
