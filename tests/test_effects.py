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


def test_greedy_stands_for_every_top_k_and_says_nothing_about_it():
    """Worked by hand: greedy, run once, is a temperature like the others, and does not water the effect of top_k down."""
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
    np.testing.assert_allclose(of(table, "top_k")["mean"], [0.6, 0.2])
    assert list(of(table, "top_k")["n_cells"]) == [1, 1]
    assert of(table, "top_k")["sampled"].all()
    assert not of(table, "temperature")["sampled"].any()


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


GRID_OF_8 = [
    {"temperature": t, "top_k": k, "repetition_penalty": r}
    for t in (0.5, 0.9)
    for k in (20, 50)
    for r in (1.0, 1.1)
]


def test_a_cell_beside_the_grid_takes_nothing_from_it():
    """A baseline with settings of its own: its levels are left out, the grid's effects are those of the grid alone."""
    odd = {"temperature": 0.3, "top_k": 5, "repetition_penalty": 1.2}
    run = make_run([*GRID_OF_8, odd], 12, 1, baseline=odd)
    table = effects.main_effects(run, n_boot=50)
    grid = run.summary()[lambda rows: rows["temperature"].gt(0.4)]
    for name, level in (("temperature", "0.3"), ("top_k", "5"), ("repetition_penalty", "1.2")):
        part = of(table, name)
        assert part["left_out"].to_dict() == {text: text == level for text in part.index}
        assert np.isnan(part.loc[level, "mean"])
        expected = grid.fillna({"repetition_penalty": 1.0}).groupby(name)["quality"].mean()
        np.testing.assert_allclose(part["mean"].dropna(), expected)
        assert (part["n_used"] == 4).all()
        assert (part["n_others"] == 4).all()


def test_a_greedy_baseline_beside_the_grid_takes_nothing_from_it():
    """A greedy cell without penalty beside a grid with two penalties: temperature and penalty keep their effects."""
    rows = [{**row, "repetition_penalty": 1.05} for row in GRID_OF_8[::2]]
    rows += [row for row in GRID_OF_8 if row["repetition_penalty"] == 1.1]
    table = effects.main_effects(make_run([*rows, {"temperature": 0}], 12, 1), n_boot=50)
    assert of(table, "temperature")["left_out"].tolist() == [True, False, False]
    assert of(table, "repetition_penalty")["left_out"].tolist() == [True, False, False]
    assert table.groupby("setting")["mean"].count().to_dict() == {
        "temperature": 2,
        "top_k": 2,
        "repetition_penalty": 2,
    }


def failing(n: int = 40):
    """Two cells with the same answers, half of them right; at 0.7 fifteen of the wrong ones failed."""
    run = make_run({"temperature": [0.3, 0.7]}, n, 1)
    number = run.scores["prompt_id"].str.slice(4).astype(int)
    run.scores["value"] = (number % 2).astype(float)
    lost = run.scores["cell_id"].eq(run.cells["cell_id"][1]) & (number % 2 == 0) & (number < 30)
    run.scores.loc[lost, "value"] = np.nan
    run.generations.loc[lost.to_numpy(), "finish_reason"] = "error"
    return run


def test_failed_rows_make_no_effect():
    """Equal answers are equal, however many of the wrong ones failed at one level: both are over the prompts scored at both."""
    run = failing()
    assert run.summary()["quality"].tolist() == [0.5, 0.8]
    table = effects.main_effects(run)
    np.testing.assert_allclose(table["mean"], 0.8)
    np.testing.assert_allclose(table["diff"], 0, atol=1e-12)
    assert not (table["diff_lo"] > 0).any()
    assert table[["n_fewest", "n_most", "n_asked"]].iloc[0].tolist() == [25, 25, 40]


