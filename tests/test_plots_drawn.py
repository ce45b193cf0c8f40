"""What the pictures draw is what the tables say, and planted truths can be read off them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakeruns import make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch

from workbench import breakdown, effects, health, plots
from workbench.comparing import changes, compare
from workbench.errors import WorkbenchError
from workbench.plots import style

RUN = make_run(baseline={"temperature": 0.6, "top_k": 50, "repetition_penalty": 1.0})


@pytest.fixture(autouse=True)
def _closed():
    """No figure outlives its test."""
    yield
    plt.close("all")


def by_gid(ax, gid: str) -> list:
    """The artists that carry a mark."""
    return ax.findobj(lambda artist: artist.get_gid() == gid)


def note(ax) -> str:
    """The lines under the title, as one."""
    return next(iter(by_gid(ax, "note"))).get_text().replace("\n", " ")


def ticks(axis) -> list[str]:
    """Tick labels."""
    return [label.get_text() for label in axis.get_ticklabels()]


def segments(ax, gid: str | None = None) -> np.ndarray:
    """Ends of all straight bars, shape (n, 2, 2)."""
    lines = [
        c for c in ax.collections if isinstance(c, LineCollection) and gid in (None, c.get_gid())
    ]
    return np.array([s for line in lines for s in line.get_segments() if len(s) == 2])


# ------------------------------------------------------------------------------------------------ heat map


def test_the_heat_map_shows_the_squares():
    """Colours and numbers are the table's, in percent; axes carry levels, the bar its unit."""
    ax = plots.heatmap(RUN, "top_k", "temperature")
    table = effects.squares(RUN, "top_k", "temperature").table
    (mesh,) = (c for c in ax.collections if isinstance(c, QuadMesh))
    np.testing.assert_allclose(mesh.get_array().ravel(), 100 * table["value"])
    numbers = [
        t.get_text() for t in ax.texts if t.get_gid() != "note" and " to " not in t.get_text()
    ]
    assert numbers == [f"{100 * v:.1f}" for v in table["value"]]
    assert ticks(ax.xaxis) == ["5", "50"]
    assert ticks(ax.yaxis) == ["0 (greedy)", "0.6", "1", "1.5"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("top_k", "temperature")
    assert ax.figure.axes[1].get_ylabel() == "quality (%)"
    assert (
        note(ax)
        == "60 prompts; average over repetition_penalty (off, 1.1); greedy is one cell for every top_k"
    )


def test_the_best_square_is_outlined_with_its_interval():
    """The greedy row, which is one cell, gets one outline; its interval stands in it."""
    ax = plots.heatmap(RUN, "top_k", "temperature", where={"repetition_penalty": None})
    (outline,) = by_gid(ax, "best")
    assert outline.get_bbox().bounds == (-0.5, -0.5, 2, 1)
    best = RUN.summary().sort_values("quality").iloc[-1]
    bounds = f"{100 * best['quality_lo']:.1f} to {100 * best['quality_hi']:.1f}"
    assert [t.get_text() for t in ax.texts].count(bounds) == 2
    legend = [t.get_text() for t in ax.get_legend().get_texts()]
    assert legend == ["best, with its 95 % interval", "baseline"]


def test_the_baselines_square_is_marked():
    """One corner, in the square at temperature 0.6 and top_k 50."""
    ax = plots.heatmap(RUN, "top_k", "temperature", where={"repetition_penalty": 1.0})
    (corner,) = by_gid(ax, "baseline")
    x, y = corner.get_xy()[:3].T
    assert 0.5 < x.min() < x.max() < 1
    assert 0.5 < y.min() < y.max() < 1


def test_pairs_that_were_not_run_are_hatched():
    """Two of four squares missing, one without a score, each with its own hatch and in the legend."""
    run = make_run(
        [
            {"temperature": 0.3, "top_k": 5},
            {"temperature": 0.9, "top_k": 50},
            {"temperature": 0.3, "top_k": 50},
        ],
        8,
        1,
    )
    lost = run.cells.loc[run.cells["temperature"] == 0.9, "cell_id"].item()
    run.scores.loc[run.scores["cell_id"] == lost, "value"] = np.nan
    ax = plots.heatmap(run, "top_k", "temperature")
    hatches = {
        (round(p.get_x() + 0.46), round(p.get_y() + 0.46)): p.get_hatch()
        for p in ax.patches
        if isinstance(p, Rectangle) and p.get_hatch()
    }
    assert hatches == {(0, 1): "////", (1, 1): "...."}
    assert {"not run", "no value"} <= {t.get_text() for t in ax.get_legend().get_texts()}


def test_differences_are_coloured_around_zero():
    """Zero is the pale middle, better is blue, worse is orange; numbers carry their sign."""
    ax = plots.heatmap(
        RUN, "top_k", "temperature", "diff_vs_baseline", where={"repetition_penalty": 1.0}
    )
    mesh = next(c for c in ax.collections if isinstance(c, QuadMesh))
    low, high = mesh.norm.vmin, mesh.norm.vmax
    assert low == -high
    assert min(mesh.to_rgba(0.0)[:3]) > 0.95
    red, _, blue, _ = mesh.to_rgba(high)
    assert blue > red
    texts = {t.get_text() for t in ax.texts}
    assert "0" in texts
    assert any(t.startswith("\u2212") for t in texts)
    assert not any("-" in t for t in texts if t != note(ax))


def test_small_differences_stay_pale():
    """Cells within a point of each other do not span the whole scale of colour."""
    run = make_run(
        {"temperature": [0.3, 0.9], "top_k": [5, 50]},
        5,
        1,
        exact=True,
        right=lambda c: 0.5 + 0.01 * (c.params.top_k == 5),
    )
    mesh = next(c for c in plots.heatmap(run).collections if isinstance(c, QuadMesh))
    assert mesh.norm.vmax - mesh.norm.vmin == pytest.approx(10)


def test_a_sign_that_no_cell_shows_is_pale_and_has_no_best():
    """All squares 0: the scale starts at 0, nothing is outlined."""
    run = make_run({"temperature": [0.3, 0.9], "top_k": [5, 50]}, 5, 1)
    run.generations["finish_reason"] = "stop"
    ax = plots.heatmap(run, value="truncated_rate")
    mesh = next(c for c in ax.collections if isinstance(c, QuadMesh))
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 10)
    assert by_gid(ax, "best") == []


