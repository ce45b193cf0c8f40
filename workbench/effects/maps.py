"""One measure over two settings: the squares of a heat map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench import words
from workbench.effects.blocks import Averages, Blocks, averages, in_common
from workbench.effects.levels import design_of
from workbench.effects.values import CellValues, cell_values, interval
from workbench.errors import WorkbenchError
from workbench.factors import Crossing, Design, cross, level_text
from workbench.measures import Measure, RunTables, baseline_cell, failed_rows, measure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from workbench.resample import Rng

    Floats = NDArray[np.float64]


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
        balanced: True if every square averages the same combinations of those, on the same prompts; else none is best.
        shared: Settings on an axis of which a greedy cell stands for every level.
        sampled: Settings on an axis for whose sake greedy cells are left out.
        n_prompts: Most prompts behind a square; None where it is not known.
        n_fewest: Fewest.
        n_asked: Prompts of the run; None where it is not known.
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
    sampled: tuple[str, ...]
    n_prompts: int | None
    n_fewest: int | None
    n_asked: int | None


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

    All squares are over the prompts and combinations of the other settings that every one of them has an answer to. If that
    is less than half of what one of them has, each is over its own, and ``balanced`` is False. If an axis is top_k, top_p
    or min_p and none is temperature, greedy cells are left out: they say nothing there.

    Args:
        run: A run, or a summary (then with the intervals of single cells only, each cell over its own prompts).
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
        The squares. A square of one cell over all of its prompts has the summary's value and interval; the interval of one
        of several is from resampled prompts.

    Raises:
        WorkbenchError: No such value or setting, no two settings vary, or only greedy cells are left for axes that do
            nothing to them.
    """
    about = design_of(run).only(where or {})
    x, y = _axes(about, x, y, where or {})
    values = cell_values(
        run, value, baseline=baseline, summary=summary, level=level, n_boot=n_boot, rng=rng
    )
    shown = measure(value, [value])
    moot = about.moot((y, x))
    about = about.acting((y, x))
    crossing = cross(about, (y, x), values.cells)
    blocks = in_common(crossing, values.known, every=True)
    means = averages(values, crossing, blocks)
    table = _square_table(about, crossing, _numbers(values, crossing, blocks, means), (x, y))
    own = _own(run, baseline)
    table["baseline"] = [own in cells for cells in table["cells"]]
    balanced = blocks.balanced and not failed_rows(run)
    table["best"] = _best(table["value"].to_numpy(float), shown.better) & balanced
    counted = values.table is not None
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
        blocks.n_used,
        blocks.n_others,
        balanced,
        () if moot else tuple(n for n in about.shared if n in (x, y)),
        moot,
        blocks.n_most if counted else values.n_prompts,
        blocks.n_fewest if counted else values.n_prompts,
        values.n_asked,
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


def _numbers(
    values: CellValues, crossing: Crossing, blocks: Blocks, means: Averages
) -> pd.DataFrame:
    """Value, bounds and cells of every group."""
    lo, hi = interval(means.draws, means.units, values.level)
    point = means.point.copy()
    alone = _alone(values, crossing, blocks)
    if alone:
        groups = np.array(list(alone))
        cells = np.array([cell for cell, _ in alone.values()])
        keep = np.array([mask for _, mask in alone.values()])
        lo[groups], hi[groups] = values.bounds(cells, keep)
        whole = (keep == values.known[cells]).all(1)
        point[groups] = np.where(whole, values.point[cells], point[groups])
    ids = np.asarray(values.cells, object)
    return pd.DataFrame(
        {
            "value": point,
            "lo": lo,
            "hi": hi,
            "n_cells": means.cells.sum(1),
            "cells": [tuple(ids[used]) for used in means.cells],
        }
    )


def _alone(
    values: CellValues, crossing: Crossing, blocks: Blocks
) -> dict[int, tuple[int, NDArray[np.bool_]]]:
    """Groups of one cell, or of cells that answered alike, on one set of prompts: that cell, and the prompts."""
    found = {}
    counts = blocks.mask.any(1)
    for group in np.unique(crossing.group[counts]):
        rows = np.flatnonzero(counts & (crossing.group == group))
        cells, mask = crossing.cell[rows], blocks.mask[rows[0]]
        if (blocks.mask[rows] != mask).any():
            continue
        told = values.table is not None  # else equal values need not come from equal answers
        if (cells == cells[0]).all() or (
            told and bool((values.x[cells][:, mask] == values.x[cells[0], mask]).all())
        ):
            found[int(group)] = int(cells[0]), mask
    return found


def _square_table(
    about: Design, crossing: Crossing, numbers: pd.DataFrame, axes: tuple[str, str]
) -> pd.DataFrame:
    """One row per square, whether it was run or not."""
    x, y = axes
    there = {(row[y], row[x]): i for i, row in enumerate(crossing.codes.to_dict("records"))}
    ran = about.table.groupby([y, x])["cell_id"].unique().to_dict()
    rows = []
    for yi, y_level in enumerate(about.levels[y]):
        for xi, x_level in enumerate(about.levels[x]):
            row: dict[str, Any] = {
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
            if i is not None and numbers["n_cells"][i]:
                row |= {str(k): v for k, v in numbers.loc[i].items()} | {"state": "value"}
            rows.append(row)
    return pd.DataFrame(rows)


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
