"""Quality against latency: what is drawn, that names are readable, and that style does not leak."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fakeruns import make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from workbench import analysis, plots, stats
from workbench.effects import cell_values
from workbench.errors import WorkbenchError
from workbench.plots.style import house
from workbench.tables import SETTINGS


def make_summary(
    n: int, seed: int = 0, *, clump: bool = False, adapters: tuple[str, ...] = ("base",)
) -> pd.DataFrame:
    """A summary of made-up cells; ``clump`` puts them almost on one spot."""
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.2, 0.9, n) if not clump else 0.5 + rng.uniform(-0.004, 0.004, n)
    ms = 200 + 300 * quality + rng.normal(0, 40, n) if not clump else 300 + rng.uniform(-1, 1, n)
    lo, hi = stats.proportion_interval(np.rint(quality * 60), 60)
    table = pd.DataFrame({c: np.full(n, np.nan) for c in analysis.SUMMARY_COLUMNS})
    table["cell_id"] = [f"{i:010x}" for i in range(n)]
    table["adapter"] = [adapters[i % len(adapters)] for i in range(n)]
    table["temperature"] = np.array([0, 0.3, 0.7, 1.0])[np.arange(n) % 4]
    table["top_k"] = 10.0 * (1 + np.arange(n))
    table[["n_prompts", "n_scored", "n_failed"]] = [60, 60, 0]
    table["quality"], table["quality_lo"], table["quality_hi"] = quality, lo, hi
    table["e2el_ms_p50"], table["diff_vs_baseline"], table["p_adjusted"] = ms, 0.01, 0.9
    table["on_front"] = stats.on_front(quality, ms)
    table.attrs["baseline"] = table["cell_id"].iloc[0]
    return table


def make_latency(table: pd.DataFrame) -> pd.DataFrame:
    """Eight prompts, three rounds, around each cell's median."""
    rows = [
        (cell, f"p{p}", 0, r, 1, 0, ms + 4 * (p - 3.5))
        for cell, ms in zip(table["cell_id"], table["e2el_ms_p50"], strict=True)
        for p in range(8)
        for r in range(3)
    ]
    columns = ["cell_id", "prompt_id", "repeat", "round", "warm", "noisy", "e2el_ms"]
    return pd.DataFrame(rows, columns=columns)


def draw(table: pd.DataFrame, **options):
    """The picture on a figure of its own, 7 in wide, laid out."""
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    ax = plots.quality_latency(table, figure.subplots(), **options)
    figure.canvas.draw()
    return ax


def names(ax) -> list:
    """The names next to points."""
    return [t for t in ax.texts if t.get_text() and t.get_gid() == "name"]


def note(ax) -> str:
    """The lines under the title."""
    return next(t.get_text() for t in ax.texts if t.get_gid() == "note")


CASES = [
    make_summary(1),
    make_summary(12),
    make_summary(36, 3),
    make_summary(24, 1, adapters=("base", "terse", "sums")),
    make_summary(36, 5, clump=True),
]


@pytest.mark.parametrize("table", CASES, ids=["one", "12", "36", "adapters", "clump"])
@pytest.mark.parametrize("label", ["front", "all"])
def test_names_are_all_there_inside_and_apart(table, label):
    """Every cell to be named is named once; no name overlaps another or leaves the axes."""
    ax = draw(table, latency=make_latency(table), label=label)
    front = stats.on_front(table["quality"], table["e2el_ms_p50"])
    base = table["cell_id"].eq(analysis.baseline_of(table))
    wanted = front | base.to_numpy() | (label == "all")
    label_of = analysis.labels_of(table)
    expected = {
        label_of[c] + (" (baseline)" if b else "")
        for c, b, w in zip(table["cell_id"], base, wanted, strict=True)
        if w
    }
    assert sorted(t.get_text() for t in names(ax)) == sorted(expected)
    boxes = [t.get_window_extent() for t in names(ax)]
    for one, two in combinations(boxes, 2):
        assert not one.overlaps(two)
    frame = ax.get_window_extent()
    for box in boxes:
        assert frame.x0 - 1 <= box.x0 < box.x1 <= frame.x1 + 1
        assert frame.y0 - 1 <= box.y0 < box.y1 <= frame.y1 + 1


