"""Which prompts changed between two cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from workbench.errors import WorkbenchError
from workbench.plots.style import FAINT, INK, PALETTE, canvas, heading, house, joined, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from workbench.comparing import Comparison

_LOOKS: Final = {
    "better": (PALETTE[0], ""),
    "same": ("0.6", ""),
    "worse": (PALETTE[1], "////"),
}
_NAMED: Final = 40
"""Most prompts that get a row with a name each."""


def changes(
    table: pd.DataFrame | Comparison,
    labels: Sequence[str] | None = None,
    ax: Axes | None = None,
    *,
    title: str | None = "",
) -> Axes:
    """What happened to each prompt from one cell to another: its difference in score, sorted, best first.

    Up to 40 prompts: a bar each, with its name. More: the sorted differences side by side, without names. The legend
    counts prompts that score better, the same and worse; prompts without a score in one of the cells are counted in the note.

    Args:
        table: The frame of `workbench.comparing.changes`: prompt_id, diff (-1..1) and change; or a comparison, whose interval is
            printed then.
        labels: Names of the two cells, (baseline, cell); default: the comparison's.
        ax: Where to draw; default: a new figure, 7.5 in wide.
        title: Above the picture; default: made from the labels; None for none.

    Raises:
        WorkbenchError: No prompt was scored in both cells.
    """
    bounds = ""
    if not isinstance(table, pd.DataFrame):
        labels = labels or table.labels
        if not np.isnan(table.lo):
            bounds = f" (95 % interval {_points(table.lo)} to {_points(table.hi)})"
        table = table.changes
    scored = table[table["diff"].notna()]
    if scored.empty:
        raise WorkbenchError("nothing to draw: no prompt was scored in both cells")
    rows = scored.sort_values("diff", ascending=False, kind="stable").reset_index(drop=True)
    before, after = labels or ("the baseline", "the cell")
    if title == "":
        title = f"{shorten(after, 60)} against {shorten(before, 60)}, prompt by prompt"
    named = len(rows) <= _NAMED
    unscored = len(table) - len(rows)
    note = joined(
        f"{len(rows):,} prompt{'s' * (len(rows) != 1)} scored in both",
        f"mean difference {_points(rows['diff'].mean())} points{bounds}",
        f"{unscored:,} not scored in both, not shown" if unscored else "",
    )
    with house():
        ax = canvas(ax, 1.5 + 0.2 * max(len(rows), 4) if named else 3.4)
        (_bars if named else _shape)(ax, rows)
        counts = rows["change"].value_counts()
        handles = [
            Patch(
                facecolor=colour,
                hatch=hatch,
                edgecolor="white",
                label=f"{counts.get(name, 0):,} {name}",
            )
            for name, (colour, hatch) in _LOOKS.items()
        ]
        ax.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.005, 1),
            title="prompts",
            alignment="left",
        )
        heading(ax, title, note)
    return ax


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "\u2212")


def _reach(rows: pd.DataFrame) -> float:
    """How far the axis goes to both sides of 0, points."""
    return max(27.0, 108 * float(rows["diff"].abs().max()))


def _bars(ax: Axes, rows: pd.DataFrame) -> None:
    """One bar and name per prompt."""
    for kind, (colour, hatch) in _LOOKS.items():
        mine = rows[rows["change"] == kind]
        if kind == "same":
            ax.plot(
                mine["diff"] * 100,
                mine.index,
                linestyle="none",
                marker="o",
                markersize=4,
                color=colour,
            )
        else:
            ax.barh(
                mine.index,
                mine["diff"] * 100,
                height=0.7,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                linewidth=0,
            )
    ax.axvline(0, color=INK, linewidth=0.9)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [shorten(str(p), 28) for p in rows["prompt_id"]], fontsize=7.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(-_reach(rows), _reach(rows))
    ax.set_xlabel("difference in score (points)")
    ax.grid(visible=False, axis="y")


def _shape(ax: Axes, rows: pd.DataFrame) -> None:
    """The sorted differences as one shape."""
    x, y = np.arange(len(rows) + 1), 100 * rows["diff"].to_numpy()
    for kind, (colour, hatch) in _LOOKS.items():
        mine = np.flatnonzero(rows["change"] == kind)
        if not len(mine):
            continue
        first, last = mine[0], mine[-1] + 1
        if kind == "same":
            ax.hlines(0, first, last, colors=colour, linewidth=4, zorder=3, gid="same")
            continue
        ax.stairs(
            y[first:last],
            x[first : last + 1],
            fill=True,
            facecolor=colour,
            hatch=hatch,
            edgecolor="white" if hatch else colour,
            linewidth=0,
            gid=kind,
        )
    ax.axhline(0, color=INK, linewidth=0.9)
    ax.set_xlim(0, len(rows))
    ax.set_ylim(-_reach(rows), _reach(rows))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("prompts, from the most improved to the most worsened")
    ax.set_ylabel("difference in score (points)")
    ax.tick_params(axis="x", colors=FAINT)
    ax.grid(visible=False, axis="x")
