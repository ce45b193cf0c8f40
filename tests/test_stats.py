"""Intervals cover, tests keep their level, and the front is the front."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import stats
from workbench.stats import PromptMeans
from workbench.stats.paired import sign_flip

P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=12)


def binary_table(draws: np.ndarray, repeats: int = 1) -> PromptMeans:
    """A table of successes, (cells, prompts), out of ``repeats`` rows each."""
    n_cells, n_prompts = draws.shape
    cells = np.array([f"c{i}" for i in range(n_cells)])
    rows = np.full(draws.shape, repeats)
    return PromptMeans(
        cells, np.arange(n_prompts), None, draws / repeats, rows, np.ones(n_cells, bool)
    )


def scores(values: dict[str, list[float | list[float]]], **columns: list) -> pd.DataFrame:
    """A tidy frame from one list of scores (or of lists of repeats) per cell."""
    rows = [
        (cell, f"p{i}", k, float(x))
        for cell, prompts in values.items()
        for i, xs in enumerate(prompts)
        for k, x in enumerate(xs if isinstance(xs, list) else [xs])
    ]
    return pd.DataFrame(rows, columns=["cell_id", "prompt_id", "repeat", "score"]).assign(**columns)


# One mean


@given(st.integers(1, 500), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
@settings(max_examples=60, deadline=None)
def test_wilson_equals_scipy(n, data, level):
    """The interval is scipy's Wilson interval."""
    k = data.draw(st.integers(0, n))
    lo, hi = stats.proportion_interval(k, n, level)
    expected = scipy.stats.binomtest(k, n).proportion_ci(level, "wilson")
    np.testing.assert_allclose([lo, hi], [expected.low, expected.high], atol=1e-12)
    assert 0 <= lo <= k / n <= hi <= 1


def test_wilson_takes_arrays_and_no_trials():
    """Arrays give arrays; nothing tried gives NaN, not 0."""
    lo, hi = stats.proportion_interval([0, 5, 0], [10, 10, 0])
    assert lo[0] == 0
    assert hi[0] == pytest.approx(0.2775, abs=1e-4)
    assert lo[1] == pytest.approx(1 - hi[1])
    assert np.isnan([lo[2], hi[2]]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.proportion_interval(3, 2), "k must be at least 0 and at most n"),
        (lambda: stats.proportion_interval(-1, 2), "k must be at least 0 and at most n"),
        (
            lambda: stats.proportion_interval(1, 2, 95),
            "level must be greater than 0 and less than 1, got 95",
        ),
        (
            lambda: stats.mean_interval([1, 2], level=0),
            "level must be greater than 0 and less than 1, got 0",
        ),
        (
            lambda: stats.mean_interval([1, 2], cluster=[1]),
            "cluster must have shape (2,), got (1,)",
        ),
        (
            lambda: stats.mean_interval(np.zeros((1, 2, 3))),
            "values must have 1 or 2 dimensions, got 3",
        ),
        (
            lambda: stats.adjust([0.1], "bonferoni"),
            "method must be one of holm, bh, got 'bonferoni'",
        ),
        (lambda: stats.adjust([1.1]), "p must be at least 0 and at most 1"),
        (
            lambda: stats.prompt_means(scores({"a": [0.5, 1.5]})),
            "score must be at least 0 and at most 1 in every row",
        ),
        (
            lambda: stats.paired_difference(scores({"a": [1]}), "b"),
            "baseline 'b' is not one of the 1 cells",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    """Each wrong argument gives one exact message."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        call()
    assert str(caught.value) == message


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=30))
@settings(max_examples=40, deadline=None)
def test_mean_interval_without_clusters_is_the_t_interval(values):
    """Every value its own cluster: scipy's t interval of the mean."""
    lo, hi = stats.mean_interval(values)
    se = scipy.stats.sem(values)
    if se < 1e-9:
        return
    expected = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), se)
    np.testing.assert_allclose([lo, hi], expected, rtol=1e-9, atol=1e-9)


