"""Effects of settings: planted truths come back, on full grids and broken ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fakeruns import GRID, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import effects
from workbench.errors import WorkbenchError

ADDS = {
    "temperature": {0.0: 0.15, 0.3: 0.15, 0.6: 0.05, 1.0: 0.0, 1.5: -0.1},
    "top_k": {5.0: 0.05, 50.0: -0.05, None: 0.0},
    "repetition_penalty": {None: 0.0, 1.1: -0.1},
}
"""What each level adds to the quality."""


def additive(cell) -> float:
    """The quality of a cell whose settings do not interact."""
    p = cell.params
    return 0.5 + sum(effect.get(getattr(p, name), 0.0) for name, effect in ADDS.items())


def of(table: pd.DataFrame, setting: str) -> pd.DataFrame:
    """The rows of one setting, by level text."""
    return table[table["setting"] == setting].set_index("text")


def test_a_planted_effect_comes_back():
    """A penalty that costs ten points everywhere costs ten points, and nothing else does."""
    run = make_run(
        {"temperature": [0.3, 0.7], "top_k": [5, 50], "repetition_penalty": [1.0, 1.1]},
        20,
        1,
        right=lambda cell: 0.6 - 0.1 * (cell.params.repetition_penalty is not None),
        exact=True,
    )
    table = effects.main_effects(run)
    assert list(dict.fromkeys(table["setting"])) == ["temperature", "top_k", "repetition_penalty"]
    penalty = of(table, "repetition_penalty")
    assert penalty.loc["1.1", "mean"] - penalty.loc["off", "mean"] == pytest.approx(-0.1)
    np.testing.assert_allclose(penalty["diff"], [0.05, -0.05])
    assert list(penalty["n_cells"]) == [4, 4]
    for name in ("temperature", "top_k"):
        np.testing.assert_allclose(of(table, name)["mean"], 0.55)
    assert table[["diff_lo", "diff_hi"]].isna().all().all()  # no prompt differs from another


def test_a_greedy_cell_counts_at_every_top_k():
    """Worked by hand: two temperatures by two top_k, of which greedy ran once."""
    quality = {(0.0, None): 0.8, (0.7, 5): 0.6, (0.7, 50): 0.2}
    run = make_run(
        {"temperature": [0, 0.7], "top_k": [5, 50]},
        4,
        1,
        right=lambda cell: quality[cell.params.temperature, cell.params.top_k],
        exact=True,
    )
    table = effects.main_effects(run)
    np.testing.assert_allclose(of(table, "temperature")["mean"], [0.8, 0.4])
    np.testing.assert_allclose(of(table, "top_k")["mean"], [0.7, 0.5])
    assert list(of(table, "top_k")["n_cells"]) == [2, 2]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_additive_effects_survive_missing_cells(data):
    """Without interaction the differences between levels are the planted ones, whichever cells are missing."""
    grid = {"temperature": [0.3, 0.6, 1.0], "top_k": [5, 50], "repetition_penalty": [1.0, 1.1]}
    every = [
        {"temperature": t, "top_k": k, "repetition_penalty": r}
        for t in grid["temperature"]
        for k in grid["top_k"]
        for r in grid["repetition_penalty"]
    ]
    rows = data.draw(st.lists(st.sampled_from(every), min_size=3, max_size=12, unique_by=str))
    run = make_run(rows, 3, 1, right=additive, exact=True, timed=False)
    about = effects.design_of(run)
    if not about.varied:
        return
    table = effects.main_effects(run, n_boot=5)
    for name in about.varied:
        part = table[table["setting"] == name]
        known = part[part["mean"].notna()]
        planted = np.array([ADDS[name][level] for level in known["level"]])
        if len(known):
            np.testing.assert_allclose(known["diff"], planted - planted.mean(), atol=1e-9)
            assert (known["n_used"] > 0).all()
        else:
            assert (part["n_used"] == 0).all()


def test_intervals_are_of_the_same_prompts():
    """How hard prompts are widens the interval of a level, not that of its distance from the others."""
    run = make_run(n_prompts=60, repeats=2)
    table = effects.main_effects(run)
    width = (table["hi"] - table["lo"]).mean()
    paired = (table["diff_hi"] - table["diff_lo"]).mean()
    assert paired < 0.6 * width
    assert ((table["diff_lo"] <= table["diff"]) & (table["diff"] <= table["diff_hi"])).all()
    again = effects.main_effects(run)
    pd.testing.assert_frame_equal(table, again)
    np.testing.assert_allclose(table.groupby("setting")["diff"].sum(), 0, atol=1e-12)


def test_two_levels_say_what_the_paired_difference_says():
    """With two cells, a level's distance from the average is half their difference, interval included (nearly)."""
    run = make_run({"temperature": [0.3, 1.2]}, 200, 1)
    versus = run.summary().set_index("cell_id").loc[run.cells["cell_id"][1]]
    second = effects.main_effects(run, n_boot=4000).iloc[1]
    assert 2 * second["diff"] == pytest.approx(versus["diff_vs_baseline"])
    assert 2 * second["diff_lo"] == pytest.approx(versus["diff_lo"], abs=0.012)
    assert 2 * second["diff_hi"] == pytest.approx(versus["diff_hi"], abs=0.012)


