"""Cells against a baseline, prompt by prompt: is there a difference, and is it small enough not to matter?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import scipy.special
import scipy.stats

from workbench.resample import by_cluster, chunks
from workbench.stats.intervals import difference_interval, difference_spread
from workbench.stats.table import as_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from workbench.stats.table import PromptMeans

    Floats = NDArray[np.float64]
    Rng = np.random.Generator | int

MIN_FLIPS: Final = 9_999


@dataclass(frozen=True, slots=True)
class Flips:
    """Random signs of ``n`` clusters: every pattern once where that is no more than ``n_flips``, else so many drawn.

    Attributes:
        n: Clusters that can be flipped.
        n_flips: Patterns asked for, at least 1.
    """

    n: int
    n_flips: int

    @property
    def exact(self) -> bool:
        """Whether every pattern is visited once."""
        return self.n <= 20 and 2**self.n <= self.n_flips + 1

    def chunks(self, width: int, rng: np.random.Generator) -> Iterator[Floats]:
        """Signs -1 or 1, shape (patterns, n), in parts such that ``width`` numbers per pattern fit in memory."""
        total = 2**self.n if self.exact else self.n_flips
        for start, stop in chunks(total, max(self.n, width, 1)):
            if self.exact:
                bits = np.arange(start, stop)[:, None] >> np.arange(self.n) & 1
            else:
                bits = rng.integers(0, 2, (stop - start, self.n), dtype=np.int8)
            yield np.asarray(2.0 * bits - 1, float)

    def p_value(self, reached: ArrayLike) -> Floats:
        """The p-value when so many patterns reached what was seen (drawn ones: the observed pattern counts too)."""
        count = np.asarray(reached, float)
        p: Floats = count / 2**self.n if self.exact else (count + 1) / (self.n_flips + 1)
        return p


def index_of(table: PromptMeans, cell: str) -> int:
    """The row of the baseline."""
    where = np.flatnonzero(table.cells == cell)
    if not where.size:
        raise ValueError(f"baseline {cell!r} is not one of the {len(table.cells)} cells")
    return int(where[0])


def differences(table: PromptMeans, base: int) -> tuple[Floats, float]:
    """Per-prompt differences to the baseline, shape (cells, prompts), and the largest a difference can be."""
    d = table.means - table.means[base]
    d[np.abs(d) < 1e-12] = 0.0  # (1/3 + 1/3 + 1/3) is not always 1
    largest = float(np.nanmax(np.abs(d), initial=0.0))
    return d, 1.0 if table.binary.all() or largest == 0 else largest


def mcnemar(wins: ArrayLike, losses: ArrayLike) -> Floats:
    """Exact two-sided McNemar p-value: are ``wins`` and ``losses`` a fair coin's?

    Ties carry no evidence; with no discordant pair the p-value is 1. Equals ``scipy.stats.binomtest(wins,
    wins + losses)``, for arrays.
    """
    b, c = np.broadcast_arrays(np.asarray(wins, np.int64), np.asarray(losses, np.int64))
    tail = scipy.special.bdtr(np.minimum(b, c), b + c, 0.5)
    p: Floats = np.minimum(1.0, 2 * tail)
    return p


def paired_difference(
    frame: pd.DataFrame | PromptMeans,
    baseline: str,
    rng: Rng = 0,
    *,
    value: str = "score",
    cluster: str = "group",
    level: float = 0.95,
    n_flips: int | None = None,
) -> pd.DataFrame:
    """Every cell against the baseline, on the prompts scored in both.

    The difference is the mean over prompts of (cell's mean over repeats - baseline's). Interval: clustered by prompt
    with pseudo-prompts (docstring of `workbench.stats`), cut at -1 and 1, one comparison at a time. p-value: exact McNemar when
    every prompt is one 0/1 row, else sign flips of whole clusters (all of them when there are few).

    Args:
        frame: As for `prompt_means`, or a ready `PromptMeans`.
        baseline: Cell id all others are compared with.
        rng: Generator or seed for the sign flips.
        value: The score column.
        cluster: The column of related prompts.
        level: Confidence level of ``diff_lo``, ``diff_hi``.
        n_flips: Sign flips; default 9,999 or 200 per cell, whichever is more, so that the smallest p-value
            survives Holm.

    Returns:
        One row per cell: cell_id, diff, diff_lo, diff_hi, p_value, p_adjusted (Holm over the cells), n_pairs, wins,
        ties, losses (prompts). The baseline's own row has diff 0 and NaN in the other estimates. Fewer than two
        clusters: NaN bounds and p-value. Identical outcomes everywhere: diff 0, p 1, and an interval that
        still has width (about +-1.96 * sqrt(2) / (n + 2) for n prompts).

    Raises:
        ValueError: The baseline is not in the frame, or a score is outside 0..1.
    """
    import pandas as pd  # noqa: PLC0415 - only the functions that take a frame need it

    table = as_table(frame, value, cluster)
    base = index_of(table, baseline)
    d, end = differences(table, base)
    lo, hi = difference_interval(d, table.codes, level, end)
    n = (~np.isnan(d)).sum(1)
    wins, losses = (d > 0).sum(1), (d < 0).sum(1)
    if table.codes is None and table.binary.all() and table.rows.max(initial=0) <= 1:
        p = np.where(n > 1, mcnemar(wins, losses), np.nan)
    else:
        p = sign_flip(d, table.codes, np.random.default_rng(rng), n_flips)
    diff = np.divide(np.nansum(d, axis=1), n, out=np.full(len(n), np.nan), where=n > 0)
    for column in (lo, hi, p):
        column[base] = np.nan
    return pd.DataFrame(
        {
            "cell_id": table.cells,
            "diff": diff,
            "diff_lo": lo,
            "diff_hi": hi,
            "p_value": p,
            "p_adjusted": adjust(p),
            "n_pairs": n,
            "wins": wins,
            "ties": n - wins - losses,
            "losses": losses,
        }
    )


def sign_flip(
    d: Floats, codes: NDArray[np.intp] | None, rng: np.random.Generator, n_flips: int | None
) -> Floats:
    """Two-sided p-value of "the sum of differences is 0" under random signs of whole clusters, per cell."""
    sums = by_cluster(np.nan_to_num(d), codes)
    clusters = (by_cluster((~np.isnan(d)).astype(float), codes) > 0).sum(1)
    sums = sums[:, (sums != 0).any(0)]
    flips = Flips(sums.shape[1], max(MIN_FLIPS, 200 * len(d)) if n_flips is None else n_flips)
    seen = np.abs(sums.sum(1)) - 1e-9
    reached = np.zeros(len(d))
    for signs in flips.chunks(len(d), rng):
        reached += (np.abs(signs @ sums.T) >= seen).sum(0)
    return np.where(clusters >= 2, flips.p_value(reached), np.nan)


def adjust(p: ArrayLike, method: str = "holm") -> Floats:
    """Adjust p-values for having asked several questions.

    Args:
        p: p-values in 0..1, shape (m,); NaN = not tested, stays NaN and does not count.
        method: "holm" (chance of any false claim, for conclusions) or "bh" (share of false claims among those
            made, for screening; Benjamini and Hochberg).

    Raises:
        ValueError: An unknown method, or a p-value outside 0..1.
    """
    if method not in ("holm", "bh"):
        raise ValueError(f"method must be one of holm, bh, got {method!r}")
    values = np.array(p, float)
    tested = ~np.isnan(values)
    known = values[tested]
    if not np.all((known >= 0) & (known <= 1)):
        raise ValueError("p must be at least 0 and at most 1")
    if method == "bh":
        values[tested] = scipy.stats.false_discovery_control(known) if known.size else known
        return values
    order = np.argsort(known)
    steps = np.maximum.accumulate(known[order] * np.arange(known.size, 0, -1))
    adjusted = np.empty(known.size)
    adjusted[order] = np.minimum(steps, 1.0)
    values[tested] = adjusted
    return values


# ------------------------------------------------------------------------------------- the Pareto front


def _skew(d: Floats, codes: NDArray[np.intp] | None) -> tuple[Floats, Floats]:
    """Skewness of the clusters' sums of differences, and the number of clusters; shape (cells,) each."""
    sums = by_cluster(np.nan_to_num(d), codes)
    sizes = by_cluster((~np.isnan(d)).astype(float), codes)
    n = np.maximum((sizes > 0).sum(1), 1)
    off = sums - (sums.sum(1) / np.maximum(sizes.sum(1), 1))[:, None] * sizes
    scale = np.sqrt((off**2).sum(1) / n)
    third = (off**3).sum(1) / n
    return np.divide(third, scale**3, out=np.zeros(len(d)), where=scale > 1e-12), n.astype(float)


