"""One measure for every cell, as the summary has it, prompt by prompt, and what resampling the prompts does to sums of it.

Cells answered the same prompts, so an easy prompt is easy for all of them. The bootstrap draws prompts (whole groups
of them) and shows every cell the same draw: what is common to all cells drops out of their differences. Bounds are
percentiles, taken further out when prompts are few ("expanded percentile interval", Hesterberg 2015, "What Teachers Should
Know About the Bootstrap"). Where nothing varies between prompts there is no interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import scipy.stats

from workbench import analysis, resample, stats
from workbench.analysis import SUMMARY_COLUMNS
from workbench.errors import WorkbenchError
from workbench.measures import baseline_cell, check_level, measure, rows_of
from workbench.scorers.degeneration import has_loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.measures import RunTables
    from workbench.resample import Rng

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CellValues:
    """One number per cell, what it is made of, and how to resample that.

    Attributes:
        cells: Cell ids.
        point: Shape (cells,), NaN = unknown.
        lo: Shape (cells,), lower bound of the cell's own interval, as in the summary.
        hi: Upper bound.
        x: Shape (cells, prompts), the mean over each prompt's answers; NaN = none. Where a measure is no mean over prompts,
            or its prompts are not at hand: one column, ``point``.
        codes: Shape (prompts,), the group each prompt belongs to, from 0; None = each its own.
        given: Shape (draws, cells), resamples of what is no mean over prompts; else no rows.
        n_prompts: Prompts behind the values; None where it is not known.
        n_asked: Prompts that were to be answered; None where it is not known.
        table: The scores or rates behind ``x``, cells as in ``cells``; None where ``x`` has one column.
        base: Position of the cell that was subtracted, or None.
        scale: What the numbers of ``table`` are multiplied by.
        level: Confidence level of ``lo`` and ``hi``.
        n_boot: Resamples.
        seed: Of the resamples: every sum sees the same ones.
    """

    cells: Sequence[str]
    point: Floats
    lo: Floats
    hi: Floats
    x: Floats
    codes: NDArray[np.intp] | None
    given: Floats
    n_prompts: int | None
    n_asked: int | None
    table: stats.PromptMeans | None = None
    base: int | None = None
    scale: float = 1.0
    level: float = 0.95
    n_boot: int = 0
    seed: int = 0

    @property
    def known(self) -> NDArray[np.bool_]:
        """Shape of ``x``: where there is a value."""
        return ~np.isnan(self.x)

    def resampled(self, sums: Floats, sizes: Floats) -> tuple[Floats, int]:
        """What resampling the prompts does to means: draws of them, and how many groups of prompts they rest on.

        Args:
            sums: Shape (means, prompts), what each prompt adds to a mean.
            sizes: Shape (means, prompts), how much it weighs in it; a mean is the total of the sums over that of the sizes.

        Returns:
            Shape (draws, means), NaN where a draw has nothing of a mean, and a count. No draws if there is nothing to draw.
        """
        if self.table is None:
            return np.empty((0, len(sums))), 0
        sums, sizes = resample.by_cluster(sums, self.codes), resample.by_cluster(sizes, self.codes)
        used = (sizes > 0).any(0)
        sums, sizes = sums[:, used], sizes[:, used]
        generator = np.random.default_rng(self.seed)
        draws = [
            resample.draw_means(sums, sizes, stop - start, generator)
            for start, stop in resample.chunks(self.n_boot, max(sums.shape[1], 1))
        ]
        return np.concatenate(draws), int(used.sum())

    def bounds(self, which: NDArray[np.intp], keep: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Own intervals of some cells, over some of their prompts; over all of them, as in the summary.

        Args:
            which: Shape (n,), positions of cells.
            keep: Shape (n, prompts), the prompts that count.
        """
        whole = ~(self.known[which] & ~keep).any(1)
        lo, hi = self.lo[which], self.hi[which]
        if self.table is None or whole.all():
            return lo, hi
        rows = which if self.base is None else np.append(which, self.base)
        keep = keep if self.base is None else np.vstack([keep, np.ones_like(keep[:1])])
        part = replace(
            self.table,
            cells=np.arange(len(rows)),
            means=np.where(keep, self.table.means[rows], np.nan),
            rows=np.where(keep, self.table.rows[rows], 0),
            binary=np.full(len(rows), self.table.binary.all()),
        )
        fewer = _own(part, None if self.base is None else len(which), self.level)
        ends = (end[: len(which)] * self.scale for end in fewer)
        return np.where(whole, lo, next(ends)), np.where(whole, hi, next(ends))


