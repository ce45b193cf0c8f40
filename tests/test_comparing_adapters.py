"""Adapters compared with a baseline adapter: planted truths come back, and no more is said than the numbers hold."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from fakeruns import FakeRun, make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from pairedruns import paired_run, timed

from workbench import stats
from workbench.comparing import adaptertables, compare
from workbench.comparing.adapters import by_adapter
from workbench.comparing.dependence import dependence
from workbench.comparing.gains import Answers, Pair, averaged
from workbench.comparing.matching import matched
from workbench.errors import WorkbenchError
from workbench.factors import design

if TYPE_CHECKING:
    from workbench.exploring.browse import Tables

N = 12
SCORES = st.lists(
    st.lists(st.sampled_from([0, 1, 0.25, None, "error"]), min_size=N, max_size=N),
    min_size=4,
    max_size=4,
)
GRID = {"temperature": [0, 0.7, 1.3], "top_k": [5, 50]}
GAIN = {"base": 0.0, "terse": -0.05, "sums": 0.2}


def adapter_run(scores: dict[str, dict[str, list]], **options: Any) -> Tables:
    """A run of adapters: adapter to settings to the score of each prompt (a list: of each repeat)."""
    flat, about = {}, []
    for adapter, cells in scores.items():
        for number, (label, values) in enumerate(cells.items()):
            name = label if adapter == "base" else f"{label} {adapter}"
            flat[name] = {
                f"p{i:02d}": v if isinstance(v, list) else [v] for i, v in enumerate(values)
            }
            about.append((adapter, number / 2))
    run = paired_run(flat, **options)
    run.cells["adapter"] = [adapter for adapter, _ in about]
    run.cells["temperature"] = [heat for _, heat in about]
    return run


def two_by_two(values: list[list], **options: Any) -> Tables:
    """Base and one adapter, two settings each."""
    names = ("base", "x")
    return adapter_run(
        {n: {"a": values[2 * i], "b": values[2 * i + 1]} for i, n in enumerate(names)}, **options
    )


def planted(adapters: dict[str, float] = GAIN, **options: Any) -> FakeRun:
    """A made-up run in which an adapter adds its gain to the chance of a right answer."""
    return make_run(
        options.pop("grid", GRID),
        adapters=tuple(adapters),
        right=lambda c: 0.5 - 0.1 * c.params.temperature + adapters[c.adapter],
        timed=options.pop("timed", False),
        **options,
    )


class Told(FakeRun):
    """A made-up run with more in its manifest."""

    more: dict[str, Any]

    @property
    def manifest(self) -> dict[str, Any]:
        """As told."""
        return super().manifest | self.more


def told(run: FakeRun, **facts: dict[str, Any]) -> Told:
    """The run, with what its engine says of adapters."""
    tables = (run.plan, run.cells, run.generations, run.scores, run.latency, run.primary)
    out = Told(*tables)
    out.more = {"engine": {"adapters": {}, "extra": {"adapters": facts}}}
    return out


# --------------------------------------------------------------------------------------------- cell by cell


@settings(max_examples=8, deadline=None)
@given(SCORES)
def test_a_row_is_what_compare_says_of_its_cells(values):
    """Difference, interval, p, counts, length and rates of a row are those of the comparison of its two cells."""
    run = two_by_two(values)
    run.generations["n_output_tokens"] = 5 + np.arange(len(run.generations)) ** 2 % 11
    try:
        found = by_adapter(run)
    except WorkbenchError:
        return
    for row in found.table.to_dict("records"):
        alone = compare(run, row["cell_id"], row["baseline_id"])
        pairs = [
            (row["diff"], alone.diff),
            (row["diff_lo"], alone.lo),
            (row["diff_hi"], alone.hi),
            (row["quality"], alone.quality.cell),
            (row["p_value"], alone.p),
            (row["tokens_diff"], alone.tokens.diff),
            (row["tokens_lo"], alone.tokens.lo),
            (row["truncated_rate"], alone.truncated[1]),
            (row["baseline_loop_rate"], alone.loops[0]),
        ]
        for mine, theirs in pairs:
            assert mine == pytest.approx(theirs, nan_ok=True)
        counts = row["wins"], row["losses"], row["ties"], row["n_unscored"]
        assert counts == (alone.better, alone.worse, alone.same, alone.unscored)


@settings(max_examples=6, deadline=None)
@given(SCORES)
def test_turned_round_every_sign_turns(values):
    """With adapter and baseline swapped, differences and bounds are exactly the negatives, and p-values stay."""
    latency = timed(
        {
            cell: {(f"p{p:02d}", r): base + p + 7 * r for p in range(8) for r in range(3)}
            for cell, base in (("a", 100), ("a x", 90), ("b", 70), ("b x", 75))
        }
    )
    run = two_by_two(values, latency=latency)
    there, back = by_adapter(run, "base"), by_adapter(run, "x")
    for one, two in ((there.table, back.table), (there.averages, back.averages)):
        np.testing.assert_array_equal(one["diff"], -two["diff"])
        np.testing.assert_array_equal(one["diff_lo"], -two["diff_hi"])
        np.testing.assert_array_equal(one["tokens_diff"], -two["tokens_diff"])
        np.testing.assert_array_equal(one["p_value"], two["p_value"])
        np.testing.assert_array_equal(one["p_adjusted"], two["p_adjusted"])
        np.testing.assert_array_equal(one["wins"], two["losses"])
        np.testing.assert_array_equal(one["loop_rate"], two["baseline_loop_rate"])
    np.testing.assert_array_equal(there.latency["e2el_ms_diff"], -back.latency["e2el_ms_diff"])
    np.testing.assert_array_equal(there.contrasts["contrast"], back.contrasts["contrast"])


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_rows_does_not_matter(seed):
    """With the rows of every table shuffled, every number stays the same."""
    run = SHARED
    rng = np.random.default_rng(seed)
    mixed = [t.iloc[rng.permutation(len(t))] for t in (run.generations, run.scores, run.latency)]
    again = FakeRun(run.plan, run.cells, *(t.reset_index(drop=True) for t in mixed))
    one, two = by_adapter(run), by_adapter(again)
    for name in ("table", "averages", "best", "interaction", "contrasts"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(two, name))


SHARED = planted(n_prompts=20, confirm=0.4, timed=True)


def test_prompt_sets_are_rows_of_their_own():
    """Each set has its rows, over its prompts alone; all prompts together come first; p is adjusted over all rows."""
    better, same = [0] * 6 + [1] * 6, [0] * 12
    run = adapter_run({"base": {"a": same, "b": same}, "x": {"a": better, "b": same}})
    ids = [p.id for p in run.prompts]
    found = by_adapter(run, sets={"first": ids[:6], "last": ids[6:]})
    rows = found.table.set_index(["set", "settings"])
    assert found.sets == ("first", "last")
    assert list(found.table["set"]) == ["all", "all", "first", "first", "last", "last"]
    assert rows["diff"].to_dict() == {
        ("all", "a"): 0.5,
        ("all", "b"): 0,
        ("first", "a"): 0,
        ("first", "b"): 0,
        ("last", "a"): 1,
        ("last", "b"): 0,
    }
    assert list(rows["n_prompts"]) == [12, 12, 6, 6, 6, 6]
    np.testing.assert_array_equal(rows["p_adjusted"], stats.adjust(rows["p_value"]))
    assert rows["p_value"]["all", "a"] == 2 * 0.5**6


def test_one_set_of_all_prompts_is_no_set():
    """A single set that holds every prompt adds no rows: they would be the same again."""
    run = two_by_two([[0, 1] * 6] * 4)
    found = by_adapter(run, sets={"only": [p.id for p in run.prompts]})
    assert found.sets == ()
    assert list(found.table["set"]) == ["all", "all"]


def test_sets_of_the_record_are_found():
    """Without sets given, those of the run's manifest are taken."""
    run = two_by_two([[0, 1] * 6] * 4)
    ids = [p.id for p in run.prompts]
    run.manifest["prompt_set"] = {"sets": {"first": ids[:6], "last": ids[6:]}}
    assert by_adapter(run).sets == ("first", "last")


