"""Intervals, paired comparisons, and the Pareto front: numpy in, numpy out, vectorised over cells.

The unit of evidence is the prompt (or the group of related prompts), never the row: repeats of one prompt are
averaged first. Two rules keep small samples honest:

* **Pseudo-prompts.** A t interval calls 40 right out of 40 a certainty. So before the interval is taken, a few
  invented prompts are added at the ends of the scale: two at 0 and two at 1 for a mean ("plus four", Agresti and
  Coull 1998), one at -1 and one at +1 for a difference (Bonett and Price 2012). For graded scores, the ends are
  the smallest and largest values any prompt reached in any cell. The invented prompts move the interval only,
  never the estimate that is shown.
* **Exact tests.** p-values come from sign flips of whole prompts (McNemar's exact test when every prompt has one
  0/1 row), not from a normal curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import scipy.special
import scipy.stats

from workbench.resample import (
    by_cluster,
    chunks,
    draw_means,
    draw_medians,
    median,
    median_interval,
    on_front,
    request_times,
    upper,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Rng = np.random.Generator | int

__all__ = [
    "Interval",
    "PromptMeans",
    "adjust",
    "mcnemar",
    "mean_interval",
    "median_interval",
    "on_front",
    "paired_difference",
    "pareto",
    "prompt_means",
    "proportion_interval",
]

MIN_FLIPS: Final = 9_999
_TIE: Final = 9
"""Decimals at which two resampled means count as equal; below it is rounding noise of the sums."""


class Interval(NamedTuple):
    """Lower and upper bound; NaN where the data cannot support one."""

    lo: Any
    hi: Any


# ------------------------------------------------------------------------------------------ one mean


def proportion_interval(k: ArrayLike, n: ArrayLike, level: float = 0.95) -> Interval:
    """Wilson score interval of ``k`` successes in ``n`` independent trials.

    Args:
        k: Successes, 0..n; any shape.
        n: Trials; broadcast against ``k``. Where it is 0 the bounds are NaN.
        level: Confidence level, strictly between 0 and 1.

    Returns:
        Bounds in 0..1, in the broadcast shape. Formula: Wilson 1927, no continuity correction.

    Raises:
        ValueError: ``k`` is outside 0..n, or ``level`` outside 0..1.

    >>> lo, hi = proportion_interval(45, 60)
    >>> f"{lo:.3f} {hi:.3f}"
    '0.628 0.842'
    """
    k, n = np.broadcast_arrays(np.asarray(k, float), np.asarray(n, float))
    if not np.all((k >= 0) & (k <= n)):
        raise ValueError("k must be at least 0 and at most n")
    z = scipy.stats.norm.ppf(upper(level))
    trials = np.where(n > 0, n, np.nan)
    center = (k + z**2 / 2) / (trials + z**2)
    half = z / (trials + z**2) * np.sqrt(k * (n - k) / trials + z**2 / 4)
    lo = np.where((k == 0) & (n > 0), 0.0, center - half)  # exact at the ends, not 1e-17
    hi = np.where((k == n) & (n > 0), 1.0, center + half)
    return Interval(lo[()], hi[()])


def mean_interval(
    values: ArrayLike,
    cluster: ArrayLike | None = None,
    level: float = 0.95,
    pseudo: Sequence[float] = (),
) -> Interval:
    """Cluster-robust t interval of a mean.

    ``se = sqrt(C/(C-1) * sum_c (sum_i (x_ic - mean))^2) / n`` with C-1 degrees of freedom (Miller 2024, appendix A,
    with the finite-cluster factor). Without ``cluster`` it is the ordinary t interval.

    Args:
        values: Shape (n,), or (cells, n) for one interval per row. NaN = not observed.
        cluster: Shape (n,), labels of observations that belong together; None = all independent.
        level: Confidence level, strictly between 0 and 1.
        pseudo: Invented clusters of average size with these values, added before the interval is taken (see the
            module docstring). Bounds are then cut at the smallest and largest of data and ``pseudo``.

    Returns:
        Bounds, floats or shape (cells,). NaN with fewer than two clusters, and where nothing varies: identical
        values say nothing about the spread, so a zero-width interval is never returned.

    Raises:
        ValueError: The shapes do not fit, or ``level`` is outside 0..1.
    """
    x = np.asarray(values, float)
    if x.ndim not in (1, 2):
        raise ValueError(f"values must have 1 or 2 dimensions, got {x.ndim}")
    codes = None
    if cluster is not None:
        labels = np.asarray(cluster)
        if labels.shape != x.shape[-1:]:
            raise ValueError(f"cluster must have shape {x.shape[-1:]}, got {labels.shape}")
        codes = np.unique(labels, return_inverse=True)[1]
    lo, hi = _interval(np.atleast_2d(x), codes, level, pseudo)
    return Interval(lo[0], hi[0]) if x.ndim == 1 else Interval(lo, hi)


def _interval(
    x: Floats, codes: NDArray[np.intp] | None, level: float, pseudo: Sequence[float]
) -> Interval:
    """`mean_interval` for a (cells, n) matrix and ready-made cluster codes."""
    sums = by_cluster(np.nan_to_num(x), codes)
    sizes = by_cluster((~np.isnan(x)).astype(float), codes)
    n, n_clusters = sizes.sum(1), (sizes > 0).sum(1)
    size = n / np.maximum(n_clusters, 1)
    extra = np.asarray(pseudo, float)
    total = np.maximum(n + extra.size * size, 1)
    mean = (sums.sum(1) + size * extra.sum()) / total
    squares = ((sums - mean[:, None] * sizes) ** 2).sum(1)
    squares += ((size[:, None] * (extra - mean[:, None])) ** 2).sum(1)
    df = np.maximum(n_clusters + extra.size - 1, 1)
    se = np.sqrt((df + 1) / df * squares) / total
    known = (n_clusters >= 2) & (se > 1e-12 * np.maximum(1, np.abs(mean)))
    half = np.where(known, scipy.stats.t.ppf(upper(level), df) * se, np.nan)
    if not extra.size:
        return Interval(mean - half, mean + half)
    low = np.fmin(np.min(x, axis=1, initial=np.inf, where=~np.isnan(x)), extra.min())
    high = np.fmax(np.max(x, axis=1, initial=-np.inf, where=~np.isnan(x)), extra.max())
    return Interval(np.maximum(mean - half, low), np.minimum(mean + half, high))


# ---------------------------------------------------------------------------------- the score table


@dataclass(frozen=True, slots=True)
class PromptMeans:
    """Scores reduced to one number per cell and prompt.

    Attributes:
        cells: Cell ids, in order of appearance.
        prompts: Prompt ids, in order of appearance.
        codes: Shape (prompts,), the cluster each prompt belongs to, from 0; None = each its own.
        means: Shape (cells, prompts), mean over the scored repeats; NaN where nothing was scored.
        rows: Shape (cells, prompts), number of scored repeats.
        binary: Shape (cells,), True if every scored row of the cell is 0 or 1.
    """

    cells: NDArray[Any]
    prompts: NDArray[Any]
    codes: NDArray[np.intp] | None
    means: Floats
    rows: NDArray[np.int64]
    binary: NDArray[np.bool_]

    @property
    def quality(self) -> Floats:
        """Shape (cells,): mean over prompts of the mean over repeats; NaN where nothing was scored."""
        n = (self.rows > 0).sum(1)
        total = np.nansum(self.means, axis=1)
        mean: Floats = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
        return mean

    def interval(self, level: float = 0.95) -> Interval:
        """Bounds of `quality`, shape (cells,): Wilson where every prompt is one 0/1 row, else clustered by prompt.

        Graded scores that happen to be all 0 or 1 in some cell are no trials there: Wilson's is for tables of 0/1 alone.
        """
        lo, hi = _interval(self.means, self.codes, level, 2 * self._ends())
        if self.codes is None and self.binary.all():
            wilson = (self.rows <= 1).all(1)
            n = self.rows[wilson].sum(1)
            k = np.nansum(self.means[wilson], axis=1)
            lo[wilson], hi[wilson] = proportion_interval(k, n, level)
        return Interval(lo, hi)

    def _ends(self) -> tuple[float, float]:
        """The scale's ends: 0 and 1, or for graded scores the extremes seen in the table."""
        seen = self.means[self.rows > 0]
        if self.binary.all() or not seen.size or np.ptp(seen) == 0:
            return 0.0, 1.0
        return float(seen.min()), float(seen.max())