def test_mean_interval_follows_the_formula_by_hand():
    """Clusters of unequal size: the cluster-robust formula, written out."""
    x = np.array([1.0, 0, 1, 1, 0, 1, 1])
    cluster = list("aabbbcd")
    mean = x.mean()
    sums = [sum(x[i] - mean for i in range(7) if cluster[i] == c) for c in "abcd"]
    se = np.sqrt(4 / 3 * np.sum(np.square(sums))) / 7
    half = scipy.stats.t.ppf(0.975, 3) * se
    lo, hi = stats.mean_interval(x, cluster)
    np.testing.assert_allclose([lo, hi], [mean - half, mean + half])
    both = stats.mean_interval(np.vstack([x, 1 - x]), cluster)
    np.testing.assert_allclose(both.lo, [lo, 1 - hi])


def test_repeating_every_row_does_not_narrow_a_clustered_interval():
    """Ten copies of a prompt are one prompt."""
    x = np.random.default_rng(0).random(20)
    once = stats.mean_interval(x)
    copies = stats.mean_interval(np.repeat(x, 10), np.repeat(np.arange(20), 10))
    np.testing.assert_allclose(copies, once)
    naive = stats.mean_interval(np.repeat(x, 10))
    assert naive.hi - naive.lo < 0.4 * (once.hi - once.lo)


@pytest.mark.parametrize("values", [[], [0.5], [1.0] * 9, [np.nan, 0.3], [0.1] * 7])
def test_no_zero_width_interval(values):
    """Too little, or nothing that varies: NaN, never a certainty."""
    assert np.isnan(stats.mean_interval(values)).all()


def test_pseudo_prompts_give_a_perfect_score_a_width():
    """All right in three repeats of 60 prompts: near Wilson for 60, not [1, 1]."""
    lo, hi = binary_table(np.full((1, 60), 3), 3).interval()
    assert hi == [1.0]
    assert lo[0] == pytest.approx(0.925, abs=0.001)
    one_wrong = np.full((1, 60), 3)
    one_wrong[0, 0] = 2
    assert binary_table(one_wrong, 3).interval().lo[0] < lo[0]


@pytest.mark.parametrize("n", [20, 60])
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("ab", [(0.3, 0.3), (2, 2), (5, 0.3)])
def test_quality_intervals_cover(n, repeats, ab):
    """At least 93 % of nominal 95 % intervals hold the truth; 3,000 studies, prompts of very different difficulty.

    A correct 95 % interval fails this with odds below 1 in 100,000 (5 standard errors of 0.4 points). The plain t
    interval covers 69 % at worst here.
    """
    rng = np.random.default_rng(11)
    hits = rng.binomial(repeats, rng.beta(*ab, (3_000, n)))
    lo, hi = binary_table(hits, repeats).interval()
    truth = ab[0] / sum(ab)
    assert np.mean((lo <= truth) & (truth <= hi)) > 0.93


def test_clustered_intervals_cover_groups():
    """Related prompts: intervals by group cover, intervals that ignore the groups do not."""
    rng = np.random.default_rng(5)
    ease = np.repeat(rng.beta(0.5, 0.5, (2_000, 30)), 4, axis=1)
    x = (rng.random(ease.shape) < ease).astype(float)
    cluster = np.repeat(np.arange(30), 4)

    def coverage(bounds):
        return np.mean((bounds.lo <= 0.5) & (bounds.hi >= 0.5))

    assert coverage(stats.mean_interval(x, cluster)) > 0.93
    assert coverage(stats.mean_interval(x)) < 0.85


# The score table


def test_prompt_means_average_repeats_first():
    """A prompt counts once however many repeats were scored; missing scores are left out."""
    frame = scores({"a": [[1, 1, 1], [0]], "b": [[1, np.nan], [np.nan]]})
    table = stats.prompt_means(frame)
    np.testing.assert_array_equal(table.means, [[1, 0], [1, np.nan]])
    np.testing.assert_array_equal(table.rows, [[3, 1], [1, 0]])
    np.testing.assert_array_equal(table.quality, [0.5, 1.0])
    assert table.codes is None


