"""What each setting does, and whether that depends on another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.effects.blocks import Averages, averages, in_common
from workbench.effects.values import CellValues, cell_values, interval
from workbench.errors import WorkbenchError
from workbench.factors import Design, cross, design, level_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.measures import RunTables
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

    The average of a level is over the prompts and combinations of the other settings that every level of this setting
    has an answer to. On a full grid without failed rows these are all. A level that shares too little with the
    others (a cell beside the grid, say) is left out: `workbench.effects.blocks`. Greedy cells are left out of top_k,
    top_p and min_p, which do nothing there.

    Args:
        run: A run, or a summary (then without intervals, and each cell over its own prompts).
        value: A column of the summary.
        baseline: Cell that ``diff_vs_baseline`` compares with; default: the run's.
        level: Confidence level, strictly between 0 and 1.
        n_boot: Resamples of the prompts.
        rng: Generator or seed of the resamples.

    Returns:
        One row per setting and level, in order: ``setting``, ``level`` (None = off), ``text`` (the level for people), ``mean``
        with ``lo`` and ``hi``, ``diff`` (from the average over this setting's levels) with ``diff_lo`` and ``diff_hi`` (the same
        prompts at every level, so how hard they are drops out), ``n_cells``, ``n_known`` (cells of the run that have a
        value), ``n_used`` and ``n_others`` (combinations of the other settings: used, and run with these levels),
        ``n_fewest`` and ``n_most`` (prompts that such a combination is averaged over), ``n_asked`` (prompts of the run; -1 if not known),
        ``left_out`` (it has values, but shares too little with the other levels) and ``sampled`` (greedy cells are left out).
        Units as in the summary. NaN where nothing is shared, and where one and the same cells stand for all levels.

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

    If it does not, the averages add up from one part for the level of ``a`` and one for that of ``b``, and lines over the levels
    are parallel. ``extra`` is what is left of an average when the best such parts (least squares) are taken away; its interval
    is from the same resamples, so it says how far from parallel the lines are beyond chance. With two levels of each, the
    difference of the differences is four times ``extra``.

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
        ``mean`` on; ``diff`` is from the average over all pairs. Also ``extra`` with ``extra_lo`` and ``extra_hi`` (this pair taken
        alone): NaN where too few pairs were run to tell, and for greedy against top_k, top_p or min_p, which do nothing there.

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
    crossing = cross(about.acting(by), by, values.cells)
    blocks = in_common(crossing, values.known)
    means = averages(values, crossing, blocks)
    used = means.cells[blocks.kept]
    same = len(used) > 1 and bool((used == used[0]).all())
    alive = np.zeros_like(blocks.kept) if same else blocks.kept
    one, n = np.diag(alive.astype(float)), max(int(alive.sum()), 1)
    from_average = one - np.outer(alive, alive) / n
    columns = _contrast(means, one, "", alive, level)
    columns |= _contrast(means, from_average, "diff", alive, level)
    if len(by) == 2:
        tested = alive & ~_given(about, crossing.codes, by)
        extra = _residual(crossing.codes[list(by)].to_numpy(), tested)
        columns |= _contrast(means, extra, "extra", np.diag(extra) > 1e-9, level)
    return pd.DataFrame(
        _names(about, crossing.codes, by)
        | columns
        | {
            "n_cells": np.where(alive, means.cells.sum(1), 0),
            "n_known": int((~np.isnan(values.point)).sum()),
            "n_used": 0 if same else blocks.n_used,
            "n_others": blocks.n_others,
            "n_fewest": blocks.n_fewest if values.table is not None else (values.n_prompts or 0),
            "n_most": blocks.n_most if values.table is not None else (values.n_prompts or 0),
            "n_asked": -1 if values.n_asked is None else values.n_asked,
            "left_out": blocks.left_out & bool(alive.any()),
            "sampled": bool(about.moot(by)),
        },
        index=range(len(alive)),
    )


def _names(about: Design, codes: pd.DataFrame, by: tuple[str, ...]) -> dict[str, Any]:
    """The columns that say which level, or which pair of levels, a row is."""
    keys = {"level": "text"} if len(by) == 1 else {"a": "a_text", "b": "b_text"}
    named: dict[str, Any] = {"setting": by[0]} if len(by) == 1 else {}
    for key, name in zip(keys, by, strict=True):
        named[key] = pd.Series([about.levels[name][c] for c in codes[name]], dtype=object)
    for (key, text), name in zip(keys.items(), by, strict=True):
        named[text] = [level_text(name, v) for v in named[key]]
    return named


def _contrast(
    means: Averages, weights: Floats, stem: str, told: NDArray[np.bool_], level: float
) -> dict[str, Floats]:
    """Weighted sums of averages, shape (sums, groups), with their intervals; NaN where not ``told``."""
    used = weights.any(0)
    point = weights[:, used] @ means.point[used]
    lo, hi = interval(means.draws[:, used] @ weights[:, used].T, means.units, level)
    columns = (point, lo, hi)
    names = (stem or "mean", f"{stem}_lo".lstrip("_"), f"{stem}_hi".lstrip("_"))
    return {
        name: np.where(told, numbers, np.nan) for name, numbers in zip(names, columns, strict=True)
    }


def _given(about: Design, codes: pd.DataFrame, by: tuple[str, ...]) -> NDArray[np.bool_]:
    """Pairs of which the interaction is known beforehand: greedy with top_k, top_p or min_p, which do nothing there."""
    if "temperature" not in by or not set(by) & set(about.shared):
        return np.zeros(len(codes), bool)
    levels = about.levels["temperature"]
    return np.array([levels[code] == 0 for code in codes["temperature"]], bool)


def _residual(codes: NDArray[np.intp], alive: NDArray[np.bool_]) -> Floats:
    """What takes the two settings' own parts away from averages of pairs: shape (pairs, pairs).

    The projection off the space of tables that add up from a part per row and a part per column (least squares).
    """
    columns = [codes[:, k, None] == np.unique(codes[:, k]) for k in range(2)]
    parts = np.hstack(columns).astype(float)[alive]
    left = np.zeros((len(codes), len(codes)))
    left[np.ix_(alive, alive)] = np.eye(len(parts)) - parts @ np.linalg.pinv(parts)
    return np.where(np.abs(left) < 1e-12, 0.0, left)
