"""Racing: who is dropped and why, on planted problems and in corner cases."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.prompts import PromptSet
from workbench.study import Study
from workbench.tuning.race import Drop, Race, block_sizes, blocks, largest_group

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def bench(root: Path) -> Any:
    """The script that measures racing."""
    spec = importlib.util.spec_from_file_location("bench_race", root / "scripts" / "bench_race.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _names(n: int, start: int = 0) -> list[str]:
    return [f"p{i}" for i in range(start, start + n)]


def _update(race: Race, scores: Any, **options: Any) -> tuple[Drop, ...]:
    names = _names(np.shape(scores)[1], race.n_prompts)
    return race.update(names, names, scores, **options)


# ------------------------------------------------------------------------------------ planted problems


def test_planted_means_are_what_they_say(bench):
    """Average scores over many repeats are the planted qualities; coupled draws never contradict them."""
    problem = bench.planted([1, 2], n_cells=4, n_prompts=200, repeats=3_000)
    np.testing.assert_allclose(problem.scores.mean(1), problem.truth, atol=0.005)
    order = np.argsort(problem.truth)
    assert np.all(np.diff(problem.scores[order], axis=0) >= 0)


def test_racing_saves_rows_and_finds_what_the_grid_finds(bench):
    """At most 40 % of the rows, within 0.3 points of the full grid's pick, and at most 5 % of studies with a wrong drop.

    48 cells, 400 prompts, 40 studies. A drop is wrong if the cell is 6 points above the baseline and at least as good as
    the leader that it was dropped for, or as the pick.
    """
    found = bench.measure("race", "coupled", studies=40, seed=40_000)
    assert found["rows"] <= 0.4
    assert found["behind_full"] <= 0.3
    assert found["good_dropped_for_no_better"] <= 0.05
    assert found["good_dropped_for_worse_pick"] <= 0.05
    assert found["has_good"] > 0.5  # the two lines above are about something


def test_racing_keeps_the_best_where_draws_are_independent(bench):
    """Without common random numbers it saves less, and picks as well."""
    found = bench.measure("race", "independent", studies=30, seed=41_000)
    assert found["rows"] < 0.75
    assert found["behind_full"] <= 0.3
    assert found["best_dropped"] <= 0.05
    assert found["good_dropped_for_worse_pick"] <= 0.05


def test_equal_cells_stay(bench):
    """Where no cell is better than another, each is dropped with probability at most 5 %."""
    found = bench.equal_cells(40, 42_000)
    assert found["dropped"] <= 0.05
    assert found["rows"] > 0.9


def test_equal_cells_in_groups_stay():
    """The same where prompts come in groups whose luck is shared, of one to four prompts."""
    rng = np.random.default_rng(43)
    gone = 0
    for _ in range(40):
        race = Race([f"c{i}" for i in range(12)], "c0", largest_group=4)
        sizes = rng.integers(1, 5, 60)
        luck = np.repeat(rng.random((12, 60)) < 0.5, sizes, axis=1).astype(float)
        groups = np.repeat([f"g{i}" for i in range(60)], sizes).tolist()
        for start in range(0, 60, 12):
            columns = slice(int(sizes[:start].sum()), int(sizes[: start + 12].sum()))
            alive = [int(cell[1:]) for cell in race.alive]
            names = _names(columns.stop - columns.start, race.n_prompts)
            race.update(names, groups[columns], luck[alive, columns])
        gone += len(race.dropped)
    assert gone / (40 * 11) <= 0.05


# ---------------------------------------------------------------------------------------------- rule


def _by_hand(scores: np.ndarray, groups: list[str], largest: int, lead_of: Any) -> list[float]:
    """Evidence against each cell, by loops over everything."""
    n = len(scores)
    log, peak = [0.0] * n, [0.0] * n
    past: list[list[int]] = []
    for group in dict.fromkeys(groups):
        columns = [k for k, g in enumerate(groups) if g == group]
        leader = lead_of(scores[:, [k for done in past for k in done]])
        for i in range(n):
            sums = [sum(_diffs(scores, leader, i, done)) / largest for done in past]
            share = sum(sums) / (sum(x * x for x in sums) + 1)
            share = min(max(share, 0.0), 0.9)
            log[i] += math.log1p(share * sum(_diffs(scores, leader, i, columns)) / largest)
            peak[i] = max(peak[i], log[i])
        past.append(columns)
    return [math.exp(value) for value in peak]


def _diffs(scores: np.ndarray, a: int, b: int, columns: list[int]) -> list[float]:
    return [d for k in columns if not math.isnan(d := scores[a, k] - scores[b, k])]


def _leader(seen: np.ndarray) -> int:
    """The best mean difference to all cells, each on the prompts both were scored on."""
    means = []
    for a in range(len(seen)):
        pairs = [_diffs(seen, a, b, list(range(seen.shape[1]))) for b in range(len(seen))]
        scored = any(pairs)
        mean = sum(sum(d) / len(d) for d in pairs if d) / len(seen)
        means.append(mean if scored else -2.0)
    return int(np.argmax(np.round(means, 12)))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_evidence_equals_the_formula(seed):
    """Bets against the leader before each group, sized by the past differences to it; missing scores are no bets."""
    rng = np.random.default_rng(seed)
    n, groups = 4, sorted(f"g{i}" for i in rng.integers(0, 9, 18))
    scores = rng.random((n, 18)) ** np.arange(1, n + 1)[:, None]
    scores[rng.random((n, 18)) < 0.15] = np.nan
    race = Race("abcd", "a", largest_group=18, alpha=1e-9)
    race.update(_names(18), groups, scores)
    got = {line.cell: line.evidence for line in race.standing()}
    np.testing.assert_allclose([got[c] for c in "abcd"], _by_hand(scores, groups, 18, _leader))


def test_a_loser_leaves_and_says_why():
    """A cell that is wrong where another is right is dropped at the end of the block, with its numbers."""
    race = Race(["base", "good", "bad"], "base")
    scores = np.tile([[0.5], [1.0], [0.0]], 12)
    (drop,) = _update(race, scores)
    assert drop == race.dropped["bad"]
    assert drop[:4] == ("bad", 12, "good", -1.0)
    assert drop.evidence >= 20
    assert drop.why == "loses to good: -100.0 points on 12 prompts"
    assert race.alive == ("base", "good")
    assert race.leader() == "good"
    _update(race, scores[:2])
    assert race.decided
    assert race.alive == ("base", "good")  # it lost, and stays
    assert [line.cell for line in race.standing()] == ["good", "base", "bad"]
    assert race.standing()[1][:5] == ("base", True, 24, 0.5, -0.5)
    assert race.standing()[2][:5] == ("bad", False, 12, 0.0, -1.0)


def test_kept_cells_stay_and_few_prompts_prove_nothing():
    """The baseline and kept cells are never dropped, and nobody is before `min_prompts`."""
    race = Race(["base", "kept", "bad", "good"], "base", keep=["kept"], min_prompts=30)
    scores = np.array([[0.0], [0.0], [0.0], [1.0]])
    assert _update(race, np.tile(scores, 29)) == ()
    assert [drop.cell for drop in _update(race, scores)] == ["bad"]
    assert race.alive == ("base", "kept", "good")


def test_two_equal_leaders_go_on():
    """Cells that answer alike are never told apart."""
    race = Race(["base", "a", "b"], "base")
    for _ in range(20):
        _update(race, np.tile([[0.0], [1.0], [1.0]], 10))
    assert race.alive == ("base", "a", "b")
    assert race.leader() == "a"
    assert not race.decided


def test_nothing_seen():
    """Before any scores the first cell leads, nobody has lost and nothing is decided."""
    race = Race(["x", "y"], "y")
    assert race.leader() == "x"
    assert not race.decided
    assert all(math.isnan(line.mean) and line.evidence == 1 for line in race.standing())
    assert Race(["x"], "x").decided


def test_a_cell_that_may_not_lead_beats_nobody():
    """Where the best cell breaks a limit, the others are compared with the best one that keeps it."""
    scores = np.tile([[0.5], [1.0], [0.5], [0.0]], 20)
    race = Race(["base", "slow", "fine", "bad"], "base")
    dropped = _update(race, scores, may_lead=["base", "fine", "bad"])
    assert [drop.cell for drop in dropped] == ["bad"]
    assert dropped[0].leader == "base"
    drop = race.drop("slow", "e2el_ms_p90<=900 is broken")
    assert drop == Drop("slow", 20, "base", 0.5, 1.0, "e2el_ms_p90<=900 is broken")
    assert race.alive == ("base", "fine")
    nobody = Race(["a", "b"], "a")
    assert _update(nobody, scores[1::2], may_lead=[]) == ()
    assert [line.evidence for line in nobody.standing()] == [1, 1]


def test_missing_scores_are_neither_wins_nor_losses():
    """A cell that failed on the hard prompts does not lead by the easy ones, and one never scored is not dropped."""
    rng = np.random.default_rng(5)
    hard = rng.random(60) < 0.5
    steady = np.where(hard, 0.4, 1.0)
    lucky = np.where(hard, np.nan, 0.9)
    race = Race(["base", "steady", "lucky", "silent"], "base")
    _update(race, np.array([steady / 2, steady, lucky, np.full(60, np.nan)]))
    assert race.leader() == "steady"
    assert "silent" in race.alive
    silent = race.standing()[-1]
    assert silent[:3] == ("silent", True, 0)
    assert math.isnan(silent.mean)
    assert silent.evidence == 1


@given(st.integers(0, 10_000), st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_a_race_goes_on_where_it_stopped(seed, stop):
    """Written to JSON and read back at any point, it decides the same from there on."""
    chance = np.array([[0.2], [0.5], [0.55], [0.8]])

    def step(race: Race, k: int) -> None:
        scores = np.random.default_rng([seed, k]).random((4, 8)) < chance
        values = scores[[int(cell) for cell in race.alive]].astype(float)
        values[0, 0] = np.nan
        _update(race, values, may_lead=["0", "1", "3"] if k % 2 else None)
        if k == 2 and "1" in race.alive:
            race.drop("1", "too slow")

    whole, other = (Race("0123", "0", alpha=0.2, min_prompts=5) for _ in range(2))
    for k in range(6):
        step(whole, k)
        if k == stop:
            other = Race.from_dict(json.loads(json.dumps(other.to_dict(), allow_nan=False)))
        step(other, k)
    assert other.dropped == whole.dropped
    np.testing.assert_equal(other.standing(), whole.standing())
    assert other.to_dict() == whole.to_dict()


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((["a", "a"], "a"), {}, "cells must have different names"),
        ((["a", "b"], "c"), {}, "'c' is not one of the 2 cells"),
        ((["a", "b"], "a"), {"keep": ["z"]}, "'z' is not one of the 2 cells"),
        ((["a"], "a"), {"alpha": 1}, "alpha must be greater than 0 and less than 1, got 1"),
        ((["a"], "a"), {"min_prompts": 0}, "min_prompts and largest_group must be at least 1"),
    ],
)
def test_impossible_races(args, options, message):
    """Names and numbers are checked at the start."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Race(*args, **options)