def test_failed_rows_are_no_zeros():
    """A prompt that broke in one cell does not count against it; a cell that broke throughout is listed."""
    ones = [1] * N
    run = two_by_two([ones, ones, ["error"] * 4 + [1] * 8, ["error"] * N])
    found = by_adapter(run)
    (row,) = found.table.to_dict("records")
    assert (row["diff"], row["quality"], row["n_prompts"], row["settings"]) == (0, 1, 8, "a")
    assert found.missing.to_dict("records") == [
        {
            "adapter": "x",
            "cell_id": "b x",
            "settings": "b",
            "why": "no prompt was answered by it and by its counterpart",
        }
    ]
    assert (
        "Not compared, of x: b (no prompt was answered by it and by its counterpart)." in found.text
    )


def test_groups_count_as_one():
    """The same differences in groups of four leave wider intervals than as prompts of their own."""
    values = [[0] * N, [0] * N, [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1], [0] * N]
    groups = {f"p{i:02d}": f"g{i // 4}" for i in range(N)}
    alone, grouped = by_adapter(two_by_two(values)), by_adapter(two_by_two(values, groups=groups))
    for one, two in ((alone.table, grouped.table), (alone.averages, grouped.averages)):
        assert one["diff"][0] == two["diff"][0]
        assert two["diff_lo"][0] < one["diff_lo"][0] < one["diff_hi"][0] < two["diff_hi"][0]


