"""The omnibus test and the set of cells not distinguishable from the best."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.stats.contingency_tables
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import stats


def table(x: np.ndarray, codes: np.ndarray | None = None, *, binary: bool = True):
    """Means (cells, prompts) as a table with one row each; NaN = not scored."""
    k, n = x.shape
    cells = np.array([f"c{i}" for i in range(k)])
    rows = (~np.isnan(x)).astype(int)
    return stats.PromptMeans(cells, np.arange(n), codes, x.astype(float), rows, np.full(k, binary))


# The omnibus test


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(4, 40))
@settings(max_examples=30, deadline=None)
def test_q_is_the_statistic_of_statsmodels(seed, k, n):
    """Right-or-wrong scores: the statistic and its degrees of freedom are Cochran's."""
    x = np.random.default_rng(seed).integers(0, 2, (k, n))
    if (x == x[0]).all():
        return
    expected = statsmodels.stats.contingency_tables.cochrans_q(x.T)
    found = stats.cochran_q(table(x), n_flips=99)
    assert found.test == "Cochran's Q"
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.df == expected.df


def test_graded_scores_give_friedman_with_ties():
    """Graded scores: scipy's Friedman statistic, ties within a prompt corrected for."""
    x = np.random.default_rng(3).integers(0, 5, (4, 30)) / 4
    found = stats.cochran_q(table(x, binary=False))
    assert found.test == "Friedman"
    assert found.statistic == pytest.approx(scipy.stats.friedmanchisquare(*x).statistic)
    assert (found.n_cells, found.n_prompts) == (4, 30)


