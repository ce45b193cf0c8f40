"""How long the answers of each cell are and how they end, and the signs that something is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from workbench import breakdown
from workbench.errors import WorkbenchError
from workbench.health import COLUMNS, WORSE, RunAnswers
from workbench.health import health as health_of
from workbench.measures import RunTables, baseline_cell
from workbench.plots.style import (
    FAINT,
    INK,
    PALETTE,
    cell_rows,
    chosen,
    heading,
    house,
    joined,
    legend_below,
    panels,
    settle,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

LIMIT: Final = 40
"""Most cells in a picture with a row for each."""
_ENDS: Final = {
    "stop": ("#d3e5f1", "", "ended by itself"),
    "tool_calls": ("#009E73", "", "tool call"),
    "length": ("#E69F00", "////", "cut at max_tokens"),
    "error": (INK, "", "failed"),
}
_NAMES: Final = {
    "truncated_rate": "cut at\nmax_tokens",
    "empty_rate": "empty",
    "loop_rate": "end in\na loop",
    "repeated_ngrams": "repeated\n4-grams",
    "distinct_2": "distinct\nword pairs",
    "language_switch_rate": "leave the\nlanguage",
    "agreement": "agree with\na repeat",
}


def lengths(
    run: RunTables,
    ax: Axes | None = None,
    *,
    baseline: str | None = None,
    limit: int = LIMIT,
    title: str | None = "",
) -> NDArray[Any]:
    """Output lengths and finish reasons, one row per cell in study order.

    On the left the spread of output tokens: a line from the 5th to the 95th percentile, a bar from the 25th to the 75th, a white mark
    at the median, and max_tokens as an upright line where it is the same for all. On the right the shares of answers by
    finish reason; that panel alone where the tokens of answers were not counted. The numbers are those of
    `workbench.breakdown.lengths`.

    Args:
        run: A run.
        ax: Axes of a grid, whose place is divided; default: a new figure, 7.5 in wide, as high as the cells need.
        baseline: Cell whose name is bold; default: the run's.
        limit: Most cells; of more, those with the longest answers are shown, and the baseline.
        title: Above the picture; default: made from what is shown; None for none.

    Returns:
        Axes of the panels.

    Raises:
        WorkbenchError: The run has no answers, or the limit is below 1.
    """
    table = breakdown.lengths(run)
    if not table["n"].any():
        raise WorkbenchError("nothing to draw: the run has no answers")
    base = baseline_cell(run.cells, baseline)
    rows, left_out, height = chosen(table, table["mean"], "the longest answers", limit, base)
    counted = rows["p50"].notna()
    if title == "":
        title = "Length of the answers, and how they end" if counted.any() else "How answers end"
    note = "lengths are not known: tokens were not counted"
    if counted.any():
        note = "line: 5 to 95 % of the answers, bar: 25 to 75 %, mark: median"
    with house():
        ratios = (3, 2) if counted.any() else (1,)
        axes: NDArray[Any] = panels(ax, (1, len(ratios)), height + 0.15, ratios=ratios)[0]
        cell_rows(axes[0], rows, base)
        if counted.any():
            _spread(axes[0], rows)
        _endings(axes[-1], rows)
        axes[0].tick_params(axis="y", labelleft=True)
        heading(axes[0], title, joined(note, "bold: the baseline", left_out))
    return axes


def _spread(ax: Axes, rows: pd.DataFrame) -> None:
    y = np.arange(len(rows))
    thick = 7.0 if len(rows) <= 24 else 5.5
    ax.hlines(y, rows["p05"], rows["p95"], colors=PALETTE[0], linewidth=1.2, alpha=0.7)
    ax.hlines(y, rows["p25"], rows["p75"], colors=PALETTE[0], linewidth=thick, gid="middle")
    ax.plot(
        rows["p50"],
        y,
        linestyle="none",
        marker="|",
        markersize=thick + 2,
        markeredgewidth=2,
        color="white",
        zorder=3,
    )
    ax.plot(
        rows["p50"],
        y,
        linestyle="none",
        marker="o",
        markersize=2,
        color=INK,
        zorder=4,
        gid="medians",
    )
    limits = rows["max_tokens"].unique()
    right = float(rows["p95"].max())
    if len(limits) == 1 and limits[0] <= 1.6 * right:
        ax.axvline(limits[0], color=FAINT, linewidth=1, linestyle=(0, (4, 2)), gid="limit")
        right = max(right, float(limits[0]))
    ax.set_xlim(0, 1.04 * right)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_xlabel(
        "output tokens" + (" (dashed: max_tokens)" if ax.lines[-1].get_gid() == "limit" else "")
    )
    ax.grid(visible=True, axis="both")


def _endings(ax: Axes, rows: pd.DataFrame) -> None:
    y = np.arange(len(rows))
    left = np.zeros(len(rows))
    handles = []
    for ending, (colour, hatch, name) in _ENDS.items():
        share = 100 * rows[ending].fillna(0).to_numpy(float)
        if not share.any():
            continue
        ax.barh(
            y,
            share,
            left=left,
            height=0.68,
            color=colour,
            edgecolor="white",
            hatch=hatch,
            linewidth=0.5,
            label=ending,
        )
        handles.append(Patch(facecolor=colour, edgecolor="white", hatch=hatch, label=name))
        left += share
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of answers (%)")
    ax.grid(visible=False)
    ax.tick_params(axis="y", left=False, labelleft=False)
    legend_below(ax, handles, side="right")


def health(
    run: RunAnswers | pd.DataFrame,
    ax: Axes | None = None,
    *,
    baseline: str | None = None,
    limit: int = LIMIT,
    title: str | None = "Signs that answers go wrong",
    level: float = 0.95,
) -> NDArray[Any]:
    """Signs of degeneration, one row per cell in study order and one panel per sign.

    Points with their intervals, in percent: answers cut at max_tokens, empty, ending in a loop; four-word passages that
    occurred before; different word pairs; answers that leave the language; answers that agree with another to the same prompt.
    A sign that nothing can be said about (agreement with one repeat) has no panel. Orange: the worst cell of a panel, or up to three alike. The
    numbers are those of `workbench.health.health`.

    Args:
        run: A run, or the frame of `workbench.health.health`.
        ax: Axes of a grid, whose place is divided; default: a new figure, 7.5 in wide, as high as the cells need.
        baseline: Cell whose name is bold; default: the run's; none for a frame.
        limit: Most cells; of more, the worst one of each sign is shown, the baseline, and then those with the most signs.
        title: Above the picture; None for none.
        level: Confidence level of the intervals of a run; a frame brings its own.

    Returns:
        Axes of the panels, shape (signs,).

    Raises:
        WorkbenchError: There are no answers, or the limit is below 1.
    """
    if isinstance(run, pd.DataFrame):
        table, base = run, baseline
    else:
        table = health_of(run, intervals=True, level=level)
        base = baseline_cell(run.cells, baseline)
    if not any(c in table and table[c].notna().any() for c in COLUMNS):
        raise WorkbenchError("nothing to draw: the run has no answers")
    why = "the worst of each sign, then those with the most signs"
    rows, left_out, height = chosen(table, _trouble(table), why, limit, base)
    signs = [c for c in COLUMNS if c in rows and rows[c].notna().any()]
    if not signs:
        raise WorkbenchError("nothing to draw: the cells shown have no answers")
    absent = [c for c in signs if WORSE[c] == 1 and not table[c].fillna(0).any()]
    if len(absent) == len(signs):
        absent = absent[1:]
    with house():
        signs = [c for c in signs if c not in absent]
        axes: NDArray[Any] = panels(ax, (1, len(signs)), height + 0.3)[0]
        for panel, sign in zip(axes, signs, strict=True):
            _sign(panel, rows, sign)
        cell_rows(axes[0], rows, base)
        settle(axes[0])
        note = joined(
            "share of answers, of passages or of word pairs (%)",
            f"bars: {100 * level:g} % intervals" if f"{signs[0]}_lo" in table else "",
            "orange diamond: worst",
            "bold: the baseline" if base else "",
            f"seen in no answer: {', '.join(_NAMES[c].replace(chr(10), ' ') for c in absent)}"
            if absent
            else "",
        )
        heading(axes[0], title, joined(note, left_out), above=26)
    return axes


def _trouble(table: pd.DataFrame) -> pd.Series:
    """How much each cell deserves to be shown: first the worst cell of each sign, then by the sum of the signs.

    Each sign counts from 0 (the best cell) to 1 (the worst), so that one that is common everywhere does not hide the rest. An
    unknown sign counts nothing; a cell of which nothing is known comes last.
    """
    worth = np.zeros(len(table))
    seen = np.zeros(len(table), bool)
    for sign in [c for c in COLUMNS if c in table and WORSE[c]]:
        x = table[sign].to_numpy(float) * WORSE[sign]
        known = ~np.isnan(x)
        seen |= known
        if known.any() and np.ptp(x[known]) > 0:
            worth[known] += (x[known] - x[known].min()) / np.ptp(x[known])
            worth[np.nanargmax(x)] += len(COLUMNS)
    return pd.Series(np.where(seen, worth, np.nan), index=table.index)


def _sign(ax: Axes, rows: pd.DataFrame, sign: str) -> None:
    """One panel of `health`."""
    y = np.arange(len(rows))
    x = 100 * rows[sign].to_numpy(float)
    colours = np.full(len(rows), PALETTE[0], dtype=object)
    ranked = x * WORSE[sign]
    if WORSE[sign] and np.isfinite(x).sum() > 1 and np.nanmax(ranked) > np.nanmin(ranked):
        last = ranked == np.nanmax(ranked)
        if last.sum() <= 3:  # of many alike none stands out
            colours[last] = PALETTE[1]
    if f"{sign}_lo" in rows:
        low, high = (100 * rows[f"{sign}_{end}"].to_numpy(float) for end in ("lo", "hi"))
        known = np.isfinite(low) & np.isfinite(high)
        ax.hlines(y[known], low[known], high[known], colors=list(colours[known]), linewidth=1.3)
        top, bottom = np.nanmax([*high, *x]), np.nanmin([*low, *x])
    else:
        top, bottom = np.nanmax(x), np.nanmin(x)
    worst = colours == PALETTE[1]
    for part, marker, colour in ((~worst, "o", PALETTE[0]), (worst, "D", PALETTE[1])):
        ax.plot(
            x[part],
            y[part],
            linestyle="none",
            marker=marker,
            markersize=4.5,
            color=colour,
            zorder=3,
        )
    _sign_axis(ax, float(bottom), float(top), zero=sign != "distinct_2")
    ax.annotate(
        _NAMES[sign],
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        va="bottom",
        fontsize=8,
    ).set_in_layout(False)


def _sign_axis(ax: Axes, bottom: float, top: float, *, zero: bool) -> None:
    """Two or three round ticks; from 0 where 0 is the good end."""
    low = 0.0 if zero or bottom < 35 else 10 * np.floor(bottom / 10)
    high = max(top, low + 4)
    high = 100.0 if high > 60 else 5 * np.ceil(high / 5)
    ax.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    ax.set_xticks([low, high])
    left, right = ax.get_xticklabels()
    left.set(horizontalalignment="left", fontsize=8)
    right.set(horizontalalignment="right", fontsize=8)
    ax.set_xticks([(low + high) / 2], minor=True)
    ax.grid(visible=True, which="both")
    ax.tick_params(axis="y", left=False)