def test_cells_without_counterpart_are_listed():
    """Cells of either side that the other lacks are in `missing` and in the text, and the average leaves them out."""
    run = planted({"base": 0, "x": 0.2}, n_prompts=20)
    run.cells = run.cells.iloc[[0, 1, 2, 5, 7, 8]].reset_index(drop=True)
    found = by_adapter(run)
    assert list(found.table["settings"]) == ["greedy", "T=0.7 k=50"]
    assert found.missing[["adapter", "settings", "why"]].to_numpy().tolist() == [
        ["x", "T=1.3 k=5", "base has no cell with these settings"],
        ["base", "T=0.7 k=5", "x has no cell with these settings"],
    ]
    assert found.headline["n_cells"][0] == 2
    assert "Not compared, of base: T=0.7 k=5 (x has no cell with these settings)." in found.text


def test_cells_match_by_what_their_settings_do():
    """Off and its neutral value are the same setting; cells that differ only in a seed are told apart by their labels."""
    cells = pd.DataFrame(
        {
            "cell_id": list("abcdef"),
            "label": ["T=1", "T=1 x", "seed=1", "seed=2", "seed=2 x", "seed=1 x"],
            "adapter": ["base", "x", "base", "base", "x", "x"],
            "temperature": [1.0, 1.0, 0.5, 0.5, 0.5, 0.5],
            "top_p": [1.0, np.nan, *[np.nan] * 4],
        }
    )
    pairs, missing = matched(cells, "base", ["x"])
    assert {(p.baseline, p.cell) for p in pairs} == {("a", "b"), ("d", "e"), ("c", "f")}
    assert missing == []


def test_a_merged_greedy_cell_is_one_row():
    """Greedy cells, merged over top_k, are compared once, and count once in the average."""
    found = by_adapter(planted({"base": 0, "x": 0.2}, n_prompts=20))
    names = list(found.table["settings"])
    assert names == ["greedy", "T=0.7 k=5", "T=0.7 k=50", "T=1.3 k=5", "T=1.3 k=50"]
    assert found.averages["n_cells"][0] == 5


# ------------------------------------------------------------------------------------- averages over settings


@settings(max_examples=10, deadline=None)
@given(SCORES)
def test_the_average_is_over_settings_and_then_over_prompts(values):
    """It is the mean over prompts of the mean over the settings scored in both, and its counts are of those means."""
    numbers = np.array([[np.nan if v in (None, "error") else v for v in row] for row in values])
    d = numbers[2:] - numbers[:2]
    known = ~np.isnan(d).all(0)
    broken = [all("error" in (values[i][p], values[i + 2][p]) for p in range(N)) for i in (0, 1)]
    if all(broken):
        return
    per_prompt = np.nanmean(d[:, known], axis=0) if known.any() else np.array([])
    (row,) = by_adapter(two_by_two(values)).averages.to_dict("records")
    assert row["n_prompts"] == known.sum()
    assert (row["wins"], row["losses"]) == ((per_prompt > 0).sum(), (per_prompt < 0).sum())
    if known.any():
        assert row["diff"] == pytest.approx(per_prompt.mean())
        assert row["quality"] - row["baseline_quality"] == pytest.approx(row["diff"])


def test_a_planted_gain_comes_back():
    """An adapter that helps is found to, by about as much as planted; one that does little is not told from base."""
    found = by_adapter(planted(n_prompts=200))
    rows = found.headline.set_index("adapter")
    wide = by_adapter(planted(n_prompts=200), level=0.99).headline.set_index("adapter")
    assert wide["diff_lo"]["sums"] < 0.2 < wide["diff_hi"]["sums"]
    assert rows["diff_lo"]["sums"] > 0
    assert rows["p_adjusted"]["sums"] < 0.01
    assert rows["verdict"]["sums"] == "better"
    sure = found.table["p_adjusted"].lt(0.05).sum()
    assert sure > 1
    assert f"all 10 comparisons counted (Holm): {sure} better, {10 - sure} not beyond" in found.text
    assert "\nsums against base, averaged over 5 settings, on 200 prompts: " in found.text
    assert "Better beyond chance (p < 0.001 with 2 comparisons counted)." in found.text


def answers_of(scores: np.ndarray) -> tuple[Answers, list[Pair]]:
    """Answers with these scores, shape (2 * cells, prompts): the baseline's cells first."""
    n, prompts = scores.shape
    cells = np.array([f"c{i:02d}" for i in range(n)], object)
    table = stats.PromptMeans(
        cells,
        np.array([f"p{i:03d}" for i in range(prompts)], object),
        None,
        scores,
        np.full(scores.shape, 2),
        np.ones(n, bool),
    )
    one = np.ones(scores.shape)
    signs = dict.fromkeys(
        ("truncated_rate", "loop_rate", "empty_rate", "language_switch_rate"), (0 * one, one)
    )
    texts = np.arange(scores.size).reshape(*scores.shape, 1)
    answers = Answers(table, np.full(prompts, "select", object), one, one, signs, texts)
    half = n // 2
    return answers, [Pair("x", cells[half + i], cells[i], f"s{i}") for i in range(half)]


