"""Equivalence up to a margin, and pseudo-prompts that fade out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from test_stats import scores

from workbench import stats


def test_equivalence_is_the_t_test_of_statsmodels_for_even_differences():
    """Differences without skew, 20 or more of them: p and interval are those of the paired TOST."""
    from statsmodels.stats.weightstats import ttost_paired

    half = np.random.default_rng(0).uniform(0.02, 0.2, 15)
    d = np.concatenate([half, -half])
    x = np.full(30, 0.5)
    frame = scores({"base": list(x), "b": list(x + d)})
    out = stats.equivalent(frame, "base", 0.05).iloc[1]
    p, *_ = ttost_paired(x + d, x, -0.05, 0.05)
    assert out["p_value"] == pytest.approx(p)
    lo, hi = scipy.stats.t.interval(0.9, 29, 0, scipy.stats.sem(d))
    np.testing.assert_allclose([out["diff_lo"], out["diff_hi"]], [lo, hi])


def test_equivalence_needs_proof_and_counts_every_cell():
    """Alike on many prompts: equivalent. On few: not shown. Better by far: not worse, but not equivalent."""
    same, much = [0.5, 0.6] * 100, [0.9] * 200
    frame = scores({"base": same, "same": same, "better": much})
    both = stats.equivalent(frame, "base", 0.05).set_index("cell_id")
    assert both["equivalent"].tolist() == [pd.NA, True, False]
    assert both["n_pairs"].tolist() == [200, 200, 200]
    assert both.loc["base", ["diff_lo", "p_value", "p_adjusted"]].isna().all()
    assert both.loc["same", "p_adjusted"] == pytest.approx(2 * both.loc["same", "p_value"])
    lower = stats.equivalent(frame, "base", 0.05, side="not_worse").set_index("cell_id")
    assert lower["equivalent"].tolist() == [pd.NA, True, True]
    few = stats.equivalent(scores({"base": [1, 0] * 5, "b": [1, 0] * 5}), "base", 0.05)
    assert few["equivalent"].tolist() == [pd.NA, False]
    one = stats.equivalent(scores({"base": [1], "b": [1]}), "base", 0.05)
    assert one["equivalent"].tolist() == [pd.NA, pd.NA]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0}, "margin must be greater than 0, got 0"),
        ({"margin": 0.1, "side": "lower"}, "side must be one of both, not_worse, got 'lower'"),
        (
            {"margin": 0.1, "level": 0.5},
            "level must be greater than 0.5 and less than 1, got 0.5",
        ),
    ],
)
def test_wrong_arguments_of_equivalence_are_refused(options, message):
    """Each wrong argument gives one exact message."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        stats.equivalent(scores({"a": [1, 0], "b": [1, 1]}), "a", **options)
    assert str(caught.value) == message


def test_pseudo_prompts_fade():
    """With 20 prompts that differ the interval of a difference is the plain t interval; with fewer it is wider."""
    rng = np.random.default_rng(1)
    d = rng.uniform(-0.3, 0.4, 60)
    for differ, plain in ((60, True), (20, True), (8, False)):
        x = np.where(np.arange(60) < differ, d, 0.0)
        out = stats.paired_difference(
            scores({"base": [0.5] * 60, "b": list(0.5 + x)}), "base"
        ).iloc[1]
        width = np.subtract(*stats.mean_interval(x)[::-1])
        ratio = (out["diff_hi"] - out["diff_lo"]) / width
        assert (ratio == pytest.approx(1)) if plain else (ratio > 1.1)