@given(st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_two_cells_give_the_exact_mcnemar_test(wins, losses):
    """With two cells and few discordant prompts the p-value is McNemar's."""
    if wins + losses > 13:
        return
    x = np.array([[1] * wins + [0] * losses + [1, 0], [0] * wins + [1] * losses + [1, 0]])
    found = stats.cochran_q(table(x), n_flips=9_999)
    assert found.p_value == pytest.approx(stats.mcnemar(wins, losses))


def test_nothing_to_compare_is_no_test():
    """One cell, one cluster, or nothing scored: NaN; cells that never differ: 0 and 1."""
    one = stats.cochran_q(table(np.ones((1, 5))))
    group = stats.cochran_q(table(np.array([[1, 0], [0, 0]]), np.zeros(2, int)))
    none = stats.cochran_q(table(np.full((2, 3), np.nan)))
    assert np.isnan([x.p_value for x in (one, group, none)]).all()
    assert none.n_prompts == 0
    same = stats.cochran_q(table(np.tile([1, 0, 1], (4, 1))))
    assert (same.statistic, same.p_value) == (0.0, 1.0)


def test_alike_cells_do_not_cry_wolf():
    """Eight copies of each of six equal cells: the chi-square curve claims too much, sign flips do not.

    400 studies: a true 5 % is above 8.3 % with odds of 1 in 740 (three standard errors).
    """
    rng = np.random.default_rng(2)
    flips, curve = 0, 0
    for _ in range(400):
        x = np.repeat(rng.random((6, 60)) < rng.beta(0.6, 0.6, 60), 8, axis=0)
        found = stats.cochran_q(table(x), rng, n_flips=499)
        flips += found.p_value <= 0.05
        curve += scipy.stats.chi2.sf(found.statistic, found.df) <= 0.05
    assert flips / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert curve / 400 > 0.15


def test_groups_are_flipped_together():
    """Ten copies of every prompt in one group are no more evidence than the prompts themselves."""
    x = np.random.default_rng(5).random((3, 10)) < np.array([[0.3], [0.5], [0.9]])
    once = stats.cochran_q(table(x))
    copies = stats.cochran_q(table(np.repeat(x, 10, axis=1), np.repeat(np.arange(10), 10)))
    assert copies.p_value == once.p_value
    assert stats.cochran_q(table(np.repeat(x, 10, axis=1))).p_value < 0.1 * once.p_value


# The confidence set


def test_clear_losers_leave_and_twins_share_their_place():
    """The two best answer alike and stay with p 1; cells far behind leave; the order of the cells does not matter."""
    rng = np.random.default_rng(0)
    good = (rng.random(80) < 0.9).astype(float)
    x = np.vstack([good, rng.random((3, 80)) < 0.2, good, rng.random((1, 80)) < 0.85])
    out = stats.confidence_set(table(x), rng=1)
    assert list(out.columns) == ["cell_id", "quality", "p_value", "in_set", "n_prompts"]
    assert out["in_set"].tolist() == [True, False, False, False, True, True]
    assert out["p_value"].tolist()[::4] == [1.0, 1.0]
    assert (out.loc[1:3, "p_value"] < 0.01).all()
    np.testing.assert_allclose(out["quality"], x.mean(1))
    turned = stats.confidence_set(table(x[::-1]), rng=1)
    assert turned["in_set"].tolist() == out["in_set"].tolist()[::-1]


@given(st.integers(0, 1_000), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_the_best_is_always_in_and_p_follows_level(seed, k, n):
    """Whatever the table, a cell of the highest quality has p 1; a lower level never adds a cell."""
    x = np.random.default_rng(seed).integers(0, 3, (k, n)) / 2
    wide = stats.confidence_set(table(x, binary=False), 0.99, n_boot=199)
    tight = stats.confidence_set(table(x, binary=False), 0.8, n_boot=199)
    assert (wide["in_set"] | ~tight["in_set"]).all()
    best = wide["quality"].round(9) == wide["quality"].max().round(9)
    assert wide.loc[best, "p_value"].max() == 1
    assert wide["p_value"].between(0, 1).all()


def test_two_cells_give_mcnemar():
    """With two cells the set p-value of the worse is McNemar's exact test."""
    x = np.array([[1] * 9 + [0] * 2 + [1] * 5, [0] * 9 + [1] * 2 + [1] * 5])
    out = stats.confidence_set(table(x))
    assert out["p_value"].tolist() == [1.0, pytest.approx(stats.mcnemar(9, 2))]


def test_only_shared_prompts_count_and_an_unscored_cell_is_missing():
    """A missing score takes its prompt out for all; a cell without any score is out of the race."""
    x = np.array([[1, 1, 0, 1], [0, 1, np.nan, 0], [np.nan] * 4])
    out = stats.confidence_set(table(x))
    assert out["n_prompts"].tolist() == [3, 3, 3]
    np.testing.assert_allclose(out["quality"], [1, 1 / 3, np.nan])
    assert out["in_set"].tolist() == [True, True, pd.NA]
    apart = stats.confidence_set(table(np.array([[1, np.nan], [np.nan, 0]])))
    assert apart["n_prompts"].tolist() == [0, 0]
    assert apart["p_value"].tolist() == [1.0, 1.0]


def test_groups_are_resampled_together():
    """Copies of prompts in one group change nothing."""
    x = (np.random.default_rng(8).random((4, 12)) < np.array([[0.9], [0.3], [0.6], [0.2]])) * 1.0
    once = stats.confidence_set(table(x))
    copies = table(np.repeat(x, 5, axis=1), np.repeat(np.arange(12), 5))
    pd.testing.assert_series_equal(stats.confidence_set(copies)["p_value"], once["p_value"])


def test_large_graded_studies_agree_with_the_published_procedure():
    """Without ties and with many prompts the set is that of arch's MCS, up to cells at the border."""
    from arch.bootstrap import MCS

    rng = np.random.default_rng(4)
    x = rng.beta(2, 2, 400) * 0.5 + rng.random((20, 400)) * 0.4 + np.linspace(0, 0.1, 20)[:, None]
    reference = MCS(-x.T, size=0.05, reps=2_000, block_size=1, method="R", seed=1)
    reference.compute()
    expected = reference.pvalues["Pvalue"].sort_index().to_numpy()
    found = stats.confidence_set(table(x, binary=False))["p_value"].to_numpy()
    # Two Monte Carlo p-values from 2,000 and 9,999 resamples: three standard errors are .04 at most.
    np.testing.assert_allclose(found, expected, atol=0.04)
    assert 1 < (found > 0.05).sum() < 15


def test_seed_decides_the_set():
    """Same seed same p-values, another seed others."""
    x = np.random.default_rng(1).random((5, 50))
    one, again, other = (
        stats.confidence_set(table(x, binary=False), rng=s, n_boot=499) for s in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(one, again)
    assert not one["p_value"].equals(other["p_value"])


def test_a_wrong_level_is_refused():
    """The level is a share."""
    with pytest.raises(ValueError, match=r"^level must be greater than 0 and less than 1, got 95$"):
        stats.confidence_set(table(np.ones((2, 3))), 95)