@pytest.mark.parametrize(
    ("prompts", "clusters", "scores", "options", "message"),
    [
        (
            ["q"],
            ["q"],
            [[1.0]],
            {},
            "scores must have shape (2, 1) and clusters 1 names, got (1, 1) and 1",
        ),
        (["q"], ["q"], [[1.0], [1.5]], {}, "scores must be at least 0 and at most 1"),
        (["q"], ["q"], [[1.0], [math.inf]], {}, "scores must be at least 0 and at most 1"),
        (["q", "q"], ["q", "r"], [[1.0, 1.0]] * 2, {}, "prompt 'q' was in the race before"),
        (["p0"], ["q"], [[1.0], [1.0]], {}, "prompt 'p0' was in the race before"),
        (
            ["q"],
            ["p0"],
            [[1.0], [1.0]],
            {},
            "group 'p0' was in an earlier block; keep groups together",
        ),
        (
            ["q", "r"],
            ["g", "g"],
            [[1.0, 1.0]] * 2,
            {},
            "group 'g' has 2 prompts, more than largest_group=1",
        ),
        (["q"], ["q"], [[1.0], [1.0]], {"may_lead": ["z"]}, "'z' is not one of the 2 cells"),
    ],
)
def test_impossible_blocks(prompts, clusters, scores, options, message):
    """A block that does not fit is refused, and the race is as it was."""
    race = Race(["a", "b"], "a")
    _update(race, [[1.0], [0.0]])
    before = json.dumps(race.to_dict())
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        race.update(prompts, clusters, scores, **options)
    assert json.dumps(race.to_dict()) == before
    assert race.standing()[0].n_prompts == 1


