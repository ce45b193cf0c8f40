"""Squares of a heat map: averages that compare like with like, what was not run, and which is best."""

from __future__ import annotations

import numpy as np
import pytest
from fakeruns import make_run

from workbench import effects
from workbench.errors import WorkbenchError


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
    assert shown.table.loc[shown.table["best"], "value"].item() == pytest.approx(expected.max())
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
    assert not shown.table["best"].any()


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


def test_greedy_does_not_stand_in_for_pairs_that_nobody_ran():
    """Greedy and two sampled pairs of top_k and top_p: two squares have the sampled cells, the other two were not run."""
    pairs = ((20, 0.8), (50, 0.95))
    rows = [{"temperature": t, "top_k": k, "top_p": p} for t in (0.5, 1) for k, p in pairs]
    run = make_run([{"temperature": 0}, *rows], 40, 1)
    shown = effects.squares(run, "top_k", "top_p")
    table = shown.table.set_index(["x_text", "y_text"])
    quality = run.summary().groupby(["top_k", "top_p"])["quality"].mean()
    assert table["state"].to_dict() == {
        ("20", "0.8"): "value",
        ("50", "0.8"): "not run",
        ("20", "0.95"): "not run",
        ("50", "0.95"): "value",
    }
    np.testing.assert_allclose(table["value"].dropna(), quality)
    assert (shown.n_used, shown.n_others) == (2, 2)
    assert set(shown.sampled) == {"top_k", "top_p"}
    assert shown.averaged == {"temperature": ("0.5", "1")}
    greedy = run.cells["cell_id"][0]
    assert not any(greedy in cells for cells in table["cells"])
    along = effects.squares(run, "top_k", "temperature").table
    assert greedy in along["cells"][0]


def test_only_greedy_cells_cannot_fill_a_map_of_top_k():
    """Held at temperature 0, top_k does nothing."""
    run = make_run(n_prompts=3, repeats=1)
    with pytest.raises(WorkbenchError) as caught:
        effects.squares(run, "top_k", "repetition_penalty", where={"temperature": 0})
    assert str(caught.value) == "at temperature 0 (greedy), top_k changes nothing"


def lost(n: int):
    """Four cells on forty prompts, of which the third lost some."""
    run = make_run({"temperature": [0.3, 0.7], "top_k": [5, 50]}, 40, 1)
    gone = run.scores["cell_id"].eq(run.cells["cell_id"][2])
    gone &= run.scores["prompt_id"].lt(f"sum-{n:03d}")
    run.scores.loc[gone, "value"] = np.nan
    return run


def test_squares_are_over_the_same_prompts():
    """Fifteen prompts lost in one cell are left out of all: values and intervals are those of the other twenty-five."""
    shown = effects.squares(lost(15))
    assert (shown.n_fewest, shown.n_prompts, shown.n_asked) == (25, 25, 40)
    assert shown.balanced
    rest = make_run({"temperature": [0.3, 0.7], "top_k": [5, 50]}, 40, 1)
    rest.generations = rest.generations[rest.generations["prompt_id"].ge("sum-015")]
    expected = rest.summary()
    for name, column in (("value", "quality"), ("lo", "quality_lo"), ("hi", "quality_hi")):
        np.testing.assert_allclose(shown.table[name], expected[column])


def test_a_cell_that_lost_most_prompts_does_not_take_them_from_all():
    """Ten of forty prompts in common: every square keeps its own, and none is best."""
    run = lost(30)
    shown = effects.squares(run)
    np.testing.assert_allclose(shown.table["value"], run.summary()["quality"])
    np.testing.assert_allclose(shown.table["lo"], run.summary()["quality_lo"])
    assert (shown.n_fewest, shown.n_prompts) == (10, 40)
    assert not shown.balanced
    assert not shown.table["best"].any()


def test_a_summary_with_failed_rows_has_no_best():
    """It does not tell which prompts failed, so its squares cannot be compared."""
    table = lost(15).summary()
    assert table["n_failed"].sum() == 15
    shown = effects.squares(table)
    assert not shown.balanced
    assert not shown.table["best"].any()
    assert effects.squares(make_run(n_prompts=9).summary()).table["best"].any()


def test_a_level_that_the_summary_does_not_have_is_refused():
    """From a run intervals are computed at any level; a summary has its own."""
    run = make_run(n_prompts=20)
    where = {"repetition_penalty": 1.0}
    half = effects.squares(run, "top_k", "temperature", where=where, level=0.5).table
    wide = effects.squares(run, "top_k", "temperature", where=where).table
    assert ((half["hi"] - half["lo"]) < 0.6 * (wide["hi"] - wide["lo"])).all()
    with pytest.raises(WorkbenchError) as caught:
        effects.squares(run.summary(), "top_k", "temperature", where=where, level=0.5)
    assert str(caught.value) == (
        "level must be 0.95, that of the summary's intervals, got 0.5; give the run for any other"
    )


ONE = make_run({"temperature": [0.7]}, 3, 1)
TWO = make_run({"temperature": [0, 0.7], "top_k": [5, 50]}, 3, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
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
