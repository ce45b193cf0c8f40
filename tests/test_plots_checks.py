"""The checks on pictures can fail: each fault, planted, is found and named, and a sound picture has none."""

from __future__ import annotations

import numpy as np
import pytest
from fakeruns import make_run
from matplotlib.figure import Figure
from matplotlib.text import Text
from pictures import Drawn, faults, render

from workbench import plots

RUN = make_run({"temperature": [0, 0.7], "top_k": [5, 50]}, 8, 1)


def sound() -> tuple[Figure, object]:
    """A small picture with nothing wrong."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1, 2], [0, 1, 0.5], color="#0072B2", linewidth=3)
    ax.set_xlabel("time (ms)")
    ax.set_ylabel("quality (%)")
    return figure, ax


def test_a_sound_picture_has_no_faults():
    """Neither a plain line nor a heat map is complained of."""
    assert faults(sound()[1]) == []
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    assert faults(plots.heatmap(RUN, ax=figure.subplots()), ink=(0.01, 1.0)) == []


def test_a_blank_picture_is_found():
    """Axes and labels without a single mark inside."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    ax.set_xlabel("time (ms)")
    found = faults(ax)
    assert found == [
        "axes 0: ink on 0.0% of the pixels, expected 0.4% to 75%",
        "axes 0: fewer than three colours",
    ]


def test_marks_outside_the_limits_are_blank():
    """Data that the limits cut off leave the axes blank."""
    figure, ax = sound()
    ax.set_xlim(10, 20)
    assert any("ink on 0.0%" in fault for fault in faults(ax))
    assert figure.axes == [ax]


def test_a_blank_panel_among_others_is_found():
    """One of two panels is empty."""
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    axes[0].plot([0, 1], linewidth=3)
    found = faults(np.array(axes))
    assert [fault.split(":")[0] for fault in found if "ink" in fault] == ["axes 1"]


def test_a_solid_picture_is_found():
    """A heat map of one colour."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    ax.pcolormesh(np.ones((4, 4)))
    found = faults(ax)
    assert any("ink on 100.0%" in fault for fault in found)
    assert "axes 0: fewer than three colours" in found


def test_overlapping_texts_are_found():
    """Two names on one spot, tick labels that run into each other, and a title over a note."""
    _, ax = sound()
    ax.text(1, 0.5, "greedy")
    ax.text(1.02, 0.52, "baseline")
    assert "texts overlap: 'greedy' and 'baseline'" in faults(ax)
    _, ax = sound()
    ax.set_xticks([0, 0.1, 0.2], ["a-long-adapter", "b-long-adapter", "c-long-adapter"])
    assert "texts overlap: 'a-long-adapter' and 'b-long-adapter'" in faults(ax)


def test_texts_that_leave_the_figure_are_found():
    """A name that runs past the right edge."""
    _, ax = sound()
    ax.text(1.9, 0.5, "a name that is far too long for where it stands").set_in_layout(False)
    assert faults(ax) == [
        "text outside the figure: 'a name that is far too long for where it stands'"
    ]


def test_small_texts_are_found():
    """Five points are too few."""
    _, ax = sound()
    ax.text(0.5, 0.2, "tiny", fontsize=5)
    assert faults(ax) == ["small text (5.0 pt): 'tiny'"]


def test_pale_pictures_are_found():
    """Everything light grey: a printer would lose it."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1, 2], [0, 1, 0.5], color="0.7", linewidth=3)
    ax.plot([0, 1, 2], [1, 0, 0.5], color="#ffd0d0", linewidth=3)
    ax.tick_params(colors="0.7")
    for spine in ax.spines.values():
        spine.set_color("0.7")
    assert faults(ax) == ["nothing dark: it would not print"]


def test_only_texts_that_are_drawn_count():
    """Invisible texts and tick labels beyond the limits are no texts, and nothing stays patched."""
    _, ax = sound()
    ax.text(1, 0.5, "hidden").set_visible(False)
    _, texts = render(ax)
    names = [t.text for t in texts]
    assert "hidden" not in names
    assert {"time (ms)", "quality (%)"} <= set(names)
    assert all(isinstance(t, Drawn) for t in texts)
    assert Text.draw.__qualname__ != "_recording.__enter__.<locals>.draw"


@pytest.mark.parametrize("size", [(3, 2), (2.4, 1.8)])
def test_a_picture_squeezed_too_small_is_found(size):
    """The real pictures fail the checks too where there is no room for them."""
    figure = Figure(figsize=size, layout="constrained")
    assert faults(plots.interaction(RUN, "temperature", "top_k", ax=figure.subplots())) != []
