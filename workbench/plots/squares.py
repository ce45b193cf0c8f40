"""Heat map over two settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon, Rectangle

from workbench import effects
from workbench.errors import WorkbenchError
from workbench.plots.style import (
    DIVERGING,
    INK,
    SEQUENTIAL,
    SMALLEST_PT,
    canvas,
    figure_of,
    heading,
    house,
    joined,
    legend_below,
    level_ticks,
    settle,
    shorten,
    size_in,
    width_in,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from numpy.typing import NDArray

    from workbench.effects import Squares
    from workbench.measures import RunTables
    from workbench.resample import Rng


def heatmap(
    run: RunTables | pd.DataFrame,
    x: str | None = None,
    y: str | None = None,
    value: str = "quality",
    ax: Axes | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    summary: pd.DataFrame | None = None,
    baseline: str | None = None,
    title: str | None = "",
    level: float = 0.95,
    rng: Rng = 0,
) -> Axes:
    """One number over two settings: a square for every pair of levels, darker for more.

    The other settings are fixed by ``where`` or averaged, and the picture says which. The best square is outlined and its
    interval printed, unless four or more are alike, or squares are over different prompts or combinations of the other
    settings, which the note says then; squares that hold the baseline have a marked corner; pairs that were not run are
    hatched. The numbers are those of `workbench.effects.squares`.

    Args:
        run: A run, or a summary (then a square that averages several cells has no interval).
        x: The setting across; default: the second that varies.
        y: The setting down; default: the first that varies.
        value: A column of the summary. A difference is coloured around 0.
        ax: Where to draw; default: a new figure, 7.5 in wide.
        where: Settings to hold at one value (None = off).
        summary: The run's summary, if there is one already.
        baseline: Cell id; default: the run's.
        title: Above the picture; default: made from what is shown; None for none.
        level: Confidence level of the interval.
        rng: Generator or seed of its resamples.

    Raises:
        WorkbenchError: No such setting or value, fewer than two settings vary, or no square has a value.
    """
    shown = effects.squares(
        run, x, y, value, where=where, summary=summary, baseline=baseline, level=level, rng=rng
    )
    if shown.table["value"].isna().all():
        raise WorkbenchError(f"nothing to draw: no cell has a value of {value}")
    shape = len(shown.y_texts), len(shown.x_texts)
    if title == "":
        name = shown.measure.name.capitalize()
        title = f"{name}{',' * (',' in name)} by {shown.x} and {shown.y}"
    with house():
        ax = canvas(ax, float(np.clip(1.9 + 0.48 * shape[0], 2.7, 8)))
        mesh = _colours(ax, shown, shape)
        bar = figure_of(ax).colorbar(mesh, ax=ax, pad=0.015, fraction=0.05, aspect=24)
        bar.set_label(shown.measure.axis)
        bar.outline.set_visible(False)
        ax.set_xlabel(shown.x + _off_note(shown.x, shown.x_texts))
        ax.set_ylabel(shown.y)
        _holes(ax, shown)
        in_square = _numbers(ax, shown, shape, title, _note(shown))
        _legend(ax, shown, level, in_square=in_square)
    return ax


def _off_note(setting: str, texts: tuple[str, ...]) -> str:
    return " (0 is greedy)" if setting == "temperature" and "0 (greedy)" in texts else ""


def _matrix(shown: Squares, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Values in the measure's unit, shape (rows, columns)."""
    return shown.table["value"].to_numpy(float).reshape(shape) * shown.measure.scale


def _colours(ax: Axes, shown: Squares, shape: tuple[int, int]) -> Any:
    values = np.ma.masked_invalid(_matrix(shown, shape))
    colours: Colormap = SEQUENTIAL
    low, high = float(values.min()), float(values.max())
    # small differences stay pale: the scale spans 10 points, or a tenth of the value, at least
    least = 10.0 if shown.measure.scale == 100 else 0.1 * abs(high) or 1.0
    air = max(least - (high - low), 0) / 2
    possible = shown.measure.ends
    start = max(possible[0], min(low - air, possible[1] - least))
    norm: Normalize = Normalize(start, max(high, min(start + least, possible[1])))
    if shown.measure.signed:
        reach = max(abs(low), abs(high), least / 2)
        colours, norm = DIVERGING, TwoSlopeNorm(0, -reach, reach)
    mesh = ax.pcolormesh(
        np.arange(shape[1] + 1) - 0.5,
        np.arange(shape[0] + 1) - 0.5,
        values,
        cmap=colours,
        norm=norm,
        edgecolors="white",
        linewidth=1.2 if max(shape) <= 16 else 0.6,
    )
    ax.set_xlim(-0.5, shape[1] - 0.5)
    ax.set_ylim(shape[0] - 0.5, -0.5)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    names = [shorten(text, 22) for text in shown.y_texts]
    ax.set_yticks(range(shape[0]), names, fontsize=8.5 if shape[0] <= 24 else 7)
    return mesh