def test_groups_are_clusters_and_loners_stay_alone():
    """Prompts of a group share a cluster; a prompt without group has its own, even if names look alike."""
    frame = scores({"a": [1, 0, 1, 0]}, group=["g", "g", None, "p2"])
    np.testing.assert_array_equal(stats.prompt_means(frame).codes, [0, 0, 1, 2])


def test_one_binary_row_a_prompt_gives_wilson():
    """The quality interval of single 0/1 answers is Wilson's."""
    lo, hi = stats.prompt_means(scores({"a": [1] * 45 + [0] * 15})).interval()
    np.testing.assert_allclose([lo[0], hi[0]], stats.proportion_interval(45, 60))


def test_graded_scores_that_are_all_zero_somewhere_are_no_trials():
    """Where scores are graded, a cell whose answers all score 0 gets the interval of graded scores, as its neighbours do."""
    graded = [0.0] * 50 + [0.02] * 10
    once = stats.prompt_means(scores({"a": [0] * 60, "b": graded})).interval()
    twice = {"a": [[0, 0]] * 60, "b": [[x, x] for x in graded]}
    again = stats.prompt_means(scores(twice)).interval()
    np.testing.assert_allclose(once, again)
    assert once.hi[0] < 0.01 < stats.proportion_interval(0, 60).hi


def test_graded_scores_are_not_widened_to_the_whole_scale():
    """Scores between .4 and .5 get bounds of that size, not of 0..1."""
    x = np.random.default_rng(0).uniform(0.4, 0.5, 60)
    lo, hi = stats.prompt_means(scores({"a": list(x)})).interval()
    assert lo[0] < x.mean() < hi[0]
    assert hi[0] - lo[0] < 0.02


# Paired differences


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=50, deadline=None)
def test_mcnemar_is_the_exact_binomial_test(wins, losses):
    """Equal to scipy's binomtest; 1 when nothing differs."""
    n = wins + losses
    expected = scipy.stats.binomtest(wins, n).pvalue if n else 1.0
    assert stats.mcnemar(wins, losses) == pytest.approx(expected)


def test_paired_difference_by_hand():
    """Counts, estimate and exact p of a small binary table; the baseline is not compared with itself."""
    frame = scores({"base": [0] * 6 + [1] * 4, "b": [1] * 6 + [1] * 4, "c": [1, 0] * 5})
    out = stats.paired_difference(frame, "base").set_index("cell_id")
    assert list(out.columns) == [
        "diff",
        "diff_lo",
        "diff_hi",
        "p_value",
        "p_adjusted",
        "n_pairs",
        "wins",
        "ties",
        "losses",
    ]
    assert out.loc["b", ["n_pairs", "wins", "ties", "losses"]].tolist() == [10, 6, 4, 0]
    assert out.loc["b", "diff"] == pytest.approx(0.6)
    assert out.loc["b", "p_value"] == pytest.approx(2 / 2**6)
    assert out.loc["b", "p_adjusted"] == pytest.approx(4 / 2**6)
    assert out.loc["base", "diff"] == 0
    assert out.loc["base", ["diff_lo", "diff_hi", "p_value", "p_adjusted"]].isna().all()


def test_only_prompts_scored_in_both_are_pairs():
    """A missing score takes its prompt out of that comparison and of no other."""
    frame = scores({"base": [1, 0, 1, 0], "b": [1, 1, np.nan, 1], "c": [np.nan] * 4})
    out = stats.paired_difference(frame, "base").set_index("cell_id")
    assert out.loc["b", "n_pairs"] == 3
    assert out.loc["b", "diff"] == pytest.approx(2 / 3)
    assert out.loc["c", "n_pairs"] == 0
    assert out.loc["c", ["diff", "diff_lo", "diff_hi", "p_value"]].isna().all()


def test_identical_outcomes_are_no_proof_of_equality():
    """All ties: difference 0, p 1, and Bonett and Price's width, for one row a prompt and for repeats."""
    for outcome in ([1, 0] * 30, [[1, 0, 1], [0, 0, 0]] * 30):
        out = stats.paired_difference(scores({"base": outcome, "b": outcome}), "base").iloc[1]
        assert out["diff"] == 0
        assert out["p_value"] == 1
        half = scipy.stats.t.ppf(0.975, 61) * np.sqrt(2 / 62 / 61)
        np.testing.assert_allclose([out["diff_lo"], out["diff_hi"]], [-half, half])


