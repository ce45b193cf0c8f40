"""The pictures of a report, each a Figure of its own that no notebook shows a second time."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from workbench import plots
from workbench.plots import INK, PALETTE, STYLE
from workbench.plots.style import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.reporting.facts import Facts

WIDTH: Final = 7.5
"""Inches; what fits an A4 page."""
MOST_ROWS: Final = 40
"""Cells in the picture of quality alone."""


@contextmanager
def plainly() -> Iterator[None]:
    """Texts are drawn as they are: a dollar sign starts no formula, and a letter that the font lacks is no warning."""
    with mpl.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def picture(draw: Callable[..., Any], *args: Any, **kwargs: Any) -> Figure:
    """What a function of `workbench.plots` draws on a figure of its own.

    Args:
        draw: The function.
        args: Its arguments.
        kwargs: Its other arguments.
    """
    with plainly():
        drawn: Figure = np.ravel(draw(*args, **kwargs))[0].get_figure(root=True)
    plt.close(drawn)
    return drawn


def front(facts: Facts) -> Figure:
    """Quality against latency."""
    return picture(
        plots.quality_latency,
        facts.run,
        summary=facts.summary,
        baseline=facts.baseline,
        rng=facts.seed,
    )


def quality(facts: Facts) -> Figure:
    """Quality with its interval, a row a cell, best on top."""
    rows = facts.ranked[facts.ranked["quality"].notna()].head(MOST_ROWS)
    y = np.arange(len(rows))[::-1]
    q = 100 * rows[["quality", "quality_lo", "quality_hi"]].to_numpy(float)
    with mpl.rc_context(dict(STYLE)), plainly():
        drawn = Figure(figsize=(WIDTH, 1.1 + 0.26 * len(rows)), layout="constrained")
        ax = drawn.subplots()
        is_base = rows["cell_id"].eq(facts.baseline).to_numpy()
        spread = np.nan_to_num(np.vstack([q[:, 0] - q[:, 1], q[:, 2] - q[:, 0]]))
        gone = rows["cell_id"].isin(facts.left).to_numpy()
        for part, alpha in ((~gone, 1.0), (gone, 0.35)):
            bars = np.maximum(spread[:, part], 0)
            look: dict[str, Any] = {"fmt": "o", "color": PALETTE[0], "alpha": alpha, "zorder": 3}
            ax.errorbar(q[part, 0], y[part], xerr=bars, **look)
        ax.plot(q[is_base, 0], y[is_base], "o", ms=12, mfc="none", mec=INK, zorder=4)
        for value in q[is_base, 0]:
            ax.axvline(value, color="0.6", linestyle=(0, (2, 2)), linewidth=1, zorder=1)
        labels = [_named(facts, cell) for cell in rows["cell_id"]]
        ax.set_yticks(y, [shorten(text, 40) for text in labels])
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("quality (%) and 95 % interval")
    return drawn


def _named(facts: Facts, cell: str) -> str:
    """The name of a row, with what must be known of the cell."""
    name = facts.name(cell)
    if cell == facts.baseline:
        return f"{name} (baseline)"
    return f"{name} (left after {facts.left[cell]:,})" if cell in facts.left else name
