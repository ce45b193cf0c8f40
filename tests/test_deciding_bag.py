"""Proofs for the bootstrap that stands in for held-out prompts: luck is found out, a true gain is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.deciding.bag import MIN_BAG, OutOfBag, out_of_bag
from workbench.stats import PromptMeans

N_PROMPTS, N_CELLS = 100, 48


def table(means: np.ndarray, codes: np.ndarray | None = None) -> PromptMeans:
    """A table of scores; cells are c0, c1, ..."""
    cells = np.array([f"c{i}" for i in range(len(means))], object)
    rows = (~np.isnan(means)).astype(np.int64)
    binary = np.isin(np.nan_to_num(means), (0, 1)).all(1)
    return PromptMeans(cells, np.arange(means.shape[1]), codes, means, rows, binary)


def study(rng: np.random.Generator, gain: float) -> PromptMeans:
    """48 cells on 100 prompts of very different difficulty, all equal but for c1, which is better by ``gain``."""
    chance = np.tile((1 - gain) * rng.beta(0.6, 0.6, N_PROMPTS), (N_CELLS, 1))
    chance[1] += gain
    return table((rng.random(chance.shape) < chance).astype(float))


def studies(n: int, gain: float, seed: int) -> list[OutOfBag]:
    """What the bootstrap says of many studies."""
    rng = np.random.default_rng(seed)
    made = (study(rng, gain) for _ in range(n))
    return [f for t in made if (f := out_of_bag(t, "c0", list(t.cells), 200, rng))]


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """A mean and its standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def test_luck_alone_gains_nothing():
    """Of 48 equal cells the best looks several points better than the baseline; out of bag it gains nothing on average."""
    found = studies(150, 0.0, seed=1)
    naive, _ = mean_and_error([f.seen for f in found])
    gain, error = mean_and_error([f.gain for f in found])
    assert naive > 0.06
    assert abs(gain) < 3 * error
    assert error < 0.006


def test_a_true_gain_is_found():
    """One cell that is better by 25 points keeps nearly all of them out of bag, never more than it has."""
    found = studies(100, 0.25, seed=2)
    gain, error = mean_and_error([f.gain for f in found])
    assert 0.21 < gain < 0.25 + 3 * error


@pytest.mark.parametrize("gain", [0.0, 0.15, 0.25])
def test_the_interval_covers(gain):
    """The interval holds the true gain of the cell with the highest score in at least 93 % of studies."""
    rng = np.random.default_rng(3)
    hits = []
    for _ in range(200):
        made = study(rng, gain)
        found = out_of_bag(made, "c0", list(made.cells), 100, rng)
        truth = gain if np.argmax(np.round(made.quality, 9)) == 1 else 0.0
        hits.append(found is not None and found.lo <= truth <= found.hi)
    assert np.mean(hits) >= 0.93


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(MIN_BAG, 30),
    k=st.integers(1, 6),
    holes=st.booleans(),
)
@settings(max_examples=60)
def test_against_a_loop(seed, n, k, holes):
    """The same resamples, taken one by one in plain Python, give the same gain."""
    rng = np.random.default_rng(seed)
    means = rng.random((k, n)).round(1)
    if holes:
        means[rng.random(means.shape) < 0.2] = np.nan
        means[:, 0] = 0.5
    found = out_of_bag(table(means), "c0", [f"c{i}" for i in range(k)], 25, seed)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), 25)
    gains: list[list[float]] = [[] for _ in range(n)]
    for weights in drawn:
        scored = []
        for cell in range(k):
            known = [(w, x) for w, x in zip(weights, means[cell], strict=True) if not np.isnan(x)]
            total = sum(w for w, _ in known)
            scored.append(sum(w * x for w, x in known) / total if total else -1.0)
        pick = int(np.argmax(np.round(scored, 9)))
        for i in np.flatnonzero(weights == 0):
            gains[i].append(means[pick, i] - means[0, i])
    each = [
        np.mean([g for g in own if not np.isnan(g)]) for own in gains if not np.isnan(own).all()
    ]
    assert found is not None
    assert found.gain == pytest.approx(np.mean(each), abs=1e-9)


def test_the_baseline_alone_gains_nothing():
    """If only the baseline may be picked, difference, gain and luck are exactly 0."""
    rng = np.random.default_rng(0)
    found = out_of_bag(table(rng.random((3, 20))), "c0", ["c0"], 50, rng)
    assert found is not None
    assert (found.seen, found.gain, found.optimism) == (0.0, 0.0, 0.0)


def test_groups_stay_together():
    """Prompts of one group are drawn and left out as one: twins of every prompt change nothing."""
    rng = np.random.default_rng(5)
    means = rng.random((4, 12))
    alone = out_of_bag(table(means), "c0", ["c0", "c1", "c2", "c3"], 300, 7)
    twins = table(np.repeat(means, 2, axis=1), np.repeat(np.arange(12), 2))
    doubled = out_of_bag(twins, "c0", ["c0", "c1", "c2", "c3"], 300, 7)
    assert alone is not None
    assert doubled is not None
    assert doubled.gain == pytest.approx(alone.gain)


def test_too_few_prompts():
    """Four prompts are too few, as is a baseline that is not there."""
    assert out_of_bag(table(np.ones((2, MIN_BAG - 1))), "c0", ["c1"]) is None
    assert out_of_bag(table(np.ones((2, 20))), "other", ["c1"]) is None


def test_same_seed_same_answer():
    """The same seed gives the same numbers."""
    made = study(np.random.default_rng(9), 0.1)
    assert out_of_bag(made, "c0", list(made.cells), 100, 4) == out_of_bag(
        made, "c0", list(made.cells), 100, 4
    )