def test_cells_without_a_value_are_left_out_evenly():
    """If one cell has no score, the combination it belongs to is left out at every level."""
    run = make_run(GRID, 6, 1, right=additive, exact=True)
    lost = run.cells[run.cells["temperature"].eq(1.5) & run.cells["top_k"].eq(5)]["cell_id"].iloc[0]
    run.scores.loc[run.scores["cell_id"] == lost, "value"] = np.nan
    part = of(effects.main_effects(run), "temperature")
    assert set(part["n_used"]) == {3}
    assert set(part["n_others"]) == {4}
    planted = np.array([ADDS["temperature"][t] for t in part["level"]])
    # at temperature 0 top_k has no say, so there the two combinations differ by the penalty alone
    np.testing.assert_allclose(np.diff(part["diff"])[1:], np.diff(planted)[1:], atol=1e-9)


def test_levels_that_one_cell_stands_for_have_no_effect_to_show():
    """If only greedy cells have two levels of top_k in common, nothing is learnt about top_k."""
    rows = [{"temperature": 0}, {"temperature": 0.5, "top_k": 5}, {"temperature": 0.9, "top_k": 50}]
    run = make_run(rows, 5, 1)
    assert effects.design_of(run).levels["top_k"] == (5.0, 50.0)
    part = of(effects.main_effects(run), "top_k")
    assert part["mean"].isna().all()
    assert (part["n_used"] == 0).all()


@pytest.mark.parametrize(
    "value", ["truncated_rate", "n_output_tokens_mean", "e2el_ms_p50", "p_on_front"]
)
def test_other_measures_are_averaged_too(value):
    """The mean of a level is the plain mean of its cells' summary values on a full grid without greedy."""
    run = make_run({"temperature": [0.4, 0.8, 1.2], "top_k": [5, 50]}, 20, 1)
    table = of(effects.main_effects(run, value, n_boot=50), "temperature")
    expected = run.summary().groupby("temperature")[value].mean()
    np.testing.assert_allclose(table["mean"], expected, rtol=1e-9)


def test_a_summary_is_enough_for_the_averages():
    """Read back from CSV, without a run: the same means, and no intervals."""
    run = make_run(n_prompts=12)
    table, plain = effects.main_effects(run), effects.main_effects(run.summary())
    np.testing.assert_allclose(plain["mean"], table["mean"])
    assert plain[["lo", "hi", "diff_lo", "diff_hi"]].isna().all().all()


# --------------------------------------------------------------------------------------------- interaction