def test_the_picture_is_not_blank():
    """Pixels: a white ground with a fair share of ink, in several colours, and readable in grey."""
    ax = draw(CASES[1], latency=make_latency(CASES[1]))
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].astype(int)
    ink = (pixels < 200).any(-1).mean()
    assert 0.01 < ink < 0.4
    coloured = pixels[np.ptp(pixels, axis=-1) > 80]
    assert len(np.unique(coloured // 64, axis=0)) >= 3
    assert (pixels.mean(-1) < 100).mean() > 0.003


def test_intervals_are_drawn_in_both_directions():
    """Each cell has its quality interval and its latency interval, at their exact ends."""
    table = make_summary(5)
    latency = make_latency(table)
    ax = draw(table, latency=latency)
    ends = np.vstack(
        [
            np.asarray(segment)
            for bars in ax.collections
            if isinstance(bars, LineCollection)
            for segment in bars.get_segments()
        ]
    )
    bounds = stats.median_interval(latency).set_index("cell_id")
    for row in table.to_dict("records"):
        ms, quality = row["e2el_ms_p50"], 100 * row["quality"]
        across = bounds.loc[row["cell_id"], ["lo", "hi"]]
        wanted = [(ms, 100 * row[c]) for c in ("quality_lo", "quality_hi")]
        wanted += [(x, quality) for x in across]
        for point in wanted:
            assert np.isclose(ends, point, rtol=0, atol=1e-6).all(1).any()


def test_the_front_is_drawn_as_steps():
    """The front line goes through exactly the cells on the front, fastest first."""
    table = make_summary(36, 3)
    ax = draw(table)
    line = next(line for line in ax.lines if line.get_gid() == "front")
    on = stats.on_front(table["quality"], table["e2el_ms_p50"])
    front = table[on].sort_values("e2el_ms_p50")
    np.testing.assert_allclose(line.get_xdata(), front["e2el_ms_p50"])
    np.testing.assert_allclose(line.get_ydata(), 100 * front["quality"])
    assert line.get_drawstyle() == "steps-post"


def test_no_front_is_drawn_where_the_summary_knows_none():
    """Too few or too noisy requests: no line, the best cell and the baseline named, and the picture says why."""
    table = make_summary(12).assign(on_front=pd.NA)
    ax = draw(table)
    assert not [line for line in ax.lines if line.get_gid() == "front" and len(line.get_xdata())]
    assert "no front, since latency was not measured well enough" in note(ax).replace("\n", " ")
    best = analysis.labels_of(table)[table.loc[table["quality"].idxmax(), "cell_id"]]
    assert best in [t.get_text() for t in names(ax)]
    assert len(names(ax)) == 2


def test_axes_have_units_and_the_legend_names_the_groups():
    """Percent and milliseconds; one colour and one shape per temperature, from the palette."""
    ax = draw(CASES[1])
    assert "(ms)" in ax.get_xlabel()
    assert "(%)" in ax.get_ylabel()
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts[:4] == ["T = 0 (greedy)", "T = 0.3", "T = 0.7", "T = 1"]
    handles = ax.get_legend_handles_labels()[0][:4]
    assert len({h.get_marker() for h in handles}) == 4
    assert [h.get_color() for h in handles] == list(plots.PALETTE[:4])


def test_adapters_take_the_colours_and_base_comes_first():
    """With several adapters, colour and shape stand for them."""
    ax = draw(CASES[3])
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts[:3] == ["base", "sums", "terse"]


def test_many_values_are_grouped():
    """Nine temperatures share six looks, and every cell is drawn."""
    table = make_summary(9).assign(temperature=np.arange(9) / 10)
    ax = draw(table, color_by="temperature")
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts[0] == "T = 0 (greedy) to 0.1"
    assert len([t for t in texts if t.startswith("T")]) == 6


def test_settings_that_are_off_are_a_group():
    """A missing setting is shown as off, not dropped."""
    table = make_summary(4).assign(top_k=[10, np.nan, 50, np.nan])
    ax = draw(table, color_by="top_k")
    assert [t.get_text() for t in ax.get_legend().get_texts()][:3] == ["k = 10", "k = 50", "k off"]


def test_cells_that_cannot_be_drawn_are_counted():
    """Failed and untimed cells are missing from the picture, and the picture says so."""
    table = make_summary(12)
    table.loc[2, ["quality", "quality_lo", "quality_hi"]] = np.nan
    table.loc[[3, 4], "e2el_ms_p50"] = np.nan
    ax = draw(table)
    assert note(ax).endswith("not shown: 1 without a score and 2 without a latency, of 12 cells")
    assert sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() in "os^D") >= 9


def test_too_few_requests_are_said():
    """Without bounds of latency there are no horizontal bars, and the picture says why."""
    table = make_summary(3)
    assert note(draw(table)) == (
        "60 prompts; bars: 95 % intervals of quality (too few timed requests for intervals of latency)"
    )
    assert note(draw(table, latency=make_latency(table))).startswith(
        "60 prompts; bars: 95 % intervals"
    )


def test_wide_ranges_get_a_log_axis():
    """More than a factor of 12 between cells: logarithmic, with readable ticks."""
    table = make_summary(6).assign(e2el_ms_p50=[50, 100, 300, 900, 2_000, 4_000.0])
    ax = draw(table)
    assert ax.get_xscale() == "log"
    ticks = [t.get_text() for t in ax.get_xticklabels() if t.get_text()]
    assert {"100", "1,000", "2,000"} <= set(ticks)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "e2el_ms_p50",
            "nothing to draw: no scored cell has a latency; measure it with `workbench latency RUN`",
        ),
        ("quality", "nothing to draw: no answer of this run was scored"),
    ],
)
def test_nothing_to_draw_is_an_error(column, message):
    """No latency or no score at all: one clear message."""
    table = make_summary(3).assign(**{column: np.nan})
    with pytest.raises(WorkbenchError) as caught:
        draw(table)
    assert str(caught.value) == message