def interval(draws: Floats, units: int, level: float) -> tuple[Floats, Floats]:
    """Expanded percentile intervals, shape (draws, sums) -> (sums,); NaN where there is none.

    Args:
        draws: Of the sums.
        units: Prompts, or groups of related ones, that were resampled.
        level: Confidence level, strictly between 0 and 1.
    """
    empty = np.full(draws.shape[1], np.nan)
    if units < 2 or not len(draws):
        return empty, empty.copy()
    z = np.sqrt(units / (units - 1)) * scipy.stats.t.ppf(resample.upper(level), units - 1)
    lo, hi = _quantiles(draws, (scipy.stats.norm.sf(z), scipy.stats.norm.cdf(z)))
    nothing = ~(hi - lo > 1e-12)
    return np.where(nothing, np.nan, lo), np.where(nothing, np.nan, hi)


_ANSWERS: Final = {
    "quality": "score",
    "diff_vs_baseline": "score",
    "truncated_rate": "truncated",
    "loop_rate": "loop",
    "n_output_tokens_mean": "n_output_tokens",
}
_TIMES: Final = {"ttft_ms_p50": "ttft_ms", "tpot_ms_p50": "tpot_ms", "e2el_ms_p50": "e2el_ms"}


def cell_values(
    run: RunTables | pd.DataFrame,
    value: str = "quality",
    *,
    baseline: str | None = None,
    summary: pd.DataFrame | None = None,
    level: float = 0.95,
    n_boot: int = 2_000,
    rng: Rng = 0,
) -> CellValues:
    """One measure for every cell, over the rows that the summary is about.

    Args:
        run: A run, or a summary: then there are no draws, and the cells' own intervals only where the summary has them.
        value: A column of the summary.
        baseline: Cell (id or label) that ``diff_vs_baseline`` compares with; default: the run's.
        summary: The run's summary, if there is one already, for columns that no table of the run has.
        level: Confidence level of the cells' own intervals, strictly between 0 and 1.
        n_boot: Resamples.
        rng: Generator or seed.

    Raises:
        WorkbenchError: No such column, or no such baseline.
    """
    if not isinstance(run, pd.DataFrame) and value in _ANSWERS:
        base = baseline_cell(run.cells, baseline) if value == "diff_vs_baseline" else None
        return _of_answers(run, value, base, level=level, n_boot=n_boot, rng=rng)
    if not isinstance(run, pd.DataFrame) and value in _TIMES:
        return _of_times(run, _TIMES[value], level=level, n_boot=n_boot, rng=rng)
    table = run
    if not isinstance(table, pd.DataFrame):
        measure(value, SUMMARY_COLUMNS if summary is None else list(summary.columns))
        table = table.summary() if summary is None else summary
    return _of_summary(table, value, level)


def _of_summary(table: pd.DataFrame, value: str, level: float) -> CellValues:
    """A column of a summary."""
    if value not in table:
        raise WorkbenchError(f"the summary has no column {value!r}")
    point = pd.to_numeric(table[value]).to_numpy(float, na_value=np.nan)
    stem = {"diff_vs_baseline": "diff", "e2el_ms_p50": "e2el_ms"}.get(value, value)
    nothing = np.full(len(point), np.nan)
    lo, hi = (
        table.get(f"{stem}_{end}", pd.Series(nothing)).to_numpy(float) for end in ("lo", "hi")
    )
    if not np.isnan(lo).all():
        check_level(table, level)
    n = int(table["n_prompts"].max()) if "n_prompts" in table and len(table) else None
    return CellValues(list(table["cell_id"]), point, lo, hi, *_plain(point), n, n)


def _plain(point: Floats) -> tuple[Floats, None, Floats]:
    """``x``, ``codes`` and ``given`` of numbers that are not known prompt by prompt."""
    return point[:, None], None, np.empty((0, len(point)))


