"""The score table: one number per cell and prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.stats.intervals import Interval, interval, proportion_interval

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


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
        lo, hi = interval(self.means, self.codes, level, 2 * self._ends())
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

    def complete(self) -> tuple[NDArray[np.bool_], Floats, NDArray[np.intp] | None]:
        """The prompts scored in every cell that has scores at all.

        Returns:
            Which cells have scores, shape (cells,); their means on these prompts, shape (those cells, prompts); the
            prompts' clusters, as `codes`.
        """
        known = np.asarray((self.rows > 0).any(1))
        shared = (self.rows[known] > 0).all(0) if known.any() else np.zeros(len(self.prompts), bool)
        codes = (
            None if self.codes is None else np.unique(self.codes[shared], return_inverse=True)[1]
        )
        means: Floats = self.means[known][:, shared]
        return known, means, codes


def as_table(frame: pd.DataFrame | PromptMeans, value: str, cluster: str) -> PromptMeans:
    """The table of a tidy frame, or the ready one."""
    return frame if isinstance(frame, PromptMeans) else prompt_means(frame, value, cluster)


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
