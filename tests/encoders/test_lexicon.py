"""What texts mention, by a lexicon."""

import pytest

from encoders.lexicon import Lexicon, singular, words_of

LEXICON = Lexicon(
    """
# animals
dog: puppy, terrier
puppy: pup
*animal: dog, cat
cat:
horse: pony
-rocking horse:
hot dog: sausage
child: kid
chest of drawers:
car: police car
police car:
"""
)


@pytest.mark.parametrize(
    ("text", "mentioned"),
    [
        ("Two puppies and a cat", {"puppy", "dog", "animal", "cat"}),
        ("a hot dog", {"hot dog"}),
        ("the dog's hot dogs", {"dog", "animal", "hot dog"}),
        ("a rocking horse", {"rocking horse"}),
        ("ponies beside a rocking horse", {"horse", "rocking horse"}),
        ("police cars", {"police car", "car"}),
        ("Chest of 3 drawers", {"chest of drawers"}),
        ("children", {"child"}),
        ("dogma, catalogue", set()),
        ("", set()),
    ],
)
def test_texts_mention_nouns_their_kinds_and_nothing_hidden(text: str, mentioned: set[str]) -> None:
    assert LEXICON.mentioned(text) == mentioned


def test_classes_and_hiding_phrases_are_not_asked_for() -> None:
    assert set(LEXICON.nouns) - set(LEXICON.asked_for) == {"animal", "rocking horse"}


def test_a_kind_of_a_kind_is_one_too() -> None:
    assert LEXICON.broader["puppy"] == {"dog", "animal"}


@pytest.mark.parametrize("line", ["dog", ": cat", "-: x"])
def test_a_line_that_is_no_noun_is_named(line: str) -> None:
    with pytest.raises(ValueError, match="line 2"):
        Lexicon(f"cat:\n{line}\n")


def test_words_that_look_like_plurals_stay() -> None:
    assert [singular(word) for word in words_of("glasses buses grass cactus tennis berries gas")] == [
        "glasses",
        "bus",
        "grass",
        "cactus",
        "tennis",
        "berry",
        "gas",
    ]
