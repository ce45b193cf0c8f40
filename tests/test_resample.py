"""Resampling and dominance on plain arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import resample

SMALL = st.one_of(st.integers(0, 4).map(float), st.just(float("nan")))


@given(st.lists(st.tuples(SMALL, SMALL), max_size=12))
@settings(max_examples=150, deadline=None)
def test_on_front_equals_the_definition(points):
    """The fast front equals pairwise comparison, with ties, duplicates and missing values."""
    q, t = np.array(points, float).reshape(-1, 2).T
    expected = [
        not (np.isnan(q[i]) or np.isnan(t[i]))
        and not any(
            q[j] >= q[i] and t[j] <= t[i] and (q[j] > q[i] or t[j] < t[i]) for j in range(len(q))
        )
        for i in range(len(q))
    ]
    assert resample.on_front(q, t).tolist() == expected


def test_on_front_works_along_the_last_axis():
    """A stack of point sets gives a stack of fronts."""
    rng = np.random.default_rng(0)
    q, t = rng.integers(0, 5, (2, 3, 4, 6)).astype(float)
    whole = resample.on_front(q, t)
    for i in range(3):
        for j in range(4):
            assert whole[i, j].tolist() == resample.on_front(q[i, j], t[i, j]).tolist()


@given(st.integers(0, 50), st.integers(1, 10_000_000))
@settings(max_examples=40, deadline=None)
def test_chunks_cover_everything_once(total, width):
    """The ranges join up from 0 to the total."""
    ranges = list(resample.chunks(total, width))
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(total))


def test_medians_leave_out_missing_values():
    """Equal to numpy's nanmedian; all missing stays missing."""
    rng = np.random.default_rng(1)
    x = np.where(rng.random((20, 7)) < 0.3, np.nan, rng.random((20, 7)))
    x[3] = np.nan
    known = ~np.isnan(x).all(1)
    out = resample.median(x)
    np.testing.assert_allclose(out[known], np.nanmedian(x[known], axis=1))
    assert np.isnan(out[~known]).all()


def test_draws_share_the_resample_between_cells():
    """Two cells with the same scores have the same mean in every draw, and its spread is the bootstrap's."""
    x = np.random.default_rng(2).random((1, 50))
    sums = np.vstack([x, x, x + 1])
    draws = resample.draw_means(sums, np.ones_like(sums), 4_000, np.random.default_rng(3))
    np.testing.assert_allclose(draws[:, 0], draws[:, 1])
    np.testing.assert_allclose(draws[:, 2], draws[:, 0] + 1)
    assert abs(draws[:, 0].std() / (x.std() / np.sqrt(50)) - 1) < 0.05


def latency(n_prompts: int, n_rounds: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    length = rng.normal(200, 30, n_prompts)
    rows = [
        ("a", f"p{p}", r, length[p] + rng.normal(0, 3))
        for p in range(n_prompts)
        for r in range(n_rounds)
    ]
    return pd.DataFrame(rows, columns=["cell_id", "prompt_id", "round", "e2el_ms"])


def test_median_interval_needs_twenty_requests_of_two_prompts():
    """Below, the median is given and the bounds are missing."""
    for prompts, rounds, enough in ((10, 2, True), (19, 1, False), (1, 30, False)):
        row = resample.median_interval(latency(prompts, rounds)).iloc[0]
        assert row["n"] == prompts * rounds
        assert np.isfinite(row["p50"])
        assert np.isfinite(row["lo"]) == np.isfinite(row["hi"]) == enough


def test_median_interval_covers():
    """With eight prompts and three rounds, at least 90 % of nominal 95 % intervals hold the true median."""
    hits = 0
    for seed in range(200):
        row = resample.median_interval(latency(8, 3, seed), n_boot=300).iloc[0]
        hits += row["lo"] <= 200 <= row["hi"]
    assert hits >= 180


def test_median_interval_is_by_prompt_not_by_request():
    """More rounds of the same prompts do not make it much narrower: the prompts are what varies."""
    few, many = (resample.median_interval(latency(12, r)).iloc[0] for r in (2, 20))
    assert many["hi"] - many["lo"] > 0.6 * (few["hi"] - few["lo"])
