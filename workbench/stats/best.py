"""Many cells at once: does any differ, and which cannot be told from the best?

Both tests flip the signs of whole prompts (all cells of a prompt, or of a group of prompts, together), so they hold whatever
the correlation between cells. Cells with similar settings and common seeds agree far more with each other than with the
rest; the chi-square curve of Cochran's Q, which takes all pairs of cells for equally correlated, then cries wolf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.stats

from workbench.resample import by_cluster, upper
from workbench.stats.paired import MIN_FLIPS, Flips
from workbench.stats.table import as_table

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from workbench.stats.table import PromptMeans

    Floats = NDArray[np.float64]
    Rng = np.random.Generator | int


@dataclass(frozen=True, slots=True)
class Omnibus:
    """One test over all cells.

    Attributes:
        test: "Cochran's Q" for right-or-wrong scores, "Friedman" for graded ones.
        statistic: The statistic of that name, corrected for ties; NaN where it is not defined.
        p_value: From sign flips; NaN with fewer than two cells or clusters.
        n_cells: Cells with scores.
        n_prompts: Prompts scored in all of them, the only ones used.
    """

    test: str
    statistic: float
    p_value: float
    n_cells: int
    n_prompts: int

    @property
    def df(self) -> int:
        """Degrees of freedom of the chi-square curve that holds where all cells are equally correlated."""
        return max(self.n_cells - 1, 0)


def cochran_q(
    frame: pd.DataFrame | PromptMeans,
    rng: Rng = 0,
    *,
    value: str = "score",
    cluster: str = "group",
    n_flips: int = MIN_FLIPS,
) -> Omnibus:
    """Does any cell differ from any other? One test, so no correction for many.

    ``Q = (k - 1) sum_j (T_j - T)^2 / sum_c sum_j (x_cj - x_c)^2`` over k cells j and prompts c, T_j the cell's total
    (Cochran 1950). Right-or-wrong scores enter as each prompt's mean over repeats, which for one repeat is Cochran's Q;
    graded scores as ranks within the prompt, which gives Friedman's statistic (1937) with its correction for ties. The
    p-value is the share of sign patterns of whole prompts that reach Q (all patterns when there are few); with two cells and
    one 0/1 row a prompt, McNemar's exact test.

    Args:
        frame: As for `prompt_means`, or a ready `PromptMeans`.
        rng: Generator or seed for the sign flips.
        value: The score column.
        cluster: The column of related prompts; they are flipped together, and counted as one row of Q.
        n_flips: Sign flips drawn when there are more patterns than that.

    Raises:
        ValueError: A score is outside 0..1.
    """
    table = as_table(frame, value, cluster)
    known, x, codes = table.complete()
    k, n = x.shape
    graded = not table.binary[known].all()
    test = "Friedman" if graded else "Cochran's Q"
    if graded and x.size:
        x = scipy.stats.rankdata(np.round(x, 12), axis=0)
    d = by_cluster(x - x.mean(0), codes) if x.size else x
    d[np.abs(d) < 1e-12] = 0.0
    if k < 2 or d.shape[1] < 2:
        return Omnibus(test, np.nan, np.nan, k, n)
    inside = (d**2).sum()
    if inside == 0:
        return Omnibus(test, 0.0, 1.0, k, n)
    d = d[:, (d != 0).any(0)]
    seen = (d.sum(1) ** 2).sum()
    flips = Flips(d.shape[1], n_flips)
    reached = sum(
        (((signs @ d.T) ** 2).sum(1) >= seen * (1 - 1e-9)).sum()
        for signs in flips.chunks(k, np.random.default_rng(rng))
    )
    return Omnibus(test, float((k - 1) * seen / inside), float(flips.p_value(reached)), k, n)


def confidence_set(
    frame: pd.DataFrame | PromptMeans,
    level: float = 0.95,
    rng: Rng = 0,
    n_boot: int = MIN_FLIPS,
    *,
    value: str = "score",
    cluster: str = "group",
) -> pd.DataFrame:
    """The cells not distinguishable from the best.

    The model confidence set (Hansen, Lunde and Nason 2011): in at least ``level`` of studies it holds every cell that is
    truly best. While the cells left differ, the one that is most clearly worse than another is taken out. "Differ" is
    judged by the largest ``|sum_c d_c| / sqrt(sum_c d_c^2)`` over pairs of cells, d_c the difference in prompt (or group) c,
    against the same maximum when the signs of whole prompts are flipped; for two cells and 0/1 scores this is McNemar's
    exact test. Sign flips stand in for the bootstrap of the paper because for few prompts, and for scores with many ties,
    the bootstrap takes out true winners too often (`docs/statistics.md` has the figures).

    Args:
        frame: As for `prompt_means`, or a ready `PromptMeans`.
        level: Confidence level, strictly between 0 and 1.
        rng: Generator or seed.
        n_boot: Resamples (sign patterns); all patterns are taken once where there are no more than that.
        value: The score column.
        cluster: The column of related prompts, flipped together.

    Returns:
        One row per cell: cell_id, quality (on the prompts scored in every cell, the only ones used), p_value (the largest
        1 - level at which the cell is still in the set), in_set, n_prompts. The best cell is always in. A cell without any
        score has NaN and a missing ``in_set``.

    Raises:
        ValueError: ``level`` is outside 0..1, or a score outside 0..1.
    """
    import pandas as pd  # noqa: PLC0415 - only the functions that take a frame need it

    upper(level)
    table = as_table(frame, value, cluster)
    known, x, codes = table.complete()
    quality, p = np.full(len(known), np.nan), np.full(len(known), np.nan)
    if x.shape[1]:
        quality[known] = x.mean(1)
    # Twins (a merged cell, or one that answers alike everywhere) share one place in the race.
    unique, twin = np.unique(np.round(x, 12), axis=0, return_inverse=True)
    p[known] = _step_down(by_cluster(unique, codes), np.random.default_rng(rng), n_boot)[twin]
    inside = pd.array(p > 1 - level, dtype="boolean")
    inside[~known] = pd.NA
    return pd.DataFrame(
        {
            "cell_id": table.cells,
            "quality": quality,
            "p_value": p,
            "in_set": inside,
            "n_prompts": x.shape[1],
        }
    )


def _step_down(sums: Floats, rng: np.random.Generator, n_flips: int) -> Floats:
    """Set p-values of cells from their cluster sums, (cells, clusters) -> (cells,)."""
    k = len(sums)
    d = sums - sums.mean(0) if k else sums
    d = d[:, (np.abs(d) > 1e-12).any(0)]
    square = d @ d.T
    scale = np.diag(square)[:, None] + np.diag(square) - 2 * square
    differ = scale > 1e-9
    scale = np.where(differ, np.sqrt(np.where(differ, scale, 1.0)), np.inf)
    order, seen = _elimination((d.sum(1) - d.sum(1)[:, None]) / scale)
    flips = Flips(d.shape[1], n_flips)
    reached = np.zeros(k)
    for signs in flips.chunks(k, rng):
        totals = signs @ d.T
        largest = np.zeros(len(signs))
        for step in range(k - 2, -1, -1):  # from the last pair left to the full set
            out, left = order[step], order[step + 1 :]
            gaps = np.abs(totals[:, left] - totals[:, [out]]) / scale[out, left]
            largest = np.maximum(largest, gaps.max(1))
            reached[step] += (largest >= seen[step] - 1e-9).sum()
    p = np.ones(k)
    steps = np.maximum.accumulate(flips.p_value(reached[:-1]))
    p[order[:-1]] = steps
    return p


def _elimination(behind: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The order in which cells leave, and the largest gap among those left when each does.

    ``behind[i, j]`` is positive where cell i is worse than cell j.
    """
    left = np.ones(len(behind), bool)
    gaps = behind.copy()
    order, seen = np.zeros(len(behind), np.intp), np.zeros(len(behind))
    for step in range(len(behind)):
        worst = np.where(left, gaps.max(1), -np.inf)
        order[step] = worst.argmax()
        seen[step] = worst.max()
        left[order[step]] = False
        gaps[:, order[step]] = -np.inf
    return order, seen
