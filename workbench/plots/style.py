"""The house style: colours, sizes, headings, rows of cells, and labels that keep clear of each other.

Colours are Okabe and Ito's, told apart by every common kind of colour vision; each goes with a marker shape of its own, so
that a grey print reads the same. Scales of colour grow darker with the value.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.textpath import text_to_path
from matplotlib.transforms import ScaledTranslation

from workbench.errors import WorkbenchError
from workbench.measures import failed_rows
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from workbench.measures import RunTables

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
INK: Final = "#222222"
FAINT: Final = "0.35"
"""Grey of notes and ticks."""
WIDTH_IN: Final = 7.5
"""Width of a picture of its own, inches: that of a notebook and of a printed page."""
SMALLEST_PT: Final = 6.5
"""No text is smaller."""
SEQUENTIAL: Final = LinearSegmentedColormap.from_list(
    "workbench", ["#f4f8fb", "#bcd8ea", "#6fb0d8", "#2a83bd", "#0b5a92", "#08335c"]
)
DIVERGING: Final = LinearSegmentedColormap.from_list(
    "workbench_diverging",
    ["#8a3b00", "#d55e00", "#f0a773", "#f7f7f7", "#7fb9dc", "#0072b2", "#084068"],
)
_FALLBACKS: Final = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Emoji",
    "Symbola",
)
FALLBACKS: Final = tuple(f for f in _FALLBACKS if f in {e.name for e in fontManager.ttflist})
"""Fonts of this machine for signs that the main font lacks."""
STYLE: Final[Any] = {
    "font.family": ["DejaVu Sans", *FALLBACKS],
    "font.size": 9,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.35",
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.7,
    "xtick.color": "0.35",
    "ytick.color": "0.35",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a name starts no formula
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def house() -> Iterator[None]:
    """The house style while a picture is drawn; nothing of it stays.

    A notebook's backend starts with the first figure and then turns ``interactive`` on; that must outlive the style, or no later
    figure is shown.
    """
    with mpl.rc_context(dict(STYLE)):
        yield
        interactive = mpl.is_interactive()
    mpl.interactive(interactive)


# ------------------------------------------------------------------------------------------------ places


def canvas(ax: Axes | None, height_in: float) -> Axes:
    """The axes given, in the house style, or those of a new figure."""
    if ax is None:
        made: Axes = plt.subplots(figsize=(WIDTH_IN, height_in), layout="constrained")[1]
        return made
    ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set_edgecolor(STYLE["axes.edgecolor"])
    ax.tick_params(colors=STYLE["xtick.color"], labelsize=STYLE["font.size"])
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=INK, fontsize=STYLE["axes.labelsize"])
    ax.set_axisbelow(True)
    ax.grid(visible=True, color=STYLE["grid.color"], linewidth=STYLE["grid.linewidth"])
    return ax


def panels(
    ax: Axes | None,
    shape: tuple[int, int],
    height_in: float,
    *,
    ratios: Sequence[float] | None = None,
) -> NDArray[Any]:
    """Several axes that share their y axis: in a new figure, or in the place of the axes given, which they replace.

    Args:
        ax: Axes of a grid (as `Figure.subplots` makes them), or None.
        shape: Rows and columns.
        height_in: Of a new figure, inches.
        ratios: Relative widths of the columns.

    Returns:
        Shape ``shape``, array of axes.

    Raises:
        WorkbenchError: ``ax`` has no place in a grid that could be divided.
    """
    place = canvas(ax, height_in)
    spec = place.get_subplotspec()
    if spec is None:
        raise WorkbenchError("ax must come from subplots: this picture divides its place")
    place.remove()
    grid = spec.subgridspec(*shape, width_ratios=ratios)
    axes: NDArray[Any] = np.asarray(grid.subplots(sharey=True, squeeze=False), object)
    for panel in axes[:, 1:].flat:
        panel.tick_params(axis="y", left=False)
    return axes


def figure_of(ax: Axes) -> Figure:
    """The whole figure that axes are in."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def settle(ax: Axes) -> None:
    """Lay the figure out, so that sizes mean something."""
    figure_of(ax).draw_without_rendering()


def size_in(ax: Axes) -> tuple[float, float]:
    """Width and height of settled axes, inches."""
    box = ax.get_window_extent()
    dpi = figure_of(ax).dpi
    return box.width / dpi, box.height / dpi


# ------------------------------------------------------------------------------------------------- texts


