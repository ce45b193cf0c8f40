"""Every picture, of runs small and large, whole and broken, as a reader would see it: not blank, nothing overlaps."""

from __future__ import annotations

from functools import cache

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from fakeruns import FakeRun, make_run
from pictures import faults, figure_of

from workbench import plots
from workbench.comparing import changes
from workbench.errors import WorkbenchError
from workbench.plots import style

LONG = ("base", "terse-answers-rank-16-epoch-3", "a-much-longer-adapter-name-that-someone-gave-it")


def unscored() -> FakeRun:
    """Two cells without a score; one of them failed throughout."""
    run = make_run()
    lost = run.cells["cell_id"].iloc[[3, 7]]
    run.scores.loc[run.scores["cell_id"].isin(lost), "value"] = np.nan
    run.generations.loc[run.generations["cell_id"].eq(lost.iloc[0]), "finish_reason"] = "error"
    return run


BESIDE = [
    {"temperature": t, "top_k": k, "repetition_penalty": r}
    for t in (0.5, 0.9)
    for k in (20, 50)
    for r in (1.05, 1.1)
]


def failing() -> FakeRun:
    """Some rows failed here and there, many in one cell."""
    run = make_run()
    rng = np.random.default_rng(2)
    worst = run.generations["cell_id"].eq(run.cells["cell_id"].iloc[5])
    bad = rng.random(len(worst)) < np.where(worst, 0.4, 0.02)
    run.generations.loc[bad, "finish_reason"] = "error"
    return run


KINDS = {
    "usual": lambda: make_run(
        baseline={"temperature": 0.6, "top_k": 50, "repetition_penalty": 1.0}
    ),
    "48 cells": lambda: make_run(
        {
            "temperature": [0.2, 0.6, 1.0, 1.5],
            "top_k": [5, 20, 50, None],
            "repetition_penalty": [1.0, 1.1, 1.2],
        }
    ),
    "200 cells": lambda: make_run(
        {
            "temperature": [round(0.1 * i, 1) for i in range(1, 11)],
            "top_k": [5, 10, 20, 50, None],
            "repetition_penalty": [1.0, 1.05, 1.1, 1.2],
        },
        30,
        1,
    ),
    "adapters": lambda: make_run({"temperature": [0, 0.7, 1.3], "top_k": [5, 50]}, adapters=LONG),
    "one cell": lambda: make_run({"temperature": [0.7]}),
    "few prompts": lambda: make_run(n_prompts=3, repeats=1, seed=4),
    "uneven": lambda: make_run(
        [{"temperature": t, "top_k": k} for t, k in [(0.3, 5), (0.7, 5), (0.7, 50), (1.2, 20)]]
    ),
    "unscored": unscored,
    "beside the grid": lambda: make_run(
        [*BESIDE, {"temperature": 0}, {"temperature": 0.3, "top_k": 5, "repetition_penalty": 1.2}]
    ),
    "failed rows": failing,
}


@cache
def run_of(kind: str) -> FakeRun:
    """The runs that are drawn; made once."""
    return KINDS[kind]()


PICTURES = {
    "quality_latency": plots.quality_latency,
    "quality_latency, all named": lambda run: plots.quality_latency(run, label="all"),
    "heatmap": plots.heatmap,
    "heatmap of differences": lambda run: plots.heatmap(run, value="diff_vs_baseline"),
    "heatmap of times": lambda run: plots.heatmap(run, "temperature", "top_k", "e2el_ms_p50"),
    "main_effects": plots.main_effects,
    "main_effects of times": lambda run: plots.main_effects(run, "e2el_ms_p50"),
    "interaction": lambda run: plots.interaction(run, "temperature", "top_k"),
    "lengths": plots.lengths,
    "health": plots.health,
    "latency_parts": plots.latency_parts,
    "changes": lambda run: plots.changes(changes(run, run.cells["cell_id"].iloc[-1])),
}
REFUSED = {
    ("one cell", "heatmap"): "a heat map needs two settings that vary; varied: none",
    ("one cell", "main_effects"): "no setting varies in this run, so none can have an effect",
    ("one cell", "interaction"): "temperature does not vary in this run",
}
"""What cannot be drawn, and why."""


@pytest.fixture(autouse=True)
def _closed():
    """No figure outlives its test."""
    yield
    plt.close("all")


SHORT = {
    *((kind, picture) for kind in ("usual", "one cell") for picture in PICTURES),
    *(("200 cells", p) for p in ("heatmap", "interaction", "lengths", "health", "latency_parts")),
    *(("adapters", p) for p in ("quality_latency", "main_effects", "interaction", "lengths")),
    *(("uneven", p) for p in ("heatmap", "main_effects")),
    *(("beside the grid", p) for p in ("heatmap", "main_effects", "interaction")),
    *(("failed rows", p) for p in ("heatmap", "main_effects", "quality_latency")),
    ("adapters", "quality_latency, all named"),
    ("unscored", "heatmap"),
    ("few prompts", "health"),
}
"""What every test run looks at; the rest takes a minute and is left to the long tests."""