def drawn(rng: np.random.Generator, gains: list[float], prompts: int) -> np.ndarray:
    """Mean scores of two draws; prompts differ in difficulty and in what the adapter does for them; common luck."""
    hard, effect = rng.normal(0, 0.15, prompts), rng.normal(0, 0.15, prompts)
    n = len(gains)
    chance = np.vstack(
        [np.tile(0.45 + hard, (n, 1)), 0.45 + hard + effect + np.array(gains)[:, None]]
    )
    luck = rng.random((prompts, 2))
    own = rng.random((2 * n, prompts, 2))
    shared = rng.random((2 * n, prompts, 2)) < 0.5
    return (np.where(shared, luck, own) < np.clip(chance, 0, 1)[:, :, None]).mean(2)


def test_the_interval_of_the_headline_covers():
    """Over 300 simulated runs of 60 prompts, the 95 % interval holds the truth in 90 to 99 % of them."""
    rng = np.random.default_rng(5)
    gains = [0.15, 0.1, 0.05]
    far = drawn(np.random.default_rng(6), gains, 200_000)
    truth = float((far[3:] - far[:3]).mean())
    hits = 0
    for _ in range(300):
        answers, pairs = answers_of(drawn(rng, gains, 60))
        row = averaged(answers, pairs, np.ones(60, bool), rng, 0.95).iloc[0]
        hits += row["diff_lo"] <= truth <= row["diff_hi"]
    assert 270 <= hits <= 297


def test_identical_answers_are_exactly_zero():
    """Answers equal word for word differ by exactly 0; the text says that they are identical, and gives bounds for others."""
    values = [[0, 1] * 6, [1, 1, 0] * 4]
    cells = ("a", "b", "a x", "b x")
    same = {(c, f"p{p:02d}", 0): f"answer {p} {c[0]}" for c in cells for p in range(N)}
    found = by_adapter(two_by_two([*values, *values], texts=same))
    assert list(found.table["diff"]) == [0, 0]
    assert list(found.table["verdict"]) == ["identical", "identical"]
    assert found.headline["diff"][0] == 0
    assert (
        "x against base: exactly 0.0 points on these prompts, all 24 answers on 12 prompts are identical "
        "(interval for others -22.6 to +22.6). Check that the adapter acts at all."
    ) in found.text


def test_identical_answers_judged_otherwise():
    """A judge that scores equal answers differently makes a difference, which is not called identical."""
    cells = ("a", "b", "a x", "b x")
    same = {(c, f"p{p:02d}", 0): f"answer {p} {c[0]}" for c in cells for p in range(N)}
    found = by_adapter(two_by_two([[0] * N, [1] * N, [1] + [0] * 11, [1] * N], texts=same))
    assert list(found.table["verdict"]) == ["cannot tell", "identical"]
    assert "Equal word for word: 24 of 24." in found.text


def test_failures_are_not_equal_answers():
    """Two prompts that broke on both sides are no pair of equal answers."""
    broken = ["error"] * 2 + [1] * 10
    found = by_adapter(two_by_two([broken] * 4))
    assert list(found.table["n_answers"]) == [10, 10]
    assert list(found.table["n_identical"]) == [0, 0]


def test_an_adapter_compared_with_itself():
    """The same content under two names: exactly 0, not tested, no interval, and the text says why."""
    values = [[0, 1] * 6, [1, 1, 0] * 4]
    cells = ("a", "b", "a x", "b x")
    same = {(c, f"p{p:02d}", 0): f"answer {p} {c[0]}" for c in cells for p in range(N)}
    run = two_by_two([*values, *values], texts=same)
    run.manifest["engine"]["adapters"] = {"base": "f00", "x": "f00"}
    found = by_adapter(run)
    assert list(found.table["diff"]) == [0, 0]
    assert found.table[["diff_lo", "diff_hi", "p_value"]].isna().to_numpy().all()
    assert found.same == {"x": "base"}
    assert found.text.split("\n\n")[1] == (
        "x against base: exactly 0.0 points, all 24 answers on 12 prompts are identical. "
        "(x is the same adapter as base, by content.)"
    )


def test_ties_without_identical_answers():
    """Other words with the same scores are no difference found, said as what n prompts can tell."""
    found = by_adapter(two_by_two([[1, 0] * 6] * 4))
    assert found.headline["verdict"][0] == "cannot tell"
    assert (
        "0.0 points (interval -22.6 to +22.6). It cannot be told from base with 12 prompts (p = 1)."
        in found.text
    )
    assert "no difference" not in found.text.lower()


def test_the_edge_is_where_two_cells_have_it():
    """An interval that holds 0 beside a p-value that does not is at the edge, as in a comparison of two cells."""
    row = {"n_prompts": 40, "diff": 0.1, "diff_lo": -0.01, "diff_hi": 0.2}
    rows = pd.DataFrame([row | {"p_value": p, "p_adjusted": p} for p in (0.03, 0.06)])
    verdicts = adaptertables._verdicts(rows, pd.Series([False, False]), 0.05)
    assert list(verdicts) == ["edge", "cannot tell"]