def test_bars_stay_where_quality_can_be():
    """One level has half the prompts right, the other none: the lower bar ends at 0 %, not below."""
    run = make_run({"temperature": [0.3, 0.9]}, 8, 1)
    cold = run.scores["cell_id"].eq(run.cells["cell_id"][0])
    even = run.scores["prompt_id"].isin(["sum-000", "sum-002", "sum-004", "sum-006"])
    run.scores["value"] = (cold & even).astype(float)
    table = effects.main_effects(run)
    assert (table["mean"] - table["diff"] + table["diff_lo"]).min() < 0
    (ax,) = plots.main_effects(run)
    assert segments(ax)[:, :, 1].min() == 0


def test_scales_of_colour_grow_darker():
    """Lightness falls all the way along the one, and to both sides of the other, so that a grey print keeps the order."""

    def lightness(colours) -> np.ndarray:
        return (np.array([to_rgb(colours(x)) for x in np.linspace(0, 1, 65)]) ** 2.2) @ (
            0.2126,
            0.7152,
            0.0722,
        )

    assert (np.diff(lightness(style.SEQUENTIAL)) < 0).all()
    assert (np.diff(lightness(style.DIVERGING)[:33]) > 0).all()
    assert (np.diff(lightness(style.DIVERGING)[32:]) < 0).all()


# ------------------------------------------------------------------------------------------------- effects


def test_a_planted_effect_can_be_read_off():
    """Ten points for the penalty, none for the temperature: two points ten apart, two on the line."""
    run = make_run(
        {"temperature": [0.3, 0.9], "repetition_penalty": [1.0, 1.1]},
        10,
        1,
        exact=True,
        right=lambda cell: 0.7 - 0.1 * (cell.params.repetition_penalty is not None),
    )
    axes = plots.main_effects(run)
    assert [ax.get_xlabel() for ax in axes] == ["temperature", "repetition_penalty"]
    means = [by_gid(ax, "means")[0].get_ydata() for ax in axes]
    np.testing.assert_allclose(means[0], [65, 65])
    np.testing.assert_allclose(means[1], [70, 60])
    assert ticks(axes[1].xaxis) == ["off", "1.1"]
    assert axes[0].get_ylabel() == "quality (%)"
    assert (
        note(axes[0])
        == "the other settings averaged; dashed: the average; no intervals; on 10 prompts"
    )