def test_failed_rows_take_their_prompts_from_one_combination_only():
    """What failed with top_k 5 is left out there at both temperatures, and stays in with top_k 50."""
    run = make_run({"temperature": [0.3, 0.9], "top_k": [5, 50]}, 20, 1)
    cell = run.cells["cell_id"][0]
    lost = run.scores["cell_id"].eq(cell) & run.scores["prompt_id"].lt("sum-008")
    run.scores.loc[lost, "value"] = np.nan
    part = of(effects.main_effects(run, n_boot=20), "temperature")
    assert part[["n_fewest", "n_most"]].to_numpy().tolist() == [[12, 20]] * 2
    scores = run.scores.merge(run.cells[["cell_id", "temperature", "top_k"]], on="cell_id")
    kept = scores[scores["top_k"].eq(50) | scores["prompt_id"].ge("sum-008")]
    np.testing.assert_allclose(part["mean"], kept.groupby("temperature")["value"].mean())


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
    full = effects.interaction(run, "top_k", "temperature")
    np.testing.assert_allclose(full["extra"], 0, atol=1e-12)


def test_a_planted_interaction_comes_back():
    """Twelve points for one pair: a quarter of them is left there when both settings' own effects are taken away."""
    run = make_run(
        {"temperature": [0.3, 1.0], "top_k": [5, 50]},
        30,
        1,
        right=lambda c: additive(c) + 0.12 * (c.params.temperature == 1 and c.params.top_k == 50),
        exact=True,
    )
    luck = np.random.default_rng(3).normal(0, 0.02, len(run.scores))
    run.scores["value"] += luck - luck.mean()
    table = effects.interaction(run, "temperature", "top_k").set_index(["a", "b"])
    mean = table["mean"]
    apart = mean[1.0, 50.0] - mean[1.0, 5.0] - mean[0.3, 50.0] + mean[0.3, 5.0]
    assert (
        table.loc[(1.0, 50.0), "extra"] == pytest.approx(apart / 4) == pytest.approx(0.03, abs=0.01)
    )
    for pair, row in table.iterrows():
        sign = 1 if pair in {(1.0, 50.0), (0.3, 5.0)} else -1
        assert row["extra"] == pytest.approx(sign * apart / 4)
        assert row["extra_lo"] < row["extra"] < row["extra_hi"]
        assert not row["extra_lo"] <= 0 <= row["extra_hi"]  # far beyond chance


def test_the_interaction_of_a_table_is_its_double_residual():
    """On a full table: the mean minus its row's and its column's, plus the mean of all."""
    run = make_run({"temperature": [0.4, 0.8, 1.2], "top_k": [5, 20, 50]}, 15)
    table = effects.interaction(run, "temperature", "top_k").pivot_table(
        index="a", columns="b", values=["mean", "extra"]
    )
    mean = table["mean"].to_numpy()
    expected = mean - mean.mean(0) - mean.mean(1, keepdims=True) + mean.mean()
    np.testing.assert_allclose(table["extra"], expected, atol=1e-12)


def test_an_interaction_that_cannot_be_told_is_unknown():
    """Three of four pairs always add up from two effects; of five of six, one pair stands alone in its row."""
    rows = [(0.3, 5), (0.3, 50), (0.9, 5)]
    three = make_run([{"temperature": t, "top_k": k} for t, k in rows], 6, 1)
    assert effects.interaction(three, "temperature", "top_k")["extra"].isna().all()
    rows = [(0.3, 5), (0.3, 50), (0.9, 5), (0.9, 50), (1.2, 5)]
    five = make_run([{"temperature": t, "top_k": k} for t, k in rows], 6, 1)
    table = effects.interaction(five, "temperature", "top_k").set_index(["a", "b"])["extra"]
    assert table.isna().to_dict() == {pair: pair == (1.2, 5.0) for pair in table.index}


def test_greedy_does_not_make_an_interaction():
    """At temperature 0 top_k does nothing, which is known beforehand: such pairs are shown, and not tested."""
    run = make_run(GRID, 12, 1, right=additive, exact=True)
    table = effects.interaction(run, "temperature", "top_k")
    greedy = table["a"].eq(0)
    assert table.loc[greedy, "mean"].notna().all()
    assert table.loc[greedy, "extra"].isna().all()
    np.testing.assert_allclose(table.loc[~greedy, "extra"], 0, atol=1e-12)


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
    ],
)
def test_what_cannot_be_asked_is_said(call, message):
    """One clear message for each."""
    with pytest.raises(WorkbenchError) as caught:
        call()
    assert str(caught.value) == message