def prompt_means(frame: pd.DataFrame, value: str = "score", cluster: str = "group") -> PromptMeans:
    """Reduce a tidy frame to one mean per cell and prompt.

    Args:
        frame: One row per generation, columns ``cell_id``, ``prompt_id`` and ``value`` (0..1, NaN = not scored).
        value: The score column.
        cluster: Column naming the group of related prompts; where it is null or the column is missing, the
            prompt is its own cluster.

    Raises:
        ValueError: A score is outside 0..1.
    """
    import pandas as pd  # noqa: PLC0415 - only the functions that take a frame need it

    cell, cells = pd.factorize(frame["cell_id"])
    prompt, prompts = pd.factorize(frame["prompt_id"])
    x = frame[value].to_numpy(float, na_value=np.nan)
    seen = ~np.isnan(x)
    if not np.all((x[seen] >= 0) & (x[seen] <= 1)):
        raise ValueError(f"{value} must be at least 0 and at most 1 in every row")
    shape = len(cells), len(prompts)
    key = (cell * shape[1] + prompt)[seen]
    rows = np.bincount(key, minlength=shape[0] * shape[1]).reshape(shape)
    sums = np.bincount(key, weights=x[seen], minlength=rows.size).reshape(shape)
    means = np.divide(sums, rows, out=np.full(shape, np.nan), where=rows > 0)
    graded = cell[seen][(x[seen] > 0) & (x[seen] < 1)]
    binary = np.bincount(graded, minlength=shape[0]) == 0
    codes = None
    if cluster in frame and frame[cluster].notna().any():
        first = np.unique(prompt, return_index=True)[1]
        group, lone = frame[cluster].iloc[first], frame["prompt_id"].iloc[first]
        names = [f"p:{p}" if pd.isna(g) else f"g:{g}" for g, p in zip(group, lone, strict=True)]
        codes = pd.factorize(np.asarray(names, object))[0]
        codes = codes if codes.max() + 1 < len(codes) else None
    return PromptMeans(np.asarray(cells), np.asarray(prompts), codes, means, rows, binary)