@pytest.mark.parametrize(
    ("kind", "picture"),
    [
        pytest.param(kind, picture, marks=() if (kind, picture) in SHORT else pytest.mark.long)
        for kind in KINDS
        for picture in PICTURES
    ],
)
def test_pictures_can_be_shown(kind, picture):
    """At notebook size: ink in every panel, no text over another or cut off, none too small, dark enough to print."""
    run = run_of(kind)
    reason = REFUSED.get((kind, picture.split()[0]))
    if reason is not None:
        with pytest.raises(WorkbenchError) as caught:
            PICTURES[picture](run)
        assert str(caught.value) == reason
        return
    axes = PICTURES[picture](run)
    ink = (0.01, 1.0) if picture.startswith("heatmap") else (0.002, 0.75)
    assert faults(axes, ink=ink) == []
    assert figure_of(axes).get_size_inches()[0] == style.WIDTH_IN


@pytest.mark.parametrize("picture", ["heatmap", "main_effects", "interaction", "lengths", "health"])
def test_pictures_fit_into_a_page_of_several(picture):
    """Given axes of a grid, a picture keeps to its place: nothing of it overlaps the neighbours."""
    figure = plt.figure(figsize=(15, 5), layout="constrained")
    place, neighbour = figure.subplots(1, 2)
    neighbour.plot([0, 1], linewidth=3)
    neighbour.set_title("a neighbour with a title of its own", loc="left")
    neighbour.set_ylabel("and a label")
    run = run_of("usual")
    if picture == "interaction":
        axes = plots.interaction(run, "temperature", "top_k", ax=place)
    else:
        axes = PICTURES[picture](run, ax=place)
    assert figure_of(axes) is figure
    assert faults(axes, ink=(0.002, 1.0)) == []


@pytest.mark.parametrize("n", [1, 20, 40, 41, 2000])
def test_changes_are_legible_at_any_size(n):
    """One prompt, a few with their names, or thousands as one shape."""
    run = make_run({"temperature": [0.3, 0.9]}, n, 4, timed=False)
    table = changes(run, run.cells["cell_id"][1])
    assert faults(plots.changes(table, ("T=0.3", "T=0.9")), ink=(0.001, 0.75)) == []


def test_long_names_of_cells_stay_inside_the_picture():
    """A title that is wider than the picture is broken between words."""
    run = run_of("usual")
    table = changes(run, run.cells["cell_id"][1])
    names = (
        "T=0.7 top_k=20 top_p=0.95 rep=1.05 an-adapter",
        "T=0.65 top_k=50 presence=0.4 another-adapter",
    )
    ax = plots.changes(table, names)
    assert faults(ax, ink=(0.001, 0.75)) == []
    assert "\n" in ax.get_title(loc="left")


@pytest.mark.parametrize("picture", ["heatmap", "main_effects", "health", "changes"])
def test_style_does_not_leak(picture):
    """Drawing changes no setting of matplotlib, and none of the run's tables."""
    run = run_of("usual")
    tables = [run.cells.copy(), run.generations.copy(), run.scores.copy(), run.latency.copy()]
    before = dict(mpl.rcParams)
    PICTURES[picture](run)
    assert dict(mpl.rcParams) == before
    for old, new in zip(tables, (run.cells, run.generations, run.scores, run.latency), strict=True):
        assert old.equals(new)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (
            plots.latency_parts,
            "nothing to draw: no request was timed; time some with `workbench latency RUN`",
        ),
        (
            lambda run: plots.heatmap(run, value="e2el_ms_p50"),
            "nothing to draw: no cell has a value of e2el_ms_p50",
        ),
        (
            lambda run: plots.main_effects(run, "e2el_ms_p50"),
            "nothing to draw: no cell has a value of e2el_ms_p50",
        ),
        (
            lambda run: plots.interaction(run, "temperature", "top_k", "e2el_ms_p50"),
            "nothing to draw: no cell has a value of e2el_ms_p50",
        ),
        (lambda run: plots.lengths(run, limit=0), "limit must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_drawn_is_said(picture, message):
    """A run without latencies: one clear message, and no half-made figure stays open."""
    with pytest.raises(WorkbenchError) as caught:
        picture(make_run({"temperature": [0, 0.7], "top_k": [5, 50]}, 3, 1, timed=False))
    assert str(caught.value) == message
    assert plt.get_fignums() == []


def test_settings_that_were_never_varied_alone_are_said():
    """Every cell differs from every other in two settings: no level can be compared with another."""
    rows = [{"temperature": t, "top_k": k} for t, k in [(0.3, 5), (0.7, 50), (1.2, 20)]]
    with pytest.raises(WorkbenchError) as caught:
        plots.main_effects(make_run(rows, 5, 1))
    assert str(caught.value) == (
        "nothing to draw: no combination of the other settings was run at every level of a setting"
    )
    assert plt.get_fignums() == []


def test_a_run_without_answers_is_said():
    """Nothing but failures: lengths still show them, signs and changes cannot be drawn."""
    run = make_run({"temperature": [0.3, 0.7]}, 3, 1, timed=False)
    run.generations["finish_reason"] = "error"
    with pytest.raises(WorkbenchError, match=r"^nothing to draw: the run has no answers$"):
        plots.health(run)
    table = changes(run_of("usual"), run_of("usual").cells["cell_id"].iloc[-1]).assign(diff=np.nan)
    with pytest.raises(
        WorkbenchError, match=r"^nothing to draw: no prompt was scored in both cells$"
    ):
        plots.changes(table)
    run.generations = run.generations[:0]
    with pytest.raises(WorkbenchError, match=r"^nothing to draw: the run has no answers$"):
        plots.lengths(run)
