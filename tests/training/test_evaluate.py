"""Evaluation of real files through an encoder of ten lines that maps colours to vectors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ALL_COLOURS, ColourEncoder, colour_set
from PIL import Image

from encoders.encoder import Encoder, TextEmbeddings
from training.errors import EvaluationError
from training.evaluation.embedding import embed_pairs
from training.evaluation.evaluate import EvaluationOptions, evaluate, leaks_into


def test_a_perfect_encoder_finds_everything_both_ways(tmp_path: Path) -> None:
    [dataset] = evaluate(ColourEncoder(), [colour_set(tmp_path, ALL_COLOURS)]).datasets
    assert (dataset.images, dataset.captions, dataset.tied_queries) == (4, 4, 0)
    for figures in dataset.figures.values():
        assert figures.recall[1].value == 1
        assert figures.recall[1].low < 0.7  # four images do not prove that the next one is found
        assert figures.recall[1].high == 1
        assert figures.median_rank == 1
        assert figures.mean_average_precision.value == 1


def test_images_that_an_encoder_cannot_tell_apart_get_chance_and_count_as_ties(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path, {"red-1.png": "one red square", "red-2.png": "another red square"})
    [dataset] = evaluate(ColourEncoder(), [pairs]).datasets
    assert dataset.recall["text_to_image"][1].value == pytest.approx(0.5)
    assert dataset.tied_queries == 4


def test_a_caption_that_two_images_share_is_right_for_both(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path, {"red-1.png": "a red square", "red-2.png": "A red square."})
    [dataset] = evaluate(_lowercased(), [pairs]).datasets
    assert dataset.recall["text_to_image"][1].value == 1
    assert dataset.recall["image_to_text"][1].value == 1


def test_broken_images_are_named_and_drop_out_with_their_captions(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path, ALL_COLOURS | {"red-9.png": "a cut red square"})
    (tmp_path / "red-9.png").write_bytes((tmp_path / "red-1.png").read_bytes()[:50])
    (tmp_path / "green-1.png").write_bytes(b"not an image")
    [dataset] = evaluate(ColourEncoder(), [pairs]).datasets
    assert [broken.image_id for broken in dataset.broken] == ["green-1.png", "red-9.png"]
    assert "decode" in dataset.broken[0].reason
    assert (dataset.images, dataset.captions) == (3, 3)
    assert dataset.recall["image_to_text"][1].value == 1


def test_captions_cut_by_the_text_tower_are_counted(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path, ALL_COLOURS | {"red-2.png": "a very long tale of a square red"})
    [dataset] = evaluate(ColourEncoder(), [pairs]).datasets
    assert dataset.cut_captions == 1
    assert any("20.0% of the captions" in warning for warning in dataset.warnings)


def test_no_more_than_a_batch_of_images_meets_the_encoder_at_once(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    seen: list[tuple[str, int, int]] = []
    pairs = colour_set(tmp_path, {f"red-{n}.png": f"red {n}" for n in range(11)})
    evaluate(encoder, [pairs], options=EvaluationOptions(batch=4), on_progress=lambda *step: seen.append(step))
    assert encoder.batches == [4, 4, 3]
    assert ("squares: images", 8, 11) in seen
    assert seen[-1] == ("squares: captions", 11, 11)


def test_a_set_without_one_readable_image_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path, {"red-1.png": "a red square"})
    (tmp_path / "red-1.png").write_bytes(b"")
    with pytest.raises(EvaluationError, match=r"none of its 1 images decodes; red-1\.png"):
        evaluate(ColourEncoder(), [pairs])


def test_an_encoder_that_gives_no_numbers_is_an_error(tmp_path: Path) -> None:
    class Diverged(ColourEncoder):
        def _unit(self, colours: np.ndarray) -> np.ndarray:
            return np.full((len(colours), self.dim), np.nan, dtype=np.float32)

    with pytest.raises(EvaluationError, match="squares: images: colours gives 4 of 4 a vector that is not"):
        evaluate(Diverged(), [colour_set(tmp_path, ALL_COLOURS)])


def test_two_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path, ALL_COLOURS)
    with pytest.raises(EvaluationError, match="two sets are called 'squares'"):
        evaluate(ColourEncoder(), [pairs, pairs])


def test_a_cached_set_is_not_embedded_again_and_measures_the_same(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path / "set", ALL_COLOURS)
    (tmp_path / "set" / "blue-1.png").write_bytes(b"broken")
    first, second = ColourEncoder(), ColourEncoder()
    options = EvaluationOptions(cache=tmp_path / "cache")
    [before] = evaluate(first, [pairs], options=options).datasets
    [after] = evaluate(second, [pairs], options=options).datasets
    assert second.batches == []
    assert after.model_copy(update={"seconds": 0.0}) == before.model_copy(update={"seconds": 0.0})


@pytest.mark.parametrize(
    ("change", "images", "texts"),
    [("pixels", [1], 0), ("caption", [], 1), ("fingerprint", [4], 4), ("precision", [4], 4)],
)
def test_what_a_changed_image_caption_bundle_or_precision_concerns_is_embedded_anew(
    tmp_path: Path, change: str, images: list[int], texts: int
) -> None:
    pairs = colour_set(tmp_path / "set", ALL_COLOURS)
    embed_pairs(ColourEncoder(), pairs, cache=tmp_path / "cache")
    encoder = ColourEncoder()
    if change == "pixels":
        Image.new("RGB", (12, 12), "yellow").save(tmp_path / "set" / "red-1.png")
    elif change == "caption":
        pairs = colour_set(tmp_path / "set", ALL_COLOURS | {"red-1.png": "the red square"})
    else:
        setattr(encoder, change, "another")
    embed_pairs(encoder, pairs, cache=tmp_path / "cache")
    assert (encoder.batches, encoder.texts) == (images, texts)


def test_a_damaged_cache_is_embedded_anew(tmp_path: Path) -> None:
    pairs = colour_set(tmp_path / "set", ALL_COLOURS)
    embed_pairs(ColourEncoder(), pairs, cache=tmp_path / "cache")
    [entry] = (tmp_path / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:100])
    for batches in ([4], []):
        encoder = ColourEncoder()
        embed_pairs(encoder, pairs, cache=tmp_path / "cache")
        assert encoder.batches == batches


def test_a_test_image_that_stands_in_training_is_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train = colour_set(tmp_path / "train", ALL_COLOURS, name="train")
    test = colour_set(tmp_path / "test", {"red-7.png": "a red square", "blue-8.png": "a blue one"}, name="test")
    photo = Image.fromarray(rng.integers(256, size=(9, 9, 3), dtype=np.uint8)).resize((120, 90))
    photo.save(tmp_path / "train" / "green-1.png")
    photo.resize((80, 60)).save(tmp_path / "test" / "red-7.png")
    leaks = leaks_into([test], [train])
    assert ("green-1.png", "red-7.png") in [(leak.train_id, leak.test_id) for leak in leaks["test"]["train"]]
    [dataset] = evaluate(ColourEncoder(), [test], leaks=leaks).datasets
    assert dataset.leaked_images("train") >= 1


def test_the_real_encoder_of_a_bundle_is_measured_without_adapting_anything(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    report = evaluate(Encoder.load(tiny_bundle, device="cpu"), [colour_set(tmp_path, ALL_COLOURS)])
    [dataset] = report.datasets
    assert (report.bundle, report.device, report.precision) == ("tiny", "cpu", "fp32")
    assert len(report.fingerprint) == 64
    assert dataset.images == dataset.captions == 4
    assert 0 <= dataset.recall["text_to_image"][1].value <= 1
    assert dataset.recall["text_to_image"][5].value == 1


def _lowercased() -> ColourEncoder:
    class Lowercased(ColourEncoder):
        def encode_texts(self, texts: Sequence[str]) -> TextEmbeddings:
            return super().encode_texts([text.lower() for text in texts])

    return Lowercased()