def test_main_effects_draw_the_intervals_of_the_table():
    """Every bar ends where the table says, around the dashed average."""
    axes = plots.main_effects(RUN, rng=4)
    table = effects.main_effects(RUN, rng=4)
    for ax, (_, part) in zip(axes, table.groupby("setting", sort=False), strict=True):
        middle = part["mean"] - part["diff"]
        bars = segments(ax)
        np.testing.assert_allclose(bars[:, 0, 1], 100 * (middle + part["diff_lo"]))
        np.testing.assert_allclose(bars[:, 1, 1], 100 * (middle + part["diff_hi"]))
        np.testing.assert_allclose(bars[:, 0, 0], np.arange(len(part)))
    assert note(axes[0]) == (
        "the other settings averaged; bars: 95 % intervals of the distance from the average (dashed), "
        "on the same 60 prompts; top_k: without greedy cells, where nothing is sampled"
    )


def test_settings_of_names_are_not_joined_by_lines():
    """Adapters have no order: points only. Temperatures have one."""
    run = make_run({"temperature": [0.3, 0.9]}, 10, 1, adapters=("base", "sums"))
    temperature, adapter = plots.main_effects(run)
    assert any(
        line.get_linestyle() == "-" and len(line.get_xdata()) == 2 for line in temperature.lines
    )
    assert not any(
        line.get_linestyle() == "-" and len(line.get_xdata()) == 2 for line in adapter.lines
    )


def test_what_is_left_out_of_an_average_is_said():
    """A cell without a score takes its combination with it, and the note tells, for every setting."""
    run = make_run(n_prompts=10)
    run.scores.loc[run.scores["cell_id"] == run.cells["cell_id"].iloc[-1], "value"] = np.nan
    assert note(plots.main_effects(run)[0]).endswith(
        "temperature: over the 3 of 4 combinations of the other settings that every level has; "
        "top_k: over 5 of 6; repetition_penalty: over 7 of 8; "
        "top_k: without greedy cells, where nothing is sampled"
    )


def test_levels_that_are_not_compared_are_named():
    """A cell beside the grid: its levels have a tick and no point, and the note names them."""
    odd = {"temperature": 0.3, "top_k": 5}
    rows = [{"temperature": t, "top_k": k} for t in (0.5, 0.9) for k in (20, 50)]
    axes = plots.main_effects(make_run([*rows, odd], 10, 1))
    assert note(axes[0]).endswith(
        "left out, having too little in common with the rest: T = 0.3, k = 5"
    )
    assert [ticks(ax.xaxis) for ax in axes] == [["0.3", "0.5", "0.9"], ["5", "20", "50"]]
    for ax in axes:
        assert np.isnan(by_gid(ax, "means")[0].get_ydata()).tolist() == [True, False, False]


def failed(n: int, settings: dict):
    """A run of forty prompts whose last cell lost the first ``n``."""
    run = make_run(settings, 40, 1)
    lost = run.generations["cell_id"].eq(run.cells["cell_id"].iloc[-1])
    lost &= run.generations["prompt_id"].lt(f"sum-{n:03d}")
    run.generations.loc[lost, "finish_reason"] = "error"
    return run


def test_prompts_that_count_are_counted():
    """Fifteen of forty prompts failed in one cell: the notes say that twenty-five count, and where."""
    grid = {"temperature": [0.3, 0.7], "top_k": [5, 50]}
    assert (
        note(plots.heatmap(failed(15, grid)))
        == "25 of 40 prompts, those scored in every square; one cell each"
    )
    assert "25 of 40 prompts, those answered in every square" in note(
        plots.heatmap(failed(15, grid), value="truncated_rate")
    )
    assert "on the same 25 to 40 of 40 prompts (the others lack a score at some level)" in note(
        plots.main_effects(failed(15, grid))[0]
    )
    (ax,) = plots.main_effects(failed(15, {"temperature": [0.3, 0.7]}), "truncated_rate")
    assert "on the same 25 of 40 prompts (the others lack an answer at some level)" in note(ax)
    ax = plots.quality_latency(failed(15, grid))
    assert note(ax).startswith("25 to 40 of 40 prompts scored; bars: 95 % intervals")
    assert note(plots.quality_latency(RUN)).startswith("60 prompts; bars")