def test_the_edge_of_chance():
    """What one comparison alone would call a difference is at the edge when there are more of them."""
    zero, six = [0] * N, [1] * 6 + [0] * 6
    found = by_adapter(
        adapter_run({n: {"a": v} for n, v in (("base", zero), ("x", six), ("y", zero))})
    )
    assert list(found.headline["verdict"]) == ["edge", "cannot tell"]
    assert (
        "+50.0 points (interval +8.2 to +81.3). At the edge of what chance does "
        "(p = 0.031 alone, p = 0.062 with 2 comparisons counted): more prompts would tell."
    ) in found.text
    alone = by_adapter(adapter_run({"base": {"a": zero}, "x": {"a": six}}))
    assert "Better beyond chance (p = 0.031)." in alone.text


def test_one_prompt():
    """A single prompt has a difference and nothing else."""
    found = by_adapter(adapter_run({"base": {"a": [0]}, "x": {"a": [1]}}))
    (row,) = found.headline.to_dict("records")
    assert (row["diff"], row["verdict"]) == (1, "too few")
    assert np.isnan([row["diff_lo"], row["p_value"]]).all()
    assert (
        "x against base, at the one setting, on 1 prompt: 100.0 % against 0.0 %, +100.0 points. "
        "Too few prompts to tell a difference from chance. Prompts: 1 better, 0 worse, 0 the same."
    ) in found.text


def test_nothing_scored():
    """Without scores there is no difference; length and latency are still told."""
    run = two_by_two([[None] * N] * 4, tokens={"a x": 14, "b x": 14})
    found = by_adapter(run)
    assert list(found.table["verdict"]) == ["not scored"] * 2
    lines = found.text.split("\n\n")[1].splitlines()
    assert lines[0] == "x: no prompt was scored in both."
    assert found.markdown().splitlines()[2] == (
        "| x | all | 0 | not known | not known | not known | not scored |"
    )
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["averages"][0]["diff"] is None
    assert lines[1].startswith("An answer has 14.0 tokens against 10.0 (+4.0).")


def test_another_level():
    """At 80 % intervals are narrower, and verdicts follow that level."""
    run = planted(n_prompts=30)
    wide, narrow = by_adapter(run), by_adapter(run, level=0.8)
    assert (narrow.table["diff_hi"] < wide.table["diff_hi"]).all()
    assert "Intervals are 80 %, each of one comparison taken alone." in narrow.text


# -------------------------------------------------------------------------------------------- held-out prompts


def test_the_choice_is_made_on_one_side_and_measured_on_the_other():
    """Best cells are picked by their select score; headline and quality are of the prompts held out."""
    splits = {f"p{i:02d}": "confirm" if i >= 6 else "select" for i in range(N)}
    zero, flattered, good = [0] * N, [1] * 6 + [0] * 6, [1, 1, 0, 0, 0, 0] + [1] * 6
    run = two_by_two([zero, zero, flattered, good], splits=splits)
    found = by_adapter(run)
    assert (found.chosen_on, found.measured_on, found.n_prompts) == ("select", "confirm", (6, 6))
    best = found.best.set_index("adapter").loc["x"]
    assert (best["settings"], best["chosen_quality"], best["quality"]) == ("a", 1, 0)
    assert list(found.table["n_prompts"]) == [6, 6]
    assert found.averages.set_index("split")["diff"].to_dict() == {"select": 4 / 6, "confirm": 0.5}
    assert list(found.headline["split"]) == ["confirm"]
    assert "At its best settings, a (picked on the other prompts): 0.0 %" in found.text


@pytest.mark.parametrize(("split", "n"), [("select", 6), ("confirm", 6), ("all", 12)])
def test_a_split_by_name(split, n):
    """A split asked for is used for everything."""
    splits = {f"p{i:02d}": "confirm" if i >= 6 else "select" for i in range(N)}
    found = by_adapter(two_by_two([[0, 1] * 6] * 4, splits=splits), split=split)
    assert found.n_prompts == (n, n)
    assert list(found.table["n_prompts"]) == [n, n]
    assert len(found.headline) == 1
    assert "picked on these very prompts, so it flatters" in found.text


def test_the_best_settings_differ():
    """Whether an adapter's best settings are the baseline's is said, with what they bring and how sure that is."""
    high, low = [1] * 30 + [0] * 10, [0] * 30 + [1] * 10
    found = by_adapter(two_by_two([high, low, low, high]))
    base, own = found.best.to_dict("records")
    assert (base["settings"], own["settings"]) == ("a", "b")
    assert bool(base["same_settings"])
    assert not own["same_settings"]
    assert (own["diff"], own["own_diff"]) == (0, 0.5)
    assert (
        "The best settings are not those of base; for x they bring +50.0 points (interval +22.0 to +78.0) over those: "
        "better, on the prompts that picked them."
    ) in found.text


