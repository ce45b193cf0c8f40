"""A judge's record: written and read back, and the figures that follow from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.scorers.verdicts import Figures, figures, preference, read, record

LETTERS = st.sampled_from(["A", "B", "tie", None])
PAIRS = st.lists(st.tuples(LETTERS, LETTERS), min_size=1, max_size=4)
GRADES = st.lists(st.tuples(st.sampled_from(["1", "3.5", "5", None])), min_size=1, max_size=4)


@given(PAIRS | GRADES)
def test_a_record_reads_back(judgements):
    """Nothing is lost in the text that the record keeps."""
    assert read(record(judgements)) == judgements


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        (("A", "B"), 1.0),
        (("B", "A"), 0.0),
        (("tie", "tie"), 0.5),
        (("A", "A"), 0.5),
        (("B", "B"), 0.5),
        (("A", "tie"), 0.5),
        (("tie", "A"), 0.5),
        (("A", None), None),
        ((None, "tie"), None),
    ],
)
def test_what_two_orders_come_to(orders, expected):
    """Only a winner in both orders wins."""
    assert preference(orders) == expected


@given(LETTERS, LETTERS)
def test_the_other_side_sees_the_opposite(first, second):
    """Swapping whose answer is judged swaps the orders and turns the value around."""
    mine, theirs = preference((first, second)), preference((second, first))
    assert (mine is None) is (theirs is None)
    assert mine is None or mine == 1 - theirs


def test_the_figures_by_hand():
    """Counts of a small record, each told apart."""
    found = figures(["A/B A/B", "A/A A/B", "?/B B/A", None, "tie/A", ""])
    assert found == Figures(
        n_answers=4,
        n_verdicts=14,
        n_read=13,
        n_repeated=2,
        n_same=1,
        n_swapped=6,
        n_agree=4,
        n_preferred=11,
        n_first=7,
    )
    shares = found.to_dict()
    assert shares["read"] == 13 / 14
    assert shares["repeats_agree"] == 1 / 2
    assert shares["orders_agree"] == 4 / 6
    assert shares["prefers_first"] == 7 / 11


def test_the_figures_of_grades():
    """Repeats agree if their grades are the same; orders play no part."""
    found = figures(["4 4 4", "4 5", "? 3", "?", "2"])
    assert found == Figures(n_answers=5, n_verdicts=9, n_read=7, n_repeated=2, n_same=1)
    assert found.to_dict()["orders_agree"] is None
    assert found.text == "78 % of 9 verdicts could be read; repeats: 1 of 2 agree"


@given(st.lists(PAIRS.map(record), max_size=6), st.lists(GRADES.map(record), max_size=6))
def test_figures_add_up(first, second):
    """Those of two parts are those of the whole, and no count exceeds what it is a part of."""
    whole = figures([*first, *second])
    assert whole == figures(first) + figures(second)
    assert whole.n_read <= whole.n_verdicts
    assert whole.n_same <= whole.n_repeated <= whole.n_answers
    assert whole.n_agree <= whole.n_swapped
    assert whole.n_first <= whole.n_preferred <= 2 * whole.n_swapped


@given(PAIRS)
def test_a_judge_that_does_not_look_at_the_place_favours_none(judgements):
    """Verdicts that turn with the order agree always, and the first place has half of them."""
    turned = {"A": "B", "B": "A", "tie": "tie"}
    fair = [(v, turned[v]) for v, _ in judgements if v is not None]
    shares = figures([record(fair)]).to_dict()
    assert shares["orders_agree"] in (None, 1.0)
    assert shares["prefers_first"] in (None, 0.5)


def test_nothing_judged():
    """Said in words."""
    assert figures([]).text == "nothing was judged"
    assert figures([]).to_dict()["read"] is None