def test_impossible_drops():
    """Only a cell that is in and not kept can be taken out."""
    race = Race(["a", "b", "c"], "a")
    race.drop("b", "too slow")
    with pytest.raises(ValueError, match=r"^'b' is not one of the 2 cells still in$"):
        race.drop("b", "again")
    with pytest.raises(ValueError, match=r"^'a' is always kept$"):
        race.drop("a", "too slow")


# -------------------------------------------------------------------------------------------- blocks


def _plan(n: int, seed: int = 7, group: int = 1) -> Any:
    rows = [{"id": f"q{i}", "prompt": f"{i}?"} for i in range(n)]
    if group > 1:
        rows = [row | {"group": f"g{i // group}"} for i, row in enumerate(rows)]
    prompts = PromptSet.from_records(rows)
    return Study(prompts=prompts, seed=seed, split={"confirm": 0.3}).plan()


@given(st.integers(0, 400), st.integers(1, 30), st.floats(1, 3))
@settings(max_examples=60, deadline=None)
def test_block_sizes_add_up(n, first, growth):
    """All prompts are in a block; blocks grow, but for the last."""
    sizes = block_sizes(n, first, growth)
    assert sum(sizes) == n
    assert all(size > 0 for size in sizes)
    assert list(sizes[:-1]) == sorted(sizes[:-1])
    assert not n or sizes[0] == min(n, first)


