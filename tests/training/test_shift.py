"""Evaluation under conditions, with the encoder that maps colours to vectors; the real one at other sizes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ALL_COLOURS, ColourEncoder, colour_set
from PIL import Image

from encoders.bundle import Bundle, write_bundle
from encoders.encoder import Encoder
from encoders.towers import build_towers
from training.errors import EvaluationError
from training.evaluation.embedding import Embedding, embed_pairs
from training.evaluation.evaluate import EvaluationOptions, measure
from training.shift.condition import Condition
from training.shift.conditions import (
    FAMILIES,
    GROUPS,
    captions_under,
    corrupted_conditions,
    held_out_note,
    image_under,
    parse_corruptions,
    parse_input_sizes,
    parse_severities,
    subjects_of,
)
from training.shift.corruptions import IMAGE_CORRUPTIONS
from training.shift.input_sizes import SizeRefused, encoder_at_size

DARK = Condition(corruption="low_light", severity=5)
SWAPPED = Condition(corruption="text_swap", severity=5)


def test_every_set_is_measured_clean_first_then_under_every_condition(tmp_path: Path) -> None:
    measured = measure(ColourEncoder(), [colour_set(tmp_path, ALL_COLOURS)], conditions=[DARK, SWAPPED])
    assert [dataset.condition for dataset in measured.report.datasets] == [None, DARK, SWAPPED]
    assert [hits.condition for hits in measured.hits] == [None, DARK, SWAPPED]
    clean = measured.hits[0]
    assert clean.sums["text_to_image"].tolist() == [[1, 1, 1]] * 4
    assert clean.counts["image_to_text"].tolist() == [1] * 4


def test_images_are_corrupted_before_the_model_resizes_them_and_captions_are_left_alone(
    tmp_path: Path,
) -> None:
    embedding = Embedding(ColourEncoder(), colour_set(tmp_path, ALL_COLOURS))
    dark = embedding.under(DARK)
    expected = image_under(DARK, Image.open(tmp_path / "green-1.png"), image_id="green-1.png")
    small = np.asarray(expected.resize((8, 8), Image.Resampling.BICUBIC)).mean(axis=(0, 1))
    vector = np.append(small, 10) / np.linalg.norm(np.append(small, 10))
    assert dark.image_vectors[dark.image_ids.index("green-1.png")] == pytest.approx(vector, abs=1e-5)
    assert np.array_equal(dark.caption_vectors, embedding.clean.caption_vectors)


def test_corrupted_captions_meet_images_that_were_embedded_once(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    embedding = Embedding(encoder, colour_set(tmp_path, ALL_COLOURS))
    changed = [
        embedding.under(Condition(corruption="text_delete", severity=severity)) for severity in range(1, 6)
    ]
    assert encoder.batches == [4]
    assert any(each.captions != embedding.clean.captions for each in changed)
    assert all(np.array_equal(each.image_vectors, embedding.clean.image_vectors) for each in changed)


def test_captions_that_were_one_text_stay_right_for_both_images_when_corrupted(tmp_path: Path) -> None:
    rows = {f"red-{n}.png": "a red square" for n in range(30)}
    measured = measure(ColourEncoder(), [colour_set(tmp_path, rows)], conditions=[SWAPPED])
    assert measured.report.datasets[1].recall["text_to_image"][1].value == 1


def test_every_condition_is_cached_apart_and_a_second_run_embeds_nothing(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path / "set", ALL_COLOURS)
    conditions = [*corrupted_conditions(("low_light", "blur"), (1, 5)), SWAPPED]
    options = EvaluationOptions(cache=tmp_path / "cache")
    first, second = ColourEncoder(), ColourEncoder()
    before = measure(first, [pairs], conditions=conditions, options=options)
    after = measure(second, [pairs], conditions=conditions, options=options)
    assert (first.batches, second.batches, second.texts) == ([4] * 5, [], 0)
    assert [d.figures for d in after.report.datasets] == [d.figures for d in before.report.datasets]


def test_a_killed_run_goes_on_after_the_last_batch_it_finished(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path / "set", {f"red-{n}.png": f"red {n}" for n in range(30)})
    for n in range(30):  # the cache goes by content: equal images would be embedded once
        Image.new("RGB", (12, 12), (200 + n, 0, 0)).save(tmp_path / "set" / f"red-{n}.png")
    child = f"""
import os, signal
from pathlib import Path
from colour_encoder import ColourEncoder
from training.evaluation.embedding import embed_pairs
from training.data.pairs import read_pairs
class Killed(ColourEncoder):
    def encode_pixels(self, pixels):
        if len(self.batches) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_pixels(pixels)