def test_a_run_brings_its_own_tables():
    """A run object gives summary, latency and labels."""
    table = make_summary(3)

    class Run:
        cells = pd.DataFrame({"cell_id": table["cell_id"], "label": ["one", "two", "three"]})
        latency = make_latency(table)

        def summary(self):
            return table

    figure = Figure(layout="constrained")
    ax = plots.quality_latency(Run(), figure.subplots(), label="all")
    assert {t.get_text().split()[0] for t in names(ax)} == {"one", "two", "three"}
    assert "of quality" not in note(ax)


def test_bars_are_of_the_level_asked_for():
    """From a run both intervals are computed; a summary's own level is the only one it can show."""
    run = make_run({"temperature": [0, 0.7], "top_k": [5, 50]}, 30, 1)
    half = run_picture(run, level=0.5)
    found = cell_values(run, "quality", level=0.5, n_boot=1)
    ends = upright(half)
    for lo, hi in zip(found.lo, found.hi, strict=True):
        assert any(np.allclose(end, [100 * lo, 100 * hi]) for end in ends)
    assert note(half).startswith("30 prompts; bars: 50 % intervals")
    given = run_picture(run, level=0.5, summary=run.summary())
    np.testing.assert_allclose(upright(given), ends)
    with pytest.raises(WorkbenchError) as caught:
        draw(run.summary(), level=0.5)
    assert str(caught.value) == (
        "level must be 0.95, that of the summary's intervals, got 0.5; give the run for any other"
    )


