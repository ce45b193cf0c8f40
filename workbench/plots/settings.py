"""What each setting does: main effects and interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import effects
from workbench.errors import WorkbenchError
from workbench.factors import level_text
from workbench.measures import Measure, measure
from workbench.plots.style import (
    FAINT,
    INK,
    PALETTE,
    canvas,
    heading,
    house,
    joined,
    level_ticks,
    looks,
    panels,
    settle,
    shorten,
    size_in,
    wrapped,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from workbench.measures import RunTables
    from workbench.resample import Rng

_ACROSS = 4
"""Most panels side by side."""
_LINES = 7
"""Most lines in one picture."""


def main_effects(
    run: RunTables | pd.DataFrame,
    value: str = "quality",
    ax: Axes | None = None,
    *,
    baseline: str | None = None,
    title: str | None = "",
    level: float = 0.95,
    rng: Rng = 0,
) -> NDArray[Any]:
    """One panel per setting that varies: the average of each of its levels, the other settings averaged out.

    The dashed line is the average over the levels. A bar is the interval of a level's distance from it: the prompts are the
    same at every level, so how hard they are drops out, and a bar clear of the line means that the level is different beyond
    chance. Only combinations of the other settings count that were run at every level (`workbench.effects.main_effects`).

    Args:
        run: A run, or a summary (then without bars).
        value: A column of the summary.
        ax: Axes of a grid, whose place is divided among the panels; default: a new figure, 7.5 in wide.
        baseline: Cell that ``diff_vs_baseline`` compares with.
        title: Above the picture; default: made from what is shown; None for none.
        level: Confidence level of the bars.
        rng: Generator or seed of the resamples.

    Returns:
        The axes of the panels, shape (settings,).

    Raises:
        WorkbenchError: No such value, no setting varies, or no cell has a value.
    """
    table = effects.main_effects(run, value, baseline=baseline, level=level, rng=rng)
    about = measure(value, [value])
    if table["mean"].isna().all():
        raise WorkbenchError(_nothing(value, table))
    parts = [part for _, part in table.groupby("setting", sort=False)]
    down = -(-len(parts) // _ACROSS)
    across = -(-len(parts) // down)
    upright = max(len(text) for text in table["text"]) > 10
    if title == "":
        title = f"{about.name.capitalize()}: what each setting does"
    with house():
        axes = panels(ax, (down, across), 0.75 + (2.9 if upright else 2.3) * down).ravel()
        for panel in axes[len(parts) :]:
            panel.remove()
        axes = axes[: len(parts)]
        for panel, part in zip(axes, parts, strict=True):
            _panel(panel, part, about)
        _limits(axes[0], table, about)
        settle(axes[0])
        for panel, part in zip(axes, parts, strict=True):
            level_ticks(panel, list(part["text"]), 14)
        heading(axes[0], title, _note(table, level))
        settle(axes[0])
        for panel in axes[::across]:
            panel.set_ylabel(wrapped(about.axis, 0.95 * size_in(panel)[1], 9))
    return axes


def _nothing(value: str, table: pd.DataFrame) -> str:
    if table["n_known"].eq(0).all():
        return f"nothing to draw: no cell has a value of {value}"
    return (
        "nothing to draw: no combination of the other settings was run at every level of a setting"
    )


def _panel(ax: Axes, part: pd.DataFrame, about: Measure) -> None:
    """One setting."""
    name = str(part["setting"].iloc[0])
    x = np.arange(len(part))
    y = part["mean"].to_numpy() * about.scale
    greedy = name == "temperature" and 0.0 in set(part["level"])
    ax.set_xlabel(f"{name} (0: greedy)" if greedy else name)
    ax.set_xlim(-0.5, len(part) - 0.5)
    ax.grid(visible=False, axis="x")
    if np.isnan(y).all():
        text = "no combination\nwas run at\nevery level"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=FAINT)
        return
    ax.axhline(float(np.nanmean(y)), color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
    numbers = [v for v in part["level"] if isinstance(v, float)]
    if len(numbers) > 1:
        ax.plot(x, y, color=PALETTE[0], linewidth=1, alpha=0.45, zorder=2)
    _bars(ax, x, part, about, PALETTE[0])
    ax.plot(
        x,
        y,
        linestyle="none",
        marker="o",
        markersize=6,
        color=PALETTE[0],
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=3,
        gid="means",
    )


def _bars(ax: Axes, x: NDArray[Any], part: pd.DataFrame, about: Measure, colour: str) -> None:
    """Intervals of the distance from the average, around the points; none where there is none."""
    low, high = _ends(part, about)
    known = ~(np.isnan(low) | np.isnan(high))
    y = part["mean"].to_numpy() * about.scale
    ax.errorbar(
        x[known],
        y[known],
        yerr=np.maximum([(y - low)[known], (high - y)[known]], 0),
        fmt="none",
        ecolor=colour,
        elinewidth=1.5,
        capsize=3,
        capthick=1.2,
        zorder=2.5,
    )


def _ends(part: pd.DataFrame, about: Measure) -> NDArray[Any]:
    """Ends of the bars, shape (2, n): where the distances put them, cut off at what is possible (no quality below 0 %)."""
    middle = part["mean"] - part["diff"]
    ends = np.array([middle + part["diff_lo"], middle + part["diff_hi"]], float) * about.scale
    cut: NDArray[Any] = np.clip(ends, *about.ends)
    return cut


def _limits(ax: Axes, table: pd.DataFrame, about: Measure) -> None:
    """A y axis that holds all points and bars, with some air."""
    ends = np.vstack([_ends(table, about), table["mean"].to_numpy() * about.scale])
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    air = 0.08 * (high - low) if high > low else max(1.0, 0.1 * abs(high))
    ax.set_ylim(low - air, high + air)


def _note(table: pd.DataFrame, level: float) -> str:
    counted = table[table["n_used"] > 0].drop_duplicates("setting") if "setting" in table else table
    short = counted[counted["n_used"] < counted["n_others"]]
    uneven = ""
    if len(short):
        row = short.iloc[0]
        uneven = (
            f"{row.get('setting', 'each point')}: over the {row['n_used']} of {row['n_others']} combinations "
            "of the other settings that every level has"
        )
    bars = (
        f"bars: {100 * level:g} % intervals of the distance from the average (dashed), on the same prompts"
        if table["diff_lo"].notna().any()
        else "dashed: the average; no intervals"
    )
    return joined(
        "the other settings averaged" if table["n_others"].max() > 1 else "", bars, uneven
    )


# --------------------------------------------------------------------------------------------- interaction


def interaction(
    run: RunTables | pd.DataFrame,
    a: str,
    b: str,
    value: str = "quality",
    ax: Axes | None = None,
    *,
    baseline: str | None = None,
    title: str | None = "",
    level: float = 0.95,
    rng: Rng = 0,
) -> Axes:
    """Whether the effect of one setting depends on another: a line over the levels of ``a`` for each level of ``b``.

    Parallel lines: it does not. The other settings are averaged out as in `main_effects`, and bars mean the same: the interval of
    a point's distance from the average of all points (dashed), on the same prompts. Points stand side by side so that
    bars do not cover each other.

    Args:
        run: A run, or a summary (then without bars).
        a: The setting across.
        b: The setting whose levels are lines; of more than seven, seven are drawn, from the first to the last.
        value: A column of the summary.
        ax: Where to draw; default: a new figure, 7.5 x 4 in.
        baseline: Cell that ``diff_vs_baseline`` compares with.
        title: Above the picture; default: made from what is shown; None for none.
        level: Confidence level of the bars.
        rng: Generator or seed of the resamples.

    Raises:
        WorkbenchError: No such setting or value, or no cell has a value.
    """
    table = effects.interaction(run, a, b, value, baseline=baseline, level=level, rng=rng)
    about = measure(value, [value])
    if table["mean"].isna().all():
        raise WorkbenchError(_nothing(value, table))
    levels = effects.design_of(run).levels
    across, lines = (
        [t for t in (level_text(name, v) for v in levels[name]) if t in set(table[column])]
        for name, column in ((a, "a_text"), (b, "b_text"))
    )
    drawn = [
        lines[i] for i in np.unique(np.linspace(0, len(lines) - 1, _LINES).round().astype(int))
    ]
    left_out = (
        "" if len(drawn) == len(lines) else f"{len(drawn)} of {len(lines)} levels of {b} drawn"
    )
    if title == "":
        title = f"{about.name.capitalize()}: {a} by {b}"
    with house():
        ax = canvas(ax, 4)
        step = min(0.12, 0.5 / max(len(drawn), 1))
        for i, (text, (colour, marker)) in enumerate(zip(drawn, looks(len(drawn)), strict=True)):
            part = table[table["b_text"] == text]
            x = np.array([across.index(t) for t in part["a_text"]], float)
            x += (i - (len(drawn) - 1) / 2) * step
            _bars(ax, x, part, about, colour)
            ax.plot(
                x,
                part["mean"] * about.scale,
                color=colour,
                marker=marker,
                markersize=6,
                markeredgecolor="white",
                markeredgewidth=0.6,
                linewidth=1.2,
                label=shorten(text, 20),
                zorder=3,
            )
        average = float(np.nanmean(table["mean"] - table["diff"])) * about.scale
        ax.axhline(average, color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.5)
        _limits(ax, table, about)
        ax.set_xlim(-0.5, len(across) - 0.5)
        ax.grid(visible=False, axis="x")
        ax.set_xlabel(f"{a} (0: greedy)" if "0 (greedy)" in across else a)
        ax.set_ylabel(about.axis)
        ax.legend(title=b, loc="upper left", bbox_to_anchor=(1.005, 1), alignment="left")
        settle(ax)
        level_ticks(ax, across)
        heading(ax, title, joined(_note(table, level), left_out))
    return ax
