"""What each adapter changes, as a forest plot."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.patches import Polygon
from matplotlib.ticker import MaxNLocator

from workbench.errors import WorkbenchError
from workbench.plots.style import (
    FAINT,
    INK,
    adapter_looks,
    canvas,
    heading,
    house,
    joined,
    legend_below,
    shorten,
)
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from workbench.comparing.adapters import AdapterComparison

    Row = dict[str, Any]

_ALL: Final = "all"
_SURE: Final = ("better", "worse")
"""Verdicts beyond chance, all comparisons counted: these marks are filled."""
_LINE_IN: Final = 0.2
_GAP: Final = 0.45
"""Air before a block, in lines."""
_NAME: Final = 24
"""Most characters of an adapter's name at a line."""


class _Line(NamedTuple):
    """One line of the picture: a heading (without numbers), an average or a cell."""

    kind: str
    text: str
    row: Row | None = None
    gap: float = 0.0


def forest(
    found: AdapterComparison | pd.DataFrame,
    ax: Axes | None = None,
    *,
    title: str | None = "",
    limit: int = 36,
) -> Axes:
    """The difference that each adapter makes: a line per cell with its interval, and a diamond for the average over settings.

    Lines are grouped by prompt set and adapter, each adapter with a colour and a mark of its own (those of
    `quality_latency`). Filled: beyond chance, all comparisons of the table counted. At the right stand difference and interval, in points, and
    the prompts they are of. Where prompts were held out, a second diamond is of those.

    Args:
        found: A comparison of adapters, or its ``table`` (then without averages).
        ax: Where to draw; default: a new figure, 7.5 in wide, as high as the lines need.
        title: Above the picture; default: made from the baseline's name; None for none.
        limit: Most lines with numbers, averages first. Of more cells, those of single prompt sets are left out, then all but the highest
            and lowest of each adapter.

    Raises:
        WorkbenchError: No cell could be compared, or the limit is below 1.
    """
    if limit < 1:
        raise WorkbenchError(f"limit must be at least 1, got {limit}")
    table = found if isinstance(found, pd.DataFrame) else found.table
    averages = None if isinstance(found, pd.DataFrame) else found.averages
    if table.empty:
        raise WorkbenchError("nothing to draw: no cell of an adapter could be compared")
    baseline = "the baseline" if isinstance(found, pd.DataFrame) else found.baseline
    names = list(dict.fromkeys(table["adapter"]))
    lines, left_out = _lines(table, averages, limit)
    looks = _looks(names, baseline)
    places = list(accumulate(1.0 + line.gap for line in lines))
    places = [place - places[0] for place in places]
    if title == "":
        title = f"What each adapter changes against {shorten(baseline, 40)}"
    with house():
        ax = canvas(ax, 1.75 + _LINE_IN * max(places[-1], 2.0))
        _draw(ax, lines, places, looks)
        _name(ax, lines, places)
        _scale(ax, lines, baseline)
        _columns(ax, lines, places)
        _legend(ax, lines, looks)
        level = 0.95 if isinstance(found, pd.DataFrame) else found.level
        heading(ax, title, _note(lines, left_out, level), above=13)
    return ax


# --------------------------------------------------------------------------------------------- what is shown


def _lines(
    table: pd.DataFrame, averages: pd.DataFrame | None, limit: int
) -> tuple[list[_Line], str]:
    """The lines from the top, and what is left out, in words."""
    summary = _none() if averages is None else averages
    summary, left_out = _fewer_averages(summary.reset_index(drop=True), limit)
    table, said = _fewer_cells(table.reset_index(drop=True), limit - len(summary))
    everything = pd.concat([part for part in (summary, table) if len(part)])
    sets = _in_order(everything["set"])
    lines: list[_Line] = []
    for name in sets:
        if len(sets) > 1 or name != _ALL:
            text = "all prompts" if name == _ALL else name
            lines.append(_Line("set", shorten(text, 34), None, _GAP * bool(lines)))
        for adapter in dict.fromkeys(everything["adapter"]):
            first = not lines or lines[-1].kind == "set"
            mine = [_records(rows, name, adapter) for rows in (summary, table)]
            lines += _block(adapter, mine[0], mine[1], first=first)
    return lines, joined(left_out, said)