def run_picture(run, **options):
    """The picture of a run on a figure of its own."""
    figure = Figure(figsize=(7, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    return plots.quality_latency(run, figure.subplots(), **options)


def upright(ax) -> list:
    """Ends of the intervals of quality."""
    segments = [
        s
        for bars in ax.collections
        if isinstance(bars, LineCollection)
        for s in bars.get_segments()
    ]
    return [s[:, 1] for s in segments if len(s) == 2 and s[0, 0] == s[1, 0]]


def test_a_summary_with_unscored_rows_does_not_count_prompts():
    """How many prompts were scored is not in a summary read from a file; that some rows were not, is."""
    table = make_summary(3)
    table.loc[1, ["n_scored", "n_failed"]] = [50, 10]
    assert note(draw(table)).startswith("60 prompts, not every row scored; bars")
    table.attrs["prompts_scored"] = dict(zip(table["cell_id"], (60, 55, 60), strict=True))
    assert note(draw(table)).startswith("55 to 60 of 60 prompts scored; bars")
    table.attrs["prompts_scored"] = dict.fromkeys(table["cell_id"], 55)
    assert note(draw(table)).startswith("55 of 60 prompts scored; bars")


def test_long_names_are_shortened_and_told_apart():
    """Names of a hundred characters stay inside, and those that are the same once shortened get their id."""
    table = make_summary(6)
    long = "an-adapter-with-a-name-" + "x" * 80
    labels = [f"{long[:50]}{i}{long[50:]}" for i in range(6)]
    cells = pd.DataFrame({"cell_id": table["cell_id"], "label": labels})
    ax = draw(table, cells=cells, label="all")
    texts = [t.get_text().removesuffix(" (baseline)") for t in names(ax)]
    assert len(texts) == len(set(texts)) == 6
    assert max(map(len, texts)) <= 40 + 3 + 10
    assert all(text.endswith("]") for text in texts)


def test_names_without_room_are_left_out():
    """Of 120 names only those are written that have room, the front and the baseline among them, and the note says so."""
    table = make_summary(120, 3)
    ax = draw(table, label="all")
    boxes = [t.get_window_extent() for t in names(ax)]
    assert 20 < len(boxes) < 120
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
    assert "; names where there is room" in note(ax).replace("\n", " ")
    assert len([t for t in ax.texts if t.get_gid() == "note"]) == 1
    said = {t.get_text() for t in names(ax)}
    front = draw(table, label="front")
    assert {t.get_text() for t in names(front)} <= said
    assert "names" not in note(front)


def test_templates_have_a_colour():
    """Where wordings differ, they are what is told apart; a cell without one is a group too."""
    table = make_summary(6).assign(template=["plain", "steps", None] * 2)
    ax = draw(table)
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert texts[:3] == ["plain", "steps", "no template"]


def test_what_colour_can_stand_for_is_said():
    """A column that the summary has not, or that is no setting."""
    for wrong in ("stop", "temprature"):
        with pytest.raises(WorkbenchError) as caught:
            draw(make_summary(4), color_by=wrong)
        assert str(caught.value) == (
            "color_by must be one of adapter, template, temperature, top_p, top_k, min_p, repetition_penalty, "
            f"frequency_penalty, presence_penalty, max_tokens, got {wrong!r}"
        )


def test_style_does_not_leak():
    """Drawing changes no global setting and not the summary it was given."""
    before = dict(mpl.rcParams)
    table = make_summary(4)
    copy = table.copy()
    draw(table)
    assert dict(mpl.rcParams) == before
    pd.testing.assert_frame_equal(table, copy)
    assert set(SETTINGS) <= set(table)


def test_a_notebook_goes_on_showing_figures():
    """A backend that turns interactive on with the first figure stays so once our style is gone."""
    before = mpl.is_interactive()
    try:
        mpl.interactive(b=False)
        with house():
            mpl.interactive(b=True)
        assert mpl.is_interactive()
    finally:
        mpl.interactive(before)


def test_the_setting_that_matters_most_next_to_the_first_fills_the_marker():
    """Of the other settings one value is full and one hollow, and the legend says which; one that does nothing is not told."""
    table = make_summary(8)
    table["temperature"] = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    table["top_k"] = [5.0, 5.0, 50.0, 50.0] * 2
    table["repetition_penalty"] = [np.nan, 1.1] * 4
    table["quality"] = [0.8, 0.4, 0.79, 0.41] * 2
    legend = {h.get_label(): h for h in draw(table).get_legend_handles_labels()[0]}
    assert not any(name.startswith("k =") for name in legend)
    assert mpl.colors.to_hex(legend["rep = 1.1"].get_markerfacecolor()) == "#ffffff"
    assert mpl.colors.to_hex(legend["rep off"].get_markerfacecolor()) == "#666666"
    table["quality"] = 0.5
    names_left = {h.get_label() for h in draw(table).get_legend_handles_labels()[0]}
    assert not any(name.startswith(("rep", "k ")) for name in names_left)


def test_cells_that_left_a_race_are_faint_and_on_no_front():
    """The best and fastest cell, if it left early, is neither named nor on the front; the legend says what it is."""
    table = make_summary(6)
    table.loc[5, ["quality", "e2el_ms_p50"]] = [0.99, 10.0]
    gone = str(table["cell_id"].iloc[5])
    assert len(draw(table).lines[-1].get_xdata()) > 0
    table.attrs["left"] = {gone: 12}
    ax = draw(table)
    texts = [t.get_text() for t in ax.get_legend().get_texts()]
    assert "left the race early (fewer prompts)" in texts
    at = [line for line in ax.lines if list(line.get_xdata()) == [10.0]]
    assert [line.get_alpha() for line in at] == [0.25]
    front = next(line for line in ax.lines if line.get_gid() == "front")
    assert 10.0 not in front.get_xdata()
    table.attrs["left"] = {}
    again = next(line for line in draw(table).lines if line.get_gid() == "front")
    assert 10.0 in again.get_xdata()
