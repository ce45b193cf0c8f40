"""The forest plot draws what the comparison says, and can be shown at any size."""

from __future__ import annotations

from functools import cache

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakeruns import make_run
from matplotlib.colors import to_hex
from pictures import faults, figure_of

from workbench import plots
from workbench.comparing.adapters import AdapterComparison, by_adapter
from workbench.errors import WorkbenchError
from workbench.plots import style
from workbench.plots.forest import forest

LONG = ("base", "terse-answers-rank-16-epoch-3", "a-much-longer-adapter-name-that-someone-gave-it")
GRID = {"temperature": [0, 0.7, 1.3], "top_k": [5, 50]}
GAIN = {"base": 0.0, "terse": -0.05, "sums": 0.25}


@pytest.fixture(autouse=True)
def _closed():
    """No figure outlives its test."""
    yield
    plt.close("all")


def compared(grid=None, adapters=tuple(GAIN), sets=False, **options) -> AdapterComparison:
    """A comparison of adapters, of which one helps."""
    run = make_run(
        GRID if grid is None else grid,
        options.pop("n_prompts", 30),
        adapters=adapters,
        timed=False,
        right=lambda c: 0.4 + GAIN.get(c.adapter, 0.1) - 0.1 * c.params.temperature,
        **options,
    )
    ids = [p.id for p in run.prompts]
    parts = {"arithmetic": ids[::2], "capitals of the world and of its regions": ids[1::2]}
    return by_adapter(run, sets=parts if sets else None)


FOUND = compared(n_prompts=60)
WIDE = {
    "temperature": [round(0.1 * i, 1) for i in range(1, 11)],
    "top_k": [5, 10, 20, 50, None],
    "repetition_penalty": [1.0, 1.05, 1.1, 1.2],
}
KINDS = {
    "1 row": lambda: compared({"temperature": [0.7]}, ("base", "sums")),
    "5 rows": lambda: compared({"temperature": [0, 0.4, 0.8, 1.2, 1.5]}, ("base", "sums")),
    "30 rows": lambda: compared({"temperature": [0.2, 0.4, 0.8, 1.2, 1.5], "top_k": [5, 10, 50]}),
    "200 rows": lambda: compared(WIDE, ("base", "sums"), repeats=1),
    "sets, held out": lambda: compared(sets=True, confirm=0.3),
    "long names": lambda: compared(adapters=LONG, sets=True),
    "no intervals": lambda: compared(n_prompts=1, repeats=1),
    "eight adapters": lambda: compared(
        {"temperature": [0.7]}, ("base", *(f"adapter-{i}" for i in range(8)))
    ),
}


@cache
def kind_of(kind: str) -> AdapterComparison:
    """The comparisons that are drawn; made once."""
    return KINDS[kind]()


def by_gid(ax, gid: str) -> list:
    """The artists that carry a mark."""
    return ax.findobj(lambda artist: artist.get_gid() == gid)


def ticks(ax) -> list[str]:
    """Names of the lines."""
    return [label.get_text() for label in ax.get_yticklabels()]


def note(ax) -> str:
    """What stands under the title, in one line."""
    return by_gid(ax, "note")[0].get_text().replace("\n", " ")


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_shown(kind):
    """At notebook size: ink, no text over another or cut off, none too small, dark enough to print."""
    ax = forest(kind_of(kind))
    assert faults(ax, ink=(0.003, 0.75)) == []
    assert figure_of(ax).get_size_inches()[0] == style.WIDTH_IN


def test_it_fits_into_a_page_of_several():
    """Given axes of a grid, it keeps to its place."""
    figure = plt.figure(figsize=(15, 5), layout="constrained")
    place, neighbour = figure.subplots(1, 2)
    neighbour.plot([0, 1], linewidth=3)
    neighbour.set_title("a neighbour with a title of its own", loc="left")
    ax = forest(FOUND, place)
    assert ax is place
    assert faults(ax) == []