embed_pairs(Killed(), read_pairs({pairs.spec!r}), batch=4, cache=Path({str(tmp_path / "cache")!r}))
"""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    killed = subprocess.run([sys.executable, "-c", child], env=os.environ | {"PYTHONPATH": paths}, check=False)
    assert killed.returncode == -signal.SIGKILL
    encoder = ColourEncoder()
    steps: list[tuple[str, int, int]] = []
    embed_pairs(encoder, pairs, batch=4, cache=tmp_path / "cache", on_progress=lambda *step: steps.append(step))
    assert sum(encoder.batches) == 30 - 3 * 4
    assert steps[0] == ("squares: images", 12, 30)


def test_seeds_differ_by_image_severity_and_corruption_and_reproduce() -> None:
    grey = Image.new("RGB", (40, 40), (120, 120, 120))
    noise = Condition(corruption="noise", severity=2)
    assert image_under(noise, grey, image_id="a").tobytes() == image_under(noise, grey, image_id="a").tobytes()
    assert image_under(noise, grey, image_id="a").tobytes() != image_under(noise, grey, image_id="b").tobytes()
    words = ["two brown dogs running along the sandy beach"] * 4
    assert captions_under(SWAPPED, words, image_id="a") == captions_under(SWAPPED, words, image_id="a")
    assert captions_under(SWAPPED, words, image_id="a") != captions_under(SWAPPED, words, image_id="b")


def test_groups_and_ranges_on_the_command_line() -> None:
    assert parse_corruptions("light,blur,warm") == (*GROUPS["light"], "blur")
    assert len(GROUPS["all"]) == 21
    assert parse_corruptions("") == ()
    assert parse_severities("1-2,5") == (1, 2, 5)
    assert parse_input_sizes("160,192x256") == ((160, 160), (192, 256))


@pytest.mark.parametrize(
    ("parse", "words"),
    [(parse_corruptions, "fog"), (parse_severities, "0-3"), (parse_severities, "3-1"), (parse_severities, "x"),
     (parse_severities, "1-999999999999"),
     (parse_input_sizes, "large"), (parse_input_sizes, "0"), (parse_input_sizes, "99999")],
)  # fmt: skip
def test_what_the_command_line_cannot_mean_is_refused_by_name(
    parse: Callable[[str], object], words: str
) -> None:
    with pytest.raises(EvaluationError, match=words):
        parse(words)


def test_a_group_is_averaged_only_where_it_was_measured_whole() -> None:
    conditions = corrupted_conditions(GROUPS["resolution"], (3,)) + corrupted_conditions(("warm",), (3,))
    assert [subject.name for subject in subjects_of(conditions)][-2:] == ["warm", "mean of resolution"]


def test_every_kind_of_a_family_is_one_that_there_is_and_stands_in_one_family() -> None:
    named = [kind for family in FAMILIES for kind in family]
    assert len(set(named)) == len(named)
    assert set(named) <= set(IMAGE_CORRUPTIONS)


def test_the_note_parts_what_training_kept_out_from_what_it_may_have_seen() -> None:
    note = held_out_note([DARK, Condition(corruption="jpeg", severity=1)], ("low_light", "blur"))
    assert note is not None
    assert "its recipe: low_light (but not under_exposure and gamma_darker, much like it);" in note
    assert note.endswith("memory: jpeg")
    alone = held_out_note([DARK], ("low_light", "under_exposure", "gamma_darker"))
    assert "its recipe: low_light;" in str(alone)
    assert held_out_note([SWAPPED], ()) is None
    assert "not known" in str(held_out_note([DARK], None))


def test_a_convolutional_tower_is_measured_at_another_size(tmp_path: Path, tiny_bundle: Path) -> None:
    encoder = Encoder.load(tiny_bundle, device="cpu")
    larger = encoder_at_size(encoder, (48, 64))
    pairs = colour_set(tmp_path, ALL_COLOURS)
    [_, resized] = measure(encoder, [pairs], sized={(48, 64): larger}).report.datasets
    assert resized.condition == Condition(input_size=(48, 64))
    assert (encoder.preprocessing.height, larger.preprocessing.height) == (32, 48)
    image = Image.open(tmp_path / "red-1.png")
    assert not np.allclose(encoder.encode_images([image]), larger.encode_images([image]), atol=1e-4)


def test_a_vision_transformer_refuses_another_size_with_the_reason(tmp_path: Path, tiny_bundle: Path) -> None:
    tiny = Bundle.open(tiny_bundle)
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    towers = tiny.config.towers.model_copy(update={"vision_cfg": vision})
    files = {name: (tiny.path / name).read_bytes() for name in ("tokenizer/tokenizer.json", "text/config.json")}
    config = tiny.config.model_copy(update={"towers": towers})
    state = build_towers(towers, tiny.path).state_dict()
    bundle = write_bundle(tmp_path / "vit", config=config, state=state, files=files)
    with pytest.raises(SizeRefused, match="input size 48×48: the image tower refuses it"):
        encoder_at_size(Encoder.load(bundle, device="cpu"), (48, 48))