@pytest.mark.parametrize("group", [1, 3])
def test_blocks_hold_the_select_prompts_once(group):
    """Nothing of the confirm split, nothing twice, groups in one block, and not the order of the file."""
    plan = _plan(200, group=group)
    rounds = blocks(plan)
    ids = [prompt.id for block in rounds for prompt in block]
    select = [prompt.id for prompt in plan.prompt_set if plan.splits[prompt.id] == "select"]
    assert sorted(ids) == sorted(select)
    assert ids != select
    assert len(rounds) > 4
    where = [{prompt.cluster for prompt in block} for block in rounds]
    assert sum(map(len, where)) == len(set().union(*where))
    assert largest_group(rounds) == group
    if group == 1:
        assert tuple(len(block) for block in rounds) == block_sizes(len(select))


def test_order_is_of_the_seed_and_lasts():
    """Another seed gives another order; prompts that are added do not change the order of the others."""
    few = [prompt.id for block in blocks(_plan(60)) for prompt in block]
    many = [prompt.id for block in blocks(_plan(90)) for prompt in block]
    other = [prompt.id for block in blocks(_plan(60, seed=8)) for prompt in block]
    assert [name for name in many if name in few] == few
    assert sorted(other) == sorted(few)
    assert other != few


def test_no_blocks():
    """No prompts to select with are no blocks; sizes below 1 are refused."""
    assert block_sizes(0) == ()
    assert largest_group([]) == 1
    with pytest.raises(ValueError, match=r"^first and growth must be at least 1, got 0 and 1.5$"):
        block_sizes(10, 0, 1.5)


def test_the_script_prints_and_writes(bench, tmp_path, monkeypatch, capsys):
    """Run small, it prints its figures for every rule and writes them as JSON."""
    out = tmp_path / "race.json"
    options = ["--studies", "2", "--runs", "50", "--draws", "coupled", "--json", str(out)]
    options += ["--rules", "race", "pairwise", "normal", "--tuned", "1"]
    monkeypatch.setattr("sys.argv", ["bench_race.py", *options])
    bench.main()
    written = json.loads(out.read_text(encoding="utf-8"))
    assert [line["rule"] for line in written["races"]] == ["race", "pairwise", "normal"]
    assert all(0 < line["rows"] < 1 for line in written["races"])
    assert set(written["false_alarms"]["coin"]) == {"race", "normal"}
    assert written["tuned"]["full_rows"] == 1.0
    assert 0 < written["tuned"]["tuned_rows"] < 0.9
    assert 0 <= written["tuned"]["tuned_behind"] < 25
    assert "coupled, race: 2 studies, alpha 0.05" in capsys.readouterr().out