def test_marks_stand_where_the_table_says():
    """Every cell's mark and bar, and every diamond, are the numbers of the comparison, in points."""
    ax = forest(FOUND)
    order = FOUND.table
    cells = by_gid(ax, "cell")
    assert [line.get_xdata()[0] for line in cells] == pytest.approx(100 * order["diff"])
    bars = np.array([c.get_segments()[0][:, 0] for c in by_gid(ax, "interval")])
    assert bars == pytest.approx(100 * order[["diff_lo", "diff_hi"]].to_numpy())
    diamonds = np.array([p.get_xy()[:3, 0] for p in by_gid(ax, "average")])
    wanted = FOUND.averages[["diff_lo", "diff", "diff_hi"]].to_numpy()
    assert diamonds == pytest.approx(100 * wanted)
    low, high = ax.get_xlim()
    assert low < min(0, bars.min())
    assert high > max(0, bars.max())
    assert by_gid(ax, "zero")[0].get_xdata()[0] == 0


def test_lines_are_grouped_by_set_and_adapter():
    """All prompts first, then each set; in each the adapters, their averages in front of their cells."""
    found = compared({"temperature": [0, 1.0]}, sets=True)
    ax = forest(found)
    block = ["terse: average", "greedy", "T=1", "sums: average", "greedy", "T=1"]
    long = "capitals of the w…d of its regions"
    assert ticks(ax) == ["all prompts", *block, "arithmetic", *block, long, *block]
    places = ax.get_yticks()
    assert (np.diff(places) > 0).all()
    drawn = [p.get_xy()[1, 0] for p in by_gid(ax, "average")]
    assert drawn == pytest.approx(100 * found.averages["diff"])


def test_held_out_prompts_have_a_diamond_of_their_own():
    """The average over the prompts held out stands first, with its own number of prompts."""
    found = compared({"temperature": [0, 1.0]}, ("base", "sums"), confirm=0.4)
    ax = forest(found)
    assert ticks(ax) == ["sums: held out", "sums: average", "greedy", "T=1"]
    drawn = [p.get_xy()[1, 0] for p in by_gid(ax, "average")]
    by_split = found.averages.set_index("split")["diff"]
    assert drawn == pytest.approx([100 * by_split["confirm"], 100 * by_split["select"]])
    assert "diamonds: average over settings, also on the prompts held out" in note(ax)


def test_filled_means_beyond_chance():
    """Marks are filled where the verdict is better or worse, and hollow elsewhere."""
    ax = forest(FOUND)
    rows = FOUND.table["verdict"].isin(["better", "worse"])
    filled = [to_hex(line.get_markerfacecolor()) != "#ffffff" for line in by_gid(ax, "cell")]
    assert filled == list(rows)
    assert any(filled)
    assert not all(filled)
    sure = FOUND.averages["verdict"].isin(["better", "worse"])
    assert [to_hex(p.get_facecolor()) != "#ffffff" for p in by_gid(ax, "average")] == list(sure)


def test_adapters_look_as_in_quality_latency():
    """Each adapter has the colour and the mark that it has in the picture of quality against latency."""
    run = make_run({"temperature": [0.5, 1.0]}, 20, adapters=("base", "terse", "sums"))
    legend = plots.quality_latency(run).get_legend_handles_labels()
    there = {
        name: (handle.get_color(), handle.get_marker())
        for handle, name in zip(*legend, strict=True)
    }
    found = by_adapter(run)
    lines = by_gid(forest(found), "cell")
    for line, adapter in zip(lines, found.table["adapter"], strict=True):
        assert (line.get_markeredgecolor(), line.get_marker()) == there[adapter]


def test_numbers_stand_at_the_right():
    """Difference with interval and the prompts are written out at every line; what is unknown has a word."""
    ax = forest(FOUND)
    texts = [t.get_text() for t in ax.texts]
    row = FOUND.averages.iloc[1]
    low, middle, high = (f"{100 * row[c]:+.1f}" for c in ("diff_lo", "diff", "diff_hi"))
    assert f"{middle} ({low} to {high})".replace("-", "\u2212") in texts
    assert texts.count("60") == 12
    assert "too few prompts for intervals" in note(forest(kind_of("no intervals")))


def test_a_cell_without_score_is_named():
    """A line without a difference has its name and a word, and no mark."""
    table = FOUND.table.copy()
    table.loc[0, ["diff", "diff_lo", "diff_hi"]] = np.nan
    ax = forest(table)
    assert len(by_gid(ax, "cell")) == len(table) - 1
    assert "not scored" in [t.get_text() for t in ax.texts]


