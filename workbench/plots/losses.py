"""How the loss fell while an adapter was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.ticker import MaxNLocator

from workbench.errors import WorkbenchError
from workbench.plots.style import INK, PALETTE, canvas, heading, house, joined, legend_below

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_MANY: Final = 100
"""With more points than this, the training loss is drawn as a running mean, the points faint behind it."""
_SMOOTH: Final = 25
"""Most points that the mean is over."""


def losses(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    kept: int | None = None,
    title: str | None = "Loss while training",
) -> Axes:
    """Training and held-out loss by step, the step that was kept marked.

    Args:
        frame: Columns ``step``, ``epoch``, ``train_loss`` and ``validation_loss`` (nats per answer token), NaN where not
            measured, as ``losses.csv`` of an adapter has them.
        ax: Where to draw; default: a new figure, 7.5 in wide.
        kept: The step whose weights the adapter has; by default that of the lowest held-out loss after the first step.
        title: Above the picture; None for none.

    Raises:
        WorkbenchError: The frame has no such columns, or no loss.
    """
    missing = [c for c in ("step", "train_loss", "validation_loss") if c not in frame]
    if missing:
        raise WorkbenchError(f"the losses have no column {', '.join(missing)}")
    trained = frame.dropna(subset=["train_loss"])
    held = frame.dropna(subset=["validation_loss"])
    if trained.empty and held.empty:
        raise WorkbenchError("nothing to draw: no loss was logged")
    if kept is None:
        kept = _best(held)
    with house():
        ax = canvas(ax, 3.4)
        _training(ax, trained)
        if not held.empty:
            look = {"color": PALETTE[1], "marker": "s", "markersize": 4.5, "linewidth": 1.8}
            ax.plot(held["step"], held["validation_loss"], label="held-out rows", zorder=3, **look)  # type: ignore[arg-type]
        _mark(ax, frame, kept)
        highest = float(np.nanmax(frame[["train_loss", "validation_loss"]].to_numpy(float)))
        ax.set_ylim(0, 1.08 * highest if highest > 0 else 1.0)
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.set_xlabel("step")
        ax.set_ylabel("loss (nats per answer token)")
        handles = ax.get_legend_handles_labels()[0]
        legend_below(ax, handles)
        heading(ax, title, _note(frame, held, kept))
    return ax


def _best(held: pd.DataFrame) -> int | None:
    after = held[held["step"] > 0]
    if after.empty:
        return None
    lowest = int(after["validation_loss"].to_numpy(float).argmin())
    return int(after["step"].to_numpy()[lowest])


def _training(ax: Axes, trained: pd.DataFrame) -> None:
    if trained.empty:
        return
    if len(trained) <= _MANY:
        ax.plot(
            trained["step"],
            trained["train_loss"],
            label="training rows",
            color=PALETTE[0],
            marker="o",
            markersize=3.5,
            linewidth=1.4,
        )
        return
    window = min(_SMOOTH, len(trained) // 12)
    ax.plot(
        trained["step"],
        trained["train_loss"],
        color=PALETTE[0],
        marker="o",
        linestyle="none",
        markersize=2,
        alpha=0.3,
        gid="points",
    )
    mean = trained["train_loss"].rolling(window, min_periods=1, center=True).mean()
    ax.plot(
        trained["step"],
        mean,
        label=f"training rows, mean of {window} points",
        color=PALETTE[0],
        linewidth=1.8,
    )


def _mark(ax: Axes, frame: pd.DataFrame, kept: int | None) -> None:
    """A line at the step that is kept."""
    if kept is None or not (frame["step"] == kept).any():
        return
    ax.axvline(
        kept,
        color=INK,
        linewidth=1.1,
        linestyle=(0, (4, 3)),
        label=f"kept: step {kept:,}",
        zorder=2,
        gid="kept",
    )


def _note(frame: pd.DataFrame, held: pd.DataFrame, kept: int | None) -> str:
    epochs = float(frame["epoch"].max()) if "epoch" in frame else None
    told = f"{epochs:.3g} epoch{'' if epochs == 1 else 's'}" if epochs is not None else ""
    if held.empty:
        return joined(told, "no rows were held out; the last step is kept")
    before = held[held["step"] == 0]["validation_loss"]
    after = held[held["step"] == kept]["validation_loss"]
    fall = (
        f"held-out loss {float(before.iloc[0]):.3f} before training, {float(after.iloc[0]):.3f} kept"
        if len(before) and len(after)
        else ""
    )
    return joined(told, fall)