# ---------------------------------------------------------------------------------- paired differences


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
    with pseudo-prompts (module docstring), cut at -1 and 1, one comparison at a time. p-value: exact McNemar when
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

    table = frame if isinstance(frame, PromptMeans) else prompt_means(frame, value, cluster)
    where = np.flatnonzero(table.cells == baseline)
    if not where.size:
        raise ValueError(f"baseline {baseline!r} is not one of the {len(table.cells)} cells")
    d = table.means - table.means[where[0]]
    d[np.abs(d) < 1e-12] = 0.0  # (1/3 + 1/3 + 1/3) is not always 1
    largest = float(np.nanmax(np.abs(d), initial=0.0))
    end = 1.0 if table.binary.all() or largest == 0 else largest
    lo, hi = _interval(d, table.codes, level, (-end, end))
    n = (~np.isnan(d)).sum(1)
    wins, losses = (d > 0).sum(1), (d < 0).sum(1)
    if table.codes is None and table.binary.all() and table.rows.max(initial=0) <= 1:
        p = np.where(n > 1, mcnemar(wins, losses), np.nan)
    else:
        p = _sign_flip(d, table.codes, np.random.default_rng(rng), n_flips)
    diff = np.divide(np.nansum(d, axis=1), n, out=np.full(len(n), np.nan), where=n > 0)
    for column in (lo, hi, p):
        column[where[0]] = np.nan
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


