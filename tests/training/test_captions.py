import pytest

from training.data.captions import group_captions, normalise_caption


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A dog , running .", "a dog, running"),
        ("Two   birds!\n", "two birds"),
        ("ＡＢＣ", "abc"),
        ("犬が走る。", "犬が走る"),
    ],
)
def test_case_spacing_and_closing_punctuation_do_not_make_another_text(one: str, other: str) -> None:
    assert normalise_caption(one) == normalise_caption(other)


@pytest.mark.parametrize(("one", "other"), [("C#", "C"), ("a dog", "dog"), ("?", "!"), ("it's", "its")])
def test_other_words_are_other_texts(one: str, other: str) -> None:
    assert normalise_caption(one) != normalise_caption(other)


def test_groups_are_numbered_densely_in_order_of_appearance() -> None:
    assert group_captions(["A cat.", "a dog", "a cat", "A DOG"]).tolist() == [0, 1, 0, 1]
