"""Quality against latency, and the front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from workbench import analysis, stats
from workbench.effects import cell_values
from workbench.errors import WorkbenchError
from workbench.labels import Label, place
from workbench.measures import check_level
from workbench.plan import SHORT
from workbench.plots.style import (
    INK,
    PALETTE,
    canvas,
    heading,
    house,
    legend_below,
    looks,
    short_names,
)
from workbench.records import BASE
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from workbench.measures import RunTables


_LONGEST: Final = 40
"""Most characters of a cell's name."""
_FILLS: Final = ("full", "none", "left", "top")
"""How markers are filled, for the values of a second setting."""
_GONE: Final = 0.25
"""Opacity of cells that left a race."""


def quality_latency(
    run: RunTables | pd.DataFrame,
    ax: Axes | None = None,
    *,
    summary: pd.DataFrame | None = None,
    latency: pd.DataFrame | None = None,
    cells: pd.DataFrame | None = None,
    baseline: str | None = None,
    title: str | None = "Quality against latency",
    label: Literal["front", "all", "none"] = "front",
    color_by: str | None = None,
    level: float = 0.95,
    rng: np.random.Generator | int = 0,
) -> Axes:
    """Quality (percent) against median end-to-end latency (ms), one point per cell.

    Bars are intervals in both directions. The line is the front: no other cell is as good and as fast as one on it, and better in one. The cells on
    the front and the baseline are drawn strong and named, the others faint; cells that left a race are fainter still, and on
    no front. Of the other settings the one that changes quality most is told by how markers are filled, if it has few values.

    Args:
        run: A run, or a summary.
        ax: Where to draw; default: a new figure, 7.5 x 5 in.
        summary: The run's summary, if there is one already.
        latency: The latency table, for the horizontal intervals; default: the run's. Not needed if the summary has columns
            ``e2el_ms_lo`` and ``e2el_ms_hi``; without either no horizontal interval is drawn, and the picture says so.
        cells: The cells table, for the names; default: the run's.
        baseline: Cell id; default: as told by `analysis.baseline_of`.
        title: Above the picture; None for none.
        label: Which cells are named, next to the baseline; names that find no room are left out, and the picture says so.
        color_by: Adapter, template or setting that colour and shape stand for; default: the first of these that varies.
        level: Confidence level of all intervals. A summary's intervals of quality are of the level it was made with.
        rng: Generator or seed of the latency intervals.

    Raises:
        WorkbenchError: There is no cell with both a quality and a latency, no such ``color_by``, or a level that the
            summary has not and that no run is given to compute.
    """
    if isinstance(run, pd.DataFrame):
        table = run
    else:
        table = run.summary() if summary is None else summary
        latency = run.latency if latency is None else latency
        cells = run.cells if cells is None else cells
    table = _at_level(run, table, level)
    shown = _points(table, latency, level, rng)
    names = shown["cell_id"].map(analysis.labels_of(table, cells)).fillna(shown["cell_id"])
    shown["name"] = short_names(list(names), list(shown["cell_id"]), _LONGEST)
    base = analysis.baseline_of(table) if baseline is None else baseline
    shown["is_baseline"] = shown["cell_id"] == base
    column = _first(table, color_by)
    groups = _groups(shown, column)
    filled = _fills(shown, column)
    with house():
        ax = canvas(ax, 5)
        _draw_points(ax, shown, groups, filled)
        _draw_front(ax, shown)
        _scale(ax, shown)
        note = _note(ax, table, shown, level, _prompts(table, shown))
        _dress(ax, title, note)
        if not _name(ax, shown, label):
            for text in [text for text in ax.texts if text.get_gid() == "name"]:
                text.remove()
            first, *more = note.split("\n")
            heading(ax, title, "\n".join([f"{first}; names where there is room", *more]))
            _name(ax, shown, label)
    return ax


def _at_level(run: RunTables | pd.DataFrame, table: pd.DataFrame, level: float) -> pd.DataFrame:
    """The summary, its intervals of quality at a level."""
    if isinstance(run, pd.DataFrame) or level == table.attrs.get("level", 0.95):
        check_level(table, level)
        return table
    own = cell_values(run, "quality", level=level, n_boot=1)
    table = table.drop(columns=["e2el_ms_lo", "e2el_ms_hi"], errors="ignore")
    for name, bounds in (("quality_lo", own.lo), ("quality_hi", own.hi)):
        table[name] = table["cell_id"].map(dict(zip(own.cells, bounds, strict=True)))
    return table


