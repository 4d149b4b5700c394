"""The gate as a command: what passes, what fails and is named, what is bad input, what it leaves behind."""

import json
import re
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from encoders.errors import GateNotPassed
from encoders.images import decode_image
from encoders.query_bank import QUERY_BANK, QueryBank, query_bank_bytes
from encoders.verdict import Check, read_verdict
from tests.conftest import make_tiny_bundle
from tests.encoders.broken_bundles import BREAKS, make_lively_bundle, rewrite
from tests.training.conftest import COLOURS, write_coloured_pairs
from training.__main__ import app
from training.errors import PolicyError
from training.gate.policy import Policy

PARITY = "[parity]\nfp32 = 0.9999\n"
FEW_WILL_DO = "[evidence]\nleast_images = 1\nwidest = 1\n"
"""For tests of something else, on thirty images."""


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_lively_bundle(tmp_path_factory.mktemp("gate") / "lively")


def gate(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["gate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def written(folder: Path, text: str) -> Path:
    path = folder / "gate.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", BREAKS)
def test_a_bundle_broken_in_any_of_six_ways_fails_and_the_cause_is_named(
    lively: Bundle, tmp_path: Path, name: str
) -> None:
    make_broken, cause = BREAKS[name]
    broken = make_broken(lively, tmp_path / "broken")
    status, output = gate(broken.path, "--against", lively.path, "--policy", written(tmp_path, PARITY))
    assert status == 5
    assert f"likely cause {cause}: " in output
    verdict = read_verdict(Bundle.open(broken.path))
    assert verdict is not None
    assert not verdict.passed
    assert {finding.cause for finding in verdict.findings} == {cause}
    assert {check.kind for check in verdict.failures} >= {"reproduced"}


def test_a_sound_bundle_passes_and_carries_the_verdict_of_its_policy(
    lively: Bundle, tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    spec = coloured_pairs(tmp_path / "pairs") + "?name=squares"
    policy = written(
        tmp_path,
        f'{PARITY}{FEW_WILL_DO}[[floors]]\ndata = "{spec}"\ndirection = "text_to_image"\nfloor = 0.34\n'
        f'[[no_fall]]\ndata = "{spec}"\nk = 5\nmargin = 0.0\n'
        f'[[no_fall]]\ndata = "{spec}"\ndirections = ["text_to_image"]\nmargin = 0.0\n'
        'corruptions = "low_light,pixelate"\nseverities = [3, 5]\njudge = "mean"\n',
    )
    candidate = rewrite(lively, tmp_path / "candidate")
    out = tmp_path / "out"
    status, output = gate(
        candidate.path, "--against", lively.path, "--policy", policy, "--out", out, "--cache", tmp_path / "c"
    )
    assert (status, "squares, mean of low_light,pixelate 5, T→I R@10" in output) == (0, True)
    opened = Bundle.open(candidate.path)
    verdict = read_verdict(opened)
    assert verdict is not None
    assert verdict.candidate.fingerprint == opened.fingerprint == candidate.fingerprint
    assert verdict.against is not None
    assert verdict.against.fingerprint == lively.fingerprint
    assert verdict.policy_digest == Policy.read(policy).digest
    assert [check.kind for check in verdict.checks[6:]] == ["floor", *["no_fall"] * 4]
    assert all((check.figure, check.low, check.high) == (0, 0, 0) for check in verdict.checks[7:])
    assert (out / "verdict.json").read_bytes() == (candidate.path / "verdict.json").read_bytes()
    assert "| floor | squares, T→I R@10 | 0." in (out / "verdict.md").read_text()
    assert all(check.detail == "the same bundle" for check in verdict.checks[7:])


def pairs_that_suit(bundle: Bundle, folder: Path) -> str:
    """The spec of images with the one caption each that the bundle finds nearest, of thirty."""
    encoder = Encoder.load(bundle, device="cpu")
    write_coloured_pairs(folder)
    paths = sorted(folder.glob("*.png"))
    texts = [
        f"a {one} {thing} on {other}" for one, other in permutations(COLOURS, 2) for thing in ("dog", "car")
    ]
    images = encoder.encode_images([decode_image(path.read_bytes()) for path in paths])
    nearest = (images @ encoder.encode_texts(texts).vectors.T).argmax(axis=1)
    rows = [f"{path.name},{texts[best]}" for path, best in zip(paths, nearest, strict=True)]
    (folder / "suits.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    return f"csv:{folder / 'suits.csv'}?name=suits"


def test_a_recall_that_falls_and_a_floor_that_is_missed_fail_with_their_figures(
    lively: Bundle, tmp_path: Path
) -> None:
    rule = f'data = "{pairs_that_suit(lively, tmp_path / "pairs")}"\nk = 1\n'
    policy = written(
        tmp_path,
        f'{FEW_WILL_DO}[[floors]]\n{rule}direction = "image_to_text"\nfloor = 0.99\n'
        f'[[no_fall]]\n{rule}directions = ["image_to_text"]\nmargin = 0.1\nrule = "not_refuted"\n',
    )
    worse = rewrite(lively, tmp_path / "worse", change=lambda state: state["visual.head.mlp.fc2.weight"].neg_())
    status, output = gate(worse.path, "--against", lively.path, "--policy", policy, "--json", "--no-store")
    verdict = json.loads(output.splitlines()[-1])
    floor, fall = verdict["checks"][6:]
    assert (status, floor["subject"], floor["passed"], floor["limit"]) == (5, "suits, I→T R@1", False, 0.99)
    assert (fall["kind"], fall["limit"], fall["passed"]) == ("no_fall", -0.1, False)
    assert fall["figure"] == pytest.approx(floor["figure"] - 1.0)
    assert fall["low"] <= fall["figure"] <= fall["high"] < -0.1
    assert read_verdict(Bundle.open(worse.path)) is None
    assert gate(lively.path, "--against", worse.path, "--policy", policy, "--no-store")[0] == 0


def test_a_bundle_is_judged_with_its_query_bank_and_a_verdict_holds_for_no_other(
    lively: Bundle, tmp_path: Path
) -> None:
    floor = f'data = "{pairs_that_suit(lively, tmp_path / "pairs")}"\ndirection = "image_to_text"\n'
    policy = written(tmp_path, f"{FEW_WILL_DO}[[floors]]\n{floor}k = 1\nfloor = 0.99\n")
    candidate = rewrite(lively, tmp_path / "candidate")
    assert gate(candidate.path, "--policy", policy)[0] == 0
    images = [decode_image(path.read_bytes()) for path in sorted((tmp_path / "pairs").glob("*.png"))]
    asked = Encoder.load(lively, device="cpu").encode_images(images)  # every right answer is a hub
    bank = QueryBank(rows={"images": asked}, fingerprint=candidate.fingerprint, alpha=50.0, k=1)
    banked = Bundle.open(candidate.path).with_file(QUERY_BANK, query_bank_bytes(bank))
    with pytest.raises(GateNotPassed, match=r"for another query bank \(none, this is [0-9a-f]{12}\)"):
        read_verdict(banked)
    assert gate(banked.path, "--policy", policy)[0] == 5
    verdict = read_verdict(Bundle.open(banked.path))
    assert verdict is not None
    assert [check.kind for check in verdict.failures] == ["floor"]


@pytest.mark.parametrize(("rule", "passed"), [("shown", False), ("not_refuted", True)])
def test_a_difference_that_may_be_a_fall_fails_unless_only_proven_falls_count(
    lively: Bundle, tmp_path: Path, coloured_pairs: Callable[..., str], rule: str, passed: bool
) -> None:
    other = make_tiny_bundle(tmp_path / "other", seed=4)
    rules = f'data = "{coloured_pairs(tmp_path / "pairs")}"\nmargin = 0.02\nrule = "{rule}"\n'
    policy = written(tmp_path, f"{FEW_WILL_DO}[[no_fall]]\n{rules}")
    status, output = gate(other.path, "--against", lively.path, "--policy", policy, "--json")
    checks = [Check.model_validate(each) for each in json.loads(output.splitlines()[-1])["checks"]]
    falls = [check for check in checks if check.kind == "no_fall"]
    assert status == 5  # it carries no golden inputs
    assert "python -m encoders golden" in checks[0].detail
    for fall in falls:
        assert fall.low is not None
        assert fall.high is not None
        assert fall.low < -0.02 < fall.high  # else this test says nothing of the rule
        assert fall.passed == passed
        assert (fall.doubt == "too few") == ("images would tell" in fall.detail)


def test_what_everything_answers_proves_nothing_and_the_k_that_would_is_named(
    lively: Bundle, tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    """Thirty images among which both bundles find everything within thirty."""
    spec = coloured_pairs(tmp_path / "pairs")
    other = rewrite(
        lively, tmp_path / "other", change=lambda state: state["visual.head.mlp.fc2.weight"].mul_(1.01)
    )
    floor = f'[[floors]]\ndata = "{spec}"\ndirection = "text_to_image"\nk = 30\nfloor = 0.9\n'
    rule = f'[[no_fall]]\ndata = "{spec}"\nk = 30\nmargin = 0.9\ndirections = ["text_to_image"]\n'
    policy = written(tmp_path, f"{FEW_WILL_DO}{floor}{rule}")
    status, output = gate(other.path, "--against", lively.path, "--policy", policy, "--json", "--no-store")
    floored, fall = (Check.model_validate(each) for each in json.loads(output.splitlines()[-1])["checks"][6:])
    assert (status, floored.doubt, fall.doubt) == (5, "saturated", "saturated")
    assert "a random order of 30 images reaches 100.0% R@30" in floored.detail
    named = re.search(r"k = (\d+) would tell", fall.detail)
    assert named is not None
    assert 1 <= int(named[1]) < 30
    assert "SATURATED" in gate(other.path, "--against", lively.path, "--policy", policy, "--no-store")[1]


def test_a_few_dozen_images_prove_nothing_and_how_many_would_is_said(
    lively: Bundle, tmp_path: Path, coloured_pairs: Callable[..., str]
) -> None:
    other = make_tiny_bundle(tmp_path / "other", seed=4)
    spec = coloured_pairs(tmp_path / "pairs", copies=1)
    floor = f'[[floors]]\ndata = "{spec}"\ndirection = "text_to_image"\nk = 3\nfloor = 0.101\n'
    rules = f'[[no_fall]]\ndata = "{spec}"\nmargin = 0.5\nrule = "not_refuted"\n'
    status, output = gate(
        other.path, "--against", lively.path, "--policy", written(tmp_path, floor + rules), "--json"
    )
    checks = [Check.model_validate(each) for each in json.loads(output.splitlines()[-1])["checks"]]
    judged = [check for check in checks if check.kind in ("floor", "no_fall") and check.doubt]
    assert status == 5
    assert {check.kind for check in judged} >= {"no_fall"}
    for check in judged:
        assert check.doubt == "too few"
        wanted = re.search(r"30 images \(±.*%\): at least (\d+) would do", check.detail)
        assert wanted is not None
        assert int(wanted[1]) >= 50


def test_weights_rounded_beyond_what_the_policy_allows_fail_parity_alone(tmp_path: Path) -> None:
    rounded = make_lively_bundle(tmp_path / "rounded", weights="int8_rows")
    assert gate(rounded.path, "--policy", written(tmp_path, "[parity]\nint8_rows = 0.5\n"))[0] == 0
    status, output = gate(rounded.path, "--policy", written(tmp_path, ""), "--json")
    verdict = json.loads(output.splitlines()[-1])
    assert (status, [check["kind"] for check in verdict["checks"] if not check["passed"]]) == (5, ["parity"])
    assert verdict["findings"] == []


NO_FALL = '[[no_fall]]\ndata = "x"\nmargin = 0.1\n'
FLOOR = '[[floors]]\ndata = "x"\ndirection = "text_to_image"\nfloor = 0.5\n'
BAD: dict[str, tuple[str, str]] = {
    "an unknown field": ("[parity]\nfp33 = 1\n", "parity.fp33: Extra inputs are not permitted"),
    "an unknown table": ("[paritee]\n", "paritee: Extra inputs"),
    "no TOML": ("[parity", "is no valid TOML"),
    "a limit above 1": ("[parity]\nfp32 = 1.5\n", "parity.fp32"),
    "a corruption that is none": (f'{NO_FALL}corruptions = "fog"\n', "no corruption 'fog'"),
    "severity 6": (f'{NO_FALL}corruptions = "light"\nseverities = [6]\n', "from 1 to 5"),
    "a floor under a group": (f'{FLOOR}corruption = "light"\n', "'light' is a group"),
    "a name of its own": ('name = "x"\n', "name: the file has them"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_policy_is_bad_input_and_names_the_field(tmp_path: Path, lively: Bundle, name: str) -> None:
    text, message = BAD[name]
    policy = written(tmp_path, text)
    with pytest.raises(PolicyError) as caught:
        Policy.read(policy)
    assert message in str(caught.value)
    assert gate(lively.path, "--policy", policy)[0] == 2


def test_missing_files_and_a_missing_current_bundle_are_bad_input(lively: Bundle, tmp_path: Path) -> None:
    policy = written(tmp_path, '[[no_fall]]\ndata = "csv:none.csv"\nmargin = 0.1\n')
    cases: list[tuple[tuple[Any, ...], str]] = [
        ((tmp_path / "none", "--policy", policy), "no bundle at"),
        ((lively.path, "--policy", tmp_path / "none.toml"), "cannot read the policy"),
        ((lively.path, "--policy", policy), "name it with --against"),
        ((lively.path, "--policy", policy, "--against", lively.path), "none.csv: no such file"),
    ]
    for arguments, message in cases:
        status, output = gate(*arguments)
        assert (status, message in output) == (2, True), output
    assert read_verdict(Bundle.open(lively.path)) is None


def test_the_committed_policy_is_valid() -> None:
    policy = Policy.read(Path(__file__).parents[2] / "training" / "recipes" / "gate.toml")
    assert policy.floors
    assert policy.no_fall