def _scored(run: RunTables, column: str) -> tuple[pd.DataFrame, float]:
    """The answers with a column of values 0..1, and what to multiply them by."""
    needed = [*analysis.KEY, "group", "finish_reason", "n_output_tokens"]
    rows = rows_of(run, [*needed, "text"] if column == "loop" else needed)
    if column == "score":
        return analysis.frame(rows, run.scores, run.cells, run.primary), 1.0
    rows = rows[rows["finish_reason"].ne("error")]
    if column == "truncated":
        return rows.assign(truncated=rows["finish_reason"].eq("length").astype(float)), 1.0
    if column == "loop":
        loops = {text: float(has_loop(text)) for text in rows["text"].unique()}
        return rows.assign(loop=rows["text"].map(loops).astype(float)), 1.0
    tokens = analysis.tokens_of(rows)
    scale = max(1.0, float(np.nan_to_num(tokens.max())))
    return rows.assign(**{column: tokens / scale}), scale


def _of_answers(
    run: RunTables, value: str, base: str | None, *, level: float, n_boot: int, rng: Rng
) -> CellValues:
    """A mean over answers; ``base`` is the cell to subtract, if any."""
    column = _ANSWERS[value]
    rows, scale = _scored(run, column)
    n_asked = int(rows_of(run, ["prompt_id"])["prompt_id"].nunique())
    cells = list(run.cells["cell_id"])
    means = _in_order(stats.prompt_means(rows, column), cells)
    at = None if base is None else cells.index(base)
    x = means.means if at is None else means.means - means.means[at]
    counts = means.rows.astype(float)
    if column == "score":  # a mean over prompts; the others are means over answers
        counts = (~np.isnan(x)).astype(float)
    n = counts.sum(1)
    total = (np.nan_to_num(x) * counts).sum(1)
    point = np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
    lo, hi = _own(means, at, level)
    return CellValues(
        cells,
        point * scale,
        lo * scale,
        hi * scale,
        x * scale,
        means.codes,
        np.empty((0, len(cells))),
        int((counts > 0).any(0).sum()),
        n_asked,
        means,
        at,
        scale,
        level,
        n_boot,
        int(np.random.default_rng(rng).integers(2**62)),
    )


def _in_order(means: stats.PromptMeans, cells: Sequence[str]) -> stats.PromptMeans:
    """The same with a row for each of these cells, whether it has answers or not."""
    place = pd.Index(means.cells).get_indexer(pd.Index(cells))
    there = place >= 0
    return replace(
        means,
        cells=np.asarray(cells, object),
        means=np.where(there[:, None], means.means[place], np.nan),
        rows=np.where(there[:, None], means.rows[place], 0),
        binary=~there | means.binary[place],
    )


def _own(means: stats.PromptMeans, base: int | None, level: float) -> tuple[Floats, Floats]:
    """Intervals of single cells; with ``base`` those of their differences from it."""
    if base is None:
        lo, hi = means.interval(level)
        return lo, hi
    versus = stats.paired_difference(means, means.cells[base], 0, level=level, n_flips=1)
    return versus["diff_lo"].to_numpy(), versus["diff_hi"].to_numpy()


def _of_times(run: RunTables, metric: str, *, level: float, n_boot: int, rng: Rng) -> CellValues:
    """A median over timed requests."""
    cells = list(run.cells["cell_id"])
    nothing = np.full(len(cells), np.nan)
    if run.latency is None or not len(run.latency):
        return CellValues(cells, nothing, nothing, nothing, *_plain(nothing), 0, 0)
    timed = analysis.measured(run.latency)
    times = resample.request_times(timed, np.asarray(cells, object), metric)
    generator = np.random.default_rng(rng)
    draws = [
        resample.draw_medians(times, stop - start, generator)
        for start, stop in resample.chunks(n_boot, max(times.size, 1))
    ]
    few = (~np.isnan(times)).sum((1, 2)) < resample.MIN_FOR_MEDIAN
    drawn = np.where(few, np.nan, np.concatenate(draws))
    own = stats.median_interval(timed, metric, level=level, n_boot=n_boot, rng=rng)
    own = own.set_index("cell_id").reindex(cells)
    n = int((~np.isnan(times)).any((0, 2)).sum())
    point = resample.median(times.reshape(len(cells), -1))
    lo, hi = own["lo"].to_numpy(), own["hi"].to_numpy()
    return CellValues(cells, point, lo, hi, point[:, None], None, drawn, n, n)


def _quantiles(x: Floats, at: Sequence[float]) -> list[Floats]:
    """Quantiles over the first axis, NaN left out."""
    n = (~np.isnan(x)).sum(0)
    x = np.sort(x, axis=0)
    columns = np.arange(x.shape[1])
    return [x[np.clip(np.rint(q * (n - 1)).astype(int), 0, len(x) - 1), columns] for q in at]
