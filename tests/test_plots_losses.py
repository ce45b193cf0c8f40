"""The picture of a training: both losses, the step that was kept, and what is refused."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from pictures import faults

from workbench.errors import WorkbenchError
from workbench.plots.losses import losses


@pytest.fixture(autouse=True)
def _closed():
    """No figure outlives its test."""
    yield
    plt.close("all")


def make_frame(
    n: int = 24, check: int = 6, *, held: bool = True, noise: float = 0.1
) -> pd.DataFrame:
    """Made-up losses: one row a step, held-out ones each ``check`` steps, lowest before the end."""
    rng = np.random.default_rng(0)
    step = np.arange(n + 1)
    train = 0.2 + 2.5 * np.exp(-4 * step / n) + rng.normal(0, noise, n + 1) ** 2
    middle = 0.3 + 2.5 * np.exp(-4 * step / n) + 0.5 * np.clip(step / n - 0.6, 0, None)
    checks = held & ((step % check == 0) | (step == n))
    return pd.DataFrame(
        {
            "step": step,
            "epoch": 3 * step / n,
            "train_loss": np.where(step > 0, train, np.nan),
            "validation_loss": np.where(checks, middle, np.nan),
        }
    )


FRAMES = {
    "short": make_frame(),
    "long": make_frame(900, 75, noise=0.6),
    "nothing held out": make_frame(held=False),
    "one step": make_frame(1, 1),
    "large": make_frame().assign(train_loss=lambda f: 4000 * f["train_loss"]),
}


def by_label(ax, word: str):
    """The line whose label has a word."""
    return next(line for line in ax.get_lines() if word in str(line.get_label()))


@pytest.mark.parametrize("name", FRAMES)
def test_the_picture_can_be_shown(name):
    """Texts are apart and inside, there is ink, and it prints."""
    assert faults(losses(FRAMES[name])) == []


def test_both_losses_and_the_kept_step_are_drawn():
    """Every logged number is on its line; the mark is at the step that is kept; the axis has the unit."""
    frame = FRAMES["short"]
    ax = losses(frame, kept=12)
    trained = frame.dropna(subset=["train_loss"])
    held = frame.dropna(subset=["validation_loss"])
    np.testing.assert_allclose(
        by_label(ax, "training rows").get_xydata(), trained[["step", "train_loss"]]
    )
    np.testing.assert_allclose(
        by_label(ax, "held-out rows").get_xydata(), held[["step", "validation_loss"]]
    )
    (mark,) = ax.findobj(lambda artist: artist.get_gid() == "kept")
    assert set(mark.get_xdata()) == {12}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss (nats per answer token)")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["training rows", "held-out rows", "kept: step 12"]
    note = next(t.get_text() for t in ax.texts if t.get_gid() == "note")
    before, kept = (float(held[held["step"] == s]["validation_loss"].iloc[0]) for s in (0, 12))
    assert note == f"3 epochs; held-out loss {before:.3f} before training, {kept:.3f} kept"


def test_the_lowest_held_out_loss_is_marked_by_default():
    """Without a word on which step is kept, it is the lowest after the first step; without held-out rows there is no mark."""
    frame = FRAMES["short"]
    held = frame[(frame["step"] > 0)].dropna(subset=["validation_loss"])
    best = int(held.loc[held["validation_loss"].idxmin(), "step"])
    (mark,) = losses(frame).findobj(lambda artist: artist.get_gid() == "kept")
    assert set(mark.get_xdata()) == {best}
    ax = losses(FRAMES["nothing held out"])
    assert not ax.findobj(lambda artist: artist.get_gid() == "kept")
    note = next(t.get_text() for t in ax.texts if t.get_gid() == "note")
    assert note == "3 epochs; no rows were held out; the last step is kept"


def test_many_points_become_a_running_mean():
    """The points stay, faint; the line over them is smoother."""
    ax = losses(FRAMES["long"])
    (points,) = ax.findobj(lambda artist: artist.get_gid() == "points")
    mean = by_label(ax, "mean of 25 points")
    assert len(points.get_xdata()) == len(mean.get_xdata()) == 900
    rough, smooth = (np.abs(np.diff(line.get_ydata())).mean() for line in (points, mean))
    assert smooth < rough / 5


def test_axes_of_ones_own():
    """The picture goes where it is told, and comes back."""
    place = Figure(figsize=(6, 3), layout="constrained").subplots()
    assert losses(FRAMES["short"], place, title=None) is place


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (pd.DataFrame({"step": [1]}), "the losses have no column train_loss, validation_loss"),
        (
            pd.DataFrame({"step": [1], "train_loss": [np.nan], "validation_loss": [np.nan]}),
            "nothing to draw: no loss was logged",
        ),
    ],
)
def test_nothing_to_draw(frame, problem):
    """Frames without losses are refused in one sentence."""
    with pytest.raises(WorkbenchError) as caught:
        losses(frame)
    assert str(caught.value) == problem