def test_squares_that_cannot_be_compared_have_no_best():
    """One cell lost most of its prompts, or was run beside the grid: no outline, and the note says why."""
    ax = plots.heatmap(failed(30, {"temperature": [0.3, 0.7], "top_k": [5, 50]}))
    assert by_gid(ax, "best") == []
    assert note(ax) == (
        "10 to 40 of 40 prompts; one cell each; squares are over different prompts, "
        "so compare with care: none is marked as best"
    )
    rows = [
        {"temperature": t, "top_k": k, "repetition_penalty": r}
        for t in (0.5, 0.9)
        for k in (20, 50)
        for r in (1.0, 1.1)
    ]
    odd = {"temperature": 0.3, "top_k": 5, "repetition_penalty": 1.2}
    ax = plots.heatmap(make_run([*rows, odd], 10, 1), "top_k", "temperature")
    assert by_gid(ax, "best") == []
    assert "squares are over different prompts or combinations of these" in note(ax)


def test_a_summary_says_what_it_does_not_know():
    """With failed rows, averages of a summary are over different prompts, and the note says so."""
    table = failed(15, {"temperature": [0.3, 0.7], "top_k": [5, 50]}).summary()
    said = "some rows failed, so not all on the same prompts (a run, not its summary, tells which)"
    assert said in note(plots.main_effects(table)[0])
    assert said in note(plots.interaction(table, "temperature", "top_k"))
    assert by_gid(plots.heatmap(table), "best") == []
    assert said not in note(plots.main_effects(RUN.summary())[0])


def test_axes_end_where_values_do():
    """No loops at all, and nearly all right: neither an axis nor a bar of colour goes far beyond what can be."""
    run = make_run({"temperature": [0.3, 0.9], "repetition_penalty": [1.0, 1.1]}, 5, 1)
    run.generations["text"] = "Yes."
    for ax in (
        plots.main_effects(run, "loop_rate")[0],
        plots.interaction(run, "temperature", "repetition_penalty", "loop_rate"),
    ):
        low, high = ax.get_ylim()
        assert -0.05 * high <= low < 0
    high = make_run(
        {"temperature": [0.3, 0.9], "top_k": [5, 50]},
        5,
        1,
        exact=True,
        right=lambda c: 0.988 + 0.006 * (c.params.top_k == 5),
    )
    mesh = next(c for c in plots.heatmap(high).collections if isinstance(c, QuadMesh))
    assert (mesh.norm.vmin, mesh.norm.vmax) == pytest.approx((90, 100))


def test_interactions_draw_the_table_side_by_side():
    """One line per level; bars of neighbours stand apart, and every point is the table's."""
    ax = plots.interaction(RUN, "temperature", "top_k")
    table = effects.interaction(RUN, "temperature", "top_k")
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in ("5", "50")}
    for text, line in lines.items():
        part = table[table["b_text"] == text]
        np.testing.assert_allclose(line.get_ydata(), 100 * part["mean"])
        np.testing.assert_allclose(np.round(line.get_xdata()), np.arange(4))
    apart = lines["50"].get_xdata() - lines["5"].get_xdata()
    assert (apart > 0.05).all()
    assert ax.get_legend().get_title().get_text() == "top_k"


def test_interactions_draw_how_far_lines_are_from_parallel():
    """Dotted lines where the settings' own effects add up, bars around the points, and the largest distance in the note."""
    run = make_run(
        {"temperature": [0.3, 0.9, 1.2], "repetition_penalty": [1.0, 1.1]},
        right=lambda c: (
            0.5 - 0.3 * (c.params.temperature > 1 and bool(c.params.repetition_penalty))
        ),
    )
    ax = plots.interaction(run, "temperature", "repetition_penalty", rng=2)
    table = effects.interaction(run, "temperature", "repetition_penalty", rng=2)
    parallel = np.array([line.get_ydata() for line in by_gid(ax, "parallel")])
    parts = [table[table["b_text"] == text] for text in ("off", "1.1")]
    for line, part in zip(parallel, parts, strict=True):
        np.testing.assert_allclose(line, 100 * (part["mean"] - part["extra"]))
    np.testing.assert_allclose(np.diff(parallel[0]), np.diff(parallel[1]))  # as they are called
    bars = segments(ax)[:, :, 1]
    drawn = pd.concat(parts)
    middle = drawn["mean"] - drawn["extra"]
    np.testing.assert_allclose(bars[:, 0], 100 * (middle + drawn["extra_lo"]))
    np.testing.assert_allclose(bars[:, 1], 100 * (middle + drawn["extra_hi"]))
    far = table.loc[table["extra"].abs().idxmax()]
    numbers = [
        f"{100 * far[c]:+.1f}".replace("-", "\u2212") for c in ("extra", "extra_lo", "extra_hi")
    ]
    assert note(ax) == (
        "dotted: parallel lines; bars: 95 % intervals of the distance from them, on the same 60 prompts; "
        f"farthest: T = 1.2 with rep {'off' if far['b_text'] == 'off' else '= 1.1'}, "
        f"{numbers[0]} points ({numbers[1]} to {numbers[2]})"
    )