def width_in(text: str, size: float, *, bold: bool = False) -> float:
    """Width of a text, inches."""
    font = FontProperties(
        family=mpl.rcParams["font.family"], size=size, weight="bold" if bold else "normal"
    )
    return (
        max(
            float(text_to_path.get_text_width_height_descent(line, font, ismath=False)[0])
            for line in text.split("\n")
        )
        / 72
    )


def wrapped(text: str, room_in: float, size: float, *, bold: bool = False) -> str:
    """A text broken between words so that no line is wider than there is room, if its words allow it."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and 1.03 * width_in(longer, size, bold=bold) > room_in:  # a renderer rounds up
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def shorten(text: str, most: int) -> str:
    """A text of at most so many characters; what is left out is in the middle, since names differ at their ends.

    >>> shorten("T=0.6 k=50 rep=1.1 a-very-long-adapter", 24)
    'T=0.6 k=50 r…ong-adapter'
    """
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[len(text) - (most - 1) // 2 :]}"


def heading(
    ax: Axes, title: str | None, note: str, *, above: float = 0.0, inside: bool = False
) -> None:
    """Title, and under it a grey line or two on what is drawn; of an earlier call nothing stays.

    Args:
        ax: Upper left axes of the picture.
        title: None for none.
        note: Broken to fit the room from the axes' left side to the figure's right side.
        above: Height of what stands between the axes and the note, points.
        inside: The note ends at the axes' right side.
    """
    for earlier in [text for text in ax.texts if text.get_gid() == "note"]:
        earlier.remove()
    settle(ax)
    figure = figure_of(ax)
    place = ax.get_subplotspec()
    right = 1.0
    if place is not None:
        top = place.get_topmost_subplotspec()
        if top.get_gridspec().ncols > 1:  # a grid of pictures: up to the next one
            right = float(top.get_position(figure).x1)
    right = figure.bbox.x0 + right * figure.bbox.width
    box = ax.get_window_extent()
    room = ((box.x1 if inside else right) - box.x0) / figure.dpi - 0.08
    text = wrapped(note, max(room, 1.0), 8)
    said = ax.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 4 + above),
        textcoords="offset points",
        fontsize=8,
        color=FAINT,
        va="bottom",
        gid="note",
        annotation_clip=False,
    )
    said.set_in_layout(False)
    pad = 8 + above + 11 * (text.count("\n") + 1 if text else 0)
    ax.set_title(
        wrapped(title or " ", max(room, 3.0), STYLE["axes.titlesize"], bold=True),
        loc="left",
        pad=pad if title else pad - 12,
        color=INK,
        fontsize=STYLE["axes.titlesize"],
        fontweight=STYLE["axes.titleweight"],
    )


def legend_below(
    ax: Axes, handles: Sequence[Any], *, side: Literal["left", "right"] = "left", most: int = 4
) -> None:
    """A legend under the x axis, of as many columns as there is room for.

    Args:
        ax: Axes whose ticks and labels are final.
        handles: With labels.
        side: Where it is flush with the axes.
        most: Most columns.
    """
    settle(ax)
    figure = figure_of(ax)
    labels = ax.xaxis.get_tightbbox()
    box = ax.get_window_extent()
    below = (box.y0 - (labels.y0 if labels is not None else box.y0)) / figure.dpi + 0.09
    room = (figure.bbox.x1 - box.x0 if side == "left" else box.width) / figure.dpi
    names = [shorten(str(handle.get_label()), 48) for handle in handles]
    ax.legend(
        handles,
        names,
        loc="upper left" if side == "left" else "upper right",
        bbox_to_anchor=(0.0 if side == "left" else 1.0, 0.0),
        bbox_transform=ax.transAxes + ScaledTranslation(0, -below, figure.dpi_scale_trans),
        ncols=_columns(names, room, most),
        borderaxespad=0,
        borderpad=0,
        handlelength=1.6,
        handletextpad=0.5,
        columnspacing=1.5,
    )


def _columns(names: Sequence[str], room_in: float, most: int) -> int:
    """Most columns in which these names fit side by side, filled downwards."""
    size = float(mpl.rcParams["legend.fontsize"])
    for n in range(min(most, len(names)), 1, -1):
        parts = np.array_split(np.array([width_in(name, size) for name in names]), n)
        if sum(part.max() + 3.7 * size / 72 for part in parts) <= room_in:
            return n
    return 1


def level_ticks(ax: Axes, texts: Sequence[str], most: int = 18) -> None:
    """Ticks 0, 1, 2, ... along x with these names; upright where they would touch, and thinned out where that is not enough.

    Args:
        ax: Settled axes.
        texts: The names.
        most: Longest name, characters.
    """
    names = [shorten(text.removesuffix(" (greedy)"), most) for text in texts]
    size = 8.5
    left, right = ax.get_xlim()
    room = size_in(ax)[0] / max(abs(right - left), 1e-9)
    upright = max(width_in(name, size) for name in names) > 0.8 * room
    height = 1.25 * size / 72
    step = int(np.ceil(height / room)) if upright else 1
    shown = range(0, len(names), step)
    ax.set_xticks(list(shown), [names[i] for i in shown], fontsize=size)
    if upright:
        ax.tick_params(axis="x", labelrotation=90)


def looks(n: int) -> Iterator[tuple[str, str]]:
    """Colour and marker of each group; a seventh group is grey."""
    yield from list(zip((*PALETTE, "#777777"), (*MARKERS, "X"), strict=True))[:n]


def adapter_looks(adapters: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each adapter, the same in every picture of a run: base first, then by name."""
    names = sorted(set(adapters), key=lambda name: (name != BASE, name))
    known = list(looks(len(PALETTE) + 1))
    return {name: known[min(i, len(PALETTE))] for i, name in enumerate(names)}


