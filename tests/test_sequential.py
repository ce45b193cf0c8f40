"""Always-valid tests: exact by enumeration, and right at every look by simulation."""

from __future__ import annotations

import math
import re
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.sequential import PairedTest, Wealth, rate_evidence, stake

N, RUNS, ALPHA = 300, 4_000, 0.05


def _null(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Differences whose true mean is 0, shape (N, RUNS)."""
    shape = (N, RUNS)
    rare = rng.random(shape)
    sign = rng.choice([-1.0, 1.0], shape)
    return {
        "coin": lambda: sign,
        "one in fifty differs": lambda: np.where(rare < 0.02, sign, 0.0),
        "halves, as two repeats give": lambda: np.where(rare < 0.2, sign / 2, 0.0),
        "many small wins, rare loss": lambda: np.where(rare < 0.02, -0.98, 0.02),
        "many small losses, rare win": lambda: np.where(rare < 0.02, 0.98, -0.02),
        "rarer still": lambda: np.where(rare < 0.002, -0.998, 0.002),
        "graded": lambda: rng.beta(0.6, 0.6, shape) - rng.beta(0.6, 0.6, shape),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        "coin",
        "one in fifty differs",
        "halves, as two repeats give",
        "many small wins, rare loss",
        "many small losses, rare win",
        "rarer still",
        "graded",
    ],
)
def test_false_alarms_over_all_looks(kind):
    """A true hypothesis is rejected at any of 300 looks in no more than 5 % of runs, whatever the distribution."""
    test = PairedTest(RUNS)
    test.update(_null(kind, np.random.default_rng(11)))
    assert test.rejects(ALPHA).mean() <= ALPHA
    assert test.rejects(0.01).mean() <= 0.01


def test_false_alarms_with_groups():
    """Prompts of one group that go the same way are one observation; taken as four they would alarm too often."""
    rng = np.random.default_rng(12)
    group = rng.choice([-1.0, 0.0, 1.0], (N // 4, RUNS), p=[0.2, 0.6, 0.2])
    summed, apart = PairedTest(RUNS), PairedTest(RUNS)
    summed.update(group * 4 / 4)
    apart.update(np.repeat(group, 4, axis=0))
    assert summed.rejects(ALPHA).mean() <= ALPHA
    assert apart.rejects(ALPHA).mean() > 2 * ALPHA


def test_groups_of_different_sizes():
    """A sum over a group, divided by the largest group, keeps the level where the size goes with the difference."""
    rng = np.random.default_rng(13)
    large = rng.random((N, RUNS)) < 0.25
    summed, averaged = PairedTest(RUNS), PairedTest(RUNS)
    summed.update(np.where(large, -3.0, 1.0) / 3)  # three lose together as often as three win apart
    averaged.update(np.where(large, -1.0, 1.0))
    assert summed.rejects(ALPHA).mean() <= ALPHA
    assert averaged.rejects(ALPHA).mean() > 0.5


def test_a_difference_is_found():
    """One cell wins on 8 % of draws and never loses: found within 100 prompts in most runs, within 150 in nearly all."""
    rng = np.random.default_rng(14)
    x = (rng.random((2, 150, 1_000)) < 0.08).mean(0)
    test = PairedTest(1_000)
    test.update(x[:100])
    assert test.rejects(ALPHA).mean() > 0.85
    test.update(x[100:])
    assert test.rejects(ALPHA).mean() > 0.97


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_no_way_of_playing_makes_money(wins, losses, n):
    """For two outcomes with mean 0, wealth averaged over every possible path is exactly 1."""
    largest = max(wins, losses)
    up, down = wins / largest, -losses / largest
    chance = {up: losses / (wins + losses), down: wins / (wins + losses)}
    paths = list(product(chance, repeat=n))
    test = PairedTest(len(paths))
    test.update(np.array(paths).T)
    weights = [math.prod(chance[x] for x in path) for path in paths]
    assert np.dot(weights, np.exp(test.log)) == pytest.approx(1, abs=1e-9)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_blocks_and_columns_do_not_matter(data):
    """Pairs are tested each on their own, and where the blocks end changes nothing; what is missing is no bet."""
    value = st.one_of(st.floats(-1, 1), st.just(float("nan")))
    x = np.array(data.draw(st.lists(st.lists(value, min_size=3, max_size=3), min_size=1)))
    cut = data.draw(st.integers(0, len(x)))
    whole, parts = PairedTest(3), PairedTest((3,))
    whole.update(x)
    parts.update(x[:cut])
    parts.update(x[cut:])
    np.testing.assert_array_equal(whole.log, parts.log)
    np.testing.assert_array_equal(whole.evidence, parts.evidence)
    for i in range(3):
        one = PairedTest()
        one.update(x[:, i][~np.isnan(x[:, i])])
        assert one.evidence == pytest.approx(whole.evidence[i], rel=1e-12)


def test_stakes():
    """Nothing is bet on a cell that is not ahead, and never more than nine tenths."""
    total = np.array([-3.0, 0.0, 1.0, 50.0])
    np.testing.assert_allclose(stake(total, [5.0, 0.0, 3.0, 25.0]), [0, 0, 0.25, 0.9])


def test_evidence_stays():
    """What was once proved is not lost by later bad luck."""
    game = Wealth()
    for _ in range(8):
        game.bet(1, 0.9)
    reached = float(game.evidence)
    game.bet(-1, 0.9)
    assert float(game.evidence) == reached == pytest.approx(1.9**8)
    assert float(game.log) == pytest.approx(8 * math.log(1.9) + math.log(0.1))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[0.5, 1.5]], "differences must be at least -1 and at most 1"),
        ([[0.5]], "x must have shape (units, *(2,)), got (1, 1)"),
        (0.5, "x must have shape (units, *(2,)), got ()"),
    ],
)
def test_impossible_differences(x, message):
    """A difference outside the range, or another shape, is refused."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PairedTest(2).update(x)


@pytest.mark.parametrize("allowed", [0.05, 0.1, 0.5])
def test_rate_level_by_enumeration(allowed):
    """Over all paths of 12 units at exactly the allowed rate, 1 / alpha is reached with probability at most alpha."""
    paths = list(product([0.0, 1.0], repeat=12))
    chance = np.array([math.prod(allowed if x else 1 - allowed for x in path) for path in paths])
    evidence = np.array([rate_evidence(path, allowed) for path in paths])
    assert chance.sum() == pytest.approx(1)
    for alpha in (0.2, 0.05, 0.01):
        assert chance[evidence >= 1 / alpha].sum() <= alpha
    assert evidence.max() > 20


@pytest.mark.parametrize("allowed", [0.05, 0.1, 0.5])
def test_rate_level_and_power(allowed):
    """At most 5 % of 1,000 kept limits are called broken over 300 looks; twice the allowed rate is found in most."""
    rng = np.random.default_rng(15)
    kept = rng.random((1_000, 300)) < allowed
    shares = rng.beta(allowed, 1 - allowed, (1_000, 300))  # graded, mean exactly as allowed
    broken = rng.random((1_000, 300)) < min(2 * allowed, 0.9)
    found = [np.mean([rate_evidence(x, allowed) >= 20 for x in k]) for k in (kept, shares, broken)]
    assert found[0] <= 0.05
    assert found[1] <= 0.05
    assert found[2] > 0.65


def test_rate_details():
    """The likelihood ratio by hand; missing units are left out; no units are no evidence."""
    first = (5 * 0.2 + 1) / 6 / 0.2
    assert rate_evidence([1, 1], 0.2) == pytest.approx(first)
    assert rate_evidence([1, float("nan"), 1], 0.2) == rate_evidence([1, 1], 0.2)
    assert rate_evidence([], 0.2) == 1


@pytest.mark.parametrize(
    ("shares", "allowed", "message"),
    [
        ([0.5, 2], 0.1, "shares must be at least 0 and at most 1"),
        ([0.5], 1, "allowed must be greater than 0 and less than 1, got 1"),
    ],
)
def test_impossible_rates(shares, allowed, message):
    """Shares and the allowed rate have their range."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        rate_evidence(shares, allowed)
