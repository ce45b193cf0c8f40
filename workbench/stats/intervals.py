"""Intervals of one rate and of one mean, vectorised over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import scipy.stats

from workbench.resample import by_cluster, upper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


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
            docstring of `workbench.stats`). Bounds are then cut at the smallest and largest of data and ``pseudo``.

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
    lo, hi = interval(np.atleast_2d(x), codes, level, pseudo)
    return Interval(lo[0], hi[0]) if x.ndim == 1 else Interval(lo, hi)


_FADE: Final = 20
"""Once so many clusters came out differently, a difference needs no pseudo-prompts."""


class Spread(NamedTuple):
    """A mean per cell with its standard error, both after pseudo-prompts; shape (cells,) each."""

    mean: Floats
    se: Floats
    """NaN with fewer than two clusters, and where nothing varies."""
    df: Floats


def spread(
    x: Floats,
    codes: NDArray[np.intp] | None,
    pseudo: Sequence[float] = (),
    weight: float | Floats = 1.0,
) -> Spread:
    """Mean and cluster-robust standard error of each row of a (cells, n) matrix, as in `mean_interval`.

    ``weight``, shape (cells,), is how much each pseudo-prompt counts.
    """
    sums = by_cluster(np.nan_to_num(x), codes)
    sizes = by_cluster((~np.isnan(x)).astype(float), codes)
    n, n_clusters = sizes.sum(1), (sizes > 0).sum(1)
    size = n / np.maximum(n_clusters, 1)
    extra = np.asarray(pseudo, float)
    total = np.maximum(n + weight * extra.size * size, 1)
    mean = (sums.sum(1) + weight * size * extra.sum()) / total
    squares = ((sums - mean[:, None] * sizes) ** 2).sum(1)
    squares += weight * ((size[:, None] * (extra - mean[:, None])) ** 2).sum(1)
    df = np.maximum(n_clusters + weight * extra.size - 1.0, 1.0)
    se = np.sqrt((df + 1) / df * squares) / total
    known = (n_clusters >= 2) & (se > 1e-12 * np.maximum(1, np.abs(mean)))
    return Spread(mean, np.where(known, se, np.nan), df)


def interval(
    x: Floats, codes: NDArray[np.intp] | None, level: float, pseudo: Sequence[float]
) -> Interval:
    """`mean_interval` for a (cells, n) matrix and ready-made cluster codes."""
    mean, se, df = spread(x, codes, pseudo)
    half = scipy.stats.t.ppf(upper(level), df) * se
    if not len(pseudo):
        return Interval(mean - half, mean + half)
    low = np.fmin(np.min(x, axis=1, initial=np.inf, where=~np.isnan(x)), min(pseudo))
    high = np.fmax(np.max(x, axis=1, initial=-np.inf, where=~np.isnan(x)), max(pseudo))
    return Interval(np.maximum(mean - half, low), np.minimum(mean + half, high))


def difference_spread(d: Floats, codes: NDArray[np.intp] | None, end: float) -> Spread:
    """`spread` of paired differences, shape (cells, n), with a pseudo-prompt at ``-end`` and one at ``end``.

    Their weight falls from 1, where no cluster differs, to 0, where 20 do; it stays 1 where all differ by the same.
    """
    differ = (by_cluster(np.nan_to_num(d), codes) != 0).sum(1)
    ends = (-end, end)
    faded = spread(d, codes, ends, np.maximum(1 - differ / _FADE, 0.0))
    full = spread(d, codes, ends)
    flat = np.isnan(faded.se)
    mean, se, df = (np.where(flat, a, b) for a, b in zip(full, faded, strict=True))
    return Spread(mean, se, df)


def difference_interval(
    d: Floats, codes: NDArray[np.intp] | None, level: float, end: float
) -> Interval:
    """Interval of paired differences from Student's t and `difference_spread`, cut at ``-end`` and ``end``."""
    mean, se, df = difference_spread(d, codes, end)
    half = scipy.stats.t.ppf(upper(level), df) * se
    return Interval(np.maximum(mean - half, -end), np.minimum(mean + half, end))
