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
    adapter_looks,
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
    unpaired,
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
NAMED = ("stop", "template", "adapter")
"""Settings whose levels have no order."""


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
    chance. Only those prompts and combinations of the other settings count that every level has an answer to; a level that
    shares too little with the others is left out and named, and greedy cells are left out of top_k, top_p and min_p
    (`workbench.effects.main_effects`).

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
        _limits(axes[0], np.vstack([_ends(table, about), table["mean"] * about.scale]), about)
        settle(axes[0])
        for panel, part in zip(axes, parts, strict=True):
            level_ticks(panel, list(part["text"]), 14)
        bars = f"bars: {100 * level:g} % intervals of the distance from the average (dashed), on the same "
        if table["diff_lo"].isna().all():
            bars = "dashed: the average; no intervals; on "
        note = _note(table, joined(bars + _prompts(table, about), unpaired(run)))
        heading(axes[0], title, note)
        settle(axes[0])
        for panel in axes[::across]:
            panel.set_ylabel(wrapped(about.axis, 0.95 * size_in(panel)[1], 9))
        heading(axes[0], title, note)  # again, as the axes are narrower now
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
    _bars(ax, x, y, _ends(part, about), PALETTE[0])
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


def _bars(ax: Axes, x: NDArray[Any], y: Any, ends: NDArray[Any], colour: str) -> None:
    """Bars around points, shape (n,), from and to ``ends``, shape (2, n); none where there is none."""
    low, high = ends
    known = ~(np.isnan(low) | np.isnan(high))
    y = np.asarray(y, float)
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


def _ends(part: pd.DataFrame, about: Measure, stem: str = "diff") -> NDArray[Any]:
    """Ends of the bars, shape (2, n): where the distances put them, cut off at what is possible (no quality below 0 %)."""
    middle = part["mean"] - part[stem]
    ends = np.array([middle + part[f"{stem}_lo"], middle + part[f"{stem}_hi"]], float)
    cut: NDArray[Any] = np.clip(ends * about.scale, *about.ends)
    return cut


def _limits(ax: Axes, drawn: NDArray[Any], about: Measure) -> None:
    """A y axis that holds all that is drawn, with some air, and little of what cannot be."""
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    air = 0.08 * (high - low) if high > low else max(1.0, 0.1 * abs(high))
    least, most = about.ends
    bottom, top = max(low - air, least), min(high + air, most)
    edge = 0.04 * (top - bottom)  # room for half a marker
    ax.set_ylim(max(low - air, bottom - edge), min(high + air, top + edge))


def _note(table: pd.DataFrame, bars: str) -> str:
    """What is averaged, and what is not in the averages."""
    return joined(
        "the other settings averaged" if table["n_others"].max() > 1 else "",
        bars,
        _combinations(table),
        _left_out(table),
    )


def _prompts(table: pd.DataFrame, about: Measure) -> str:
    """On how many prompts everything is compared."""
    used = table[table["n_used"] > 0]
    few, many, asked = used["n_fewest"].min(), used["n_most"].max(), used["n_asked"].max()
    counts = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    if few >= asked:
        return f"{counts} prompts"
    what = "a score" if about.scale == 100 and about.better > 0 else "an answer"
    return f"{counts} of {asked:,} prompts (the others lack {what} at some level)"


def _combinations(table: pd.DataFrame) -> str:
    """Which averages are over some of the combinations of the other settings."""
    counted = table[table["n_used"].between(1, table["n_others"] - 1)]
    if "setting" not in table:
        counted = counted.assign(setting="each point")
    parts: list[str] = []
    for (used, others), names in counted.groupby(["n_used", "n_others"], sort=False)["setting"]:
        text = f"{', '.join(dict.fromkeys(names))}: over "
        if not parts:
            text += (
                f"the {used} of {others} combinations of the other settings that every level has"
            )
        else:
            text += f"{used} of {others}"
        parts.append(text)
    return joined(*parts)