def test_greedy_has_no_bar_against_top_k():
    """At temperature 0 top_k does nothing: points without bars, and the note says so."""
    ax = plots.interaction(RUN, "temperature", "top_k")
    assert len(segments(ax)) == 6
    assert note(ax).endswith("greedy is one cell for every top_k, so without a bar")


def test_lines_that_are_parallel_are_called_so():
    """Nothing happens at any level: no largest distance is made up."""
    run = make_run({"temperature": [0.3, 0.9], "repetition_penalty": [1.0, 1.1]}, 5, 1)
    run.generations["text"] = "Yes."
    ax = plots.interaction(run, "temperature", "repetition_penalty", "loop_rate")
    assert note(ax) == "the lines are parallel; no intervals; on 5 prompts"


def test_levels_without_order_are_not_joined():
    """Adapters across: points and dashes, no lines between them; along temperature there are lines."""
    run = make_run({"temperature": [0.3, 0.9]}, 10, 1, adapters=("base", "sums", "terse"))
    apart = plots.interaction(run, "adapter", "temperature")
    assert {line.get_linestyle() for line in apart.lines if len(line.get_xdata()) == 3} == {"None"}
    assert {line.get_marker() for line in by_gid(apart, "parallel")} == {"_"}
    assert "dashes: where points would be if effects only added up" in note(apart)
    along = plots.interaction(run, "temperature", "adapter")
    assert {line.get_linestyle() for line in along.lines if len(line.get_xdata()) == 2} >= {
        "-",
        ":",
    }


def test_many_levels_are_thinned_to_seven_lines():
    """Of ten temperatures the first, the last and five between are drawn, and the note says so."""
    grid = {"temperature": [round(0.1 * i, 1) for i in range(1, 11)], "top_k": [5, 50]}
    ax = plots.interaction(make_run(grid, 5, 1, timed=False), "top_k", "temperature")
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert len(names) == 7
    assert (names[0], names[-1]) == ("0.1", "1")
    assert note(ax).endswith("7 of 10 levels of temperature drawn")


# ------------------------------------------------------------------------------------------- rows of cells


def test_lengths_draw_quantiles_and_shares():
    """Bars from the 25th to the 75th percentile, medians, max_tokens, and shares that fill a hundred."""
    spread, ends = plots.lengths(RUN)
    table = breakdown.lengths(RUN)
    bars = segments(spread, "middle")
    np.testing.assert_allclose(bars[:, :, 0], table[["p25", "p75"]])
    np.testing.assert_allclose(by_gid(spread, "medians")[0].get_xdata(), table["p50"])
    assert by_gid(spread, "limit")[0].get_xdata() == [48, 48]
    widths = np.array([p.get_width() for p in ends.patches]).reshape(-1, len(table))
    np.testing.assert_allclose(widths.sum(0), 100)
    np.testing.assert_allclose(widths[0], 100 * table["stop"])
    starts = np.array([p.get_x() for p in ends.patches]).reshape(widths.shape)
    np.testing.assert_allclose(starts, widths.cumsum(0) - widths)
    assert ticks(spread.yaxis) == list(table["label"])
    assert "output tokens" in spread.get_xlabel()
    assert "(%)" in ends.get_xlabel()


def test_the_baseline_is_bold():
    """Only its name is."""
    ax = plots.lengths(RUN)[0]
    bold = [t.get_text() for t in ax.get_yticklabels() if t.get_fontweight() == "bold"]
    assert bold == ["T=0.6 k=50"]


