"""Whether what an adapter gains depends on a decoding setting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats

from workbench import resample
from workbench.comparing.gains import TINY, clean, differences, estimates
from workbench.factors import SAMPLING, level_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.comparing.gains import Answers, Pair
    from workbench.factors import Design

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

FEWEST: Final = 10
"""Fewest prompts, or groups of them, for a test."""
N_BOOT: Final = 4_000
"""Resamples of the prompts."""


class Dependence(NamedTuple):
    """Whether the gain of one adapter depends on one setting.

    Attributes:
        levels: One row per level: ``level``, ``n_cells``, ``gain``, ``gain_lo``, ``gain_hi``.
        contrast: ``highest`` and ``lowest`` (levels), ``contrast`` (gain of the highest minus that of the lowest) with
            ``contrast_lo`` and ``contrast_hi``, ``p_value``, ``n_prompts`` and ``why_not`` (why it is not tested, or None).
    """

    levels: pd.DataFrame
    contrast: dict[str, Any]


def dependence(
    answers: Answers,
    pairs: Sequence[Pair],
    design: Design,
    setting: str,
    *,
    where: Mask,
    rng: np.random.Generator,
    level: float,
) -> Dependence:
    """The gain at each level of a setting, the other settings averaged out, and the widest difference between two levels.

    The two levels are picked for being furthest apart, so chance alone makes some contrast. Therefore the bootstrap (prompts,
    or whole groups of them, the same draw at every level) gives the distribution of the *widest* difference between any two
    levels around their estimates; interval and p-value are from its quantile, and hold for all pairs of levels at once (as
    Tukey's do). Quantiles are widened for few prompts by sqrt(n/(n-1)) t/z (Hesterberg 2015). Only prompts scored in all
    cells that take part count.

    Args:
        answers: All answers.
        pairs: The pairs of one adapter.
        design: The combinations of settings of that adapter.
        setting: One that varies.
        where: The prompts that count.
        rng: Generator of the resamples.
        level: Confidence level.
    """
    d = differences(answers, pairs, where)
    known = np.asarray(~np.isnan(d).all(1))
    codes, weights = _balanced(design, setting, [p.cell for p in pairs], known)
    used, alive = weights.any(0), weights.any(1)
    full = ~np.isnan(d[used]).any(0) & used.any()
    clusters = answers.clusters(where)
    if clusters is not None:
        clusters = np.unique(clusters[full], return_inverse=True)[1]
    gains = clean(weights @ np.nan_to_num(d[:, full]))
    gains[~alive] = np.nan
    nothing = np.zeros(len(gains), bool)
    found = estimates(gains, clusters, binary=nothing, once=~nothing, rng=rng, level=level)
    texts = [level_text(setting, design.levels[setting][code]) for code in codes]
    levels = pd.DataFrame(
        {
            "level": texts,
            "n_cells": (weights > 0).sum(1),
            "gain": found["diff"],
            "gain_lo": found["diff_lo"],
            "gain_hi": found["diff_hi"],
        }
    )
    contrast: dict[str, Any] = {"n_prompts": int(full.sum()), "why_not": None}
    contrast |= dict.fromkeys(("contrast", "contrast_lo", "contrast_hi", "p_value"), np.nan)
    contrast |= {"highest": None, "lowest": None}
    same = alive.sum() > 1 and bool((weights[alive] == weights[alive][0]).all())
    n = int(full.sum()) if clusters is None else int(clusters.max(initial=-1)) + 1
    if alive.sum() < 2:
        contrast["why_not"] = (
            "no combination of the other settings was run and scored at every level"
        )
    elif same:
        contrast["why_not"] = "one and the same cells stand for all its levels"
    elif not n:
        contrast["why_not"] = "no prompt was scored in all of its cells"
    else:
        top, low = int(np.nanargmax(found["diff"])), int(np.nanargmin(found["diff"]))
        contrast |= {"highest": texts[top], "lowest": texts[low]}
        contrast["contrast"] = float(found["diff"][top] - found["diff"][low])
        if n < FEWEST:
            contrast["why_not"] = f"{n} prompts or groups are too few (it takes {FEWEST})"
        elif np.ptp(gains[alive], axis=0).max() < TINY:
            contrast["why_not"] = "every prompt gains the same at all its levels"
        else:
            contrast |= _widest(gains[alive], clusters, n, rng, level)
    return Dependence(levels, contrast)


def _balanced(
    design: Design, setting: str, cells: Sequence[str], known: Mask
) -> tuple[list[int], Floats]:
    """Levels of a setting that were run, and how the gain at each averages over cells, shape (levels, cells).

    Only those combinations of the other settings count that were run, and are known, at every level that has any: no level
    is better for having run in better company. Rows sum to 1, or to 0 for a level without cells.
    """
    table = design.table
    if setting in SAMPLING:  # does nothing in a greedy cell, whose gain would stand at every level
        greedy = [i for i, value in enumerate(design.levels["temperature"]) if value == 0]
        table = table[~table["temperature"].isin(greedy)]
    others = [name for name in design.varied if name != setting]
    rest = table.groupby(others).ngroup().to_numpy() if others else np.zeros(len(table), int)
    column = pd.Index(cells).get_indexer(pd.Index(table["cell_id"]))
    usable = (column >= 0) & known[column]
    codes = sorted({int(code) for code in table.loc[column >= 0, setting]})
    group = pd.Index(codes).get_indexer(pd.Index(table[setting]))
    count = np.zeros((int(rest.max(initial=-1)) + 1, len(codes)))
    np.add.at(count, (rest[usable], group[usable]), 1)
    alive = np.asarray(count.any(0))
    full = np.asarray((count[:, alive] > 0).all(1)) & alive.any()
    weights = np.zeros((len(codes), len(cells)))
    kept = np.flatnonzero(usable & full[rest])
    shares = 1 / (max(full.sum(), 1) * count[rest[kept], group[kept]])
    np.add.at(weights, (group[kept], column[kept]), shares)
    return codes, weights


def _widest(
    gains: Floats, codes: NDArray[np.intp] | None, n: int, rng: np.random.Generator, level: float
) -> dict[str, float]:
    """Interval and p-value of the widest difference between levels: gains of shape (levels, prompts), n clusters."""
    sums = resample.by_cluster(gains, codes)
    sizes = resample.by_cluster(np.ones_like(gains), codes)
    drawn = np.concatenate(
        [
            resample.draw_means(sums, sizes, stop - start, rng)
            for start, stop in resample.chunks(N_BOOT, max(sums.shape[1], 1))
        ]
    )
    mean = gains.mean(1)
    upper = resample.upper(level)
    wider = np.sqrt(n / (n - 1)) * scipy.stats.t.ppf(upper, n - 1) / scipy.stats.norm.ppf(upper)
    ranges = wider * np.ptp(drawn - mean, axis=1)
    seen = float(np.ptp(mean))
    half = float(np.quantile(ranges, level))
    p = (int((ranges >= seen - TINY).sum()) + 1) / (N_BOOT + 1)
    return {"contrast_lo": seen - half, "contrast_hi": seen + half, "p_value": p}