def test_of_equal_cells_the_best_is_the_baselines():
    """Where an adapter's settings tie, those count as its best that are the baseline's best."""
    low, high = [0] * 12, [1] * 6 + [0] * 6
    found = by_adapter(two_by_two([low, high, high, high]))
    assert list(found.best["settings"]) == ["b", "b"]
    assert found.best["same_settings"].all()


def test_of_equal_cells_the_faster_is_best():
    """Where settings tie and none is the baseline's best, the faster one is taken."""
    low, high = [0] * 12, [1] * 6 + [0] * 6
    scores = {
        "base": {"a": high, "b": low, "c": low},
        "x": {"a": low, "b": high, "c": high},
    }
    slow_first = {"b x": 200, "c x": 100, "a": 50}
    times = {c: {(f"p{p:02d}", 0): ms for p in range(4)} for c, ms in slow_first.items()}
    assert list(by_adapter(adapter_run(scores)).best["settings"]) == ["a", "b"]
    found = by_adapter(adapter_run(scores, latency=timed(times)))
    assert list(found.best["settings"]) == ["a", "c"]


# ------------------------------------------------------------------------------------------------- interaction


def test_a_gain_that_depends_on_a_setting_is_found():
    """A gain planted at temperature 0 only is tied to temperature and to no other setting."""
    run = make_run(
        GRID,
        120,
        adapters=("base", "x"),
        right=lambda c: 0.3 + 0.4 * (c.adapter == "x" and c.params.temperature == 0),
    )
    found = by_adapter(run)
    rows = found.contrasts.set_index("setting")
    heat, narrow = rows.loc["temperature"], rows.loc["top_k"]
    assert heat["highest"] == "0 (greedy)"
    assert heat["contrast_lo"] < 0.4 < heat["contrast_hi"]
    assert heat["p_adjusted"] < 0.01 < narrow["p_adjusted"]
    assert "The gain depends on temperature: +" in found.text
    assert re.search(
        r"The gain is \S+ points at k \d+, \S+ at \d+; this may be chance \(", found.text
    )
    gains = found.interaction.set_index(["setting", "level"])["gain"]
    assert gains["temperature", "0 (greedy)"] == found.table["diff"][0]
    assert gains["top_k", "5"] == pytest.approx(found.table["diff"][[1, 3]].mean())


def test_greedy_cells_tell_nothing_about_top_k():
    """A greedy cell stands for all top_k; a gain of its own does not enter the gains by top_k."""
    run = make_run(
        GRID,
        30,
        adapters=("base", "x"),
        right=lambda c: float(c.adapter == "x" and not c.params.temperature),
        exact=True,
    )
    gains = by_adapter(run).interaction.set_index(["setting", "level"])["gain"]
    assert gains["top_k"].to_dict() == {"5": 0, "50": 0}
    assert gains["temperature"].to_dict() == {"0 (greedy)": 1, "0.7": 0, "1.3": 0}


def test_chance_makes_few_dependences():
    """With the same gain at three levels, a dependence is claimed in 1 to 9 % of 300 runs of 30 prompts."""
    rng = np.random.default_rng(8)
    cells = pd.DataFrame(
        {"cell_id": ["c03", "c04", "c05"], "adapter": "x", "temperature": [0.2, 0.7, 1.2]}
    )
    claimed = 0
    for _ in range(300):
        answers, pairs = answers_of(drawn(rng, [0.1, 0.1, 0.1], 30))
        about = design(cells)
        found = dependence(
            answers, pairs, about, "temperature", where=np.ones(30, bool), rng=rng, level=0.95
        )
        claimed += found.contrast["p_value"] < 0.05
        low, p = found.contrast["contrast_lo"], found.contrast["p_value"]
        assert (low > 0) == (p < 0.05) or abs(p - 0.05) < 0.002
    assert 3 <= claimed <= 27


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (
            lambda: planted({"base": 0, "x": 0.2}, n_prompts=8, grid={"temperature": [0.5, 1.0]}),
            "8 prompts or groups are too few (it takes 10)",
        ),
        (
            lambda: two_by_two([[0, 1] * 6] * 4),
            "every prompt gains the same at all its levels",
        ),
        (
            lambda: two_by_two([[0, 1] * 6, [0] * N, [0, None] * 6, [None, 0] * 6]),
            "no prompt was scored in all of its cells",
        ),
        (
            lambda: two_by_two([[0, 1] * 6] * 3 + [[None] * N]),
            "no combination of the other settings was run and scored at every level",
        ),
    ],
)
def test_what_cannot_be_tested_is_said(run, why):
    """A dependence that cannot be tested has no p-value, and the reason stands in table and text."""
    found = by_adapter(run())
    (row,) = found.contrasts.to_dict("records")
    assert (row["testable"], row["why_not"]) == (False, why)
    assert np.isnan(row["p_value"])
    assert f"Not testable whether the gain depends on: temperature ({why})." in found.text