def test_health_draws_the_frame():
    """One panel per sign that occurs, points and bars in percent, from the run or from the frame alike."""
    table = health.health(RUN, intervals=True)
    for axes in (plots.health(RUN), plots.health(table)):
        names = [ax.texts[0].get_text().replace("\n", " ") for ax in axes[1:]]
        assert names == [
            "end in a loop",
            "repeated 4-grams",
            "distinct word pairs",
            "agree with a repeat",
        ]
        ax = axes[1]
        points = {
            (x, y)
            for line in ax.lines
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        }
        assert {round(x, 9) for x, _ in points} == set(np.round(100 * table["loop_rate"], 9))
        np.testing.assert_allclose(
            segments(ax)[:, :, 0], 100 * table[["loop_rate_lo", "loop_rate_hi"]]
        )
        assert "seen in no answer: empty, leave the language" in note(axes[0])


def test_the_worst_cell_stands_out():
    """Another colour and another shape for the cell with the most loops, and for the least distinct."""
    table = health.health(RUN, intervals=True)
    axes = plots.health(table)
    for ax, row in (
        (axes[1], table["loop_rate"].idxmax()),
        (axes[3], table["distinct_2"].idxmin()),
    ):
        (worst,) = (line for line in ax.lines if line.get_marker() == "D")
        assert worst.get_ydata().tolist() == [row]
        assert worst.get_color() == plots.PALETTE[1]


def test_of_many_alike_none_stands_out():
    """Four best squares are not outlined, and four worst cells are not coloured."""
    run = make_run(
        {"temperature": [0.3, 0.5, 0.7], "top_k": [5, 50]},
        6,
        1,
        exact=True,
        right=lambda c: 0.4 + 0.2 * (c.params.temperature > 0.4),
    )
    assert by_gid(plots.heatmap(run), "best") == []
    run.generations["finish_reason"] = "stop"
    bad = run.generations["cell_id"].isin(run.cells["cell_id"][:4]) & run.generations[
        "prompt_id"
    ].eq("sum-001")
    run.generations.loc[bad, "finish_reason"] = "length"
    axes = plots.health(run)
    assert axes[0].texts[0].get_text() == "cut at\nmax_tokens"
    assert not [
        line for line in axes[0].lines if line.get_marker() == "D" and len(line.get_xdata())
    ]


def test_signs_that_nothing_shows_still_leave_a_picture():
    """A run of healthy answers: one panel remains, and the note says that nothing was seen."""
    run = make_run({"temperature": [0.3, 0.9]}, 8, 1, timed=False)
    run.generations["text"], run.generations["finish_reason"] = "Yes.", "stop"
    axes = plots.health(run)
    assert len(axes) == 1
    assert "seen in no answer: empty" in note(axes[0])


def test_too_many_cells_are_cut_to_the_worst():
    """The limit keeps the baseline and the cells with most to show, in study order, and says what it did."""
    axes = plots.lengths(RUN, limit=5)
    table = breakdown.lengths(RUN)
    shown = ticks(axes[0].yaxis)
    worst = table.nlargest(4, "mean")["label"]
    assert shown == [label for label in table["label"] if label in {*worst, "T=0.6 k=50"}]
    assert note(axes[0]).endswith(
        "5 of 14 cells shown (limit=5): the longest answers, and the baseline"
    )


def signs_of(n: int = 50) -> pd.DataFrame:
    """A frame of signs: one cell with loops in half of its answers, the others cut at max_tokens nearly always."""
    table = pd.DataFrame(
        {
            "cell_id": [f"{i:010x}" for i in range(n)],
            "label": [f"cell {i}" for i in range(n)],
            "truncated_rate": 0.9 + 0.001 * np.arange(n),
            "loop_rate": 0.05,
            "distinct_2": 0.9,
        }
    )
    table.loc[7, ["truncated_rate", "loop_rate"]] = 0.0, 0.5
    return table


def test_the_worst_cell_of_each_sign_is_shown():
    """The one cell full of loops is shown, although all others are cut more often; a frame has no baseline to speak of."""
    axes = plots.health(signs_of(), limit=5)
    assert "cell 7" in ticks(axes[0].yaxis)
    assert "cell 49" in ticks(axes[0].yaxis)
    assert note(axes[0]).endswith(
        "5 of 50 cells shown (limit=5): the worst of each sign, then those with the most signs"
    )
    with_base = plots.health(signs_of(), limit=5, baseline=f"{3:010x}")
    assert "cell 3" in ticks(with_base[0].yaxis)
    assert note(with_base[0]).endswith("then those with the most signs, and the baseline")


