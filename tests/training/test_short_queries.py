"""Short queries: what captions mention, what is drawn from them, and the lists that ship."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.__main__ import app
from training.errors import PairsError
from training.short_queries.draw import absent_phrases, draw, mentions_of, present_phrases
from training.short_queries.lists import DRAWN, list_text, read_list
from training.short_queries.natural import count_phrases
from training.short_queries.phrases import Phrase, vocabulary

CAPTIONS = [
    ("A small black and white dog is jumping over a red ball .", "A terrier leaps ."),
    ("A man rides a horse on the beach .",),
    ("Wing chair, light green",),
    ("A zebra stands in tall grass .",),
]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("A black and white dog", Phrase("adjective noun", "dog", "black")),
        ("A terrier leaps over a log", Phrase("noun verb", "dog", "jumping")),
        ("Wing chair, light green", Phrase("adjective noun", "chair", "green")),
        ("a red car", Phrase("noun", "car")),
    ],
)
def test_a_text_answers_phrases(text: str, phrase: Phrase) -> None:
    assert phrase in vocabulary().mentioned(text)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("A dog beside a man in a long warm red coat", Phrase("adjective noun", "dog", "red")),
        (
            "A dog looks at a chair, and behind it a cat sits on a green sofa",
            Phrase("adjective noun", "chair", "green"),
        ),
        ("a hot dog", Phrase("noun", "dog")),
    ],
)
def test_a_text_does_not_answer_what_it_does_not_say(text: str, phrase: Phrase) -> None:
    assert phrase not in vocabulary().mentioned(text)


def test_present_and_absent_never_meet_and_absent_has_no_kind_of_it() -> None:
    mentions = mentions_of(CAPTIONS)
    present, absent = present_phrases(mentions), absent_phrases(mentions)
    assert Phrase("noun", "dog") in present
    assert Phrase("adjective noun", "dog", "black") in present
    assert not {phrase.noun for phrase in present} & {phrase.noun for phrase in absent}
    assert Phrase("noun", "puppy") not in absent  # a caption says dog, which may be one
    assert Phrase("noun", "elephant") in absent  # though a caption names another animal


def test_the_same_seed_draws_the_same_and_relevance_follows_the_captions() -> None:
    mentions = mentions_of(CAPTIONS)
    queries = draw(mentions, count=6, seed="a")
    assert queries == draw(mentions, count=6, seed="a")
    assert mentions.relevant(queries.present).any(axis=1).all()
    assert not mentions.relevant(queries.absent).any()


def test_absent_queries_are_of_the_same_kinds() -> None:
    queries = draw(mentions_of([*CAPTIONS] * 2), count=8, seed="a")
    kinds = [{phrase.kind for phrase in part} for part in (queries.present, queries.absent)]
    assert kinds[1] <= kinds[0]


def test_phrases_are_counted_word_for_word() -> None:
    counts = count_phrases(["A red car .", "Red cars", "a car that is red", "A red wooden car"])
    assert counts[Phrase("adjective noun", "car", "red")] == 2
    assert counts[Phrase("noun", "car")] == 4


def test_the_command_writes_a_list_that_reads_back(
    tmp_path: Path, coloured_pairs: Callable[[Path], str]
) -> None:
    coloured_pairs(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.png"))[:4]
    captions = ("a red car", "a dog", "a cat sleeping", "a green tree")
    rows = "".join(f"{name},{caption}\n" for name, caption in zip(names, captions, strict=True))
    (tmp_path / "pairs.csv").write_text(f"image,caption\n{rows}")
    out = tmp_path / "list.tsv"
    arguments = ["queries", "--data", f"csv:{tmp_path / 'pairs.csv'}", "--out", str(out), "--count", "8"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert Phrase("noun", "car") in read_list(out).present


def test_a_line_that_is_no_query_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_text("present\tnoun\tdog\npresent\tadjective noun\tdog\n")
    with pytest.raises(PairsError, match="line 2"):
        read_list(path)


@pytest.mark.parametrize("path", sorted(DRAWN.glob("*.tsv")), ids=lambda path: path.stem)
def test_shipped_lists_read_back_and_ask_for_what_is_known(path: Path, tmp_path: Path) -> None:
    queries = read_list(path)
    assert len(queries.absent) == 200
    assert len(queries.present) >= 150
    assert all(vocabulary().is_asked_for(phrase) for phrase in (*queries.present, *queries.absent))
    (tmp_path / "again.tsv").write_text(list_text(queries, title="again"))
    assert read_list(tmp_path / "again.tsv") == queries