def _prompts(table: pd.DataFrame, shown: pd.DataFrame) -> str:
    """How many prompts the points are over: those with a score, if some have none."""
    most = int(shown["n_prompts"].max())
    asked = f"{most:,} prompt{'s' * (most != 1)}"
    scored = table.attrs.get("prompts_scored")
    if scored is None:  # read back from a file
        whole = shown["n_failed"].eq(0).all() and (shown["n_scored"] % shown["n_prompts"]).eq(0)
        return asked if np.all(whole) else f"{asked}, not every row scored"
    n = shown["cell_id"].map(scored)
    few, many = int(n.min()), int(n.max())
    if few == most:
        return asked
    return f"{few:,} of {asked} scored" if few == many else f"{few:,} to {many:,} of {asked} scored"


def _points(
    table: pd.DataFrame,
    latency: pd.DataFrame | None,
    level: float,
    rng: np.random.Generator | int,
) -> pd.DataFrame:
    """The cells that can be drawn, in percent and milliseconds, with their intervals."""
    known = table["quality"].notna() & table["e2el_ms_p50"].notna()
    if not table["quality"].notna().any():
        raise WorkbenchError("nothing to draw: no answer of this run was scored")
    if not known.any():
        raise WorkbenchError(
            "nothing to draw: no scored cell has a latency; measure it with `workbench latency RUN`"
        )
    columns = ["quality", "quality_lo", "quality_hi"]
    out = table[known].reset_index(drop=True)
    out[columns] *= 100
    out["left"] = out["cell_id"].isin(table.attrs.get("left", {}))
    worth = out["quality"].round(9).mask(out["left"])
    out["on_front"] = stats.on_front(worth, out["e2el_ms_p50"]) & ~out["left"]
    out["named"] = out["on_front"]
    if "on_front" in table and table.loc[known, "on_front"].isna().all():
        # Too few requests, or too noisy: the summary does not say which cells are on the front, so nor does the picture.
        out["on_front"] = False
        out["named"] = worth.eq(worth.max())
    if "e2el_ms_lo" not in out:
        if latency is not None and len(latency):
            timed = analysis.measured(latency)
            bounds = stats.median_interval(timed, level=level, rng=rng).set_index("cell_id")
            out["e2el_ms_lo"] = out["cell_id"].map(bounds["lo"])
            out["e2el_ms_hi"] = out["cell_id"].map(bounds["hi"])
        else:
            out["e2el_ms_lo"] = out["e2el_ms_hi"] = np.nan
    return out


def _varied(table: pd.DataFrame) -> list[str]:
    """What differs between cells: adapter, template and settings."""
    known = [c for c in ("adapter", "template", *SETTINGS) if c in table]
    return [c for c in known if len(pd.unique(table[c])) > 1]


def _first(table: pd.DataFrame, color_by: str | None) -> str | None:
    """What colour and shape stand for; None if nothing varies."""
    known = [c for c in ("adapter", "template", *SETTINGS) if c in table]
    if color_by is not None and color_by not in known:
        raise WorkbenchError(f"color_by must be one of {', '.join(known)}, got {color_by!r}")
    return color_by or next(iter(_varied(table)), None)


def _groups(shown: pd.DataFrame, column: str | None) -> dict[str, list[int]]:
    """Legend text to the rows of ``shown`` that share a colour and a shape; at most six groups."""
    if column is None:
        return {"": list(range(len(shown)))}
    values = sorted(set(shown[column].dropna()), key=lambda v: (v != BASE, v))
    names = {value: _value(column, value) for value in values}
    if len(names) > len(PALETTE):
        parts = np.array_split(np.array(list(names), object), len(PALETTE))
        names = {
            v: f"{_value(column, p[0])} to {_value('', p[-1])}" if len(p) > 1 else names[v]
            for p in parts
            for v in p
        }
    groups: dict[str, list[int]] = {name: [] for name in names.values()}
    for i, value in enumerate(shown[column]):
        groups.setdefault(names.get(value, _none(column)), []).append(i)
    return groups


def _none(column: str) -> str:
    """What is said where a setting is not set."""
    return f"no {column}" if column == "template" else f"{SHORT.get(column, column)} off"


def _fills(shown: pd.DataFrame, column: str | None) -> dict[str, list[int]]:
    """Legend text to the rows that share a fill: the values of the setting, next to the first, that changes quality most.

    One that changes nothing by itself, or has more values than there are fills, is not told apart. A setting that is off
    comes first, then its values in order.
    """
    best, largest = None, 0.0
    for name in _varied(shown):
        if name == column or shown[name].nunique(dropna=False) > len(_FILLS):
            continue
        means = shown.groupby([column, name], dropna=False)["quality"].mean().groupby(level=0)
        spread = (means.max() - means.min())[means.size() > 1]
        if spread.mean() > largest:  # at the same value of the first setting
            best, largest = name, spread.mean()
    if best is None:
        return {"": list(range(len(shown)))}
    fills = {} if shown[best].notna().all() else {_none(best): np.flatnonzero(shown[best].isna())}
    for value in sorted(set(shown[best].dropna()), key=lambda v: (v != BASE, v)):
        fills[_value(best, value)] = np.flatnonzero(shown[best].eq(value))
    return {name: rows.tolist() for name, rows in fills.items()}