# ----------------------------------------------------------------------------------- behaviour and latency


@pytest.mark.parametrize(("n", "drifting"), [(4, np.nan), (11, np.nan), (12, 0.9)])
def test_signs_of_trouble_are_rates_of_both(n, drifting):
    """Cut, looping, empty and drifting answers are shares of each side's answers; no share of fewer than ten of many."""
    drift = (
        "The answer to the question is that we have to add the two numbers together and then we get the sum. "
        "Je pense que la réponse est dans le jardin avec les enfants et la maison de ma mère, et que nous sommes tous ici."
    )
    texts = {
        ("a x", "p00", 0): "",
        ("a x", "p01", 0): "I think it is so. " * 9,
        ("a x", "p02", 0): drift,
    }
    more = {("a x", f"p{i:02d}", 0): drift for i in range(4, n)}
    run = adapter_run({"base": {"a": [1] * n}, "x": {"a": [1] * n}}, texts=texts | more)
    cut = run.generations["cell_id"].eq("a x") & run.generations["prompt_id"].eq("p03")
    run.generations.loc[cut, "finish_reason"] = "length"
    (row,) = by_adapter(run).table.to_dict("records")
    rates = ["truncated_rate", "loop_rate", "empty_rate"]
    assert [row[r] for r in rates] == [1 / n] * 3
    assert row["language_switch_rate"] == pytest.approx(drifting, nan_ok=True)
    assert [row[f"baseline_{r}"] for r in rates] == [0] * 3


def test_latency_is_paired():
    """An adapter a tenth slower is found to be, per cell and over all, although prompts differ far more."""
    times = {
        cell: {(f"p{p:02d}", r): factor * (1000 * (p + 1) + r) for p in range(8) for r in range(3)}
        for cell, factor in (("a", 1.0), ("a x", 1.1), ("b", 2.0), ("b x", 2.2))
    }
    found = by_adapter(two_by_two([[0, 1] * 6] * 4, latency=timed(times)))
    ratios = found.latency[["tpot_ms_ratio", "tpot_ms_ratio_lo", "tpot_ms_ratio_hi"]]
    assert ratios.to_numpy() == pytest.approx(1.1)
    assert list(found.latency["n_timed"]) == [24, 24, 48]
    assert found.latency["cell_id"].isna().tolist() == [False, False, True]
    row = found.table.iloc[0]
    assert row["e2el_ms_diff"] == pytest.approx(0.1 * np.median(list(times["a"].values())))
    assert row["n_timed"] == 24
    assert "each further token +10.0 % (interval +10.0 % to +10.0 %; medians " in found.text


def test_few_timed_requests_have_no_interval():
    """Below twenty pairs there is a ratio without interval, and the text says so."""
    times = {c: {(f"p{p:02d}", 0): ms for p in range(4)} for c, ms in (("a", 100), ("a x", 90))}
    found = by_adapter(two_by_two([[0, 1] * 6] * 4, latency=timed(times)))
    assert np.isnan(found.latency["e2el_ms_ratio_lo"]).all()
    assert (
        "Latency, change on the same prompt and round, 4 pairs of requests for 4 prompts: "
        "first token -10.0 % (too few for an interval; medians 9 against 10.0 ms); "
        "each further token -10.0 % (too few for an interval; medians 0.9 against 1 ms); "
        "whole answer -10.0 % (too few for an interval; medians 90.0 against 100 ms)."
    ) in found.text


def test_not_timed_is_said():
    """Without latencies the columns are empty, and the text says that the cost is unknown."""
    found = by_adapter(two_by_two([[0, 1] * 6] * 4))
    assert found.latency["tpot_ms"].isna().all()
    assert list(found.latency["n_timed"]) == [0, 0, 0]
    assert found.text.endswith(
        "Latency: not timed; what an adapter costs is unknown. Run `workbench latency RUN`."
    )


# ------------------------------------------------------------------------------------------- inert and the same


def test_an_inert_adapter_is_not_compared():
    """An adapter known to change nothing has no rows and no verdict; its shift is told."""
    run = told(planted(n_prompts=20), terse={"inert": True, "shift_nats": 0.0})
    found = by_adapter(run)
    assert found.adapters == ("sums",)
    assert found.inert == {"terse": 0.0}
    for name in ("table", "averages", "best", "contrasts"):
        assert "terse" not in set(getattr(found, name)["adapter"])
    assert (
        "terse changes nothing: mean shift of log-probability 0 nats; not compared." in found.text
    )
    assert "| terse | all | 0 | | | | changes nothing; not compared |" in found.markdown()