# ------------------------------------------------------------------------------------------ rows of cells


class Rows(NamedTuple):
    """Cells as rows of a picture.

    Attributes:
        table: Those shown, in study order.
        note: What is left out, in words; "" if nothing is.
        height_in: Of a figure of their own, inches.
    """

    table: pd.DataFrame
    note: str
    height_in: float


def chosen(
    table: pd.DataFrame,
    worth: pd.Series,
    why: str,
    limit: int,
    baseline: str | None,
) -> Rows:
    """The cells that fit into a picture.

    Args:
        table: One row per cell, with ``cell_id``, in study order.
        worth: How much each row deserves to be shown; NaN least.
        why: What the worth is, in words.
        limit: Most rows, at least 1.
        baseline: Shown in any case.

    Raises:
        WorkbenchError: The limit is below 1.
    """
    if limit < 1:
        raise WorkbenchError(f"limit must be at least 1, got {limit}")
    note = ""
    if len(table) > limit:
        first = worth.to_numpy(float, na_value=-np.inf).copy()
        first[np.isnan(first)] = -np.inf
        first[(table["cell_id"] == baseline).to_numpy()] = np.inf
        order = np.argsort(-first, kind="stable")[:limit]
        note = f"{limit} of {len(table)} cells shown (limit={limit}): {why}"
        note += ", and the baseline" * (baseline in set(table["cell_id"]))
        table = table.iloc[np.sort(order)]
    return Rows(table.reset_index(drop=True), note, 1.35 + 0.2 * max(len(table), 3))


def short_names(labels: Sequence[object], cells: Sequence[str], most: int) -> list[str]:
    """Names of cells, shortened; those that are the same then get the beginning of their id."""
    names = [shorten(str(label), most) for label in labels]
    again = {name for name in names if names.count(name) > 1}
    alike = [cell for name, cell in zip(names, cells, strict=True) if name in again]
    n = next((n for n in range(4, 64) if len({cell[:n] for cell in alike}) == len(alike)), 64)
    return [
        f"{name} [{cell[:n]}]" if name in again else name
        for name, cell in zip(names, cells, strict=True)
    ]


def cell_rows(ax: Axes, rows: pd.DataFrame, baseline: str | None) -> None:
    """Name the rows 0, 1, 2, ... from the top after their cells; the baseline's name is bold."""
    names = short_names(list(rows["label"]), list(rows["cell_id"]), 32)
    air = 0.6 + max(3 - len(rows), 0) / 2
    ax.set_ylim(len(rows) - 1 + air, -air)
    ax.set_yticks(range(len(rows)), names, fontsize=8 if len(rows) <= 24 else 7.5)
    ax.tick_params(axis="y", length=0)
    for label, cell in zip(ax.get_yticklabels(), rows["cell_id"], strict=True):
        label.set_color(INK)
        if cell == baseline:
            label.set_fontweight("bold")


def joined(*notes: str) -> str:
    """Notes in a line, empty ones left out."""
    return "; ".join(note for note in notes if note)


def unpaired(run: RunTables | pd.DataFrame) -> str:
    """What must be said of averages from a summary with failed rows."""
    if failed_rows(run):
        return (
            "some rows failed, so not all on the same prompts (a run, not its summary, tells which)"
        )
    return ""
