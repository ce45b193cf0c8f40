"""What each setting does: averages over the other settings, with intervals that pair the cells.

A mean over cells is balanced: only those combinations of the other settings count that every level was run with, so that no
level is better for having run in better company. A greedy cell takes part at every level of top_k, top_p and min_p that
the run has, because it is the same cell at each. Intervals: see `workbench.measures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench import words
from workbench.errors import WorkbenchError
from workbench.factors import Average, Design, average, design, level_text
from workbench.measures import (
    CellValues,
    Measure,
    RunTables,
    baseline_cell,
    cell_values,
    measure,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from workbench.resample import Rng

    Floats = NDArray[np.float64]


def design_of(run: RunTables | pd.DataFrame) -> Design:
    """The combinations of settings of a run (cells that were merged into others included) or of a summary."""
    if isinstance(run, pd.DataFrame):
        return design(run)
    plan = getattr(run, "plan", None)
    return design(run.cells, plan.collapsed if plan is not None else ())


def main_effects(
    run: RunTables | pd.DataFrame,
    value: str = "quality",
    *,
    baseline: str | None = None,
    level: float = 0.95,
    n_boot: int = 2_000,
    rng: Rng = 0,
) -> pd.DataFrame:
    """Each setting that varies: the average of every level, the other settings averaged out.

    The average of a level is the mean of cell values over the combinations of the other settings that were run, and have a
    value, at every level of this setting. On a full grid these are all cells.

    Args:
        run: A run, or a summary (then without intervals).
        value: A column of the summary.
        baseline: Cell that ``diff_vs_baseline`` compares with; default: the run's.
        level: Confidence level, strictly between 0 and 1.
        n_boot: Resamples of the prompts.
        rng: Generator or seed of the resamples.

    Returns:
        One row per setting and level, in order: ``setting``, ``level`` (None = off), ``text`` (the level for people), ``mean``
        with ``lo`` and ``hi``, ``diff`` (from the average over this setting's levels) with ``diff_lo`` and ``diff_hi`` (the same
        prompts at every level, so how hard they are drops out), ``n_cells``, ``n_known`` (cells of the run that have a
        value), ``n_used`` and ``n_others`` (combinations of the other settings: used, and in the run). Units as in the summary. NaN where no combination is complete, and
        where one and the same cells stand for all levels.

    Raises:
        WorkbenchError: No such value, or no setting varies.
    """
    about = design_of(run)
    if not about.varied:
        raise WorkbenchError("no setting varies in this run, so none can have an effect")
    values = cell_values(run, value, baseline=baseline, level=level, n_boot=n_boot, rng=rng)
    return pd.concat(
        [_effect(about, values, (name,), level) for name in about.varied], ignore_index=True
    )


def interaction(
    run: RunTables | pd.DataFrame,
    a: str,
    b: str,
    value: str = "quality",
    *,
    baseline: str | None = None,
    level: float = 0.95,
    n_boot: int = 2_000,
    rng: Rng = 0,
) -> pd.DataFrame:
    """Whether one setting's effect depends on another: the average of every pair of levels, the other settings averaged out.

    Args:
        run: As for `main_effects`, as are the other arguments.
        a: A setting.
        b: Another.
        value: A column of the summary.
        baseline: Cell that ``diff_vs_baseline`` compares with.
        level: Confidence level.
        n_boot: Resamples.
        rng: Generator or seed.

    Returns:
        One row per pair that was run: ``a`` and ``b`` (levels), ``a_text`` and ``b_text``, and the columns of `main_effects` from
        ``mean`` on; ``diff`` is from the average over all pairs.

    Raises:
        WorkbenchError: No such value or setting, a setting that does not vary, or the same one twice.
    """
    about = design_of(run)
    for name in (a, b):
        if len(about.levels[about.check(name)]) < 2:
            raise WorkbenchError(f"{name} does not vary in this run")
    if a == b:
        raise WorkbenchError(f"a and b must be two different settings, got {a} twice")
    values = cell_values(run, value, baseline=baseline, level=level, n_boot=n_boot, rng=rng)
    return _effect(about, values, (a, b), level)


def _effect(about: Design, values: CellValues, by: tuple[str, ...], level: float) -> pd.DataFrame:
    """Averages by the levels of one setting or of two."""
    known = ~np.isnan(values.point)
    groups = average(about, by, values.cells, known)
    alive = np.asarray(groups.weights.any(1))
    same = alive.sum() > 1 and bool((groups.weights[alive] == groups.weights[alive][0]).all())
    weights = np.zeros_like(groups.weights) if same else groups.weights
    alive = np.asarray(weights.any(1))
    middle = weights[alive].mean(0) if alive.any() else np.zeros(len(known))
    mean = _sum(weights, values.point)
    lo, hi = values.bounds(weights, level)
    diff_lo, diff_hi = values.bounds(np.where(alive[:, None], weights - middle, 0), level)
    named = {} if len(by) > 1 else {"setting": by[0]}
    keys = ("level",) if len(by) == 1 else ("a", "b")
    texts = ("text",) if len(by) == 1 else ("a_text", "b_text")
    levels = {
        key: pd.Series([about.levels[name][c] for c in groups.codes[name]], dtype=object)
        for key, name in zip(keys, by, strict=True)
    }
    return pd.DataFrame(
        named
        | levels
        | {
            text: [level_text(name, v) for v in levels[key]]
            for text, key, name in zip(texts, keys, by, strict=True)
        }
        | {
            "mean": mean,
            "lo": lo,
            "hi": hi,
            "diff": mean - (np.mean(mean[alive]) if alive.any() else np.nan),
            "diff_lo": diff_lo,
            "diff_hi": diff_hi,
            "n_cells": (weights > 0).sum(1),
            "n_known": int(known.sum()),
            "n_used": 0 if same else groups.n_used,
            "n_others": groups.n_others,
        },
        index=range(len(mean)),
    )


def _sum(weights: Floats, point: Floats) -> Floats:
    total: Floats = weights @ np.nan_to_num(point)
    return np.where(weights.any(1), total, np.nan)


# ------------------------------------------------------------------------------------------ two settings


@dataclass(frozen=True, slots=True)
class Squares:
    """A grid over two settings.

    Attributes:
        x: The setting across.
        y: The setting down.
        x_texts: Its levels, left to right.
        y_texts: Its levels, top to bottom.
        measure: What is shown.
        table: One row per square: ``x`` and ``y`` (positions of the levels), ``x_text``, ``y_text``, ``value``, ``lo``, ``hi`` (NaN
            without interval), ``n_cells``, ``cells`` (ids), ``state`` ("value", "no value" or "not run"), ``baseline`` (it holds the
            baseline) and ``best``. Units as in the summary.
        fixed: Settings held at one value: name to text.
        averaged: Settings averaged over: name to the texts of their levels.
        n_used: Combinations of those that every square averages over.
        n_others: Combinations of those in the run.
        balanced: True if every square averages the same combinations of those.
        shared: Settings of which a greedy cell stands for every level.
        n_prompts: Prompts behind the values; None where it is not known.
    """

    x: str
    y: str
    x_texts: tuple[str, ...]
    y_texts: tuple[str, ...]
    measure: Measure
    table: pd.DataFrame
    fixed: Mapping[str, str]
    averaged: Mapping[str, tuple[str, ...]]
    n_used: int
    n_others: int
    balanced: bool
    shared: tuple[str, ...]
    n_prompts: int | None


def squares(
    run: RunTables | pd.DataFrame,
    x: str | None = None,
    y: str | None = None,
    value: str = "quality",
    *,
    where: Mapping[str, Any] | None = None,
    summary: pd.DataFrame | None = None,
    baseline: str | None = None,
    level: float = 0.95,
    n_boot: int = 2_000,
    rng: Rng = 0,
) -> Squares:
    """One measure over two settings, the others fixed or averaged.

    Args:
        run: A run, or a summary (then with the intervals of single cells only).
        x: The setting across; default: the second that varies.
        y: The setting down; default: the first that varies and is not ``x``.
        value: A column of the summary.
        where: Settings to hold at one value (None = off); the others are averaged.
        summary: The run's summary, if there is one already; for columns that are in no table of the run.
        baseline: Cell id; default: the run's.
        level: Confidence level, strictly between 0 and 1.
        n_boot: Resamples of the prompts.
        rng: Generator or seed of the resamples.

    Returns:
        The squares. The interval of a square of one cell is the summary's; of several, from resampled prompts.

    Raises:
        WorkbenchError: No such value or setting, or no two settings vary.
    """
    about = design_of(run).only(where or {})
    x, y = _axes(about, x, y, where or {})
    values = cell_values(
        run, value, baseline=baseline, summary=summary, level=level, n_boot=n_boot, rng=rng
    )
    shown = measure(value, [value])
    groups = average(about, (y, x), values.cells, ~np.isnan(values.point), strict=False)
    table = _square_table(about, groups, values, (x, y), level)
    own = _own(run, baseline)
    table["baseline"] = [own in cells for cells in table["cells"]]
    table["best"] = _best(table["value"].to_numpy(float), shown.better)
    return Squares(
        x,
        y,
        tuple(level_text(x, v) for v in about.levels[x]),
        tuple(level_text(y, v) for v in about.levels[y]),
        shown,
        table,
        {n: level_text(n, about.levels[n][0]) for n in where or {}},
        {
            n: tuple(level_text(n, v) for v in about.levels[n])
            for n in about.varied
            if n not in (x, y)
        },
        groups.n_used,
        groups.n_others,
        groups.balanced,
        about.shared,
        values.n_prompts,
    )


def _axes(about: Design, x: str | None, y: str | None, where: Mapping[str, Any]) -> tuple[str, str]:
    """The settings across and down."""
    for name in (x, y):
        if name in where:
            raise WorkbenchError(f"{name} is an axis and cannot be fixed as well")
        if name is not None:
            about.check(name)
    free = [name for name in about.varied if name not in (x, y)]
    if x is None and (y is None or not free):
        x = free.pop(1) if len(free) > 1 else None
    if x is None and free:
        x = free.pop(0)
    if y is None and free:
        y = free.pop(0)
    if x is None or y is None or len(about.levels[x]) == len(about.levels[y]) == 1:
        varied = ", ".join(about.varied) or "none"
        raise WorkbenchError(f"a heat map needs two settings that vary; varied: {varied}")
    if x == y:
        raise WorkbenchError(f"x and y must be two different settings, got {x} twice")
    return x, y


def _square_table(
    about: Design, groups: Average, values: CellValues, axes: tuple[str, str], level: float
) -> pd.DataFrame:
    """One row per square, whether it was run or not."""
    x, y = axes
    lo, hi = values.bounds(groups.weights, level)
    alone = _alike(groups.weights > 0, values)
    single = groups.weights.argmax(1)
    lo, hi = np.where(alone, values.lo[single], lo), np.where(alone, values.hi[single], hi)
    point = _sum(groups.weights, values.point)
    ids = np.asarray(values.cells, object)
    there = {(row[y], row[x]): i for i, row in enumerate(groups.codes[[y, x]].to_dict("records"))}
    ran = about.table.groupby([y, x])["cell_id"].unique().to_dict()
    rows = []
    for yi, y_level in enumerate(about.levels[y]):
        for xi, x_level in enumerate(about.levels[x]):
            row = {
                "x": xi,
                "y": yi,
                "x_text": level_text(x, x_level),
                "y_text": level_text(y, y_level),
                "value": np.nan,
                "lo": np.nan,
                "hi": np.nan,
                "n_cells": 0,
                "cells": tuple(ran.get((yi, xi), ())),
                "state": "no value" if (yi, xi) in ran else "not run",
            }
            i = there.get((yi, xi))
            if i is not None and groups.weights[i].any():
                used = groups.weights[i] > 0
                row |= {"value": point[i], "lo": lo[i], "hi": hi[i], "n_cells": int(used.sum())}
                row |= {"cells": tuple(ids[used]), "state": "value"}
            rows.append(row)
    return pd.DataFrame(rows)


def _alike(used: NDArray[np.bool_], values: CellValues) -> NDArray[np.bool_]:
    """Squares of one cell, or of cells that answered alike: their interval is that of one of them."""
    known = np.vstack([values.point, values.draws])
    blocks = [known[:, row] for row in used]
    told = bool(len(values.draws))  # without draws equal values need not come from equal answers
    return np.array(
        [
            b.shape[1] == 1
            or (told and b.size > 0 and np.array_equal(b, b[:, [0] * b.shape[1]], equal_nan=True))
            for b in blocks
        ],
        bool,
    )


def _own(run: RunTables | pd.DataFrame, baseline: str | None) -> str | None:
    """The baseline's cell id, if it can be told."""
    if not isinstance(run, pd.DataFrame):
        return baseline_cell(run.cells, baseline)
    return words.baseline_of(run) if baseline is None else baseline


def _best(values: Floats, better: int) -> NDArray[np.bool_]:
    """Which squares are best, ties together; none if there is no better and worse, or all are alike."""
    scores = values * better
    known = scores[~np.isnan(scores)]
    if not better or not known.size or np.ptp(known) < 1e-12:
        return np.zeros(len(values), bool)
    return np.asarray(scores >= np.nanmax(scores) - 1e-12)
