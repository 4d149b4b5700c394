"""What a bundle has seen: told by its own record, through every way in which a bundle is made from others."""

import html
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from encoders.bundle import Bundle
from encoders.errors import CorruptBundle
from training.__main__ import app
from training.data.pairs import read_pairs
from training.evaluation.report import RetrievalReport
from training.seen.exposure import Exposure, exposure_of
from training.seen.record import SEEN, Seen, inherited, read_seen, source_of, store_seen

MakeBundle = Callable[..., Bundle]


def draw(seed: int) -> Image.Image:
    """Soft blots, another arrangement for every seed."""
    field = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(field).resize((96, 96), Image.Resampling.BICUBIC)


def images(
    folder: Path, seeds: Iterable[int], *, name: str = "blots", change: Callable = lambda image: image
) -> str:
    """The spec of a set of such images, two captions each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["image,caption"]
    for seed in seeds:
        change(draw(seed)).save(folder / f"{seed}.png")
        rows += [f"{seed}.png,a red square {seed}", f"{seed}.png,the blue dog {seed}"]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return f"csv:{folder}/captions.csv?name={name}"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "300"})


def status(bundle: Bundle, spec: str) -> tuple[str, int]:
    exposure = exposure_of(read_seen(bundle), read_pairs(spec))
    return exposure.status, exposure.seen


@pytest.fixture
def trained(tmp_path: Path, make_bundle: MakeBundle) -> Bundle:
    """On images 0 to 39, and chosen by 40 to 49."""
    sets = (
        images(tmp_path / "train", range(40), name="train"),
        images(tmp_path / "val", range(40, 50), name="val"),
    )
    record = Seen((source_of(read_pairs(sets[0])), source_of(read_pairs(sets[1]), role="chosen by")))
    return store_seen(make_bundle(tmp_path / "trained"), record)


def test_a_set_is_seen_partly_seen_unseen_or_not_looked_for(
    trained: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    specs = {name: images(tmp_path / name, seeds) for name, seeds in (
        ("seen", range(5, 15)), ("partly", range(30, 60)), ("unseen", range(100, 130)),
    )}  # fmt: skip
    assert status(trained, specs["seen"]) == ("seen", 10)
    assert status(trained, specs["partly"]) == ("partly seen", 20)
    assert status(trained, specs["unseen"]) == ("unseen", 0)
    assert status(make_bundle(tmp_path / "plain"), specs["unseen"]) == ("not looked for", 0)
    found = exposure_of(read_seen(trained), read_pairs(specs["partly"]))
    assert found.sources == {"train, trained on": 10, "val, chosen by": 10}
    assert str(found) == "PARTLY SEEN: 20 of its 30 images (train, trained on: 10; val, chosen by: 10)"


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((48, 48)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "darker": lambda image: image.point(lambda value: value // 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_that_is_no_longer_the_same_file_is_seen(trained: Bundle, tmp_path: Path, change: str) -> None:
    assert status(trained, images(tmp_path / change, range(20), change=CHANGES[change])) == ("seen", 20)


def test_a_photo_of_a_published_id_is_seen_whatever_it_looks_like(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    folders = [tmp_path / "train", tmp_path / "test"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        draw(seed).save(folder / "1000268201_693b08cb0e.jpg")
        (folder / "captions.csv").write_text("image,caption\n1000268201_693b08cb0e.jpg,a dog\n")
    record = Seen((source_of(read_pairs(f"csv:{folders[0]}/captions.csv")),))
    bundle = store_seen(make_bundle(tmp_path / "bundle"), record)
    assert status(bundle, f"csv:{folders[1]}/captions.csv") == ("seen", 1)


def test_the_record_changes_no_embedding_and_a_broken_one_is_named(trained: Bundle, tmp_path: Path) -> None:
    plain = Bundle.open(trained.path)
    assert store_seen(plain, Seen(())).fingerprint == plain.fingerprint == trained.fingerprint
    broken = Bundle.open(shutil.copytree(trained.path, tmp_path / "broken")).with_file(SEEN, b"no record")
    with pytest.raises(CorruptBundle, match=r"seen\.safetensors is no readable record of seen images"):
        read_seen(broken)


def test_what_parents_have_seen_goes_on_and_what_nobody_knows_stays_unknown(
    trained: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    imported = make_bundle(tmp_path / "imported", seed=3, name="imported")
    mixed = run("soup", trained.path, imported.path, "--out", tmp_path / "mixed")
    assert mixed.exit_code == 0, mixed.output
    child, foreign = Bundle.open(tmp_path / "mixed"), images(tmp_path / "new", range(200, 210))
    assert status(child, images(tmp_path / "old", range(10))) == ("seen", 10)
    assert status(child, foreign) == ("not looked for", 0)
    told = str(exposure_of(read_seen(child), read_pairs(foreign)))
    assert "but what imported was trained on is not known" in told
    assert [source.record.name for source in inherited([child, trained]).sources] == ["train", "val"]


def test_evaluation_says_what_was_seen_and_calls_no_bundle_better_by_it(
    trained: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    own = Seen((source_of(read_pairs(images(tmp_path / "own", range(300, 310)))),))
    other = store_seen(make_bundle(tmp_path / "other", seed=5, name="other"), own)
    known, new = (images(tmp_path / n, s, name=n) for n, s in (("known", range(20)), ("new", range(100, 140))))
    sets = ("--data", known, "--data", new, "--in-domain", "known")
    result = run("evaluate", trained.path, other.path, *sets, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert "known, tiny: SEEN: 20 of its 20 images (train, trained on: 20)" in said
    assert "new, tiny: unseen: none of its 40 images is among the 50 that it was made with" in said
    report = RetrievalReport.model_validate_json((tmp_path / "out" / "report-tiny.json").read_bytes())
    assert [dataset.exposure.status for dataset in report.clean if dataset.exposure] == ["seen", "unseen"]
    comparison = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {(each["dataset"], *each["seen_by"]) for each in comparison["differences"]} == {
        ("known", "tiny"),
        ("new",),
    }
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "no fair comparison: seen by tiny" in markdown
    assert {gap["status"] for gap in comparison["gaps"]} == {"unseen"}
    assert "tiny has seen 20 of known's 20 images" in html.unescape(
        (tmp_path / "out" / "report.html").read_text()
    )


def test_one_chance_likeness_in_a_hundred_does_not_spoil_a_comparison() -> None:
    few, more = (Exposure(status="partly seen", images=1000, seen=seen) for seen in (9, 10))
    assert (few.counts, more.counts) == (False, True)
    assert Exposure(status="partly seen", images=20, seen=1).counts


def test_a_gate_passes_nothing_on_images_that_the_candidate_has_seen(
    trained: Bundle, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    spec = images(tmp_path / "known", range(30))
    policy = tmp_path / "gate.toml"
    policy.write_text(
        "[evidence]\nleast_images = 1\nwidest = 1\n"
        f'[[floors]]\ndata = "{spec}"\ndirection = "text_to_image"\nfloor = 0.0\n'
        f'[[no_fall]]\ndata = "{spec}"\nmargin = 0.99\n'
    )
    current = make_bundle(tmp_path / "current", seed=11)

    def judged(candidate: Bundle) -> list[dict[str, object]]:
        verdict = run("gate", candidate.path, "--against", current.path, "--policy", policy, "--json").stdout
        return [check for check in json.loads(verdict)["checks"] if check["kind"] in ("floor", "no_fall")]

    assert {check["doubt"] for check in judged(trained)} == {"seen"}
    assert "30 of its 30 images (train, trained on: 30): take images that" in str(judged(trained)[0]["detail"])
    assert "seen" not in {check["doubt"] for check in judged(make_bundle(tmp_path / "other", seed=5))}


def test_the_command_records_what_the_provenance_names_and_nothing_else(
    tmp_path: Path, make_bundle: MakeBundle
) -> None:
    spec, other = images(tmp_path / "train", range(20), name="train"), images(tmp_path / "other", range(50, 60))
    data = [
        {"name": "blots train", "pairs": spec, "sha256": read_pairs(spec).digest, "images": 20, "captions": 40}
    ]
    bundle = make_bundle(tmp_path / "bundle", provenance={"data": data})
    assert "carries no record" in run("seen", bundle.path).output
    wrong = run("seen", bundle.path, "--record", "--source", other)
    assert wrong.exit_code == 2
    assert "tiny was not trained on this set: it was on blots train" in " ".join(wrong.output.split())
    assert run("seen", bundle.path, "--source", spec).exit_code == 2
    done = run("seen", bundle.path, "--record", "--chosen-by", other)
    assert done.exit_code == 0, done.output
    assert "trained on blots train: 20 images" in done.output
    assert "chosen by blots: 10 images" in done.output
    assert Bundle.open(bundle.path).fingerprint == bundle.fingerprint
    looked = run("seen", bundle.path, "--data", images(tmp_path / "half", range(10, 30)), "--json")
    assert looked.exit_code == 3
    assert json.loads(looked.stdout)["status"] == "partly seen"
    untold = run("seen", make_bundle(tmp_path / "imported").path, "--record")
    assert untold.exit_code == 2
    assert "names no set that it was trained on" in untold.output
