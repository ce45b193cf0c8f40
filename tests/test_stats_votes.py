"""pass@k, all k right, and majority votes."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import stats


@given(st.integers(1, 9), st.data())
@settings(max_examples=50, deadline=None)
def test_pass_shares_equal_counting_all_draws(n, data):
    """Both equal the share of all draws of k answers of which any, or all, are right."""
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = [sum(i < c for i in draw) for draw in combinations(range(n), k)]
    assert stats.pass_at_k(n, c, k) == pytest.approx(np.mean([d > 0 for d in draws]))
    assert stats.pass_hat_k(n, c, k) == pytest.approx(np.mean([d == k for d in draws]))


def test_pass_shares_broadcast_and_need_k_answers():
    """Arrays give arrays; fewer answers than k give NaN; thousands of answers are no problem."""
    got = stats.pass_at_k([[5], [2]], [1, 2], 3)
    np.testing.assert_allclose(got, [[0.6, 0.9], [np.nan, np.nan]])
    np.testing.assert_allclose(stats.pass_hat_k([4, 2, 0], [3, 2, 0], 3), [0.25, np.nan, np.nan])
    assert stats.pass_at_k(20_000, 1, 10_000) == pytest.approx(0.5)


def test_pass_at_k_is_unbiased():
    """The mean over 40,000 prompts of ten answers is 1 - (1 - p)^k, within three standard errors."""
    c = np.random.default_rng(0).binomial(10, 0.2, 40_000)
    for found, truth in (
        (stats.pass_at_k(10, c, 5), 1 - 0.8**5),
        (stats.pass_hat_k(10, c, 2), 0.2**2),
    ):
        assert abs(found.mean() - truth) < 3 * found.std() / 200


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((5, 6, 1), "c must be at least 0 and at most n"),
        ((5, -1, 1), "c must be at least 0 and at most n"),
        ((5, 1, 0), "k must be at least 1"),
        ((5, 1.5, 1), "n, c and k must be whole numbers"),
    ],
)
@pytest.mark.parametrize("function", [stats.pass_at_k, stats.pass_hat_k])
def test_impossible_counts_are_refused(function, counts, message):
    """Each impossible count gives one exact message."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        function(*counts)
    assert str(caught.value) == message


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=9))
@settings(max_examples=80, deadline=None)
def test_the_majority_is_counted_and_ties_go_to_the_first(answers):
    """Equal to a Counter, which keeps the order of first appearance; None does not vote."""
    votes = Counter(a for a in answers if a is not None).most_common(1)
    assert stats.majority_vote(answers).item() == (votes[0][0] if votes else None)


def test_votes_have_shapes_and_weights():
    """Leading dimensions are kept; a weight counts as so many votes; equal sums of tenths tie."""
    answers = [[["x", "y", "y"], ["x", "y", None]]]
    assert stats.majority_vote(answers).tolist() == [["y", "x"]]
    assert stats.majority_vote(answers, [3, 1, 1]).tolist() == [["x", "x"]]
    assert stats.majority_vote(["a", "b", "b", "c"], [0.3, 0.1, 0.2, 0]).item() == "a"
    assert stats.majority_vote(np.empty((2, 0), object)).tolist() == [None, None]
    assert stats.majority_vote([7, float("nan"), 7.0]).item() == 7


def test_ties_are_drawn_evenly_when_asked():
    """With a generator, tied answers win equally often (three standard errors), others never."""
    answers = [["a", "b", "c", "b", "c"]] * 3_000
    won = Counter(stats.majority_vote(answers, rng=1))
    assert set(won) == {"b", "c"}
    assert abs(won["b"] - 1_500) < 3 * np.sqrt(3_000 / 4)
    assert (
        stats.majority_vote(answers[:9], rng=5).tolist()
        == stats.majority_vote(answers[:9], rng=5).tolist()
    )


def test_wrong_votes_are_refused():
    """A scalar is no list of answers, and a negative or missing weight is no weight."""
    with pytest.raises(ValueError, match=r"^answers must have at least 1 dimension$"):
        stats.majority_vote("a")
    for weight in (-1, float("nan")):
        with pytest.raises(ValueError, match=r"^weights must be at least 0$"):
            stats.majority_vote(["a", "b"], [1, weight])
