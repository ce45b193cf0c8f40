"""The chance of being on the front, and the area the front covers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import stats


def run(qualities: list[float], times: list[float], n: int = 60, seed: int = 0):
    """A table of random answers and its timings, two rounds of four prompts."""
    rng = np.random.default_rng(seed)
    x = (rng.random((len(qualities), n)) < np.array(qualities)[:, None]).astype(float)
    cells = np.array([f"c{i}" for i in range(len(qualities))])
    table = stats.PromptMeans(
        cells, np.arange(n), None, x, np.ones(x.shape, int), np.ones(len(x), bool)
    )
    rows = [
        (cell, p, r, ms * (1 + 0.1 * p) + rng.normal(0, 1))
        for cell, ms in zip(cells, times, strict=True)
        for p in range(4)
        for r in range(2)
    ]
    return table, pd.DataFrame(rows, columns=["cell_id", "prompt_id", "round", "e2el_ms"])


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1, 500)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_hypervolume_is_the_area_of_the_staircase(points):
    """Equal to the area counted column by column."""
    ordered = sorted(points, key=lambda p: p[1])
    area, best = 0.0, 0.0
    for i, (quality, ms) in enumerate(ordered):
        best = max(best, quality)
        end = ordered[i + 1][1] if i + 1 < len(ordered) else 400
        area += best * max(min(end, 400) - min(ms, 400), 0)
    found = stats.hypervolume(np.array(points).reshape(-1, 2), (0, 400))
    assert found == pytest.approx(area, abs=1e-6)


def test_hypervolume_keeps_leading_shapes_and_leaves_out_missing_points():
    """A stack gives a stack; a NaN point adds nothing; the direction of the axes can be turned."""
    points = np.array([[[0.5, 200], [np.nan, 100]], [[0.5, 200], [0.9, np.nan]]])
    np.testing.assert_allclose(stats.hypervolume(points, (0, 400)), [100, 100])
    turned = points * [-1, 1]
    np.testing.assert_allclose(
        stats.hypervolume(turned, (0, 400), maximise=(False, False)), [100, 100]
    )
    assert stats.hypervolume(np.empty((3, 0, 2)), (0, 400)).tolist() == [0, 0, 0]


def test_wrong_shapes_are_refused():
    """Points, reference and directions must agree, and the reference must be a number."""
    with pytest.raises(
        ValueError,
        match=r"^points must have shape \(\.\.\., n, axes\), ref and maximise one value for each axis, "
        r"got \(2,\), \(2,\) and \(2,\)$",
    ):
        stats.hypervolume([1, 2], (0, 400))
    with pytest.raises(ValueError, match=r"^ref must be finite, got \[0\.0, nan\]$"):
        stats.hypervolume([[1, 2]], (0, float("nan")))


def test_the_interval_of_the_area():
    """Bounds around the likely area, the same for the same seed; measured is the area of the points."""
    table, times = run([0.5, 0.6, 0.7], [100, 150, 220])
    one, again = (
        stats.front_hypervolume(table, 400, 3, latency=times, ref_ms=400) for _ in range(2)
    )
    assert one == again
    assert one.lo < one.likely < one.hi
    points = stats.pareto(table, 10, latency=times)[["quality", "latency"]]
    assert one.measured == pytest.approx(stats.hypervolume(points, (0, 400)))
    wide = stats.front_hypervolume(table, 400, 3, latency=times, ref_ms=400, level=0.99)
    assert wide.hi - wide.lo > one.hi - one.lo


def test_equal_cells_are_drawn_together():
    """Twelve equal cells on few prompts: the slow lucky winner is no sure member of the front, as plain resampling has it."""
    said, plain = [], []
    for seed in range(30):
        table, times = run([0.5] * 12, list(range(100, 700, 50)), 40, seed)
        out = stats.pareto(table, 200, seed, latency=times)
        lucky = out["quality"].iloc[1:].idxmax()
        said.append(out["p_on_front"].iloc[lucky])
        q = np.random.default_rng(seed).integers(0, 40, (200, 40))
        drawn = table.means[:, q].mean(2).T
        plain.append(stats.on_front(drawn, np.arange(12)).mean(0)[lucky])
    assert np.mean(said) < np.mean(plain) - 0.1


def test_one_cell_and_cells_that_never_differ():
    """A single cell is the front; of cells that always answer alike the fastest is."""
    table, times = run([0.5], [100])
    assert stats.pareto(table, 50, latency=times)["p_on_front"].tolist() == [1.0]
    table, times = run([1.0, 1.0], [100, 150])
    assert stats.pareto(table, 50, latency=times)["p_on_front"].tolist() == [1.0, 0.0]