HOLES = {"not run": ("////", "0.75"), "no value": ("....", "0.6")}


def _holes(ax: Axes, shown: Squares) -> None:
    """Squares without a value."""
    for row in shown.table[shown.table["state"].ne("value")].to_dict("records"):
        hatch, colour = HOLES[row["state"]]
        corner = row["x"] - 0.46, row["y"] - 0.46
        ax.add_patch(
            Rectangle(corner, 0.92, 0.92, facecolor="white", edgecolor=colour, hatch=hatch, lw=0)
        )


def _numbers(
    ax: Axes, shown: Squares, shape: tuple[int, int], title: str | None, note: str
) -> bool:
    """Ticks, heading, and the numbers where they fit; whether the best square's interval was among them."""
    settle(ax)
    level_ticks(ax, shown.x_texts)
    heading(ax, title, note)
    settle(ax)
    width, height = (total / n for total, n in zip(size_in(ax), shape[::-1], strict=True))
    text = {
        (row["y"], row["x"]): _text(shown, row["value"])
        for row in shown.table[shown.table["state"].eq("value")].to_dict("records")
    }
    widest = max(width_in(t, 1) for t in text.values())
    size = min(10.0, 0.86 * width / widest, 0.6 * height * 72)
    best = _outlined(shown)
    alone = len(set(best["cells"])) == 1 and best["lo"].notna().all()
    bounds = _bounds(shown, best.iloc[0]) if alone else ""
    inside = bool(bounds) and min(0.92 * width / width_in(bounds, 1), 0.3 * height * 72) >= 7
    if size >= SMALLEST_PT:
        mesh = ax.collections[0]
        for (yi, xi), number in text.items():
            rgb = mesh.to_rgba(_matrix(shown, shape)[yi, xi])[:3]
            dark = float(np.dot(rgb, (0.2126, 0.7152, 0.0722))) < 0.45
            colour = "white" if dark else INK
            own = inside and yi * shape[1] + xi in best.index
            ax.text(
                xi, yi - 0.13 * own, number, ha="center", va="center", fontsize=size, color=colour
            )
            if own:
                ax.text(xi, yi + 0.24, bounds, ha="center", va="center", fontsize=7, color=colour)
    _marks(ax, shown, best, (width, height))
    return inside and size >= SMALLEST_PT


def _text(shown: Squares, value: float) -> str:
    text = shown.measure.text(value).replace("-", "\u2212")
    return "0" if shown.measure.signed and not text.strip("+\u22120.") else text


def _outlined(shown: Squares) -> pd.DataFrame:
    """The best squares, unless so many are alike that an outline would single nothing out."""
    best = shown.table[shown.table["best"]]
    return best if len(set(best["cells"])) <= 3 else best[:0]


def _bounds(shown: Squares, row: Any) -> str:
    return f"{_text(shown, row['lo'])} to {_text(shown, row['hi'])}"


def _marks(ax: Axes, shown: Squares, best: pd.DataFrame, size: tuple[float, float]) -> None:
    """Outline of the best, corner of the baseline."""
    for _, same in best.groupby("cells", sort=False):
        for rows in _blocks(same):
            x0, x1 = rows["x"].min() - 0.5, rows["x"].max() + 0.5
            y0, y1 = rows["y"].min() - 0.5, rows["y"].max() + 0.5
            for colour, width, order in (("white", 5, 3), (INK, 2.2, 3.1)):
                ax.add_patch(
                    Rectangle(
                        (x0, y0),
                        x1 - x0,
                        y1 - y0,
                        fill=False,
                        edgecolor=colour,
                        linewidth=width,
                        zorder=order,
                        gid="best" if order > 3 else None,
                        clip_on=False,
                    )
                )
    side = min(0.15, 0.3 * size[0], 0.3 * size[1])
    inset = min(0.04, 0.1 * size[0], 0.1 * size[1])
    for row in shown.table[shown.table["baseline"]].to_dict("records"):
        x, y = row["x"] - 0.5 + inset / size[0], row["y"] - 0.5 + inset / size[1]
        corner = [(x, y), (x + side / size[0], y), (x, y + side / size[1])]
        ax.add_patch(Polygon(corner, **_CORNER, linewidth=0.8, zorder=4, gid="baseline"))


