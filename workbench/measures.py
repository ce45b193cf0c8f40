"""One measure for every cell, as the summary has it, and what resampling the prompts does to it.

Every cell answered the same prompts, so an easy prompt is easy for all of them. The bootstrap draws prompts (whole groups
of them) and shows every cell the same draw: what is common to all cells drops out of their differences. Bounds are
percentiles, taken further out when prompts are few ("expanded percentile interval", Hesterberg 2015, "What Teachers Should
Know About the Bootstrap"). Where nothing varies between prompts there is no interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import pandas as pd
import scipy.stats

from workbench import analysis, resample, stats
from workbench.analysis import SUMMARY_COLUMNS
from workbench.errors import WorkbenchError, unknown
from workbench.scorers.degeneration import has_loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.resample import Rng

    Floats = NDArray[np.float64]


class Tables(Protocol):
    """The tables of a run, which everything that looks at one needs."""

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell."""

    @property
    def generations(self) -> pd.DataFrame:
        """One row per answer."""

    @property
    def scores(self) -> pd.DataFrame:
        """One row per answer and scorer."""

    @property
    def latency(self) -> pd.DataFrame:
        """One row per timed request."""

    @property
    def primary(self) -> str | None:
        """Name of the primary scorer."""


class RunTables(Tables, Protocol):
    """What is needed of a run."""

    def summary(self) -> pd.DataFrame:
        """One row per cell."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the summary, as people read it.

    Attributes:
        column: Its name.
        name: In words.
        unit: "%", "points", "ms", "tokens" or "".
        scale: What a value is multiplied by to be in that unit.
        better: 1 if more is better, -1 if less is, 0 if neither.
        signed: True if 0 is the middle of the scale.
    """

    column: str
    name: str
    unit: str
    scale: float = 1.0
    better: int = 0
    signed: bool = False

    @property
    def axis(self) -> str:
        """Name and unit, for an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def ends(self) -> tuple[float, float]:
        """Least and largest value there can be, in that unit."""
        if self.signed:
            return (-100.0, 100.0) if self.scale == 100 else (-np.inf, np.inf)
        return 0.0, 100.0 if self.unit == "%" else np.inf

    def text(self, value: float) -> str:
        """A value in its unit, without the unit.

        >>> MEASURES["quality"].text(0.316), MEASURES["diff_vs_baseline"].text(-0.02)
        ('31.6', '-2.0')
        """
        number = value * self.scale
        if self.unit == "ms" or abs(number) >= 1000:
            return f"{number:{'+' if self.signed else ''},.{1 if abs(number) < 10 else 0}f}"
        return f"{number:+.1f}" if self.signed else f"{number:.1f}"


MEASURES: Final = {
    m.column: m
    for m in (
        Measure("quality", "quality", "%", 100, 1),
        Measure("diff_vs_baseline", "difference in quality", "points", 100, 1, signed=True),
        Measure("truncated_rate", "answers cut at max_tokens", "%", 100, -1),
        Measure("loop_rate", "answers that end in a loop", "%", 100, -1),
        Measure("n_output_tokens_mean", "output length, mean", "tokens"),
        Measure("ttft_ms_p50", "time to first token, median", "ms", 1, -1),
        Measure("tpot_ms_p50", "time per further token, median", "ms", 1, -1),
        Measure("e2el_ms_p50", "end-to-end latency, median", "ms", 1, -1),
        Measure("e2el_ms_p90", "end-to-end latency, p90", "ms", 1, -1),
    )
}


def measure(value: str, columns: Sequence[str] = ()) -> Measure:
    """The measure of a column; other columns are shown as they are.

    Raises:
        WorkbenchError: There is neither such a measure nor such a column.
    """
    if value in MEASURES:
        return MEASURES[value]
    if value not in columns:
        raise WorkbenchError(unknown("value", value, MEASURES))
    return Measure(value, value.replace("_", " "), "")


# ------------------------------------------------------------------------------------- values of the cells


@dataclass(frozen=True, slots=True)
class CellValues:
    """One number per cell, and what resampling the prompts does to it.

    Attributes:
        cells: Cell ids.
        point: Shape (cells,), NaN = unknown.
        lo: Shape (cells,), lower bound of the cell's own interval, as in the summary.
        hi: Upper bound.
        draws: Shape (draws, cells), every row one resample of the prompts; no rows if there is nothing to resample.
        units: Number of prompts, or groups of related ones, that were resampled.
        n_prompts: Prompts behind the values; None where it is not known.
    """

    cells: Sequence[str]
    point: Floats
    lo: Floats
    hi: Floats
    draws: Floats
    units: int
    n_prompts: int | None

    def bounds(self, weights: Floats, level: float) -> tuple[Floats, Floats]:
        """Intervals of weighted sums of the cells, shape (sums, cells) -> (sums,); NaN where there is none."""
        with np.errstate(invalid="ignore"):
            sums = np.nan_to_num(self.draws) @ weights.T
        lost = np.isnan(self.draws).astype(float) @ (weights != 0).T.astype(float) > 0
        sums = np.where(lost, np.nan, sums)
        empty = np.full(len(weights), np.nan)
        if self.units < 2 or not len(sums):
            return empty, empty
        n = self.units
        z = np.sqrt(n / (n - 1)) * scipy.stats.t.ppf(resample.upper(level), n - 1)
        lo, hi = _quantiles(sums, (scipy.stats.norm.sf(z), scipy.stats.norm.cdf(z)))
        nothing = ~(hi - lo > 1e-12) | ~(weights != 0).any(1)
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
    if value not in table:
        raise WorkbenchError(f"the summary has no column {value!r}")
    point = pd.to_numeric(table[value]).to_numpy(float, na_value=np.nan)
    stem = {"diff_vs_baseline": "diff", "e2el_ms_p50": "e2el_ms"}.get(value, value)
    nothing = np.full(len(point), np.nan)
    lo, hi = (
        table.get(f"{stem}_{end}", pd.Series(nothing)).to_numpy(float) for end in ("lo", "hi")
    )
    n = int(table["n_prompts"].max()) if "n_prompts" in table and len(table) else None
    return CellValues(list(table["cell_id"]), point, lo, hi, np.empty((0, len(point))), 0, n)


def rows_of(run: RunTables, columns: Sequence[str]) -> pd.DataFrame:
    """The answers that the summary is about: where the study holds prompts out, those of the others."""
    rows = run.generations
    used = [c for c in columns if c in rows]
    return (
        rows.loc[rows["split"].eq("select"), used] if rows["split"].nunique() == 2 else rows[used]
    )


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
    scale = max(float(rows[column].max()), 1.0) if len(rows) else 1.0
    return rows.assign(**{column: rows[column] / scale}), scale


def _of_answers(
    run: RunTables, value: str, base: str | None, *, level: float, n_boot: int, rng: Rng
) -> CellValues:
    """A mean over answers; ``base`` is the cell to subtract, if any."""
    rows, scale = _scored(run, _ANSWERS[value])
    means = stats.prompt_means(rows, _ANSWERS[value])
    lo, hi = means.interval(level)
    x, counts = means.means, means.rows.astype(float)
    if base is not None:
        own = x[means.cells == base]
        x = x - (own if len(own) else np.nan)
        lo, hi = np.full(len(x), np.nan), np.full(len(x), np.nan)
        if len(own):
            versus = stats.paired_difference(means, base, 0, level=level, n_flips=1)
            lo, hi = versus["diff_lo"].to_numpy(), versus["diff_hi"].to_numpy()
    if _ANSWERS[value] == "score":  # a mean over prompts; the others are means over answers
        counts = (~np.isnan(x)).astype(float)
    sums = resample.by_cluster(np.nan_to_num(x) * counts, means.codes)
    sizes = resample.by_cluster(counts, means.codes)
    n = sizes.sum(1)
    point = np.divide(sums.sum(1), n, out=np.full(len(n), np.nan), where=n > 0)
    generator = np.random.default_rng(rng)
    draws = [
        resample.draw_means(sums, sizes, stop - start, generator)
        for start, stop in resample.chunks(n_boot, max(sums.shape[1], 1))
    ]
    cells = list(run.cells["cell_id"])
    place = pd.Index(means.cells).get_indexer(cells)  # -1, the last, where a cell has no answers
    point, lo, hi = (np.append(a, np.nan)[place] * scale for a in (point, lo, hi))
    drawn = np.pad(np.concatenate(draws), ((0, 0), (0, 1)), constant_values=np.nan)[:, place]
    units, prompts = int((sizes > 0).any(0).sum()), int((counts > 0).any(0).sum())
    return CellValues(cells, point, lo, hi, drawn * scale, units, prompts)


def _of_times(run: RunTables, metric: str, *, level: float, n_boot: int, rng: Rng) -> CellValues:
    """A median over timed requests."""
    cells = list(run.cells["cell_id"])
    nothing = np.full(len(cells), np.nan)
    if run.latency is None or not len(run.latency):
        return CellValues(cells, nothing, nothing, nothing, np.empty((0, len(cells))), 0, 0)
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
    units = int((~np.isnan(times)).any((0, 2)).sum())
    point = resample.median(times.reshape(len(cells), -1))
    lo, hi = own["lo"].to_numpy(), own["hi"].to_numpy()
    return CellValues(cells, point, lo, hi, drawn, units, units)


def baseline_cell(cells: pd.DataFrame, baseline: str | None = None) -> str:
    """The id of the cell that others are compared with, given by id or label; default: the one marked.

    Raises:
        WorkbenchError: There is no such cell, or not one is marked.
    """
    if baseline is None:
        marked = cells.loc[cells["is_baseline"].astype(bool), "cell_id"]
        if len(marked) != 1:
            raise WorkbenchError(f"one cell must be marked as the baseline, got {len(marked)}")
        return str(marked.iloc[0])
    found = cells.loc[cells["cell_id"].eq(baseline) | cells["label"].eq(baseline), "cell_id"]
    if found.empty:
        raise WorkbenchError(f"no cell {baseline!r}; cells: {', '.join(cells['label'])}")
    return str(found.iloc[0])


def _quantiles(x: Floats, at: Sequence[float]) -> list[Floats]:
    """Quantiles over the first axis, NaN left out."""
    n = (~np.isnan(x)).sum(0)
    x = np.sort(x, axis=0)
    columns = np.arange(x.shape[1])
    return [x[np.clip(np.rint(q * (n - 1)).astype(int), 0, len(x) - 1), columns] for q in at]