def test_cells_of_which_nothing_is_known_come_last():
    """A missing sign is no sign, and a cell without any is not one of the worst."""
    table = signs_of(12).assign(truncated_rate=0.01 * np.arange(12))
    table.loc[4, ["truncated_rate", "loop_rate", "distinct_2"]] = np.nan
    shown = ticks(plots.health(table, limit=10)[0].yaxis)
    assert "cell 4" not in shown
    assert {"cell 7", "cell 11"} <= set(shown)


def test_a_sign_known_only_in_cells_that_are_not_shown():
    """Panels are those of the cells shown."""
    table = signs_of(8)
    table["language_switch_rate"] = [0.01] + [np.nan] * 7
    table.loc[0, "truncated_rate"] = 0.1
    axes = plots.health(table, limit=2)
    names = [ax.texts[0].get_text().replace("\n", " ") for ax in axes]
    assert "leave the language" not in names
    assert "end in a loop" in names


def test_lengths_that_nobody_counted_have_no_panel():
    """Answers made elsewhere: how they end is shown, their lengths are not drawn at 0."""
    run = make_run({"temperature": [0.3, 0.9]}, 6, 1, timed=False)
    run.generations["n_output_tokens"] = 0
    axes = plots.lengths(run)
    assert [ax.get_xlabel() for ax in axes] == ["share of answers (%)"]
    assert axes[0].get_title(loc="left") == "How answers end"
    assert note(axes[0]) == "lengths are not known: tokens were not counted; bold: the baseline"
    assert [t.get_text() for t in axes[0].get_yticklabels() if t.get_visible()] == [
        "T=0.3",
        "T=0.9",
    ]


def test_cells_of_one_name_are_told_apart():
    """Names that are the same once shortened get the beginning of their id."""
    names = ("a" * 30 + "one" + "b" * 30, "a" * 30 + "two" + "b" * 30)
    run = make_run({"temperature": [0.3]}, 4, 1, adapters=names)
    shown = ticks(plots.lengths(run)[0].yaxis)
    assert len(set(shown)) == 2
    assert all(
        f"[{cell[:4]}]" in name for cell, name in zip(run.cells["cell_id"], shown, strict=True)
    )


def test_latency_parts_stack_to_the_median():
    """Two bars per cell that end at the median of the whole; intervals, and the numbers beside."""
    ax = plots.latency_parts(RUN)
    table = breakdown.latency_parts(RUN)
    widths = np.array([p.get_width() for p in ax.patches]).reshape(2, -1)
    np.testing.assert_allclose(widths[0], table["ttft_ms"])
    np.testing.assert_allclose(widths.sum(0), table["e2el_ms"])
    np.testing.assert_allclose([p.get_x() for p in ax.patches][len(table) :], table["ttft_ms"])
    np.testing.assert_allclose(
        segments(ax, "intervals")[:, :, 0], table[["e2el_ms_lo", "e2el_ms_hi"]]
    )
    texts = [t.get_text() for t in ax.texts]
    assert texts.index("tokens") < texts.index("ms/token")
    assert [f"{t:.1f}" for t in table["tpot_ms"]] == texts[texts.index("ms/token") + 1 :][
        : len(table)
    ]
    assert "(ms)" in ax.get_xlabel()


# ------------------------------------------------------------------------------------------------- changes


def frame_of(diffs: list[float]) -> pd.DataFrame:
    """A frame of changes with these differences."""
    kind = [
        "unscored" if np.isnan(d) else "better" if d > 0 else "worse" if d < 0 else "same"
        for d in diffs
    ]
    return pd.DataFrame(
        {"prompt_id": [f"q{i}" for i in range(len(diffs))], "diff": diffs, "change": kind}
    )


