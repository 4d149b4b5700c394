from collections.abc import Callable
from pathlib import Path

from encoders.bundle import Bundle
from encoders.encoder import Encoder
from training.card import CARD, REPORT, store_report
from training.data.pairs import read_pairs
from training.evaluation.evaluate import evaluate
from training.markdown import markdown_table

DATA = [
    {"name": "photos", "images": 6000, "captions": 30000, "licence": "research and education only"},
    {"name": "drawings", "images": 2600, "captions": 6000, "licence": "public domain"},
]


def test_a_card_names_the_data_its_terms_and_the_figures(
    tmp_path: Path, coloured_pairs: Callable[..., str], make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", provenance={"data": DATA})
    report = evaluate(Encoder.load(bundle, device="cpu"), [read_pairs(coloured_pairs(tmp_path / "pairs"))])
    store_report(bundle, report)
    card = (tmp_path / "bundle" / CARD).read_text()
    assert (
        "**For research only, not for commercial use.** It was trained on photos (research and education only)"
        in card
    )
    assert "| drawings | 2,600 | 6,000 | public domain |" in card
    assert "R@10" in card
    assert "encoders import" in card
    stored = Bundle.open(tmp_path / "bundle")
    assert {CARD, REPORT} <= set(stored.files)
    assert stored.fingerprint == bundle.fingerprint


def test_a_card_of_free_data_does_not_speak_of_research(
    tmp_path: Path, coloured_pairs: Callable[..., str], make_bundle: Callable[..., Bundle]
) -> None:
    bundle = make_bundle(tmp_path / "bundle", provenance={"data": DATA[1:]})
    report = evaluate(Encoder.load(bundle, device="cpu"), [read_pairs(coloured_pairs(tmp_path / "pairs"))])
    store_report(bundle, report)
    assert "research" not in (tmp_path / "bundle" / CARD).read_text()


def test_a_pipe_or_a_line_break_in_a_name_does_not_break_a_table() -> None:
    table = markdown_table(("set", "images"), [("cats | dogs\nof mine", "12")], texts=1)
    assert table == ["| set | images |", "|---|---:|", r"| cats \| dogs of mine | 12 |"]
