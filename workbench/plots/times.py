"""Where the time of an answer goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.ticker import MaxNLocator

from workbench import breakdown
from workbench.errors import WorkbenchError
from workbench.measures import RunTables, baseline_cell
from workbench.plots.style import (
    FAINT,
    INK,
    canvas,
    cell_rows,
    chosen,
    heading,
    house,
    joined,
    legend_below,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from workbench.resample import Rng

DARK: Final = "#0b5a92"
LIGHT: Final = "#a9cfe6"


def latency_parts(
    run: RunTables,
    ax: Axes | None = None,
    *,
    baseline: str | None = None,
    limit: int = 40,
    title: str | None = "Where the time of an answer goes",
    level: float = 0.95,
    rng: Rng = 0,
) -> Axes:
    """Median end-to-end latency of each timed cell, in two parts: until the first token, and token by token after it.

    Beside each bar stand the medians of output tokens and of the time per further token: of two cells, the slower one is the one
    with more ms per token, the wordier one that with more tokens. The line is the interval of the whole. The numbers are those of
    `workbench.breakdown.latency_parts`, which says how the parts add up.

    Args:
        run: A run.
        ax: Where to draw; default: a new figure, 7.5 in wide, as high as the cells need.
        baseline: Cell whose name is bold; default: the run's.
        limit: Most cells; of more, the slowest are shown, and the baseline.
        title: Above the picture; None for none.
        level: Confidence level of the intervals.
        rng: Generator or seed of the resamples.

    Raises:
        WorkbenchError: No cell was timed, or the limit is below 1.
    """
    table = breakdown.latency_parts(run, level=level, rng=rng)
    if table.empty:
        raise WorkbenchError(
            "nothing to draw: no request was timed; time some with `workbench latency RUN`"
        )
    base = baseline_cell(run.cells, baseline)
    rows, left_out, height = chosen(table, table["e2el_ms"], "the slowest", limit, base)
    with house():
        ax = canvas(ax, height)
        cell_rows(ax, rows, base)
        _stack(ax, rows)
        _columns(ax, rows)
        legend_below(ax, ax.get_legend_handles_labels()[0])
        heading(ax, title, joined(_note(run, table, rows, level), left_out), inside=True)
    return ax


def _stack(ax: Axes, rows: pd.DataFrame) -> None:
    y = np.arange(len(rows))
    ax.barh(y, rows["ttft_ms"], height=0.66, color=DARK, label="until the first token")
    ax.barh(
        y,
        rows["decode_ms"],
        left=rows["ttft_ms"],
        height=0.66,
        color=LIGHT,
        label="further tokens",
    )
    known = rows["e2el_ms_lo"].notna().to_numpy()
    ax.hlines(
        y[known],
        rows["e2el_ms_lo"][known],
        rows["e2el_ms_hi"][known],
        colors=INK,
        linewidth=1.1,
        zorder=3,
        gid="intervals",
    )
    ax.plot(
        rows["e2el_ms"],
        y,
        linestyle="none",
        marker="|",
        markersize=7,
        color=INK,
        zorder=3,
        markeredgewidth=1.6,
    )
    ax.set_xlim(0, 1.04 * float(np.nanmax([rows["e2el_ms"].max(), rows["e2el_ms_hi"].max()])))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("end-to-end latency of one answer, median (ms)")
    ax.grid(visible=False, axis="y")


def _columns(ax: Axes, rows: pd.DataFrame) -> None:
    """Tokens and time per token, as two columns right of the bars."""
    size = ax.get_yticklabels()[0].get_fontsize()
    for offset, name, texts in (
        (46, "tokens", [f"{n:,.1f}".removesuffix(".0") for n in rows["n_output_tokens"]]),
        (98, "ms/token", ["\u2013" if np.isnan(t) else f"{t:,.1f}" for t in rows["tpot_ms"]]),
    ):
        place: dict[str, Any] = {
            "textcoords": "offset points",
            "ha": "right",
            "annotation_clip": False,
        }
        ax.annotate(
            name,
            (1, 1),
            xycoords="axes fraction",
            xytext=(offset, 4),
            va="bottom",
            fontsize=8,
            color=FAINT,
            **place,
        )
        for y, text in enumerate(texts):
            ax.annotate(
                text,
                (1, y),
                xycoords=ax.get_yaxis_transform(),
                xytext=(offset, 0),
                va="center",
                fontsize=size,
                **place,
            )


def _note(run: RunTables, table: pd.DataFrame, rows: pd.DataFrame, level: float) -> str:
    n = rows["n"]
    requests = f"{n.min():,}" if n.min() == n.max() else f"{n.min():,} to {n.max():,}"
    bars = (
        f"lines: {100 * level:g} % intervals"
        if rows["e2el_ms_lo"].notna().any()
        else "too few requests for intervals"
    )
    untimed = len(run.cells) - len(table)
    return joined(
        f"{requests} timed requests a cell",
        bars,
        "bold: the baseline",
        f"{untimed} of {len(run.cells)} cells not timed" if untimed else "",
    )