def test_few_changes_are_bars_with_names():
    """Best first, worst last, counts in the legend, prompts without a score in the note."""
    ax = plots.changes(frame_of([0.0, -1.0, 0.5, np.nan, 0.0]), ("greedy", "T=1"))
    assert ticks(ax.yaxis) == ["q2", "q0", "q4", "q1"]
    bars = {
        round(p.get_y() + p.get_height() / 2): p.get_width()
        for p in ax.patches
        if isinstance(p, Rectangle)
    }
    assert bars == {0: 50, 3: -100}
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["1 better", "2 same", "1 worse"]
    assert ax.get_title(loc="left") == "T=1 against greedy, prompt by prompt"
    assert (
        note(ax)
        == "4 prompts scored in both; mean difference \u221212.5 points; 1 not scored in both, not shown"
    )
    assert "(points)" in ax.get_xlabel()


def test_many_changes_are_one_shape():
    """Two thousand prompts: areas as wide as there are prompts that changed, and as high as they did."""
    rng = np.random.default_rng(1)
    diffs = rng.choice([-1, -0.5, 0, 0.25, 1], 2000)
    ax = plots.changes(frame_of(list(diffs)))
    shapes = {p.get_gid(): p for p in ax.patches if isinstance(p, StepPatch)}
    for kind, mine in (("better", diffs[diffs > 0]), ("worse", diffs[diffs < 0])):
        values, edges, _ = shapes[kind].get_data()
        np.testing.assert_allclose(values, 100 * np.sort(mine)[::-1])
        assert edges[-1] - edges[0] == len(mine)
    (same,) = segments(ax, "same")
    assert same[1, 0] - same[0, 0] == (diffs == 0).sum()
    assert not [c for c in ax.collections if isinstance(c, PolyCollection)]


def test_a_comparison_brings_names_and_interval():
    """Given a comparison, the title names its cells and the note its interval."""
    found = compare(RUN, "T=1.5 k=50")
    ax = plots.changes(found)
    assert ax.get_title(loc="left") == "T=1.5 k=50 against T=0.6 k=50, prompt by prompt"
    text = f"(95 % interval {100 * found.lo:+.1f} to {100 * found.hi:+.1f})".replace("-", "\u2212")
    assert text in note(ax)
    table = changes(RUN, "T=1.5 k=50")
    assert note(plots.changes(table)) == note(ax).replace(f" {text}", "")


# --------------------------------------------------------------------------------------------------- style


def test_titles_can_be_left_out():
    """With title None there is none, and the note stays."""
    ax = plots.heatmap(RUN, title=None)
    assert not ax.get_title(loc="left").strip()
    assert note(ax)


def test_dollar_signs_are_only_dollar_signs():
    """A prompt and a cell with two of them in their names are drawn as they are."""
    table = frame_of([0.5, -0.5]).assign(prompt_id=["a$b_{1}$c", "plain"])
    ax = plots.changes(table, ("x$_1$", "y"))
    assert ticks(ax.yaxis) == ["a$b_{1}$c", "plain"]
    drawn = [*ax.get_yticklabels(), *ax.get_legend().get_texts(), ax.title]
    assert not any(t.get_parse_math() for t in drawn)


def test_axes_without_a_place_cannot_be_divided():
    """Axes that were put on a figure by hand have no grid to divide."""
    ax = plt.figure().add_axes((0.1, 0.1, 0.8, 0.8))
    with pytest.raises(
        WorkbenchError, match=r"^ax must come from subplots: this picture divides its place$"
    ):
        plots.lengths(RUN, ax=ax)


def test_texts_are_broken_between_words():
    """No line is wider than the room, and no word is lost."""
    text = "the quick brown fox; jumps over the lazy dog (twice)"
    broken = style.wrapped(text, 1.2, 8)
    assert broken.replace("\n", " ") == text
    assert max(style.width_in(line, 8) for line in broken.split("\n")) <= 1.2
    assert style.shorten("abcdefghij", 5) == "ab\u2026ij"
    assert len(style.shorten("x" * 100, 20)) == 20


@pytest.mark.parametrize("picture", [plots.quality_latency, plots.heatmap])
def test_axes_that_are_given_get_the_house_style(picture):
    """Drawn into axes made elsewhere, a picture looks the same, pixel by pixel."""
    own = picture(RUN).figure
    other = Figure(figsize=own.get_size_inches(), layout="constrained")
    picture(RUN, ax=other.subplots())
    pixels = []
    for figure in (own, other):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels.append(np.asarray(canvas.buffer_rgba()))
    np.testing.assert_array_equal(*pixels)