def _hall(t: Floats, skew: Floats, n: Floats) -> Floats:
    """Hall's transformation of a t statistic (1992, On the removal of skewness by transformation)."""
    w = t / np.sqrt(n)
    corrected: Floats = np.sqrt(n) * (w + skew * w**2 / 3 + skew**2 * w**3 / 27 + skew / (6 * n))
    return corrected


def equivalent(
    frame: pd.DataFrame | PromptMeans,
    baseline: str,
    margin: float,
    *,
    side: Literal["both", "not_worse"] = "both",
    value: str = "score",
    cluster: str = "group",
    level: float = 0.95,
) -> pd.DataFrame:
    """Which cells are as good as the baseline, up to ``margin``: the burden of proof is on equality.

    Two one-sided t tests (Schuirmann 1987) on the per-prompt differences, clustered by prompt, with pseudo-prompts as in
    `paired_difference`; p is the larger of the two. ``side="not_worse"`` asks the lower side alone (non-inferiority). A cell
    is called equivalent when the p-value, Holm-adjusted over the cells, is at most 1 - ``level``. Differences that lie mostly
    on one side make a t test call too much equivalent, so t is corrected for skewness (Hall 1992); for a single comparison
    without skew, equivalent means that the interval ``diff_lo..diff_hi`` lies within the margin.

    Args:
        frame: As for `prompt_means`, or a ready `PromptMeans`.
        baseline: Cell id all others are compared with.
        margin: The largest difference that does not matter, more than 0, on the scale of the score.
        side: Whether "too much better" counts as different.
        value: The score column.
        cluster: The column of related prompts.
        level: 1 minus the risk of calling a cell equivalent that is not. The interval has level 2 * level - 1 (90 %
            at .95), as two one-sided tests need.

    Returns:
        One row per cell: cell_id, diff, diff_lo, diff_hi, p_value, p_adjusted, equivalent (missing for the baseline and
        where there are fewer than two clusters), n_pairs.

    Raises:
        ValueError: The margin is not positive, the side is unknown, the level is not above .5, the baseline is not in
            the frame, or a score is outside 0..1.
    """
    import pandas as pd  # noqa: PLC0415 - only the functions that take a frame need it

    if not margin > 0:
        raise ValueError(f"margin must be greater than 0, got {margin!r}")
    if side not in ("both", "not_worse"):
        raise ValueError(f"side must be one of both, not_worse, got {side!r}")
    if not 0.5 < level < 1:
        raise ValueError(f"level must be greater than 0.5 and less than 1, got {level!r}")
    table = as_table(frame, value, cluster)
    base = index_of(table, baseline)
    d, end = differences(table, base)
    mean, se, df = difference_spread(d, table.codes, end)
    skew, clusters = _skew(d, table.codes)
    p = scipy.stats.t.sf(_hall((mean + margin) / se, skew, clusters), df)
    if side == "both":
        p = np.maximum(p, scipy.stats.t.sf(_hall((margin - mean) / se, -skew, clusters), df))
    p[base] = np.nan
    lo, hi = difference_interval(d, table.codes, 2 * level - 1, end)
    lo[base] = hi[base] = np.nan
    n = (~np.isnan(d)).sum(1)
    adjusted = adjust(p)
    verdict = pd.array(adjusted <= 1 - level + 1e-12, dtype="boolean")
    verdict[np.isnan(adjusted)] = pd.NA
    return pd.DataFrame(
        {
            "cell_id": table.cells,
            "diff": np.divide(np.nansum(d, axis=1), n, out=np.full(len(n), np.nan), where=n > 0),
            "diff_lo": lo,
            "diff_hi": hi,
            "p_value": p,
            "p_adjusted": adjusted,
            "equivalent": verdict,
            "n_pairs": n,
        }
    )