def _sign_flip(
    d: Floats, codes: NDArray[np.intp] | None, rng: np.random.Generator, n_flips: int | None
) -> Floats:
    """Two-sided p-value of "the sum of differences is 0" under random signs of whole clusters, per cell."""
    sums = by_cluster(np.nan_to_num(d), codes)
    clusters = (by_cluster((~np.isnan(d)).astype(float), codes) > 0).sum(1)
    sums = sums[:, (sums != 0).any(0)]
    n = sums.shape[1]
    flips = max(MIN_FLIPS, 200 * len(d)) if n_flips is None else n_flips
    exact = n <= 20 and 2**n <= flips + 1
    seen = np.abs(sums.sum(1)) - 1e-9
    reached = np.zeros(len(d))
    total = 2**n if exact else flips
    for start, stop in chunks(total, max(n, len(d), 1)):
        if exact:
            bits = np.arange(start, stop)[:, None] >> np.arange(n) & 1
        else:
            bits = rng.integers(0, 2, (stop - start, n), dtype=np.int8)
        reached += (np.abs((2.0 * bits - 1) @ sums.T) >= seen).sum(0)
    p = reached / total if exact else (reached + 1) / (total + 1)
    return np.where(clusters >= 2, p, np.nan)


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


def pareto(
    frame: pd.DataFrame | PromptMeans,
    n_boot: int = 2_000,
    rng: Rng = 0,
    *,
    latency: pd.DataFrame,
    value: str = "score",
    metric: str = "e2el_ms",
) -> pd.DataFrame:
    """The front of quality against latency, and how sure it is.

    ``p_on_front`` is the share of resamples in which the cell is on the front. Quality is resampled over prompts (whole
    clusters), latency over its prompts and their rounds; every cell sees the same resample, as every cell saw the
    same prompts.

    Args:
        frame: As for `prompt_means`, or a ready `PromptMeans`.
        n_boot: Resamples, at least 1.
        rng: Generator or seed.
        latency: One row per measured request: ``cell_id``, ``prompt_id``, ``metric``, and ``round`` and
            ``repeat`` if there are any.
        value: The score column.
        metric: The latency column, milliseconds; its median per cell is the second axis.

    Returns:
        One row per cell: cell_id, quality, latency (ms), on_front, p_on_front. Cells without quality or latency have a
        missing ``on_front`` and NaN ``p_on_front``.
    """
    import pandas as pd  # noqa: PLC0415 - only the functions that take a frame need it

    generator = np.random.default_rng(rng)
    table = frame if isinstance(frame, PromptMeans) else prompt_means(frame, value)
    times = request_times(latency, table.cells, metric)
    quality, middle = table.quality, median(times.reshape(len(times), -1))
    known = ~(np.isnan(quality) | np.isnan(middle))
    sums = by_cluster(np.nan_to_num(table.means), table.codes)
    sizes = by_cluster((table.rows > 0).astype(float), table.codes)
    hits = np.zeros(len(quality))
    for start, stop in chunks(n_boot, max(sums.shape[1], times.size, 1)):
        q = draw_means(sums, sizes, stop - start, generator)
        hits += on_front(np.round(q, _TIE), draw_medians(times, stop - start, generator)).sum(0)
    front = pd.array(on_front(np.round(quality, _TIE), middle), dtype="boolean")
    front[~known] = pd.NA
    return pd.DataFrame(
        {
            "cell_id": table.cells,
            "quality": quality,
            "latency": middle,
            "on_front": front,
            "p_on_front": np.where(known, hits / n_boot, np.nan),
        }
    )