def test_constant_difference_has_width():
    """The same gain on every prompt is still a sample: the interval has width and holds the estimate."""
    out = stats.paired_difference(scores({"base": [0.2] * 12, "b": [0.7] * 12}), "base").iloc[1]
    assert out["diff_lo"] < out["diff"] <= out["diff_hi"]
    assert out["diff_hi"] - out["diff_lo"] > 0.05
    assert out["p_value"] == pytest.approx(2 / 2**12)


@pytest.mark.parametrize("group", [None, "one"])
def test_one_cluster_is_no_comparison(group):
    """A single prompt, or a single group: the estimate, without bounds or p."""
    frame = scores({"base": [0.0], "b": [1.0]} if group is None else {"base": [0, 0], "b": [1, 1]})
    out = stats.paired_difference(frame.assign(group=group), "base").iloc[1]
    assert out["diff"] == 1
    assert out[["diff_lo", "diff_hi", "p_value", "p_adjusted"]].isna().all()


def test_sign_flips_agree_with_the_exact_test():
    """Forced through sign flips, binary differences give McNemar's p."""
    rng = np.random.default_rng(2)
    d = rng.choice([-1.0, 0, 1], (6, 40), p=[0.1, 0.6, 0.3])
    flips = sign_flip(d, None, rng, 40_000)
    np.testing.assert_allclose(flips, stats.mcnemar((d > 0).sum(1), (d < 0).sum(1)), atol=0.01)


