"""Resampling and Pareto dominance on plain arrays: the machinery under `workbench.stats`.

Everything works in chunks of bounded memory and has no Python loop over cells, prompts or draws. Inside one draw every
cell sees the same resampled prompts and rounds, because every cell was run on the same ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Rng = np.random.Generator | int

MIN_FOR_MEDIAN: Final = 20
"""Fewest measured requests for an interval of a median."""
_CHUNK: Final = 4_000_000
"""Numbers held at once while resampling (32 MB as float64)."""


def upper(level: float) -> float:
    """The upper quantile of a two-sided interval."""
    if not 0 < level < 1:
        raise ValueError(f"level must be greater than 0 and less than 1, got {level!r}")
    return 0.5 + level / 2


def on_front(quality: ArrayLike, latency: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point beats: higher quality is better, lower latency is better.

    A point is beaten by one at least as good in both and better in one; equal points are on the front
    together. NaN in either makes a point incomparable: off the front, beating nothing.

    Args:
        quality: Shape (..., n).
        latency: Shape (..., n).

    Returns:
        Shape (..., n). Sorted once, O(n log n) for each leading index.
    """
    q, t = np.broadcast_arrays(np.asarray(quality, float), np.asarray(latency, float))
    known = ~(np.isnan(q) | np.isnan(t))
    q, t = np.where(known, q, -np.inf), np.where(known, t, np.inf)
    order = np.lexsort((-q, t), axis=-1)
    q, t = np.take_along_axis(q, order, -1), np.take_along_axis(t, order, -1)
    best = np.maximum.accumulate(q, axis=-1)
    before = np.concatenate([np.full_like(q[..., :1], -np.inf), best[..., :-1]], axis=-1)
    since = np.maximum.accumulate(np.where(q > before, t, -np.inf), axis=-1)
    free = (q > before) | ((q == before) & (since == t))
    out = np.zeros(q.shape, bool)
    np.put_along_axis(out, order, free, -1)
    return np.asarray(out & known)


def median_interval(
    latency: pd.DataFrame,
    metric: str = "e2el_ms",
    *,
    level: float = 0.95,
    n_boot: int = 2_000,
    rng: Rng = 0,
) -> pd.DataFrame:
    """Median latency per cell, with a bootstrap percentile interval over prompts and their rounds.

    Args:
        latency: As for `pareto`.
        metric: The latency column.
        level: Confidence level, strictly between 0 and 1.
        n_boot: Resamples, at least 1.
        rng: Generator or seed.

    Returns:
        One row per cell: cell_id, n (measured requests), p50, lo, hi. Bounds are NaN below 20 requests or two prompts.
    """
    import pandas as pd  # noqa: PLC0415 - only the functions that take a frame need it

    generator, high = np.random.default_rng(rng), upper(level)
    cells = np.asarray(pd.unique(latency["cell_id"]))
    times = request_times(latency, cells, metric)
    seen = ~np.isnan(times)
    draws = [
        draw_medians(times, stop - start, generator)
        for start, stop in chunks(n_boot, max(times.size, 1))
    ]
    lo, hi = _quantiles(np.concatenate(draws), (1 - high, high))
    n = seen.sum((1, 2))
    known = (n >= MIN_FOR_MEDIAN) & (seen.any(2).sum(1) >= 2)
    return pd.DataFrame(
        {
            "cell_id": cells,
            "n": n,
            "p50": median(times.reshape(len(cells), -1)),
            "lo": np.where(known, lo, np.nan),
            "hi": np.where(known, hi, np.nan),
        }
    )


def by_cluster(x: Floats, codes: NDArray[np.intp] | None) -> Floats:
    """Sums over the columns of each cluster: (cells, n) -> (cells, clusters)."""
    if codes is None or not x.size:
        return x
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sums: Floats = np.add.reduceat(x[:, order], starts, axis=1)
    return sums


def chunks(total: int, width: int) -> Iterator[tuple[int, int]]:
    """Ranges that cover 0..total, each of at most `_CHUNK` numbers of ``width`` (at least one draw)."""
    step = max(1, _CHUNK // width)
    for start in range(0, total, step):
        yield start, min(start + step, total)


def draw_means(sums: Floats, sizes: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Means over resampled clusters, the same resample in every cell: (cells, C) -> (draws, cells)."""
    n = sums.shape[1]
    picks = rng.integers(0, max(n, 1), (n_draws, n)) + n * np.arange(n_draws)[:, None]
    weights = np.bincount(picks.ravel(), minlength=n_draws * n).reshape(n_draws, n).astype(float)
    total, count = weights @ sums.T, weights @ sizes.T
    means: Floats = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means


def draw_medians(times: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Medians over resampled prompts and, in each, resampled rounds: (cells, P, R) -> (draws, cells)."""
    n_cells, n_prompts, n_rounds = times.shape
    if not times.size:
        return np.full((n_draws, n_cells), np.nan)
    prompts = rng.integers(0, n_prompts, (n_draws, n_prompts, 1))
    rounds = rng.integers(0, n_rounds, (n_draws, n_prompts, n_rounds))
    return median(times[:, prompts, rounds].reshape(n_cells, n_draws, -1)).T


def request_times(latency: pd.DataFrame, cells: NDArray[Any], metric: str) -> Floats:
    """Measured times, shape (cells, prompts, rounds): NaN where a cell has no such request."""
    import pandas as pd  # noqa: PLC0415 - as above

    rows = latency[latency["cell_id"].isin(cells) & latency[metric].notna()]
    cell = pd.Index(cells).get_indexer(rows["cell_id"])
    prompt, prompts = pd.factorize(rows["prompt_id"])
    given = [c for c in ("round", "repeat") if c in rows]
    turn = rows.groupby(given, sort=True).ngroup().to_numpy() if given else np.zeros(len(rows), int)
    again = rows.assign(_turn=turn).groupby(["cell_id", "prompt_id", "_turn"]).cumcount().to_numpy()
    turn = turn * (again.max(initial=0) + 1) + again
    times = np.full((len(cells), len(prompts), int(turn.max(initial=-1)) + 1), np.nan)
    times[cell, prompt, turn] = rows[metric].to_numpy(float)
    return times


def median(x: Floats) -> Floats:
    """Median over the last axis, NaN left out (np.nanmedian loops over rows in Python)."""
    n = (~np.isnan(x)).sum(-1, keepdims=True)
    if not x.shape[-1]:
        return np.full(x.shape[:-1], np.nan)
    x = np.sort(x, axis=-1)
    low = np.take_along_axis(x, np.maximum((n - 1) // 2, 0), -1)
    return np.asarray(
        (low + np.take_along_axis(x, np.minimum(n // 2, x.shape[-1] - 1), -1))[..., 0] / 2
    )


def _quantiles(x: Floats, at: tuple[float, float]) -> tuple[Floats, Floats]:
    """Two quantiles over the first axis, NaN sorted last and left out."""
    n = (~np.isnan(x)).sum(0)
    x = np.sort(x, axis=0)
    lo, hi = (np.clip(np.rint(q * (n - 1)).astype(int), 0, len(x) - 1) for q in at)
    columns = np.arange(x.shape[1])
    return x[lo, columns], x[hi, columns]
