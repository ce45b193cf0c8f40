"""The rule that chooses a cell: what it takes to replace the baseline, what ties, what limits do, and what luck is found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fakeruns import FakeRun, make_run
from pairedruns import paired_run, timed

from workbench import analysis, stats
from workbench.deciding import words
from workbench.deciding.choose import MIN_SIDE, Choice, choose
from workbench.deciding.limits import check, read
from workbench.errors import StudyError, WorkbenchError
from workbench.settling import TOO_FEW

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

GRID: dict[str, list[Any]] = {
    "temperature": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0],
    "top_k": [5, 10, 15, 20, 30, 50],
}
"""48 cells."""


def run_of(
    select: Mapping[str, int], confirm: Mapping[str, int] | None = None, n: int = 40, **more: Any
) -> Any:
    """A run in which a cell has so many right answers of ``n`` on each side of the split; right ones come first."""
    sides = {"select": select, "confirm": confirm or {}}
    scores: dict[str, dict[str, list[Any]]] = {cell: {} for cell in select}
    splits = {}
    for side, counts in sides.items():
        for cell, right in counts.items():
            for i in range(n):
                scores[cell][f"{side}{i}"] = [1 if i < right else 0]
                splits[f"{side}{i}"] = side
    return paired_run(scores, splits=splits, **more)


# ------------------------------------------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("select", "confirm", "verdict", "pick"),
    [
        ({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 38, "b": 12}, "better", "a"),
        ({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 12, "b": 39}, "better", "a"),
        ({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 10, "b": 12}, "unconfirmed", "base"),
        ({"base": 10, "a": 12, "b": 11}, {"base": 10, "a": 38, "b": 12}, "confirmed", "a"),
        ({"base": 10, "a": 12, "b": 11}, {"base": 10, "a": 12, "b": 38}, "tie", "base"),
        ({"base": 12, "a": 12, "b": 11}, {"base": 10, "a": 38, "b": 12}, "top", "base"),
        ({"base": 10, "a": 38, "b": 12}, None, "better", "a"),
        ({"base": 10, "a": 12, "b": 11}, None, "tie", "base"),
        ({"base": 10}, None, "top", "base"),
    ],
)
def test_the_rule(select, confirm, verdict, pick):
    """The best cell replaces the baseline if one side shows it better and the other does not deny it."""
    found = choose(run_of(select, confirm))
    assert (found.verdict, found.pick) == (verdict, pick)
    assert found.held_out is (confirm is not None)
    assert (found.bag is None) is (confirm is not None)


def test_held_out_prompts_do_not_choose():
    """A cell that is best on the held-out prompts alone is not picked, and its score there is not looked at."""
    found = choose(run_of({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 20, "b": 40}))
    assert found.top == found.pick == "a"
    assert found.confirmed is not None
    assert found.confirmed.diff == pytest.approx(0.25)
    assert found.confirmed.n_compared == 1
    assert found.chosen is not None
    assert (found.chosen.diff, found.chosen.n, found.chosen.n_compared) == (
        pytest.approx(0.7),
        40,
        2,
    )


def test_ties():
    """Cells that cannot be told from the best are named, best first; clearly worse ones are not."""
    found = choose(run_of({"base": 5, "a": 30, "b": 29, "c": 28, "d": 4}))
    assert (found.pick, found.ties) == ("a", ("b", "c"))
    kept = choose(run_of({"base": 20, "a": 22, "b": 21, "d": 0}))
    assert (kept.pick, kept.top, kept.ties) == ("base", "a", ("b",))


def times_of(ms: Mapping[str, float], n: int = 30) -> pd.DataFrame:
    """Requests of 5 prompts, each cell at its own pace with a little noise."""
    rng = np.random.default_rng(0)
    return timed(
        {
            cell: {(f"select{i % 5}", i // 5): value * rng.uniform(0.98, 1.02) for i in range(n)}
            for cell, value in ms.items()
        }
    )


def test_the_faster_of_ties():
    """Of cells that beat the baseline and tie, one that is faster beyond chance is taken."""
    select = {"base": 5, "a": 30, "b": 29, "c": 4}
    quick = choose(run_of(select, latency=times_of({"base": 80, "a": 100, "b": 60, "c": 10})))
    assert (quick.pick, quick.top, quick.ties) == ("b", "a", ("a",))
    assert quick.picked is not None
    assert quick.picked.diff == pytest.approx(24 / 40)
    assert quick.times["b"]["e2el_ms_ratio"] == pytest.approx(0.75, abs=0.02)
    alike = choose(run_of(select, latency=times_of({"base": 80, "a": 100, "b": 100, "c": 10})))
    assert alike.pick == "a"
    few = choose(run_of(select, latency=times_of({"base": 80, "a": 100, "b": 60, "c": 10}, n=10)))
    assert few.pick == "a"


def test_faster_is_not_enough():
    """A faster cell that ties with the best but does not beat the baseline is not taken."""
    times = times_of({"base": 80, "a": 100, "b": 60})
    found = choose(run_of({"base": 18, "a": 26, "b": 22}, latency=times))
    assert (found.pick, found.ties) == ("a", ("b",))


def test_another_baseline():
    """The cell compared with can be named."""
    found = choose(run_of({"base": 10, "a": 38, "b": 37}), baseline="b")
    assert (found.baseline, found.pick, found.verdict) == ("b", "b", "tie")


def test_what_would_settle_it():
    """How many more prompts are needed is told from the prompts held out where there are some, else from all."""
    run = run_of({"base": 10, "a": 12, "b": 11}, {"base": 10, "a": 13, "b": 0}, n=20)
    tidy = analysis.frame(run.generations, run.scores, run.cells, "numeric")
    held = stats.needed(tidy[tidy["split"].eq("confirm")], "a", "base").short
    assert choose(run).needed == f"{held} (Of prompts held out; those to choose on come on top.)"
    alone = run_of({"base": 10, "a": 12, "b": 11}, n=20)
    tidy = analysis.frame(alone.generations, alone.scores, alone.cells, "numeric")
    assert choose(alone).needed == stats.needed(tidy, "a", "base", comparisons=2).short != held


# --------------------------------------------------------------------------------------------- prompts that count


def test_too_small_a_split_is_not_used():
    """With too few prompts on a side all of them choose, and the text says why."""
    found = choose(run_of({"base": 1, "a": 9}, {"base": 1, "a": 9}, n=MIN_SIDE - 1))
    assert not found.held_out
    assert (
        found.why_not
        == "Too few prompts to choose on some and measure on others (9 and 9; 10 of each are needed)"
    )
    assert found.n_prompts == (18, 0)
    assert found.bag is not None


def test_an_unfinished_run_compares_the_same_prompts():
    """Prompts that some cell was not asked do not count, so that no cell is better for easier ones."""
    scores = {
        "base": {f"p{i}": [0] for i in range(20)} | {"late": [1]},
        "a": {f"p{i}": [0] for i in range(20)},
    }
    found = choose(paired_run(scores))
    assert (found.verdict, found.n_left_out, found.n_prompts) == ("top", 1, (20, 0))
    assert found.select.set_index("cell_id")["quality"]["base"] == 0


def test_cells_that_a_tuner_dropped():
    """A cell that was asked only the first prompts is no candidate, however well it did there, and still counts."""
    scores = {
        cell: {f"p{i}": [int(i % 2 < hit)] for i in range(40)}
        for cell, hit in (("base", 1), ("a", 2))
    }
    scores["dropped"] = {f"p{i}": [1] for i in range(10)}
    found = choose(paired_run(scores))
    assert (found.pick, found.n_dropped, found.n_left_out) == ("a", 1, 0)
    assert found.chosen is not None
    assert found.chosen.n_compared == 2
    assert "dropped" not in found.ties
    small = {c: {f"p{i}": [int(i < n)] for i in range(20)} for c, n in (("base", 2), ("a", 10))}
    alone, more = choose(paired_run(small)), choose(paired_run(small | {"d": {"p0": [1]}}))
    assert alone.chosen is not None
    assert more.chosen is not None
    assert more.chosen.p == pytest.approx(2 * alone.chosen.p)


def test_failed_rows_are_left_out():
    """An answer that broke is no wrong answer."""
    scores = {
        "base": {f"p{i}": [0] for i in range(30)},
        "a": {f"p{i}": ["error" if i < 5 else 1] for i in range(30)},
    }
    found = choose(paired_run(scores))
    assert found.pick == "a"
    assert found.select.set_index("cell_id")["quality"]["a"] == 1
    assert found.chosen is not None
    assert found.chosen.n == 25


def test_a_few_lucky_scores():
    """A cell of which only a few answers are scored, all of them right, is left out and does not block a better one."""
    scores: dict[str, dict[str, list[Any]]] = {
        "base": {f"p{i}": [int(i % 3 == 0)] for i in range(60)},
        "a": {f"p{i}": [int(i % 5 > 0)] for i in range(60)},
        "lucky": {f"p{i}": [1 if i < 5 else None] for i in range(60)},
    }
    found = choose(paired_run(scores))
    assert (found.pick, found.verdict, found.unscored) == ("a", "better", ("lucky",))
    assert found.n_prompts == (60, 0)
    assert "lucky" not in found.ties


def test_only_prompts_scored_in_all():
    """A candidate without a score on hard prompts gains nothing by it: the prompts that all were scored on decide."""
    scores: dict[str, dict[str, list[Any]]] = {
        "base": {f"p{i}": [int(i < 20)] for i in range(40)},
        "a": {f"p{i}": [int(i < 36)] for i in range(40)},
        "b": {f"p{i}": [None if i >= 35 else int(i < 34)] for i in range(40)},
    }
    found = choose(paired_run(scores))
    assert (found.top, found.n_prompts, found.n_unscored) == ("a", (35, 0), 5)
    assert found.select.set_index("cell_id")["quality"]["b"] == pytest.approx(34 / 35)


def test_holes_everywhere():
    """If hardly a prompt is scored in every cell, cells are ordered by their differences from the baseline."""
    rng = np.random.default_rng(0)
    scores: dict[str, dict[str, list[Any]]] = {}
    for i in range(30):
        right = 30 if i == 7 else 12
        holes = rng.random(40) < 0.1
        scores[f"c{i}"] = {f"p{k}": [None if holes[k] else int(k < right)] for k in range(40)}
    found = choose(paired_run(scores))
    assert (found.top, found.pick, found.n_unscored, found.unscored) == ("c7", "c7", 0, ())


@pytest.mark.parametrize("n", [1, 2, 4])
def test_hardly_any_prompts(n):
    """With so few prompts nothing is settled, and no number of prompts that would is made up."""
    found = choose(run_of({"base": 0, "a": 1}, n=n))
    assert (found.pick, found.verdict) == ("base", "tie")
    assert found.needed == TOO_FEW


def test_a_baseline_without_scores():
    """Where the baseline is not scored the best of the others is named, without a difference."""
    run = run_of({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 30, "b": 12})
    run.scores.loc[run.scores["cell_id"].eq("base"), "value"] = np.nan
    found = choose(run)
    assert (found.verdict, found.pick, found.unscored) == ("only", "a", ("base",))
    text = "\n".join(words.lines(found, run.cells, ""))
    assert text.startswith(
        "Use temperature 0.5: the highest score of the cells that could be scored, which the baseline could not.\n"
    )
    assert "nan" not in text
    assert (
        "left out, since many of their answers could not be scored: 1 cell (temperature 0)."
        in text.lower()
    )


# --------------------------------------------------------------------------------------- what adapters learned from


def adapted(trained: Mapping[str, list[str] | None], **about: Any) -> Any:
    """A run of base, "a" and "b", the latter with adapters of these names that were trained on such prompts."""
    run = run_of({"base": 10, "a": 38, "b": 12}, n=40)
    run.cells["adapter"] = ["base", "x", "y"]
    extra = {"adapters": about}
    manifest = {**run.manifest, "trained_on": trained, "engine": {"model": "m", "extra": extra}}
    return replace(run, manifest=manifest)


def test_an_adapter_is_not_judged_by_what_it_was_trained_on():
    """One that was trained on most prompts is not picked, however good; that is said."""
    run = adapted({"x": [f"select{i}" for i in range(40)], "y": []})
    found = choose(run)
    assert (found.pick, found.refused, found.top) == ("base", ("x",), "b")
    assert found.notes == (
        "x was trained on 40 of these prompts: how it answers them says nothing of others.",
    )
    text = "\n".join(words.lines(found, run.cells, ""))
    assert "Cells with x were not considered." in text


def test_prompts_that_an_adapter_was_trained_on_do_not_count():
    """One that was trained on a few of them is compared on the others, like every cell."""
    run = adapted({"x": [f"select{i}" for i in range(12)], "y": None})
    found = choose(run)
    assert (found.pick, found.n_trained, found.n_prompts) == ("a", 12, (28, 0))
    text = "\n".join(words.lines(found, run.cells, ""))
    assert "12 prompts that an adapter of this run was trained on do not count." in text
    assert found.notes == ()
    both = {name: [f"select{i}" for i in range(k, k + 15)] for name, k in (("x", 0), ("y", 20))}
    assert choose(adapted(both)).refused == ("y",)


def test_every_cell_was_trained_on_the_prompts():
    """Where no cell can be judged none is recommended, and the reason is given."""
    run = run_of({"base": 10, "a": 38}, n=40)
    run.cells["adapter"] = "x"
    seen = {"x": [f"select{i}" for i in range(40)]}
    found = choose(replace(run, manifest={**run.manifest, "trained_on": seen}))
    assert (found.pick, found.verdict) == (None, "none")
    assert words.lines(found, run.cells, "")[0] == (
        "Every cell has an adapter that was trained on most of the prompts (x): there is nothing to recommend."
    )


def test_what_is_not_known_of_the_pick():
    """An adapter without a record of its training, and one that changes nothing, are told of the pick."""
    found = choose(adapted({"x": None}, x={"inert": True}))
    assert found.pick == "a"
    assert found.notes == (
        "x has no record of its training: these prompts may have been part of it.",
        "x changes nothing: it is as good as no adapter.",
    )


def test_nothing_scored():
    """Without a score there is nothing to choose by."""
    scores: dict[str, dict[str, list[Any]]] = {"base": {"p": [None]}, "a": {"p": [None]}}
    with pytest.raises(
        WorkbenchError,
        match=r"^no answer of this run is scored by 'numeric': there is nothing to choose by$",
    ):
        choose(paired_run(scores))


def test_no_scorer():
    """A run without scorers says how to score it."""
    run = replace(run_of({"base": 1, "a": 2}), primary=None)
    with pytest.raises(
        WorkbenchError,
        match=r"^the run has no scores; score it first: workbench score RUN --scorers \.\.\.$",
    ):
        choose(run)


def test_another_scorer():
    """Only scores that there are can be chosen by; "quality" is the first."""
    run = run_of({"base": 10, "a": 38})
    assert choose(run, objective="quality").objective == "numeric"
    with pytest.raises(
        WorkbenchError, match=r"^no scores of 'length'; there are scores of numeric$"
    ):
        choose(run, objective="length")


# ------------------------------------------------------------------------------------------------------- limits


def test_limits_leave_out():
    """A cell that breaks a limit is not picked, however good."""
    run = run_of({"base": 5, "a": 38, "b": 30}, latency=times_of({"base": 80, "a": 200, "b": 90}))
    found = choose(run, read("e2el_ms_p50<=100"))
    assert (found.pick, found.verdict) == ("b", "better")
    assert found.limits[0].status == {"base": "met", "a": "not met", "b": "met"}


def test_the_baseline_may_break_a_limit():
    """A baseline that breaks a limit is not kept; what the others gain over it is still said."""
    run = run_of({"base": 30, "a": 20, "b": 10}, latency=times_of({"base": 200, "a": 90, "b": 90}))
    found = choose(run, read("e2el_ms_p50<=100"))
    assert (found.verdict, found.pick) == ("only", "a")
    assert found.chosen is not None
    assert found.chosen.diff == pytest.approx(-0.25)


@pytest.mark.parametrize(("n", "status"), [(60, "not known"), (64, "met")])
def test_a_figure_of_too_few_requests_is_not_known(n, status):
    """p90 takes 64 requests a cell: with fewer the limit is not met, it is not known."""
    run = run_of({"base": 5, "a": 38}, latency=times_of({"base": 80, "a": 80}, n=n))
    found = choose(run, read(["e2el_ms_p90<=100"]))
    assert set(found.limits[0].status.values()) == {status}
    assert found.limits[0].needed == 64
    assert (found.pick is None) is (status == "not known")
    assert found.verdict == ("none" if status == "not known" else "better")


def test_limits_on_answers():
    """Tokens and shares can be limited too."""
    run = run_of({"base": 5, "a": 38, "b": 30}, tokens={"base": 10, "a": 50, "b": 20})
    found = choose(run, read(["n_output_tokens_mean<30", "truncated_rate<=0"]))
    assert found.pick == "b"
    assert [limited.status["a"] for limited in found.limits] == ["not met", "met"]


def test_what_is_no_limit():
    """A limit that cannot be read is refused; so is a metric that is none, given as an object."""
    with pytest.raises(
        StudyError,
        match=r"^--subject-to: 'e2el_p90<250': unknown metric 'e2el_p90', did you mean 'e2el_ms_p90'\?$",
    ):
        read("e2el_p90<250")
    run = run_of({"base": 5, "a": 38})
    odd = replace(read("e2el_ms_p50<=100")[0], metric="odd")
    with pytest.raises(WorkbenchError) as caught:
        check([odd], run, choose(run).select)
    assert str(caught.value) == (
        "no metric 'odd' to limit; there are ttft_ms, tpot_ms or e2el_ms with _p50 to _p99, n_output_tokens_mean, truncated_rate, loop_rate"
    )


# ------------------------------------------------------------------------------------------------- many studies


def simulated(n_studies: int, gain: float, seed: int) -> list[Choice]:
    """Choices in studies of 48 cells and 120 prompts, two fifths held out; all cells equal but for one, better by ``gain``."""
    run = make_run(GRID, n_prompts=120, repeats=1, right=lambda _: 0.5, timed=False, confirm=0.4)
    others = [c for c in run.cells["cell_id"] if c != run.cell_id()]
    rng = np.random.default_rng(seed)
    return [choose(_redrawn(run, rng, others[7], gain), rng=i) for i in range(n_studies)]


def _redrawn(run: FakeRun, rng: np.random.Generator, better: str, gain: float) -> FakeRun:
    """The run with other scores: prompts of very different difficulty, the same in every cell."""
    ids = run.scores["prompt_id"].unique()
    hard = dict(zip(ids, (1 - gain) * rng.beta(0.6, 0.6, len(ids)), strict=True))
    chance = run.scores["prompt_id"].map(hard) + gain * run.scores["cell_id"].eq(better)
    return replace(
        run, scores=run.scores.assign(value=(rng.random(len(chance)) < chance).astype(float))
    )


def of_luck(found: list[Choice]) -> tuple[float, float, float, float]:
    """Mean difference of the best cell on the prompts that chose, the same held out with its error, and the share of changes."""
    seen = [c.chosen.diff if c.chosen else 0.0 for c in found]
    held = np.array([c.confirmed.diff if c.confirmed else 0.0 for c in found])
    changed = float(np.mean([c.pick != c.baseline for c in found]))
    return (
        float(np.mean(seen)),
        float(held.mean()),
        float(held.std(ddof=1) / np.sqrt(len(held))),
        changed,
    )


def test_luck_does_not_survive():
    """48 equal cells: the best looks points better, held out it gains nothing, and the baseline nearly always stays."""
    seen, held, error, changed = of_luck(simulated(18, 0.0, seed=1))
    assert seen > 0.06
    assert abs(held) < 3.5 * error
    assert changed <= 0.25  # 18 studies at 5 %: more than 4 in one of 800 times


def test_a_better_cell_is_found():
    """One cell that is better by 30 points is picked, and its gain held out is the true one."""
    found = simulated(10, 0.3, seed=2)
    _, held, error, changed = of_luck(found)
    assert changed >= 0.9
    assert abs(held - 0.3) < 3.5 * error


@pytest.mark.long
def test_false_alarms():
    """Among 48 equal cells the baseline is replaced in at most 5 of 100 studies, and the held-out gain is 0 on average."""
    seen, held, error, changed = of_luck(simulated(600, 0.0, seed=3))
    assert seen > 0.06
    assert abs(held) < 3 * error
    assert changed <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)
