from collections import Counter

import numpy as np
import pytest

from training.shift.text_corruptions import TEXT_CORRUPTIONS, WORD_RATES, corrupt_texts

LONG = " ".join(["two brown dogs are running along the sandy beach while children watch"] * 400)


def corrupted(text: str, name: str, severity: int, *, seed: int = 0) -> str:
    [changed] = corrupt_texts([text], name, severity=severity, rng=np.random.default_rng(seed))
    return changed


def changed_words(text: str, name: str, severity: int) -> list[tuple[str, str]]:
    after = corrupted(text, name, severity).split(" ")
    return [(old, new) for old, new in zip(text.split(" "), after, strict=True) if old != new]


@pytest.mark.parametrize("name", TEXT_CORRUPTIONS)
def test_words_change_at_the_rate_of_the_severity(name: str) -> None:
    shares = [len(changed_words(LONG, name, severity)) / len(LONG.split()) for severity in range(1, 6)]
    assert shares == pytest.approx(WORD_RATES, abs=0.015)


@pytest.mark.parametrize(
    ("name", "letters_more"), [("text_insert", 1), ("text_delete", -1), ("text_swap", 0), ("text_keyboard", 0)]
)
def test_a_changed_word_has_one_letter_more_less_or_another(name: str, letters_more: int) -> None:
    for old, new in changed_words(LONG, name, 5):
        assert len(new) - len(old) == letters_more
        if name == "text_swap":
            assert Counter(new) == Counter(old)
        if name == "text_keyboard":
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 1


def test_a_missed_key_lies_beside_the_right_one() -> None:
    typed = {new for old, new in changed_words(" ".join("g" * 2000), "text_keyboard", 5)}
    assert typed == set("ftyhbv")


@pytest.mark.parametrize("name", TEXT_CORRUPTIONS)
def test_a_seed_reproduces_the_text_and_what_has_no_letters_stays(name: str) -> None:
    assert corrupted(LONG, name, 2) == corrupted(LONG, name, 2)
    assert corrupted(LONG, name, 2) != corrupted(LONG, name, 2, seed=1)
    assert corrupted("", name, 5) == ""
    assert corrupted("123 -- 456 !" * 50, name, 5) == "123 -- 456 !" * 50


def test_unknown_kinds_and_severities_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="text_reverse"):
        corrupted("a", "text_reverse", 1)
    with pytest.raises(ValueError, match="6"):
        corrupted("a", "text_swap", 6)