def _fewer_averages(rows: pd.DataFrame, most: int) -> tuple[pd.DataFrame, str]:
    """At most so many averages: those of all prompts first, then those furthest from 0."""
    if len(rows) <= most:
        return rows, ""
    size = rows["diff"].astype(float).abs().fillna(-1.0)
    ranked = pd.DataFrame({"part": rows["set"].ne(_ALL), "size": -size})
    kept = ranked.sort_values(["part", "size"], kind="stable").index[:most]
    said = f"{most} of {len(rows)} averages shown (limit={most}): of all prompts, and those furthest from 0"
    return rows.loc[sorted(kept)], said


def _fewer_cells(rows: pd.DataFrame, most: int) -> tuple[pd.DataFrame, str]:
    """At most so many cells: without those of single sets, and if need be the highest and lowest of each adapter."""
    if len(rows) <= most:
        return rows, ""
    whole = rows[rows["set"].eq(_ALL)]
    if 0 < len(whole) <= most:
        return whole, "cells of single prompt sets not shown"
    if not len(whole):
        whole = rows
    share = max(most, 0) // whole["adapter"].nunique()
    if not share:
        return whole.iloc[:0], f"none of {len(rows)} cells shown"
    kept: list[Any] = []
    for _, mine in whole.groupby("adapter", sort=False):
        order = mine["diff"].astype(float).sort_values(kind="stable", ascending=False).index
        low = share // 2
        kept += (
            order if len(order) <= share else [*order[: share - low], *order[len(order) - low :]]
        )
    out = rows.loc[sorted(kept)]
    return out, f"{len(out)} of {len(rows)} cells shown: the highest and lowest of each adapter"


def _block(adapter: str, averages: list[Row], cells: list[Row], *, first: bool) -> list[_Line]:
    """The lines of one adapter on one set."""
    lines = []
    if len(cells) == 1:  # it is its own average
        averages = [row for row in averages if row["split"] == "confirm"]
    for row in sorted(averages, key=lambda r: r["split"] != "confirm"):
        text = (
            f"{shorten(adapter, _NAME)}: {'held out' if row['split'] == 'confirm' else 'average'}"
        )
        lines.append(_Line("average", text, row))
    if cells and not lines:
        lines.append(_Line("adapter", shorten(adapter, _NAME + 9)))
    lines += [_Line("cell", shorten(str(row["settings"]), 32), row) for row in cells]
    if lines and not first:
        lines[0] = lines[0]._replace(gap=_GAP if cells else 0.0)
    return lines


def _none() -> pd.DataFrame:
    return pd.DataFrame(columns=["split", "adapter", "set", "diff"])


def _in_order(names: Iterable[Any]) -> list[str]:
    """Names in order of appearance, all prompts together first."""
    found = [str(name) for name in dict.fromkeys(names)]
    return sorted(found, key=lambda name: name != _ALL)


def _records(rows: pd.DataFrame, name: str, adapter: str) -> list[Row]:
    found: list[Row] = rows[rows["set"].eq(name) & rows["adapter"].eq(adapter)].to_dict("records")  # type: ignore[assignment]  # names are texts
    return found


def _looks(adapters: Sequence[str], baseline: str) -> dict[str, tuple[str, str]]:
    """Colour and mark of each adapter, as `quality_latency` has them: base first, then by name."""
    base = baseline if baseline != "the baseline" else BASE
    return adapter_looks({base, *adapters})


# ---------------------------------------------------------------------------------------------------- drawing


def _draw(
    ax: Axes, lines: Sequence[_Line], places: Sequence[float], looks: dict[str, tuple[str, str]]
) -> None:
    """Zero, intervals, marks and diamonds."""
    ax.axvline(0, color=INK, linewidth=0.9, zorder=1.5, gid="zero")
    for line, y in zip(lines, places, strict=True):
        row = line.row
        if row is None or np.isnan(row["diff"]):
            continue
        colour, marker = looks[row["adapter"]]
        face = colour if row["verdict"] in _SURE else "white"
        x, low, high = (100 * float(row[c]) for c in ("diff", "diff_lo", "diff_hi"))
        if line.kind == "average" and not np.isnan(low):
            half = 0.32
            corners = [(low, y), (x, y - half), (high, y), (x, y + half)]
            ax.add_patch(
                Polygon(
                    corners,
                    closed=True,
                    facecolor=face,
                    edgecolor=colour,
                    linewidth=1.3,
                    zorder=3,
                    gid="average",
                )
            )
            continue
        if not np.isnan(low):
            ax.hlines(y, low, high, colors=colour, linewidth=1.5, zorder=2.5, gid="interval")
        ax.plot(
            x,
            y,
            linestyle="none",
            marker="D" if line.kind == "average" else marker,
            markersize=6,
            markerfacecolor=face,
            markeredgecolor=colour,
            markeredgewidth=1.3,
            zorder=3.5,
            gid="cell",
        )


