"""A bundle's own query bank: drawn from pairs, chosen on others, kept inside."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from encoders.query_bank import QueryBank
from training.__main__ import app
from training.bank.bank import Trial, best_trial, draw_pairs, try_strengths
from training.data.pairs import read_pairs
from training.errors import BankError
from training.evaluation.embedding import EmbeddedPairs
from training.seen.record import read_seen


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bank", *map(str, arguments)], env={"COLUMNS": "300"})


@pytest.fixture
def many_pairs(coloured_pairs: Callable[..., str], tmp_path: Path) -> str:
    return coloured_pairs(tmp_path / "many", copies=30)


def hub_and_answers() -> tuple[EmbeddedPairs, QueryBank]:
    """Eight captions a little nearer to one image, the hub, than to their own; the bank shows it."""
    own = np.eye(16, dtype=np.float32)
    towards = own[15]
    captions = (0.55 * own[:8] + 0.6 * towards).astype(np.float32)
    captions /= np.linalg.norm(captions, axis=1, keepdims=True)
    images = np.concatenate([own[:8], towards[None]])
    none = np.zeros(8, dtype=np.bool_)
    ids, texts = tuple(map(str, range(9))), tuple(f"text {n}" for n in range(8))
    embedded = EmbeddedPairs(images, captions, np.arange(8), none, ids, texts, ())
    unrelated = (0.8 * own[8:15] + 0.6 * towards).astype(np.float32)
    return embedded, QueryBank(rows={"texts": unrelated}, fingerprint="f" * 64, alpha=0.5, k=4)


def test_a_bank_brings_the_answers_before_the_hub() -> None:
    embedded, bank = hub_and_answers()
    without, with_bank = try_strengths(bank, [embedded], alphas=[0.5], ks=[4])
    assert (without.alpha, with_bank.alpha) == (0.0, 0.5)
    # Text to image R@1 goes from none to all of them; the other five of the six figures were whole before.
    assert without.score == pytest.approx(5 / 6)
    assert with_bank.score == pytest.approx(1.0)


def test_of_equal_scores_the_one_that_corrects_least_is_best() -> None:
    trials = [Trial(0.0, 16, (0.4, 0.2)), Trial(0.5, 16, (0.5, 0.3)), Trial(0.25, 64, (0.3, 0.5))]
    assert best_trial(trials) == trials[2]
    assert best_trial([replace(trials[0], scores=(0.4, 0.4)), *trials[1:]]).alpha == 0.0


def test_the_draw_hangs_on_ids_and_seed_not_on_the_order_of_the_file(many_pairs: str) -> None:
    pairs = read_pairs(many_pairs)
    mirrored = replace(pairs, images=pairs.images[::-1])
    one, other = (draw_pairs([each], 120, seed=3)[0].images for each in (pairs, mirrored))
    assert one == other
    assert len({image.image_id for image in one}) == 120
    assert all(len(image.captions) == 1 for image in one)
    assert draw_pairs([pairs], 120, seed=4)[0].images != one


def test_a_handful_of_pairs_is_no_bank(coloured_pairs: Callable[..., str], tmp_path: Path) -> None:
    few = read_pairs(coloured_pairs(tmp_path / "few"))
    with pytest.raises(BankError, match="at least 100 are needed"):
        draw_pairs([few], 3000, seed=0)
    with pytest.raises(BankError, match="a bank of 5 pairs tells"):
        draw_pairs([few], 5, seed=0)


def test_the_bank_is_kept_in_the_bundle_and_changes_no_embedding(
    tiny_bundle: Path, many_pairs: str, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    before = Bundle.open(bundle).fingerprint
    done = run(bundle, "--data", many_pairs, "--pairs", 110, "--alphas", 0.5, "--ks", 8, "--in-place")
    assert done.exit_code == 0, done.output
    kept = Encoder.load(bundle).query_bank
    assert kept is not None
    assert (kept.alpha, kept.k, len(kept.rows["texts"]), len(kept.rows["images"])) == (0.5, 8, 110, 110)
    assert Bundle.open(bundle).fingerprint == before
    assert "bank of queries" in (bundle / "README.md").read_text()
    seen = read_seen(Bundle.open(bundle))
    assert seen is not None
    assert [(one.record.role, one.record.kept) for one in seen.sources] == [("trained on", 110)]
    again = run(bundle, "--data", many_pairs, "--pairs", 110, "--alphas", 0.4, "--ks", 8, "--in-place")
    assert again.exit_code == 0
    assert len(read_seen(Bundle.open(bundle)).sources) == 1  # the same images are known by now


def test_without_in_place_nothing_is_written(tiny_bundle: Path, many_pairs: str) -> None:
    files = Bundle.open(tiny_bundle).files
    done = run(tiny_bundle, "--data", many_pairs, "--pairs", 110, "--alphas", 0.5, "--ks", 8)
    assert done.exit_code == 0, done.output
    assert "--in-place keeps it" in done.output
    assert Bundle.open(tiny_bundle).files == files


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--alphas", "0.5,x", "--ks", "8"], "'0.5,x'"),
        (["--alphas", "3", "--ks", "8"], "at most 2, given '3'"),
        (["--alphas", "0.5", "--ks", "0"], "'0'"),
        (["--alphas", "0.5,1", "--ks", "8"], "--best-on"),
    ],
)
def test_options_that_cannot_be_are_refused_with_their_value(
    tiny_bundle: Path, many_pairs: str, options: list[str], told: str
) -> None:
    done = run(tiny_bundle, "--data", many_pairs, *options)
    assert done.exit_code == 2
    assert told in done.output


def test_a_bank_is_not_chosen_on_what_it_holds(tiny_bundle: Path, many_pairs: str) -> None:
    done = run(tiny_bundle, "--data", many_pairs, "--best-on", many_pairs)
    assert done.exit_code == 2
    assert "name another" in done.output