def _value(column: str, value: object) -> str:
    """A value of a setting, with the setting's short name if it has one."""
    if column == "temperature" and value == 0:
        return "T = 0 (greedy)"
    text = f"{value:g}" if isinstance(value, int | float) else str(value)
    return f"{SHORT[column]} = {text}" if column in SHORT else text


def _spread(rows: pd.DataFrame, column: str, middle: str) -> NDArray[np.float64]:
    """Lengths of the error bars to both sides, shape (2, n); 0 where there is no interval."""
    below = rows[middle] - rows[f"{column}_lo"]
    above = rows[f"{column}_hi"] - rows[middle]
    bars = np.vstack([below, above]).astype(float)
    lengths: NDArray[np.float64] = np.maximum(np.nan_to_num(bars), 0)
    return lengths


def _draw_points(
    ax: Axes, shown: pd.DataFrame, groups: dict[str, list[int]], filled: dict[str, list[int]]
) -> None:
    """Markers and bars: strong on the front and for the baseline, faint elsewhere, fainter for cells that left a race."""
    fill_of = {i: fill for rows, fill in zip(filled.values(), _FILLS, strict=False) for i in rows}
    for (name, rows), (color, marker) in zip(groups.items(), looks(len(groups)), strict=True):
        for i in rows:
            _draw_point(ax, shown.iloc[[i]], color, marker, fill_of[i])
        if name:
            ax.plot([], [], color=color, marker=marker, linestyle="none", markersize=6, label=name)
    grey: dict[str, Any] = {"color": "0.4", "marker": "o", "linestyle": "none", "markersize": 6}
    for name, fill in zip(filled, _FILLS, strict=False):
        if name:
            ax.plot([], [], **grey, **_filled("0.4", fill), label=name)
    if shown["left"].any():
        ax.plot([], [], **grey, alpha=_GONE, label="left the race early (fewer prompts)")
    own = shown[shown["is_baseline"]]
    if not own.empty:
        ax.plot(
            own["e2el_ms_p50"],
            own["quality"],
            linestyle="none",
            marker="o",
            markersize=13,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=1.3,
            zorder=5,
            label="baseline",
        )


def _draw_point(ax: Axes, cell: pd.DataFrame, color: str, marker: str, fill: str) -> None:
    """One cell: its bars and its marker."""
    row = cell.iloc[0]
    alpha, size, width, order = 0.5, 5.5, 0.8, 2.0
    if row["on_front"] or row["is_baseline"]:
        alpha, size, width, order = 1.0, 7.5, 1.3, 4.0
    elif row["left"]:
        alpha, size, width, order = _GONE, 4.5, 0.5, 1.5
    x, y = cell["e2el_ms_p50"], cell["quality"]
    ax.errorbar(
        x,
        y,
        yerr=_spread(cell, "quality", "quality"),
        xerr=_spread(cell, "e2el_ms", "e2el_ms_p50"),
        fmt="none",
        ecolor=color,
        elinewidth=width,
        alpha=0.6 * alpha**1.6,
        zorder=order,
    )
    look = _filled(color, fill)
    ax.plot(
        x,
        y,
        linestyle="none",
        marker=marker,
        markersize=size,
        alpha=alpha,
        zorder=order + 0.5,
        **look,
    )


def _filled(color: str, fill: str) -> dict[str, Any]:
    """Colours of a marker: a full one has a white rim, the others the rim's colour and white inside."""
    if fill == "full":
        return {"markerfacecolor": color, "markeredgecolor": "white", "markeredgewidth": 0.7}
    inside = {"markerfacecolor": "white"} if fill == "none" else {"fillstyle": fill}
    rim = {"markeredgecolor": color, "markeredgewidth": 1.3}
    return {"markerfacecolor": color, "markerfacecoloralt": "white", **rim, **inside}


def _draw_front(ax: Axes, shown: pd.DataFrame) -> None:
    """The front as steps: what quality can be had within a latency."""
    front = shown[shown["on_front"]].sort_values(["e2el_ms_p50", "quality"])
    ax.step(
        front["e2el_ms_p50"],
        front["quality"],
        where="post",
        color=INK,
        linewidth=1.7,
        linestyle=(0, (4, 1.6)),
        zorder=4.2,
        path_effects=[withStroke(linewidth=3.4, foreground="white")],
        label="front: better only if slower" if len(front) > 1 else None,
        gid="front",
    )