def test_few_clusters_are_flipped_exhaustively():
    """Few prompts: every sign pattern once, whatever the seed."""
    frame = scores({"base": [0.1, 0.2, 0.3], "b": [0.5, 0.5, 0.9], "c": [0.0, 0.9, 0.3]})
    one, two = (stats.paired_difference(frame, "base", seed) for seed in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert one.loc[1, "p_value"] == pytest.approx(2 / 8)


def test_seed_decides_the_flips():
    """Same seed same p-values; an int and a generator of it are the same."""
    rng = np.random.default_rng(0)
    frame = scores({c: list(rng.random(50)) for c in ("base", "b", "c")})
    first = stats.paired_difference(frame, "base", 3)
    pd.testing.assert_frame_equal(first, stats.paired_difference(frame, "base", 3))
    generator = np.random.default_rng(3)
    pd.testing.assert_frame_equal(first, stats.paired_difference(frame, "base", generator))
    other = stats.paired_difference(frame, "base", 4)["p_value"]
    assert not np.array_equal(first["p_value"], other, equal_nan=True)


@pytest.mark.parametrize(
    ("discordant", "gain"), [(0.02, 0.0), (0.05, 0.03), (0.2, 0.1), (0.5, 0.1)]
)
@pytest.mark.parametrize("n", [20, 60])
def test_difference_intervals_cover(n, discordant, gain):
    """At least 92 % of nominal 95 % intervals hold the true difference, also when almost all prompts tie.

    600 studies each: a correct interval fails with odds of about 1 in 1,000.

    The plain t interval covers 33 % at worst here, because its width is 0 when all prompts tie.
    """
    rng = np.random.default_rng(8)
    u = rng.random((600, n))
    d = np.where(u < (discordant + gain) / 2, 1, np.where(u < discordant, -1, 0))
    base = (rng.random(n) < 0.5).astype(int)
    base = np.where(d == 1, 0, np.where(d == -1, 1, base))
    lo, hi = np.empty(600), np.empty(600)
    for i in range(600):
        table = binary_table(np.vstack([base[i], base[i] + d[i]]))
        lo[i], hi[i] = stats.paired_difference(table, "c0").loc[1, ["diff_lo", "diff_hi"]]
    assert np.mean((lo <= gain + 1e-12) & (gain - 1e-12 <= hi)) > 0.92


@pytest.mark.parametrize("repeats", [1, 3])
def test_holm_keeps_the_family_wise_error(repeats):
    """Twelve cells that equal the baseline: a false claim in at most 5 % of studies (up to chance: 300 studies).

    Above 8 % would happen by chance less than once in 100 if the true rate were 5 %; without Holm it is above 20 %.
    """
    rng = np.random.default_rng(4)
    false, naive = 0, 0
    for _ in range(300):
        ease = rng.beta(0.8, 0.8, 40)
        table = binary_table(rng.binomial(repeats, ease, (13, 40)), repeats)
        out = stats.paired_difference(table, "c0", rng, n_flips=2_999)
        false += (out["p_adjusted"] < 0.05).any()
        naive += (out["p_value"] < 0.05).any()
    assert false / 300 < 0.08
    assert naive / 300 > 0.12


def test_a_real_difference_is_found():
    """A cell 20 points better on 80 prompts is told apart in most studies, with 12 comparisons counted."""
    rng = np.random.default_rng(6)
    found = 0
    for _ in range(60):
        ease = np.repeat(rng.beta(0.8, 0.8, (1, 80)), 13, axis=0)
        ease[12] = np.clip(ease[12] + 0.3, 0, 1)
        table = binary_table(rng.binomial(3, ease), 3)
        found += (
            stats.paired_difference(table, "c0", rng, n_flips=2_999)["p_adjusted"].iloc[12] < 0.05
        )
    assert found > 50


# Adjusting


def test_holm_by_hand():
    """The textbook steps, in the order given."""
    np.testing.assert_allclose(stats.adjust([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])


@given(P_VALUES, st.sampled_from(["holm", "bh"]))
@settings(max_examples=60, deadline=None)
def test_adjusting_keeps_order_range_and_nan(p, method):
    """Adjusted values are in 0..1, no smaller, in the same order; NaN stays and does not count."""
    out = stats.adjust(p, method)
    known = ~np.isnan(np.array(p, float))
    assert (np.isnan(out) == ~known).all()
    before, after = np.array(p, float)[known], out[known]
    assert ((after >= before - 1e-12) & (after <= 1)).all()
    assert (np.diff(after[np.argsort(before)]) >= -1e-12).all()
    np.testing.assert_array_equal(stats.adjust(before, method), after)


# The front of a table


def test_pareto_orders_and_is_sure_of_clear_cases():
    """The clearly dominated cell is never on the front, the best and the fastest always; unmeasured is missing."""
    n = 40
    frame = scores(
        {"best": [1] * n, "fast": [1, 0] * (n // 2), "bad": [0] * n, "unmeasured": [1] * n}
    )
    rows = [
        (cell, f"p{p}", r, ms + 5 * p + r)
        for cell, ms in (("best", 300), ("fast", 100), ("bad", 300.5))
        for p in range(6)
        for r in range(3)
    ]
    latency = pd.DataFrame(rows, columns=["cell_id", "prompt_id", "round", "e2el_ms"])
    out = stats.pareto(frame, 500, 1, latency=latency).set_index("cell_id")
    assert out["on_front"].tolist() == [True, True, False, pd.NA]
    np.testing.assert_array_equal(out["p_on_front"], [1, 1, 0, np.nan])
    assert out.loc["fast", "latency"] == pytest.approx(100 + 12.5 + 1, abs=2.6)
    again = stats.pareto(frame, 500, 1, latency=latency).set_index("cell_id")
    pd.testing.assert_frame_equal(out, again)


def test_chance_of_the_front_follows_the_evidence():
    """A slower cell that is one prompt of forty better: on the front here, but far from surely."""
    frame = scores({"a": [1, 0] * 20, "b": [1, 0] * 19 + [1, 1]})
    latency = pd.DataFrame(
        {"cell_id": ["a", "b"] * 3, "prompt_id": list("xxyyzz"), "e2el_ms": [1.0, 2.0] * 3}
    )
    out = stats.pareto(frame, 4_000, 0, latency=latency)
    assert out["on_front"].all()
    # b stays ahead unless its one better prompt is never drawn: 1 - (39/40)^40
    assert out["p_on_front"].tolist() == [1.0, pytest.approx(1 - (39 / 40) ** 40, abs=0.03)]
