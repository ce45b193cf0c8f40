"""The picture of a run's cells with the place of each, so that buttons can be laid over it."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure

from workbench import plots
from workbench.answers import visible

if TYPE_CHECKING:
    import pandas as pd

    from workbench.comparing.pairs import RunTables

NAME: Final = 30
"""Characters of a cell's name."""
_DRAWN: Final = 40
"""Most cells drawn when there is no latency."""


def picture(
    table: pd.DataFrame, run: RunTables, baseline: str
) -> tuple[str, dict[str, tuple[float, float]]]:
    """Quality against latency, or quality alone where nothing was timed.

    Args:
        table: As from `Browser.overview`.
        run: Its tables.
        baseline: Id of the baseline.

    Returns:
        The picture as HTML, and for each cell drawn its place: percent of the width from the left and of the height
        from the top.
    """
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    ax = figure.subplots()
    scored = table[table["quality"].notna()]
    timed = scored[scored["e2el_ms_p50"].notna()]
    if scored.empty:
        return "<p>No answer of this run was scored: there is nothing to draw.</p>", {}
    if timed.empty:
        points = _draw_quality(ax, scored, baseline)
    else:
        plots.quality_latency(
            table, ax, latency=run.latency, cells=run.cells, baseline=baseline, title=None
        )
        points = timed[["e2el_ms_p50", "quality"]].to_numpy(float) * (1, 100)
        scored = timed
    figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    at = ax.transData.transform(points)
    ids = [str(i) for i in scored["cell_id"].iloc[: len(points)]]
    places = {
        i: (100 * float(x) / width, 100 - 100 * float(y) / height)
        for i, (x, y) in zip(ids, at, strict=True)
    }
    out = io.BytesIO()
    figure.savefig(out, format="svg", facecolor="white")
    data = base64.b64encode(out.getvalue()).decode()
    name = "Quality by cell" if timed.empty else "Quality against latency, one point per cell"
    return f'<img alt="{name}" src="data:image/svg+xml;base64,{data}">', places


def _draw_quality(ax: Any, scored: pd.DataFrame, baseline: str) -> Any:
    """Quality of each cell with its interval, in the order of the study; gives the points."""
    rows = scored.head(_DRAWN)
    x, y = 100 * rows["quality"].to_numpy(float), range(len(rows))
    low, high = (
        100 * rows[c].fillna(rows["quality"]).to_numpy(float) for c in ("quality_lo", "quality_hi")
    )
    ax.errorbar(
        x, y, xerr=[x - low, high - x], fmt="o", color="#0072B2", ecolor="0.6", markersize=6
    )
    own = rows["cell_id"].eq(baseline).to_numpy()
    ax.plot(
        x[own],
        [i for i in y if own[i]],
        "o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor="#222222",
    )
    names = [
        visible(n)[:NAME] + (" (baseline)" if b else "")
        for n, b in zip(rows["label"], own, strict=True)
    ]
    ax.set_yticks(list(y), names, fontsize=8, parse_math=False)
    ax.invert_yaxis()
    ax.set_xlabel("quality (%), bars: 95 % intervals; nothing was timed")
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return list(zip(x, y, strict=True))