def _scale(ax: Axes, shown: pd.DataFrame) -> None:
    """Limits and ticks."""
    x = shown["e2el_ms_p50"]
    if x.max() > 12 * x.min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.xaxis.set_minor_locator(NullLocator())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7))
        ax.set_xlim(*_width(shown))
    ax.margins(y=0.08)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, -2), min(high, 102))


def _dress(ax: Axes, title: str | None, note: str) -> None:
    """Titles and legend."""
    ax.set_xlabel("end-to-end latency of one answer, median (ms); left is faster")
    ax.set_ylabel("quality (%)")
    heading(ax, title, note)
    legend_below(ax, ax.get_legend_handles_labels()[0])


def _width(shown: pd.DataFrame) -> tuple[float, float]:
    """Limits of the latency axis: all bars, unless they would squeeze the points into less than half of it.

    The bars hold the spread between prompts, which all cells share; the points are what is compared.
    """
    x = shown["e2el_ms_p50"]
    apart = x.max() - x.min()
    room = 0.45 * max(apart, 0.15 * x.max()) if apart > 0 else np.inf
    low = max(
        shown["e2el_ms_lo"].min() if shown["e2el_ms_lo"].notna().any() else x.min(), x.min() - room
    )
    high = min(
        shown["e2el_ms_hi"].max() if shown["e2el_ms_hi"].notna().any() else x.max(), x.max() + room
    )
    margin = max(0.06 * (high - low), 0.02 * x.max())
    return float(low - margin), float(high + margin)


def _note(ax: Axes, table: pd.DataFrame, shown: pd.DataFrame, level: float, prompts: str) -> str:
    """One or two lines under the title: what the bars are, and what is not in the picture."""
    timed = shown["e2el_ms_lo"].notna()
    text = f"{prompts}; bars: {100 * level:g} % intervals"
    if not timed.any():
        text += " of quality (too few timed requests for intervals of latency)"
    elif not timed.all():
        text += f" (latency: {timed.sum()} of {len(shown)} cells have enough timed requests)"
    left, right = ax.get_xlim()
    if (shown["e2el_ms_lo"] < left).any() or (shown["e2el_ms_hi"] > right).any():
        text += "; some run past the edge"
    if not shown["on_front"].any():
        text += "; no front, since latency was not measured well enough"
    unscored = int(table["quality"].isna().sum())
    untimed = len(table) - len(shown) - unscored
    missing = [
        f"{count} without {what}"
        for count, what in ((unscored, "a score"), (untimed, "a latency"))
        if count
    ]
    return text + (
        f"\nnot shown: {' and '.join(missing)}, of {len(table)} cells" if missing else ""
    )


def _name(ax: Axes, shown: pd.DataFrame, label: str) -> bool:
    """Names next to the points; whether there was room for all."""
    wanted = shown["is_baseline"] | (shown["named"] & (label == "front")) | (label == "all")
    rows = shown[wanted].sort_values(
        ["is_baseline", "on_front", "quality"], ascending=False, kind="stable"
    )
    labels = [
        Label(
            row["e2el_ms_p50"],
            row["quality"],
            row["name"] + (" (baseline)" if row["is_baseline"] else ""),
            INK if row["on_front"] or row["is_baseline"] else "0.4",
            13.0 if row["is_baseline"] else 7.0,
        )
        for row in rows.to_dict("records")
    ]
    points = shown[["e2el_ms_p50", "quality"]].to_numpy(float)
    return len(place(ax, labels, points, _lines(shown))) == len(labels)


def _lines(shown: pd.DataFrame) -> NDArray[np.float64]:
    """Points along the front and the bars, shape (m, 2)."""
    steps = np.linspace(0, 1, 40)
    front = shown[shown["on_front"]].sort_values(["e2el_ms_p50", "quality"])
    x, y = front["e2el_ms_p50"].to_numpy(float), front["quality"].to_numpy(float)
    parts = [np.empty((0, 2))]
    for i in range(len(front) - 1):
        parts.append(np.column_stack([x[i] + steps * (x[i + 1] - x[i]), np.full(40, y[i])]))
        parts.append(np.column_stack([np.full(40, x[i + 1]), y[i] + steps * (y[i + 1] - y[i])]))
    for row in shown.to_dict("records"):
        low, high = row["quality_lo"], row["quality_hi"]
        parts.append(np.column_stack([np.full(40, row["e2el_ms_p50"]), low + steps * (high - low)]))
        left, right = row["e2el_ms_lo"], row["e2el_ms_hi"]
        parts.append(np.column_stack([left + steps * (right - left), np.full(40, row["quality"])]))
    out = np.vstack(parts)
    return out[~np.isnan(out).any(1)]
