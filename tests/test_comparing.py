"""Two cells compared: numbers, and what is said about them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairedruns import paired_run, timed

from workbench import stats
from workbench.comparing import compare, compare_runs
from workbench.errors import WorkbenchError

N = 24
BITS = st.lists(st.sampled_from([0, 1]), min_size=N, max_size=N)


def one_draw(**cells: list) -> dict:
    """Scores of cells with one repeat, prompts p0, p1, ..."""
    return {name: {f"p{i}": [v] for i, v in enumerate(values)} for name, values in cells.items()}


def times(
    ms: dict[str, float], prompts: int = 8, rounds: int = 3, step: float = 10
) -> pd.DataFrame:
    """Timed requests; each prompt a step slower than the one before, the same in every cell."""
    return timed(
        {
            cell: {(f"p{p}", r): base + step * p + r for p in range(prompts) for r in range(rounds)}
            for cell, base in ms.items()
        }
    )


# Numbers


@settings(max_examples=25, deadline=None)
@given(BITS, BITS)
def test_the_difference_is_that_of_stats(before, after):
    """Difference, interval and p are those of the paired difference; the counts add up; turned round, signs turn."""
    run = paired_run(one_draw(a=before, b=after))
    there, back = compare(run, "b"), compare(run, "a", "b")
    table = there.changes
    assert there.diff == pytest.approx(np.mean(after) - np.mean(before))
    assert (there.quality.baseline, there.quality.cell) == (np.mean(before), np.mean(after))
    lo, hi = np.ravel(
        stats.difference_interval(table["diff"].to_numpy(float)[None], None, 0.95, 1.0)
    )
    assert (there.lo, there.hi) == pytest.approx((lo, hi))
    assert there.p == pytest.approx(float(stats.mcnemar(there.better, there.worse)))
    assert there.better + there.worse + there.same == there.n_prompts == N
    assert (back.diff, back.better, back.worse) == (-there.diff, there.worse, there.better)


def test_prompts_of_a_group_count_as_one():
    """The same differences in groups of four leave a wider interval than as prompts of their own."""
    scores = one_draw(a=[0] * N, b=[int(i % 8 < 4) for i in range(N)])
    groups = {f"p{i}": f"g{i // 4}" for i in range(N)}
    alone, grouped = (
        compare(paired_run(scores), "b"),
        compare(paired_run(scores, groups=groups), "b"),
    )
    assert alone.diff == grouped.diff
    assert grouped.lo < alone.lo < alone.hi < grouped.hi
    assert grouped.p > alone.p


def test_unscored_and_unanswered_prompts_are_counted_and_left_out():
    """A prompt without a score counts as unscored; one that broke in a cell is left out, and that is said."""
    run = paired_run(one_draw(a=[1, 0, 1, None, 1], b=[1, 1, "error", 1, 0]))
    found = compare(run, "b")
    assert (found.n_prompts, found.unscored, found.quality.n) == (4, 1, 3)
    assert found.notes == ("Prompts without an answer in one of the two, left out: 1.",)


def test_nothing_scored():
    """Without any score there is no difference, and the answers are still compared."""
    found = compare(paired_run(one_draw(a=[None] * 3, b=[None] * 3), tokens={"b": 14}), "b")
    assert np.isnan([found.diff, found.lo, found.hi, found.p]).all()
    assert found.unscored == 3
    assert found.tokens.diff == 4
    assert found.text.splitlines()[0] == "b against a: no prompt was scored in both."


def test_latency_is_paired_by_prompt_and_round():
    """A constant gap is found exactly although prompts differ far more; requests that only one cell has do not count."""
    latency = times({"a": 100, "b": 107}, step=1000)
    alone = timed({"b": {("p9", 0): 9e6}})
    run = paired_run(one_draw(a=[1] * N, b=[1] * N), latency=pd.concat([latency, alone]))
    e2el = compare(run, "b").latency["e2el_ms"]
    assert (e2el.diff, e2el.lo, e2el.hi) == pytest.approx((7, 7, 7))
    assert (e2el.n, e2el.n_prompts) == (24, 8)
    assert e2el.baseline == np.median(latency.loc[latency.cell_id == "a", "e2el_ms"])


def test_few_timed_requests_have_no_interval():
    """Below twenty pairs there is a difference but no interval, and the text says so."""
    latency = times({"a": 100, "b": 107}, prompts=3)
    found = compare(paired_run(one_draw(a=[1] * N, b=[1] * N), latency=latency), "b")
    assert np.isnan(found.latency["e2el_ms"].lo)
    assert "+7 ms, 9 pairs of 3 prompts (too few for an interval)." in found.text


def test_answers_that_end_badly_are_rates():
    """Cut-off and looping answers are shares of all answers of the cell."""
    texts = {("b", "p0", 0): "no no no no no no no no no. " * 4}
    run = paired_run(one_draw(a=[1] * 4, b=[1] * 4), texts=texts)
    run.generations.loc[run.generations.cell_id.eq("a"), "finish_reason"] = [
        "length",
        *["stop"] * 3,
    ]
    found = compare(run, "b")
    assert found.truncated == (0.25, 0)
    assert found.loops == (0, 0.25)


def test_as_plain_values():
    """The dict is JSON, unknown numbers are null, and it carries the text."""
    found = compare(paired_run(one_draw(a=[1], b=[0])), "b")
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["quality"] == {
        "baseline": 1,
        "cell": 0,
        "diff": -1,
        "lo": None,
        "hi": None,
        "n": 1,
        "n_prompts": 1,
    }
    assert values["labels"] == ["a", "b"]
    assert values["text"] == found.text
    assert "changes" not in values


# What cannot be compared


def test_a_cell_with_itself_is_refused():
    """The message names the cell."""
    with pytest.raises(WorkbenchError) as caught:
        compare(paired_run(one_draw(a=[1], b=[1])), "a")
    assert str(caught.value) == "'a' cannot be compared with itself; name another cell"


def test_no_prompt_in_common_is_refused():
    """If every prompt broke in one of the cells, nothing can be said."""
    with pytest.raises(WorkbenchError) as caught:
        compare(paired_run(one_draw(a=[1, "error"], b=["error", 1])), "b")
    assert str(caught.value) == "no prompt was answered by both a and b"


# In words


def test_in_words():
    """Everything that is known, in plain sentences."""
    run = paired_run(
        one_draw(a=[1] * 10 + [0] * 14, b=[1] * 10 + [1] * 3 + [0] * 11, c=[0] * 24),
        tokens={"b": 12},
        latency=times({"a": 100, "b": 107}),
    )
    assert compare(run, "b").text == (
        "b against a, on the 24 prompts scored in both: 54.2 % against 41.7 %, +12.5 points (95 % interval -5.4 to +28.7). "
        "No difference found (p = 0.25); the interval still allows -5.4 to +28.7 points. "
        "This p is of one comparison; the run has 3 cells to choose from. "
        "About 75 more prompts would settle the 12 points seen (80 % power).\n"
        "The score changed for 3 prompts: 3 better, 0 worse; 21 the same.\n"
        "An answer has 12.0 tokens against 10.0 (+2.0). Cut off at max_tokens: 0.0 % against 0.0 %; "
        "ending in a loop: 0.0 % against 0.0 % of the answers. The answers shown are equal word for word for 0 of 24 prompts.\n"
        "The median answer takes 143 against 136 ms; on the same prompt and round +7 ms, 95 % interval +7 to +7, "
        "24 pairs of 8 prompts. The first token comes after 14.3 against 13.6 ms, each further one 1.43 against 1.36 ms later."
    )


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([0] * 24, [1] * 20 + [0] * 4, "Better beyond chance (p < 0.001)."),
        ([1] * 20 + [0] * 4, [0] * 24, "Worse beyond chance (p < 0.001)."),
        (
            [1, 0] * 12,
            [1, 0] * 12,
            (
                "No difference found (p = 1); the interval still allows -11.4 to +11.4 points. "
                "About 250 more prompts would settle a difference of 5 points (80 % power)."
            ),
        ),
        (
            [0] * 14 + [1] * 46,
            [1] * 14 + [0] * 5 + [1] * 41,
            (
                "At the edge of what chance does (p = 0.064): more prompts would tell. "
                "About 55 more prompts would settle the 15 points seen (80 % power)."
            ),
        ),
        (
            [0],
            [1],
            (
                "Too few prompts to tell a difference from chance. "
                "How many more prompts would settle it cannot be told from so few."
            ),
        ),
    ],
)
def test_the_verdict_claims_no_more_than_the_numbers(before, after, verdict):
    """A difference is claimed only if test and interval agree; else it says what is still possible."""
    first = compare(paired_run(one_draw(a=before, b=after)), "b").text.splitlines()[0]
    assert first.endswith(verdict)


def test_held_out_prompts_are_mentioned():
    """All prompts count unless a split is named, and either is said."""
    splits = {f"p{i}": "confirm" for i in range(12)}
    run = paired_run(one_draw(a=[0] * N, b=[1] * N), splits=splits)
    everything = compare(run, "b")
    assert (everything.split, everything.n_held_out) == (None, 12)
    assert "b against a, on all 24 prompts scored in both, those used for choosing included: " in (
        everything.text
    )
    found = compare(run, "b", split="confirm")
    assert (found.n_prompts, found.split, found.n_held_out) == (12, "confirm", 12)
    assert found.text.startswith("b against a, on the 12 held-out prompts scored in both: ")
    found = compare(run, "b", split="select")
    assert (found.n_prompts, found.to_dict()["split"], found.n_held_out) == (12, "select", 0)
    assert found.text.startswith(
        "b against a, on the 12 prompts scored in both that are not held out: "
    )


def test_what_the_p_value_of_a_split_is_worth():
    """On held-out prompts p holds for a cell chosen without them; elsewhere it does not count the other cells."""
    splits = {f"p{i}": "confirm" for i in range(12)}
    run = paired_run(one_draw(a=[0] * N, b=[1] * N, c=[0] * N), splits=splits)
    assert "This p is right if the cell was chosen without these prompts." in (
        compare(run, "b", split="confirm").text
    )
    assert "of one comparison; the run has 3 cells" in compare(run, "b", split="select").text


def test_latency_of_a_split_is_of_all_requests():
    """The split chooses prompts for quality only, and that is said."""
    splits = {f"p{i}": "confirm" for i in range(12)}
    run = paired_run(
        one_draw(a=[0] * N, b=[1] * N), splits=splits, latency=times({"a": 100, "b": 107})
    )
    found = compare(run, "b", split="confirm")
    assert found.notes == ("Latency is of all timed requests.",)
    assert found.latency["e2el_ms"].n == 24
    assert compare(run, "b").notes == ()


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (None, "b against a: no prompt was scored in both."),
        ("confirm", "b against a: no held-out prompt was scored in both."),
        ("select", "b against a: no prompt that is not held out was scored in both."),
    ],
)
def test_nothing_scored_in_a_split(split, said):
    """Which prompts have no score is said."""
    run = paired_run(one_draw(a=[None] * 2, b=[None] * 2), splits={"p0": "confirm"})
    assert compare(run, "b", split=split).text.splitlines()[0] == said


def test_the_only_cell_has_nothing_beside_it():
    """A run of one cell says that there is no other, not to name one."""
    with pytest.raises(WorkbenchError) as caught:
        compare(paired_run(one_draw(a=[1])), "a")
    assert str(caught.value) == (
        "'a' is the only cell of this run: there is nothing to compare it with"
    )


# Two runs


def test_two_runs_share_the_prompts_that_ask_the_same():
    """Prompts count if id, messages and target are the same; what was left out and what else differs is said."""
    old = paired_run(one_draw(a=[0, 0, 0, 0]), targets={"p0": 1}, run_id="old")
    new = paired_run(one_draw(a=[1, 1, 1, 1, 1]), targets={"p0": 2}, run_id="new", seed=5)
    found = compare_runs(old, new)
    assert found.changes["prompt_id"].tolist() == ["p1", "p2", "p3"]
    assert found.diff == 1
    assert found.labels == ("a (scripted, old)", "a (scripted, new)")
    assert found.notes == (
        "Shared prompts: 3 of 4 and 5. Left out, the id being the same but not messages or target: 1.",
        "The runs drew with different seeds.",
    )


def test_times_of_two_runs_are_not_blamed_on_the_cell():
    """Times are compared by prompt and round, with the warning that the machine may have changed."""
    old, new = (
        paired_run(one_draw(a=[0] * N), run_id=name, latency=times({"a": ms}))
        for name, ms in (("old", 100), ("new", 90))
    )
    found = compare_runs(old, new)
    assert found.latency["e2el_ms"].diff == pytest.approx(-10)
    assert found.notes[-1] == (
        "The runs were timed apart: a difference of the machine or of its load counts as theirs."
    )


def test_another_version_of_the_scorer_is_said():
    """Scores of two versions of a scorer are compared, with a warning."""
    old, new = paired_run(one_draw(a=[0] * N)), paired_run(one_draw(a=[1] * N))
    new.manifest["scorers"][0]["version"] = "2"
    assert "The scorer's version differs (1, 2): score both runs again before trusting this." in (
        compare_runs(old, new).notes
    )


def test_runs_that_share_nothing_are_refused():
    """Other prompts, or other scorers: the message says which."""
    old = paired_run(one_draw(a=[0, 0]), targets={"p0": 1, "p1": 1})
    with pytest.raises(WorkbenchError) as caught:
        compare_runs(old, paired_run(one_draw(a=[1, 1])))
    assert str(caught.value) == (
        "the runs share no prompt: of 2 and 2, 2 have an id in common, "
        "and none of those has the same messages and target"
    )
    with pytest.raises(WorkbenchError) as caught:
        compare_runs(old, paired_run(one_draw(a=[1]), scorer="exact"))
    assert str(caught.value) == (
        "scores of numeric and of exact cannot be compared; score both runs with the same scorer first"
    )
