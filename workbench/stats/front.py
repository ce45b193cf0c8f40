"""Quality against latency: the front, how sure it is, and the area it covers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from workbench.resample import (
    by_cluster,
    chunks,
    draw_means,
    draw_medians,
    median,
    on_front,
    request_times,
    upper,
)
from workbench.stats.intervals import spread
from workbench.stats.table import as_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    from workbench.stats.table import PromptMeans

    Floats = NDArray[np.float64]
    Rng = np.random.Generator | int

_TIE: Final = 9
"""Decimals at which two resampled means count as equal; below it is rounding noise of the sums."""
_SPREADS: Final = 200
"""Candidate values of the true spread of the cells."""


class Volume(NamedTuple):
    """Hypervolume of a run's front, in score x ms."""

    measured: float
    """Of the points as measured; too large on average when cells are many and prompts few."""
    likely: float
    """Median of the plausible true values."""
    lo: float
    hi: float


class _Points(NamedTuple):
    """Cells as points, with what is needed to draw them again."""

    table: PromptMeans
    times: Floats
    quality: Floats
    latency: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        """Cells with both quality and latency."""
        return ~(np.isnan(self.quality) | np.isnan(self.latency))

    def draws(self, n_boot: int, rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
        """Plausible true values, in parts: quality and latency, shape (draws, cells) each."""
        sums = by_cluster(np.nan_to_num(self.table.means), self.table.codes)
        sizes = by_cluster((self.table.rows > 0).astype(float), self.table.codes)
        for start, stop in chunks(n_boot, max(sums.shape[1], self.times.size, 1)):
            q = draw_means(sums, sizes, stop - start, rng)
            yield _shrink(q, self, rng), draw_medians(self.times, stop - start, rng)


def _points(
    frame: pd.DataFrame | PromptMeans, latency: pd.DataFrame, value: str, metric: str
) -> _Points:
    """The table, the times, and the two axes."""
    table = as_table(frame, value, "group")
    times = request_times(latency, table.cells, metric)
    return _Points(table, times, table.quality, median(times.reshape(len(times), -1)))


def _shrink(draws: Floats, points: _Points, rng: np.random.Generator) -> Floats:
    """Resampled qualities turned into plausible true ones.

    A resample adds noise to means that hold noise already, so it spreads the cells too far and makes a lucky one look sure.
    Here each cell is drawn towards the mean of all as far as the noise calls for: with noise variance ``s_j^2`` (of the
    cell's mean relative to the other cells', from its prompts) and true variance ``t^2`` between cells, by the factor
    ``b = t^2 / (t^2 + s_j^2)``, the resampled error by ``sqrt(b)``: draws from the normal hierarchical model (Gelman et al.,
    Bayesian Data Analysis, 5.4). ``t`` is drawn from its likelihood on a grid, even prior, for every resample.
    """
    known = points.known
    x = points.table.means[known]
    if known.sum() < 2:
        return draws
    seen = points.table.rows[known] > 0
    middle = np.nansum(x, axis=0) / np.maximum(seen.sum(0), 1)
    noise = np.nan_to_num(spread(x - middle, points.table.codes).se)
    centre = points.quality[known].mean()
    gaps = points.quality[known] - centre
    widest = 5 * max(float(np.ptp(gaps)), float(noise.max()))
    if widest < 1e-12:
        return draws
    grid = np.linspace(0, widest, _SPREADS + 1)[1:]
    total = grid[:, None] ** 2 + noise**2
    fit = -0.5 * (np.log(total) + gaps**2 / total).sum(1)
    chance = np.exp(fit - fit.max())
    spreads = rng.choice(grid, len(draws), p=chance / chance.sum())[:, None]
    keep = spreads**2 / (spreads**2 + noise**2)
    error = draws[:, known] - points.quality[known]
    common = error.mean(1, keepdims=True)
    out = draws.copy()
    out[:, known] = centre + common + keep * gaps + np.sqrt(keep) * (error - common)
    return out


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

    ``p_on_front`` is the chance that the cell is truly on the front: the share of draws of plausible true values in which it
    is. Quality is resampled over prompts (whole clusters) and drawn towards the mean of the cells as far as its noise calls
    for (`_shrink` has the formula), latency is resampled over its prompts and their rounds; every cell sees the same
    resample, as every cell saw the same prompts.

    Args:
        frame: As for `prompt_means`, or a ready `PromptMeans`.
        n_boot: Draws, at least 1.
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

    points = _points(frame, latency, value, metric)
    hits = np.zeros(len(points.quality))
    for q, t in points.draws(n_boot, np.random.default_rng(rng)):
        hits += on_front(np.round(q, _TIE), t).sum(0)
    front = pd.array(on_front(np.round(points.quality, _TIE), points.latency), dtype="boolean")
    front[~points.known] = pd.NA
    return pd.DataFrame(
        {
            "cell_id": points.table.cells,
            "quality": points.quality,
            "latency": points.latency,
            "on_front": front,
            "p_on_front": np.where(points.known, hits / n_boot, np.nan),
        }
    )


def hypervolume(
    points: ArrayLike, ref: Sequence[float], maximise: Sequence[bool] = (True, False)
) -> Any:
    """The volume between a reference point and the front of a set of points (moocore).

    With quality (higher is better) and latency (lower is better): the area of everything some point beats, in score x ms.
    It grows with every real improvement of the front; two sets of points compare only with the same ``ref``.

    Args:
        points: Shape (..., n, axes). Points with a NaN, and those that do not beat ``ref``, add nothing.
        ref: The worst point that counts, shape (axes,).
        maximise: For each axis whether higher is better.

    Returns:
        Volumes, at least 0, in the leading shape; a float for one set.

    Raises:
        ValueError: The shapes do not fit, or ``ref`` is not finite.

    >>> hypervolume([[0.5, 200], [0.7, 300], [0.4, 250]], ref=(0, 400))
    120.0
    """
    import moocore  # type: ignore[import-untyped]  # noqa: PLC0415 - slow to import

    x, corner = np.asarray(points, float), np.asarray(ref, float)
    if x.ndim < 2 or corner.shape != x.shape[-1:] or len(maximise) != x.shape[-1]:
        raise ValueError(
            "points must have shape (..., n, axes), ref and maximise one value for each axis, got "
            f"{x.shape}, {corner.shape} and ({len(maximise)},)"
        )
    if not np.isfinite(corner).all():
        raise ValueError(f"ref must be finite, got {corner.tolist()}")
    x = np.where(np.isnan(x).any(-1, keepdims=True), corner, x)
    flat = x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
    worth = moocore.Hypervolume(corner, maximise=list(maximise))
    volumes = np.array([worth(p) if len(p) else 0.0 for p in flat]).reshape(x.shape[:-2])
    return float(volumes) if not volumes.ndim else volumes


def front_hypervolume(
    frame: pd.DataFrame | PromptMeans,
    n_boot: int = 2_000,
    rng: Rng = 0,
    *,
    latency: pd.DataFrame,
    ref_ms: float,
    level: float = 0.95,
    value: str = "score",
    metric: str = "e2el_ms",
) -> Volume:
    """`hypervolume` of a run's cells over quality 0 and ``ref_ms``, with an interval over prompts and rounds.

    The points as measured flatter the front, because the lucky ones are on it; the interval is of the draws of plausible true
    values that `pareto` takes, so the volume as measured can lie above it.

    Args:
        frame: As for `prompt_means`, or a ready `PromptMeans`.
        n_boot: Draws, at least 1.
        rng: Generator or seed.
        latency: As for `pareto`.
        ref_ms: The latency from which on a cell is worth nothing, milliseconds. Runs compare at the same value only.
        level: Confidence level, strictly between 0 and 1.
        value: The score column.
        metric: The latency column.

    Returns:
        As measured, the middle of the draws, and its interval; in score x ms.

    Raises:
        ValueError: ``level`` is outside 0..1, or ``ref_ms`` is not finite.
    """
    high = upper(level)
    points = _points(frame, latency, value, metric)
    ref = (0.0, ref_ms)
    seen = hypervolume(np.stack([points.quality, points.latency], axis=-1), ref)
    volumes = [
        hypervolume(np.stack([q, t], axis=-1), ref)
        for q, t in points.draws(n_boot, np.random.default_rng(rng))
    ]
    lo, middle, hi = np.quantile(np.concatenate(volumes), (1 - high, 0.5, high))
    return Volume(float(seen), float(middle), float(lo), float(hi))