def test_interaction_averages_the_rest():
    """Every pair of levels, against a plain groupby on a full grid."""
    run = make_run(
        {"temperature": [0.4, 0.8], "top_k": [5, 50], "repetition_penalty": [1.0, 1.1]}, 15
    )
    table = effects.interaction(run, "temperature", "top_k").set_index(["a", "b"])
    expected = run.summary().groupby(["temperature", "top_k"])["quality"].mean()
    for pair, quality in expected.items():
        assert table.loc[pair, "mean"] == pytest.approx(quality)
    assert table["diff"].sum() == pytest.approx(0)
    assert (table["n_used"] == 2).all()


def test_no_interaction_means_parallel_lines():
    """Planted additive effects: the difference between two levels of one setting is the same at every level of the other."""
    run = make_run({"temperature": [0.3, 1.0], "top_k": [5, 50]}, 5, 1, right=additive, exact=True)
    table = effects.interaction(run, "top_k", "temperature").pivot_table(
        index="a_text", columns="b_text", values="mean"
    )
    np.testing.assert_allclose(table["0.3"] - table["1"], 0.15)


# -------------------------------------------------------------------------------------------------- squares


def test_squares_match_a_plain_average():
    """On a grid without greedy each square is the mean of its cells."""
    run = make_run(
        {"temperature": [0.4, 0.8], "top_k": [5, 50], "repetition_penalty": [1.0, 1.1]}, 15
    )
    shown = effects.squares(run, "top_k", "temperature")
    expected = run.summary().groupby(["temperature", "top_k"])["quality"].mean()
    np.testing.assert_allclose(shown.table["value"], expected)
    assert (shown.x_texts, shown.y_texts) == (("5", "50"), ("0.4", "0.8"))
    assert shown.averaged == {"repetition_penalty": ("off", "1.1")}
    assert shown.balanced
    assert shown.table["best"].sum() == 1
    assert shown.table.loc[shown.table["best"], "value"].item() == expected.max()
    assert shown.n_prompts == 15


def test_a_fixed_setting_leaves_single_cells_with_their_own_intervals():
    """With the third setting held, squares are cells, and their intervals the summary's."""
    run = make_run(n_prompts=20)
    shown = effects.squares(run, "top_k", "temperature", where={"repetition_penalty": 1.0})
    assert shown.fixed == {"repetition_penalty": "off"}
    assert shown.averaged == {}
    table = run.summary().set_index("cell_id")
    for row in shown.table.to_dict("records"):
        (cell,) = row["cells"]
        assert row["value"] == pytest.approx(table.loc[cell, "quality"])
        assert row["lo"] == pytest.approx(table.loc[cell, "quality_lo"])
        assert row["hi"] == pytest.approx(table.loc[cell, "quality_hi"])


def test_cells_that_answered_alike_have_the_interval_of_one():
    """A square over two cells with the same scores shows the bounds that the table shows for both."""
    run = make_run(
        {"temperature": [0.4, 0.8], "top_k": [5, 50], "repetition_penalty": [1.0, 1.1]}, 20, 1
    )
    first, second = run.cells.loc[
        run.cells["temperature"].eq(0.4) & run.cells["top_k"].eq(5), "cell_id"
    ]
    scores = run.scores.set_index(["cell_id", "prompt_id"])["value"]
    same = run.scores["cell_id"] == second
    run.scores.loc[same, "value"] = scores[first].loc[run.scores.loc[same, "prompt_id"]].to_numpy()
    table = run.summary().set_index("cell_id")
    shown = effects.squares(run, "top_k", "temperature").table
    assert shown["n_cells"].tolist() == [2, 2, 2, 2]
    alike = shown["cells"].map(set) == {first, second}
    bounds = ["quality_lo", "quality_hi"]
    np.testing.assert_allclose(shown.loc[alike, ["lo", "hi"]], [table.loc[first, bounds]])
    other = shown[~alike].iloc[0]
    own = table.loc[list(other["cells"])]
    assert other["hi"] - other["lo"] < (own["quality_hi"] - own["quality_lo"]).max()