_CORNER: Final[dict[str, Any]] = {"facecolor": "white", "edgecolor": INK}
_MARK: Final[dict[str, Any]] = {"markerfacecolor": "white", "markeredgecolor": INK}
_TRIANGLE: Final = [(0, 0), (0, 1), (1, 1), (0, 0)]


def _blocks(same: pd.DataFrame) -> list[pd.DataFrame]:
    """Squares of one and the same cells: together if they fill a rectangle, else one by one."""
    across, down = np.ptp(same["x"]) + 1, np.ptp(same["y"]) + 1
    return [same] if across * down == len(same) else [row for _, row in same.groupby(["y", "x"])]


def _legend(ax: Axes, shown: Squares, level: float, *, in_square: bool) -> None:
    """What outline, corner and hatches mean, below the picture."""
    table = shown.table
    handles: list[Any] = []
    best = _outlined(shown)
    if len(best):
        row = best.iloc[0]
        name = f"best: {_text(shown, row['value'])}"
        if row["baseline"] and shown.measure.signed:
            name = "best: the baseline itself"
        elif in_square:
            name = f"best, with its {100 * level:g} % interval"
        elif len(set(best["cells"])) > 1:
            name = f"best: {len(best)} squares alike"
        elif np.isnan(row["lo"]):
            name = f"{name} (no interval)"
        else:
            name = f"{name} ({100 * level:g} % interval {_bounds(shown, row)})"
        handles.append(Patch(facecolor="none", edgecolor=INK, linewidth=2.2, label=name))
    if table["baseline"].any():
        several = (table.loc[table["baseline"], "n_cells"] > 1).any()
        name = "holds the baseline" if several else "baseline"
        handles.append(
            Line2D([], [], linestyle="none", marker=_TRIANGLE, markersize=8, **_MARK, label=name)
        )
    for state, (hatch, colour) in HOLES.items():
        if table["state"].eq(state).any():
            handles.append(
                Patch(facecolor="white", edgecolor=colour, hatch=hatch, linewidth=0, label=state)
            )
    if handles:
        legend_below(ax, handles)


def _note(shown: Squares) -> str:
    """What the squares are made of."""
    fixed = ", ".join(f"{name} {text}" for name, text in shown.fixed.items())
    averaged = ", ".join(
        f"{name} ({', '.join(texts) if len(texts) <= 4 else f'{len(texts)} levels'})"
        for name, texts in shown.averaged.items()
    )
    uneven = ""
    if not shown.balanced:
        uneven = "squares are over different prompts"
        if shown.averaged:
            uneven = "squares are over different prompts or combinations of these"
        uneven += ", so compare with care: none is marked as best"
    elif shown.n_used < shown.n_others:
        uneven = f"only the {shown.n_used} of {shown.n_others} combinations of these that all squares have"
    return joined(
        _prompts(shown),
        f"{fixed} held fixed" if fixed else "",
        f"average over {averaged}" if averaged else "one cell each",
        uneven,
        f"greedy is one cell for every {' and '.join(shown.shared)}" if shown.shared else "",
        "without greedy cells, where nothing is sampled" if shown.sampled else "",
    )


def _prompts(shown: Squares) -> str:
    """How many prompts the squares are over."""
    few, many, asked = shown.n_fewest, shown.n_prompts, shown.n_asked
    if not many or few is None or asked is None:
        return ""
    counts = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    if few >= asked:
        return f"{counts} prompt{'s' * (many != 1)}"
    what = "scored" if shown.measure.column in ("quality", "diff_vs_baseline") else "answered"
    return f"{counts} of {asked:,} prompts" + f", those {what} in every square" * shown.balanced