def test_identical_answers_are_told():
    """A line of identical answers stands at 0 and says why."""
    table = FOUND.table.copy()
    table.loc[0, ["diff", "diff_lo", "diff_hi", "verdict"]] = [0.0, np.nan, np.nan, "identical"]
    assert "0.0 (all identical)" in [t.get_text() for t in forest(table).texts]


def test_a_table_alone():
    """Without averages, lines are headed by the adapter's name."""
    ax = forest(FOUND.table, title="Mine")
    assert ticks(ax)[0] == "terse"
    assert not by_gid(ax, "average")
    assert ax.get_title(loc="left") == "Mine"


def test_too_many_cells():
    """Of 200 cells the highest and lowest are drawn, the average stays, and the note says so."""
    found = kind_of("200 rows")
    ax = forest(found)
    drawn = [line.get_xdata()[0] for line in by_gid(ax, "cell")]
    order = 100 * found.table["diff"].sort_values(ascending=False).to_numpy()
    assert sorted(drawn, reverse=True) == pytest.approx([*order[:18], *order[-17:]])
    assert len(by_gid(ax, "average")) == 1
    assert note(ax).endswith("35 of 200 cells shown: the highest and lowest of each adapter")


def test_cells_of_single_sets_go_first():
    """Where the cells of all sets do not fit, those of all prompts together stay, and all averages."""
    ax = forest(compared(sets=True), limit=20)
    assert len(by_gid(ax, "cell")) == 10
    assert len(by_gid(ax, "average")) == 6
    assert note(ax).endswith("cells of single prompt sets not shown")


def test_too_many_averages():
    """Where not even the averages fit, those of all prompts and the furthest from 0 stay."""
    found = compared(sets=True)
    ax = forest(found, limit=3)
    rows = found.averages
    sets = rows[rows["set"].ne("all")]
    furthest = sets.loc[sets["diff"].abs().idxmax(), "diff"]
    wanted = [*rows.loc[rows["set"].eq("all"), "diff"], furthest]
    drawn = [p.get_xy()[1, 0] for p in by_gid(ax, "average")]
    assert drawn == pytest.approx([100 * d for d in wanted])
    assert note(ax).endswith(
        "3 of 6 averages shown (limit=3): of all prompts, and those furthest from 0; none of 30 cells shown"
    )


def test_the_title_names_the_baseline():
    """The default title says against what; None leaves it out."""
    assert forest(FOUND).get_title(loc="left") == "What each adapter changes against base"
    assert forest(FOUND, title=None).get_title(loc="left").strip() == ""


def test_nothing_leaks():
    """Drawing changes no setting of matplotlib, and no table."""
    before, table = dict(mpl.rcParams), FOUND.table.copy()
    forest(FOUND)
    assert dict(mpl.rcParams) == before
    pd.testing.assert_frame_equal(FOUND.table, table)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: forest(FOUND, limit=0), "limit must be at least 1, got 0"),
        (
            lambda: forest(FOUND.table.iloc[:0]),
            "nothing to draw: no cell of an adapter could be compared",
        ),
    ],
)
def test_what_is_refused(call, message):
    """A limit below one, and a comparison without rows."""
    with pytest.raises(WorkbenchError) as caught:
        call()
    assert str(caught.value) == message


def test_an_adapter_looks_the_same_in_every_picture():
    """Colour and mark of an adapter agree between the forest, the interaction and the front, whatever their order."""
    run = make_run(GRID, 30, adapters=("base", "terse", "polite"))
    wanted = style.adapter_looks(["terse", "base", "polite"])
    assert list(wanted) == ["base", "polite", "terse"]
    assert wanted["polite"] == (style.PALETTE[1], style.MARKERS[1])
    handles = plots.interaction(run, "top_k", "adapter").get_legend()
    drawn = {
        t.get_text(): to_hex(h.get_color())
        for t, h in zip(handles.get_texts(), handles.legend_handles, strict=True)
    }
    assert drawn == {name: colour.lower() for name, (colour, _) in wanted.items()}