def test_squares_that_were_not_run_are_told_from_those_without_a_value():
    """Missing pairs, unscored cells and the baseline are marked."""
    rows = [
        {"temperature": 0.3, "top_k": 5},
        {"temperature": 0.3, "top_k": 50},
        {"temperature": 0.9, "top_k": 5},
    ]
    run = make_run(rows, 8, 1, baseline={"temperature": 0.3, "top_k": 50})
    lost = run.cells.loc[run.cells["temperature"] == 0.9, "cell_id"].item()
    run.scores.loc[run.scores["cell_id"] == lost, "value"] = np.nan
    table = effects.squares(run).table.set_index(["y_text", "x_text"])
    assert table.loc[("0.9", "50"), "state"] == "not run"
    assert table.loc[("0.9", "5"), "state"] == "no value"
    assert table.loc[("0.3", "5"), "state"] == "value"
    assert table.index[table["baseline"]].to_list() == [("0.3", "50")]


def test_unbalanced_squares_say_so():
    """If no combination of the rest is complete, squares average what they have and the result is marked."""
    rows = [
        {"temperature": 0.3, "top_k": 5, "repetition_penalty": 1.1},
        {"temperature": 0.9, "top_k": 5},
        {"temperature": 0.3, "top_k": 50},
        {"temperature": 0.9, "top_k": 50, "repetition_penalty": 1.1},
    ]
    shown = effects.squares(make_run(rows, 6, 1), "top_k", "temperature")
    assert not shown.balanced
    assert shown.table["state"].eq("value").all()
    assert (shown.n_used, shown.n_others) == (0, 2)


def test_less_is_better_for_times_and_nothing_for_lengths():
    """The best square of a latency is the lowest; output length has none."""
    run = make_run(n_prompts=10)
    times = effects.squares(run, value="e2el_ms_p50").table
    assert times.loc[times["best"], "value"].min() == times["value"].min()
    assert not effects.squares(run, value="n_output_tokens_mean").table["best"].any()


def test_a_summary_and_its_baseline_are_enough():
    """The mark of the baseline survives a summary that was read back from CSV."""
    run = make_run(n_prompts=20)
    table = run.summary()
    table.attrs.clear()
    shown = effects.squares(table, "repetition_penalty", "temperature", where={"top_k": 5})
    own = effects.squares(run, "repetition_penalty", "temperature", where={"top_k": 5})
    np.testing.assert_allclose(shown.table["value"], own.table["value"])
    np.testing.assert_allclose(shown.table["lo"], own.table["lo"])
    assert list(shown.table["baseline"]) == list(own.table["baseline"])


ONE = make_run({"temperature": [0.7]}, 3, 1)
TWO = make_run({"temperature": [0, 0.7], "top_k": [5, 50]}, 3, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: effects.main_effects(ONE),
            "no setting varies in this run, so none can have an effect",
        ),
        (
            lambda: effects.interaction(TWO, "top_k", "max_tokens"),
            "max_tokens does not vary in this run",
        ),
        (
            lambda: effects.interaction(TWO, "top_k", "top_k"),
            "a and b must be two different settings, got top_k twice",
        ),
        (lambda: effects.squares(ONE), "a heat map needs two settings that vary; varied: none"),
        (
            lambda: effects.squares(TWO, "top_k", "top_k"),
            "x and y must be two different settings, got top_k twice",
        ),
        (lambda: effects.squares(TWO, "topk"), "unknown setting 'topk', did you mean 'top_k'?"),
        (
            lambda: effects.squares(TWO, "top_k", "temperature", where={"top_k": 5}),
            "top_k is an axis and cannot be fixed as well",
        ),
        (
            lambda: effects.squares(TWO, where={"max_tokens": 3}),
            "no cell with max_tokens = 3; it has 48",
        ),
    ],
)
def test_what_cannot_be_asked_is_said(call, message):
    """One clear message for each."""
    with pytest.raises(WorkbenchError) as caught:
        call()
    assert str(caught.value) == message
