"""Texts of different lengths in few passes with little padding."""

import itertools

import numpy as np
import pytest

from encoders.passes import passes


def cost(cut: list[np.ndarray], lengths: np.ndarray, price: int) -> int:
    return sum(price + len(rows) * int(lengths[rows].max()) for rows in cut)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_way_to_cut_costs_less(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(3, 60, 9)
    cut = passes(lengths, most_rows=4, price_tokens=25)
    assert sorted(np.concatenate(cut).tolist()) == list(range(9))
    assert max(map(len, cut)) <= 4
    order = np.argsort(lengths, kind="stable")
    others = (
        np.split(order, places) for count in range(9) for places in itertools.combinations(range(1, 9), count)
    )
    allowed = [other for other in others if max(map(len, other)) <= 4]
    assert cost(cut, lengths, 25) == min(cost(other, lengths, 25) for other in allowed)


def test_one_long_text_does_not_pad_the_short_ones() -> None:
    lengths = np.array([5, 77, 6, 5, 5])
    assert [rows.tolist() for rows in passes(lengths, most_rows=64, price_tokens=32)] == [[0, 3, 4, 2], [1]]


def test_where_a_pass_is_dear_all_share_one() -> None:
    assert len(passes(np.array([5, 77, 6]), most_rows=64, price_tokens=2048)) == 1
    assert passes(np.array([], dtype=np.int64), most_rows=64, price_tokens=1) == []