def _left_out(table: pd.DataFrame) -> str:
    """Levels that are not compared, and settings that greedy cells say nothing about."""
    rows = table[table["left_out"]].to_dict("records")
    if "setting" in table:
        names = [level_text(row["setting"], row["level"], name=True) for row in rows]
        moot = dict.fromkeys(table.loc[table["sampled"], "setting"])
        greedy = f"{', '.join(moot)}: without greedy cells, where nothing is sampled"
    else:
        names = [f"{row['a_text']} with {row['b_text']}" for row in rows]
        moot = dict.fromkeys(["all"] if table["sampled"].any() else [])
        greedy = "without greedy cells, where nothing is sampled"
    return joined(
        f"left out, having too little in common with the rest: {', '.join(names)}" if names else "",
        greedy if moot else "",
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

    The dotted lines are parallel: where the points would be if it did not (each setting's own effect, least squares). A bar is the
    interval of a point's distance from its dotted line, on the same prompts, taken alone: one clear of it means that
    the effect does depend, beyond chance. The note gives the largest distance. The other settings are averaged out as in `main_effects`.
    Points stand side by side so that bars do not cover each other. Levels without an order (adapters, templates) are not
    joined; a dash is then what a dotted line is elsewhere.

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
    design, known = effects.design_of(run), table[table["mean"].notna()]
    across, lines = (
        [t for t in (level_text(name, v) for v in design.levels[name]) if t in set(known[column])]
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
        named = adapter_looks(lines) if b == "adapter" else None
        for i, (text, look) in enumerate(zip(drawn, looks(len(drawn)), strict=True)):
            part = known[known["b_text"] == text]
            x = np.array([across.index(t) for t in part["a_text"]], float)
            x += (i - (len(drawn) - 1) / 2) * min(0.12, 0.5 / max(len(drawn), 1))
            drawn_as = named[text] if named else look
            _line(ax, x, part, about, drawn_as, text, joined_up=a not in NAMED)
        shown = known[known["b_text"].isin(drawn)]
        parallel = (shown["mean"] - shown["extra"]) * about.scale
        _limits(
            ax,
            np.vstack([_ends(shown, about, "extra"), shown["mean"] * about.scale, parallel]),
            about,
        )
        ax.set_xlim(-0.5, len(across) - 0.5)
        ax.grid(visible=False, axis="x")
        ax.set_xlabel(f"{a} (0: greedy)" if "0 (greedy)" in across else a)
        ax.set_ylabel(about.axis)
        ax.legend(title=b, loc="upper left", bbox_to_anchor=(1.005, 1), alignment="left")
        settle(ax)
        level_ticks(ax, across)
        bars = joined(_parallel(table, (a, b), about, level), unpaired(run))
        shared = [] if table["sampled"].any() else [n for n in (a, b) if n in design.shared]
        greedy = (
            f"greedy is one cell for every {' and '.join(shared)}, so without a bar"
            if shared
            else ""
        )
        heading(ax, title, joined(_note(table, bars), left_out, greedy))
    return ax


def _line(  # noqa: PLR0917 - what, where and how
    ax: Axes,
    x: NDArray[Any],
    part: pd.DataFrame,
    about: Measure,
    look: tuple[str, str],
    text: str,
    *,
    joined_up: bool,
) -> None:
    """The points of one level, their bars, and where they would be if lines were parallel."""
    colour, marker = look
    y = part["mean"].to_numpy() * about.scale
    _bars(ax, x, y, _ends(part, about, "extra"), colour)
    ax.plot(
        x,
        (part["mean"] - part["extra"]) * about.scale,
        color=colour,
        linewidth=1,
        linestyle=":" if joined_up else "none",
        marker="" if joined_up else "_",
        markersize=13,
        zorder=2,
        gid="parallel",
    )
    ax.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linewidth=1.2,
        linestyle="-" if joined_up else "none",
        label=shorten(text, 20),
        zorder=3,
    )


def _parallel(table: pd.DataFrame, by: tuple[str, str], about: Measure, level: float) -> str:
    """What dotted lines and bars are, and the point farthest from its dotted line."""
    known = table[table["extra"].notna()]
    if known.empty:
        return "too few pairs were run to tell whether lines are parallel"
    bars = f"no intervals; on {_prompts(table, about)}"
    if known["extra_lo"].notna().any():
        bars = f"bars: {100 * level:g} % intervals of the distance from them, on the same {_prompts(table, about)}"
    far = known.iloc[int(known["extra"].abs().argmax())]
    if abs(far["extra"]) < 1e-12:
        return joined("the lines are parallel", bars)
    unit = "points" if about.unit == "%" else about.unit
    texts = [about.apart(far[c]) for c in ("extra", "extra_lo", "extra_hi")]
    place = " with ".join(
        level_text(name, far[c], name=True) for c, name in zip("ab", by, strict=True)
    )
    most = f"farthest: {place}, {texts[0]} {unit}".rstrip()
    if not np.isnan(far["extra_lo"]):
        most += f" ({texts[1]} to {texts[2]})"
    if by[0] in NAMED:
        return joined("dashes: where points would be if effects only added up", bars, most)
    return joined("dotted: parallel lines", bars, most)
