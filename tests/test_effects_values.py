"""Values of cells: the same as the summary's, with intervals that pair the cells and keep their promise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fakeruns import make_run

from workbench.effects.values import cell_values, interval
from workbench.errors import WorkbenchError
from workbench.measures import MEASURES

RUN = make_run(n_prompts=30, confirm=0.4)
"""Fourteen cells; some prompts held out."""


def drawn(values) -> tuple[np.ndarray, int]:
    """Resamples of the mean of every cell."""
    return values.resampled(np.nan_to_num(values.x), values.known.astype(float))


@pytest.mark.parametrize("value", [*MEASURES, "p_on_front", "n_failed"])
def test_values_are_the_summarys(value):
    """Every measure, cell by cell, is what the summary says, held-out prompts left aside."""
    expected = pd.to_numeric(RUN.summary()[value]).to_numpy(float, na_value=np.nan)
    found = cell_values(RUN, value, n_boot=10)
    assert found.cells == list(RUN.summary()["cell_id"])
    np.testing.assert_allclose(found.point, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("value", "stem"), [("quality", "quality"), ("diff_vs_baseline", "diff")])
def test_bounds_of_single_cells_are_the_summarys(value, stem):
    """The interval of one cell is the one in the summary."""
    found = cell_values(RUN, value, n_boot=10)
    np.testing.assert_allclose(found.lo, RUN.summary()[f"{stem}_lo"], atol=1e-12)
    np.testing.assert_allclose(found.hi, RUN.summary()[f"{stem}_hi"], atol=1e-12)


def test_a_summary_has_no_draws():
    """From a summary alone there are values and its own intervals, and nothing to resample."""
    table = RUN.summary()
    found = cell_values(table, "quality")
    np.testing.assert_array_equal(found.point, table["quality"])
    np.testing.assert_array_equal(found.lo, table["quality_lo"])
    draws, units = drawn(found)
    assert draws.shape == (0, len(table))
    assert np.isnan(interval(draws, units, 0.95)).all()
    assert found.x.shape == (len(table), 1)


def test_failed_and_unscored_rows_do_not_count():
    """Errors are left out of rates and quality; a cell without a score has none, and no bounds."""
    run = make_run(n_prompts=12)
    first, second = run.cells["cell_id"][:2]
    run.scores.loc[run.scores["cell_id"].eq(first), "value"] = np.nan
    bad = run.generations["cell_id"].eq(second) & run.generations["prompt_id"].isin(
        ["sum-001", "sum-002"]
    )
    run.generations.loc[bad, "finish_reason"] = "error"
    expected = run.summary().set_index("cell_id")
    for value in ("quality", "truncated_rate", "n_output_tokens_mean"):
        found = cell_values(run, value, n_boot=20)
        np.testing.assert_allclose(found.point, expected[value], atol=1e-12)
    quality = cell_values(run, "quality", n_boot=20)
    assert np.isnan(quality.point[0])
    assert not quality.known[0].any()
    assert quality.known[1].sum() == 10
    assert (quality.n_prompts, quality.n_asked) == (12, 12)
    assert np.isnan(interval(*drawn(quality), 0.95)[0][0])


def test_draws_are_paired_and_repeatable():
    """The same seed gives the same draws; what all cells share drops out of a difference."""
    shared = make_run(
        {"temperature": [0.5, 0.9]},
        40,
        1,
        right=lambda cell: 0.3 + 0.1 * (cell.params.temperature > 0.6),
        exact=True,
    )
    swing = np.linspace(-0.25, 0.25, 40)
    prompt = shared.scores["prompt_id"].str.slice(4).astype(int)
    shared.scores["value"] += swing[prompt]
    one = cell_values(shared, "quality", rng=3)
    draws, units = drawn(one)
    np.testing.assert_array_equal(draws, drawn(cell_values(shared, "quality", rng=3))[0])
    assert np.ptp(draws[:, 0]) > 0.02
    np.testing.assert_allclose(draws[:, 1] - draws[:, 0], 0.1, atol=1e-9)
    lo, hi = interval(draws @ np.array([[1.0, 0.0], [-1.0, 1.0]]).T, units, 0.95)
    assert lo[0] < one.point[0] < hi[0]
    assert np.isnan([lo[1], hi[1]]).all()  # the difference never varies: no interval


def test_groups_are_drawn_whole():
    """Prompts of one group are resampled together: two groups of equal prompts have only three possible means."""
    run = make_run({"temperature": [0.5, 0.9]}, 10, 1, right=lambda _: 0.5, exact=True)
    first = run.scores["prompt_id"] < "sum-005"
    run.scores["value"] = np.where(first, 0.2, 0.8)
    run.generations["group"] = np.where(run.generations["prompt_id"] < "sum-005", "a", "b")
    found = cell_values(run, "quality", n_boot=400)
    draws, units = drawn(found)
    assert units == 2
    assert found.n_prompts == 10
    assert set(np.round(draws[:, 0], 9)) == {0.2, 0.5, 0.8}


def test_latency_needs_enough_requests():
    """Below twenty timed requests a cell there is a median and no interval; without any, nothing."""
    run = make_run(n_prompts=10)
    few = run.latency["round"].eq(0)
    run.latency = run.latency[few]
    found = cell_values(run, "e2el_ms_p50", n_boot=50)
    assert np.isfinite(found.point).all()
    assert found.given.shape == (50, len(found.point))
    assert np.isnan(interval(found.given, 8, 0.95)).all()
    untimed = cell_values(make_run(n_prompts=3, timed=False), "ttft_ms_p50")
    assert np.isnan(untimed.point).all()


def test_intervals_cover_the_truth():
    """Of 120 made-up runs, about 95 % of the 95 % intervals hold the true difference, with few prompts too."""
    for n, least in ((8, 0.88), (40, 0.88)):
        hits, seen = 0, 0
        base = make_run(
            {"temperature": [0.5, 0.9]}, n, 1, right=lambda _: 0.5, exact=True, timed=False
        )
        prompt = base.scores["prompt_id"].str.slice(4).astype(int).to_numpy()
        warm = base.scores["cell_id"].eq(base.cells["cell_id"][1]).to_numpy()
        rng = np.random.default_rng(5)
        for _ in range(120):
            ease = rng.normal(0.4, 0.1, n)[prompt]
            noise = rng.normal(0, 0.06, len(prompt))
            base.scores["value"] = np.clip(ease + 0.1 * warm + noise, 0, 1)
            found = cell_values(base, "quality", n_boot=200, rng=rng)
            draws, units = drawn(found)
            lo, hi = interval(draws @ np.array([[-1.0, 1.0]]).T, units, 0.95)
            hits += bool(lo[0] <= 0.1 <= hi[0])
            seen += 1
        assert least <= hits / seen <= 0.99, (n, hits / seen)


def test_unknown_measures_are_refused():
    """A column that is not there, and a baseline that is not."""
    with pytest.raises(WorkbenchError) as caught:
        cell_values(RUN, "qualty")
    assert str(caught.value) == "unknown value 'qualty', did you mean 'quality'?"
    with pytest.raises(WorkbenchError) as caught:
        cell_values(RUN.summary()[["cell_id", "quality"]], "loop_rate")
    assert str(caught.value) == "the summary has no column 'loop_rate'"
    with pytest.raises(WorkbenchError) as caught:
        cell_values(RUN, "diff_vs_baseline", baseline="nobody")
    assert str(caught.value).startswith("no cell 'nobody'; cells: greedy, greedy rep=1.1, ")


def test_own_intervals_over_some_prompts():
    """Over all of its prompts a cell has the summary's interval, over fewer the one that these alone would give."""
    found = cell_values(RUN, "quality", n_boot=1)
    which = np.array([0, 3])
    keep = found.known[which]
    lo, hi = found.bounds(which, keep)
    np.testing.assert_array_equal([lo, hi], [found.lo[which], found.hi[which]])
    keep = keep.copy()
    keep[1, 5:] = False
    lo, hi = found.bounds(which, keep)
    assert (lo[0], hi[0]) == (found.lo[0], found.hi[0])
    part = make_run(n_prompts=30, confirm=0.4)
    kept = found.table.prompts[:5]
    part.generations = part.generations[part.generations["prompt_id"].isin(kept)]
    alone = cell_values(part, "quality", n_boot=1)
    assert (lo[1], hi[1]) == pytest.approx((alone.lo[3], alone.hi[3]))


def test_own_intervals_of_differences_over_some_prompts():
    """The same for differences: the baseline keeps its prompts."""
    found = cell_values(RUN, "diff_vs_baseline", n_boot=1)
    keep = np.zeros((1, found.x.shape[1]), bool)
    keep[0, :6] = True
    lo, hi = found.bounds(np.array([4]), keep)
    part = make_run(n_prompts=30, confirm=0.4)
    part.generations = part.generations[part.generations["prompt_id"].isin(found.table.prompts[:6])]
    alone = cell_values(part, "diff_vs_baseline", n_boot=1)
    assert (lo[0], hi[0]) == pytest.approx((alone.lo[4], alone.hi[4]))


def test_lengths_that_nobody_counted_are_unknown():
    """Answers made elsewhere have no tokens: their mean length is unknown, not 0."""
    run = make_run({"temperature": [0.3, 0.9]}, 5, 1, timed=False)
    first = run.generations["cell_id"].eq(run.cells["cell_id"][0])
    run.generations.loc[first, "n_output_tokens"] = 0
    found = cell_values(run, "n_output_tokens_mean", n_boot=5)
    assert np.isnan(found.point[0])
    assert found.point[1] == pytest.approx(run.generations.loc[~first, "n_output_tokens"].mean())
