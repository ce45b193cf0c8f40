"""Budgets: reading them, spending them, and never by more than one block."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ParamError
from workbench.tuning.budget import Budget, Cost


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("20m", Budget(wall_s=1200)),
        ("20 min", Budget(wall_s=1200)),
        ("90s", Budget(wall_s=90)),
        ("1h30m", Budget(wall_s=5400)),
        ("1h 30m 10s", Budget(wall_s=5410)),
        ("0.5h", Budget(wall_s=1800)),
        ("200k tokens", Budget(tokens=200_000)),
        ("1.5M tokens", Budget(tokens=1_500_000)),
        ("1 token", Budget(tokens=1)),
        ("5000 rows", Budget(rows=5_000)),
        ("5,000 rows", Budget(rows=5_000)),
        ("20m, 200k tokens", Budget(wall_s=1200, tokens=200_000)),
        ("20m and 5,000 rows; 2k tokens", Budget(1200, 2_000, 5_000)),
        (["20m", "5000rows"], Budget(wall_s=1200, rows=5_000)),
    ],
)
def test_budgets(text, budget):
    """Times, tokens and rows, alone or together."""
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    "text",
    ["", "20", "20 x", "0s", "0 rows", "0.4 rows", "-5m", "5m5m", "20m, 90s", "1h and", "m", "2k"],
)
def test_unreadable_budgets(text):
    """Anything else says what is allowed: also nothing, zero, and two of a kind."""
    with pytest.raises(ParamError) as caught:
        Budget.parse(text)
    assert str(caught.value) == (
        "--budget must be times (20m, 90s, 1h30m), tokens (200k tokens) or rows (5000 rows), "
        f"each more than 0 and of each kind one, got {text!r}"
    )


def test_no_budgets():
    """No text at all is a mistake of the caller, as an empty one is."""
    with pytest.raises(ParamError):
        Budget.parse([])


@given(
    st.integers(1, 10_000),
    st.integers(1, 10**7),
    st.integers(1, 10**6),
)
@settings(max_examples=60)
def test_words_read_back(minutes, tokens, rows):
    """Counts in a budget's words are the budget's."""
    text = f"{minutes}m, {tokens:,} tokens, {rows:,} rows"
    budget = Budget.parse(text)
    assert budget == Budget(60.0 * minutes, tokens, rows)
    assert str(budget).endswith(f"{tokens:,} tokens, {rows:,} rows")


def test_words():
    """What is used of what there is, each with its unit."""
    budget = Budget.parse("20m, 5000 rows").spent(wall_s=480, rows=960)
    assert budget.describe() == "8.0 min of 20.0 min, 960 of 5,000 rows"
    assert str(budget) == "20.0 min, 5,000 rows"
    assert (str(Budget()), Budget().describe()) == ("no limit", "no limit")


def test_spending_adds_up_and_leaves_the_old_one():
    """Spending gives a new budget; the one before is as it was."""
    budget = Budget(wall_s=100, rows=10)
    later = budget.spent(wall_s=60).spent(wall_s=20, tokens=5, rows=3)
    assert later.used == Cost(80, 5, 3)
    assert budget.used == Cost()
    assert later.fits(Cost(wall_s=20, rows=7))
    assert not later.fits(Cost(wall_s=21))
    assert not later.fits(Cost(rows=8))
    assert later.fits(Cost(tokens=10**9))
    assert later.fits()
    assert later.spent(rows=7).exhausted
    assert not later.spent(rows=7).fits()
    assert not Budget().spent(1e9, 10**9, 10**9).exhausted


@given(
    st.floats(1, 1_000),
    st.lists(st.tuples(st.floats(0.1, 300), st.floats(0.3, 3)), max_size=40),
)
@settings(max_examples=80)
def test_never_exceeded_by_more_than_one_block(limit, rounds):
    """However wrong the expected costs are, what is spent beyond the budget is less than the last block."""
    budget, last = Budget(wall_s=limit), 0.0
    for cost, error in rounds:
        if not budget.fits(Cost(wall_s=cost * error)):
            break
        budget, last = budget.spent(wall_s=cost), cost
    assert budget.used.wall_s < limit + last or not last
    if all(error >= 1 for _, error in rounds):
        assert budget.used.wall_s <= limit


def test_a_share_of_a_budget():
    """Every limit is a share, what is used stays."""
    whole = Budget.parse("10m, 1001 rows, 90 tokens").spent(60, 7, 9)
    assert whole.share(0.5) == Budget(300, 45, 500, Cost(60, 7, 9))
    assert Budget().share(0.5) == Budget()