def test_only_inert_adapters():
    """Where no adapter does anything there is nothing but that to say."""
    inert = {"inert": True, "shift_nats": 1e-9}
    found = by_adapter(told(planted(n_prompts=20), terse=inert, sums=inert))
    assert found.table.empty
    assert found.headline.empty
    assert found.text.split("\n\n")[1] == (
        "terse changes nothing: mean shift of log-probability 1e-09 nats; not compared.\n"
        "sums changes nothing: mean shift of log-probability 1e-09 nats; not compared."
    )


def test_an_inert_baseline_is_told():
    """A baseline that changes nothing is as good as none, and that is said."""
    run = told(planted(n_prompts=20), terse={"inert": True, "shift_nats": 0.0})
    found = by_adapter(run, "terse")
    assert found.adapters == ("base", "sums")
    assert "terse itself changes nothing: it is as good as no adapter." in found.text


def test_two_names_of_one_adapter():
    """Adapters equal by content are named as such."""
    run = told(planted(n_prompts=20), terse={"sha256": "f00"}, sums={"sha256": "f00"})
    found = by_adapter(run)
    assert found.same == {"sums": "terse"}
    assert "(sums is the same adapter as terse, by content.)" in found.text


# --------------------------------------------------------------------------------------------- what it gives


def test_answers_side_by_side():
    """The answers of a pair are those of `changes`, found by any of its names and filtered by change."""
    values = [[0, 0, 1, 1] * 3, [0] * N, [0, 1, 0, 1] * 3, [0] * N]
    found = by_adapter(two_by_two(values))
    for cell in ("a", "a x", None):
        table = found.answers("x", cell)
        assert list(table["text"][:2]) == ["p00 in a x, 0", "p01 in a x, 0"]
        assert table["change"].value_counts().to_dict() == {"same": 6, "better": 3, "worse": 3}
    assert list(found.answers("x", "a", change="better")["prompt_id"]) == ["p01", "p05", "p09"]
    assert len(found.answers("x", "a", change=["better", "worse"])) == 6


def test_as_plain_values():
    """Everything goes through JSON without NaN, and as Markdown without breaking its table."""
    found = by_adapter(planted(n_prompts=20, confirm=0.3))
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["text"] == found.text
    assert values["table"][0]["tpot_ms"] is None
    assert len(values["table"]) == len(found.table) == 10
    head, rule, *rows = found.markdown().split("\n\n")[0].splitlines()
    assert {line.count("|") for line in (head, rule, *rows)} == {8}
    assert re.match(r"\| terse \| all \| \d+ \| [\d.]+ % \| [\d.]+ % \| ", rows[0])


def test_no_sentence_denies_a_difference():
    """Whatever the data, a difference that was not found is never called none."""
    for seed in range(3):
        text = by_adapter(planted(n_prompts=10, seed=seed)).text
        assert not re.search(r"no (significant )?difference|equally|just as good", text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: by_adapter(run, "y"), "no adapter 'y' in this run; it has base, x"),
        (
            lambda run: by_adapter(run, split="test"),
            "unknown split 'test'; known: select, confirm, all",
        ),
        (
            lambda run: by_adapter(run, sets={"all": ["p00"]}),
            "no prompt set may be named 'all': that is all of them together",
        ),
        (lambda run: by_adapter(run, sets={"s": ["q"]}), "set 's': no prompt 'q' in this run"),
        (lambda run: by_adapter(run).answers("y"), "unknown adapter 'y'; known: x"),
        (lambda run: by_adapter(run).answers("x", "z"), "unknown cell of x 'z'; known: a, b"),
        (
            lambda run: by_adapter(run).answers("x", change="other"),
            "unknown change 'other'; known: better, worse, same, unscored",
        ),
    ],
)
def test_what_is_refused(call, message):
    """Unknown adapters, splits, sets, cells and changes are named, with what there is."""
    with pytest.raises(WorkbenchError) as caught:
        call(two_by_two([[0, 1] * 6] * 4))
    assert str(caught.value) == message


def test_nothing_to_compare():
    """A run of one adapter, and one whose adapters share no settings, are refused."""
    with pytest.raises(WorkbenchError) as caught:
        by_adapter(adapter_run({"base": {"a": [1, 0]}}))
    assert (
        str(caught.value) == "'base' is the only adapter of this run: there is nothing to compare"
    )
    run = adapter_run({"base": {"a": [1, 0]}, "x": {"b": [1, 0]}})
    run.cells["temperature"] = [0.0, 1.0]
    with pytest.raises(WorkbenchError) as caught:
        by_adapter(run)
    assert str(caught.value) == (
        "no cell of x has the settings of a cell of base: nothing can be paired"
    )


def test_templates_are_settings():
    """Cells pair within a template, and its effect on the gain is a row like any other."""
    values = [[0] * N, [0] * N, [1] * N, [0] * N]
    run = two_by_two(values)
    run.cells["temperature"] = 0.5
    run.cells["template"] = ["short", "long"] * 2
    found = by_adapter(replace(run))
    assert list(found.table["diff"]) == [1, 0]
    assert list(found.interaction["setting"]) == ["template", "template"]