def _name(ax: Axes, lines: Sequence[_Line], places: Sequence[float]) -> None:
    """Names left of the lines; those of sets, adapters and averages are bold."""
    air = 0.7 + max(2.0 - places[-1], 0) / 2
    ax.set_ylim(places[-1] + air, -air)
    ax.set_yticks(list(places), [line.text for line in lines], fontsize=8)
    ax.tick_params(axis="y", length=0)
    for label, line in zip(ax.get_yticklabels(), lines, strict=True):
        label.set_color(INK)
        if line.kind != "cell":
            label.set_fontweight("bold")
    for line, y in zip(lines, places, strict=True):
        if line.kind == "set":
            ax.axhline(y + 0.5, color="0.75", linewidth=0.8, zorder=1)


def _scale(ax: Axes, lines: Sequence[_Line], baseline: str) -> None:
    """An x axis that holds all intervals and 0."""
    ends = [0.0]
    for line in lines:
        if line.row is not None:
            ends += [100 * float(line.row[c]) for c in ("diff", "diff_lo", "diff_hi")]
    low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
    air = max(0.06 * (high - low), 1.0)
    ax.set_xlim(low - air, high + air)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(lambda v, _: _signed(v, 0 if high - low > 6 else 1))
    ax.set_xlabel(f"quality minus that of {shorten(baseline, 32)} (points); right is better")
    ax.grid(visible=False, axis="y")


def _columns(ax: Axes, lines: Sequence[_Line], places: Sequence[float]) -> None:
    """Differences with intervals, and prompts, as columns right of the lines."""
    place: dict[str, Any] = {"textcoords": "offset points", "annotation_clip": False}
    for offset, side, name, kind in (
        (8, "left", "points (interval)", 0),
        (156, "right", "prompts", 1),
    ):
        ax.annotate(
            name,
            (1, 1),
            xycoords="axes fraction",
            xytext=(offset, 4),
            ha=side,
            va="bottom",
            fontsize=8,
            color=FAINT,
            **place,
        )
        for line, y in zip(lines, places, strict=True):
            if line.row is None:
                continue
            ax.annotate(
                f"{line.row['n_prompts']:,}" if kind else _amount(line.row),
                (1, y),
                xycoords=ax.get_yaxis_transform(),
                xytext=(offset, 0),
                ha=side,
                va="center",
                fontsize=8,
                fontweight="bold" if line.kind == "average" else "normal",
                **place,
            )


def _amount(row: Row) -> str:
    """Difference and interval in points."""
    if np.isnan(row["diff"]):
        return "not scored"
    text = _signed(100 * row["diff"])
    if row["verdict"] == "identical":
        return f"{text} (all identical)"
    if np.isnan(row["diff_lo"]):
        return f"{text} (too few)"
    return f"{text} ({_signed(100 * row['diff_lo'])} to {_signed(100 * row['diff_hi'])})"


def _legend(ax: Axes, lines: Sequence[_Line], looks: dict[str, tuple[str, str]]) -> None:
    """Marks of the adapters, where their names do not fit at the lines."""
    shown = dict.fromkeys(line.row["adapter"] for line in lines if line.row is not None)
    if all(len(name) <= _NAME for name in shown):
        return  # the lines name them
    handles = [
        ax.plot(
            [],
            [],
            linestyle="none",
            marker=looks[name][1],
            color=looks[name][0],
            markersize=6,
            label=name,
        )[0]
        for name in shown
    ]
    legend_below(ax, handles)


def _note(lines: Sequence[_Line], left_out: str, level: float) -> str:
    kinds = {line.kind for line in lines if line.row is not None}
    known = any(line.row is not None and not np.isnan(line.row["diff_lo"]) for line in lines)
    bars = (
        f"bars: {100 * level:g} % intervals, each taken alone"
        if known
        else "too few prompts for intervals"
    )
    held = any(line.row is not None and line.row.get("split") == "confirm" for line in lines)
    diamonds = "diamonds: average over settings" if "average" in kinds else ""
    return joined(
        bars,
        diamonds + (", also on the prompts held out" if held else ""),
        "filled: beyond chance with all comparisons counted",
        left_out,
    )


def _signed(value: float, digits: int = 1) -> str:
    text = f"{value:+,.{digits}f}"
    return (text[1:] if float(text.replace(",", "")) == 0 else text).replace("-", "\u2212")
