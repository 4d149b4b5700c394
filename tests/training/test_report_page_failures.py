import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.query_bank import QueryBank
from training.data.captions import group_captions
from training.data.pairs import CaptionedImage, ImageSource, PairSet
from training.evaluation.embedding import EmbeddedPairs
from training.evaluation.evaluate import Ranked
from training.evaluation.ranks import rank_pairs
from training.page.failures import FailureLog, image_failures
from training.shift.condition import Condition

CAPTIONS = ("a red dog", "one dog", "a cat", "A cat .", "a car")
CAPTION_IMAGE = np.array([0, 0, 1, 2, 3])


def ranked(condition: Condition | None = None, *, bank: QueryBank | None = None) -> Ranked:
    """Four images; "one dog" looks like the car, the red dog like itself; both cats are one text."""
    images = np.eye(4, dtype=np.float32)
    captions = np.array(
        [[1, 0, 0, 0], [0.1, 0.3, 0.2, 0.9], [0, 1, 0.5, 0], [0, 1, 0.5, 0], [0.9, 0.5, 0.4, 0.2]], np.float32
    )
    group = group_captions(CAPTIONS)
    embedded = EmbeddedPairs(
        images, captions, CAPTION_IMAGE, np.zeros(5, bool), tuple("abcd"), CAPTIONS, broken=()
    )
    ranks = rank_pairs(images, captions, caption_image=CAPTION_IMAGE, caption_group=group, bank=bank)
    return Ranked("pets", condition, embedded, group, ranks, bank)


def pairs(folder: Path) -> PairSet:
    colours = dict(zip("abcd", ("red", "green", "blue", "white"), strict=True))
    for name, colour in colours.items():
        Image.new("RGB", (600, 300), colour).save(folder / f"{name}.png")
    texts = [tuple(c for c, i in zip(CAPTIONS, CAPTION_IMAGE, strict=True) if i == row) for row in range(4)]
    images = (
        CaptionedImage(name, captions, ImageSource(folder / f"{name}.png"))
        for name, captions in zip("abcd", texts, strict=True)
    )
    return PairSet("pets", "csv:pets.csv", tuple(images))


def test_the_worst_queries_come_with_their_right_answer_and_what_came_instead(tmp_path: Path) -> None:
    log = FailureLog()
    log(ranked())
    found = image_failures(log, pairs(tmp_path), bundle="lite0", condition=None, at_most=3)
    by_text = [each for each in found if each.direction == "text_to_image"]
    assert [(each.query.text, each.right.text, each.rank, each.items) for each in by_text] == [
        ("one dog", "a", 4, 4),
        ("a car", "d", 4, 4),
    ]
    assert [shown.text for shown in by_text[0].instead] == ["d", "b", "c"]
    by_image = {each.query.text: each for each in found if each.direction == "image_to_text"}
    assert set(by_image) == {"d"}  # the others have one of their captions, or the same text, at rank 1
    assert [shown.text for shown in by_image["d"].instead] == ["one dog", "a red dog", "a cat"]
    assert all(shown.image is None for shown in by_image["d"].instead)


def test_what_came_instead_is_what_the_bundles_bank_lets_through(tmp_path: Path) -> None:
    hub = QueryBank(rows={"texts": np.eye(4, dtype=np.float32)[3:]}, fingerprint="f" * 64, alpha=0.75, k=1)
    log = FailureLog()
    log(ranked(bank=hub))
    found = image_failures(log, pairs(tmp_path), bundle="lite0", condition=None, at_most=3)
    [asked] = [each for each in found if each.query.text == "one dog"]
    assert [shown.text for shown in asked.instead] == [
        "b",
        "c",
        "d",
    ]  # d, the car, is the hub that is held back


def test_images_are_small_and_as_the_condition_shows_them(tmp_path: Path) -> None:
    dark = Condition(corruption="under_exposure", severity=5)
    log = FailureLog()
    log(ranked(dark))
    [first, *_] = image_failures(log, pairs(tmp_path), bundle="lite0", condition=dark, at_most=1)
    head, _, data = str(first.right.image).partition(",")
    assert head == "data:image/webp;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (144, 72)
    assert 60 < image.convert("RGB").getpixel((72, 36))[0] < 140  # red, three stops darker
    assert image_failures(log, pairs(tmp_path), bundle="lite0", condition=None, at_most=1) == []
