"""The answer in words: what is said of time and of prompts without a score, and what cannot be told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_analysis import make_cells, make_latency, make_rows

from workbench import analysis, words

RIGHT: dict[str, list[Any]] = {"a": [1, 0] * 10, "b": [1] * 20}


def table(latency: pd.DataFrame, values: dict[str, list[Any]] | None = None) -> pd.DataFrame:
    """The summary of two cells."""
    generations, scores = make_rows(values or RIGHT)
    return analysis.summary(generations, scores, latency, make_cells("a", "b"))


def said(latency: pd.DataFrame) -> str:
    """The line about latency."""
    text = analysis.answer_in_words(table(latency), make_cells("a", "b"))
    return next(line for line in text.splitlines() if line.startswith("Its median answer"))


def test_few_requests_prove_nothing_about_time():
    """Three requests a cell: medians, but no percentage, no fastest cell, no front."""
    latency = make_latency({"a": 7_562, "b": 3_663}, prompts=3, rounds=1)
    assert said(latency) == (
        "Its median answer takes 3,663 ms, the baseline's 7,562 ms (too few timed requests to tell a difference from chance: "
        "3 of each). Which cells are fast cannot be told: some cell has only 3 timed requests (it takes 20, of 2 prompts or "
        "more). Time more: `workbench latency RUN --rounds 4`. n too small for p90 (it needs 64 requests a cell)."
    )
    assert table(latency)[["on_front", "p_on_front"]].isna().all(axis=None)


def test_rounds_of_one_prompt_are_no_evidence():
    """However often one prompt is timed, nothing is said of others."""
    latency = make_latency({"a": 100, "b": 50}, prompts=1, rounds=40)
    assert "too few timed requests" in said(latency)
    assert table(latency)["on_front"].isna().all()


def test_noise_is_named_and_claims_nothing():
    """Where noisy requests have to count, no cell is called fast, and the answer says how many they were."""
    latency = make_latency({"a": 100, "b": 50})
    latency["noisy"] = latency["warm"].eq(1) & latency["round"].isin([0, 1])
    text = said(latency)
    assert text == (
        "Its median answer takes 50 ms, the baseline's 100 ms; on the same prompt and round -50 ms (95 % interval -50 to -50, "
        "24 pairs). Which cells are fast cannot be told: 32 of 48 timed requests were noisy. Other programs disturbed 32 of 48 "
        "timed requests; they count, as too few would be left: time again on a quiet machine. n too small for p90 (it needs 64 "
        "requests a cell)."
    )
    assert table(latency)["on_front"].isna().all()


def test_noise_left_out_is_named_too():
    """Where the noisy requests could be left out, the claim stands, and their number is told."""
    latency = make_latency({"a": 100, "b": 50}, rounds=5)
    latency["noisy"] = latency["cell_id"].eq("a") & latency["round"].eq(0) & latency["warm"].eq(1)
    text = said(latency)
    assert "-50 ms (95 % interval -50 to -50, 32 pairs), faster beyond chance." in text
    assert (
        " Other programs disturbed 8 of 80 timed requests; they and the other cells' requests beside them are left out."
        in text
    )
    assert table(latency)["on_front"].tolist() == [False, True]


def test_a_difference_within_chance_is_called_so():
    """Times that differ by luck alone: neither slower nor faster, and no fastest cell."""
    latency = make_latency({"a": 100, "b": 100})
    latency["e2el_ms"] += np.random.default_rng(3).normal(0, 20, len(latency))
    text = said(latency)
    assert ", within chance." in text
    assert "Fastest" not in text


def test_the_difference_is_that_of_compare():
    """The medians of two cells may differ one way and their requests, prompt by prompt, the other."""
    latency = make_latency({"a": 100, "b": 100}, prompts=3, rounds=9)
    timed = latency["warm"].eq(1)
    place = latency["prompt_id"].str[1:].astype(int)
    base = place.map({0: 100.0, 1: 1_000.0, 2: 1_010.0})
    late = latency["cell_id"].eq("b") & timed
    latency["e2el_ms"] = base + late * place.map({0: 40.0, 1: 40.0, 2: -600.0})
    both = latency[timed].groupby("cell_id")["e2el_ms"].median()
    assert both["b"] < both["a"]
    found = analysis.timing(latency, [("b", "a")])["diffs"][0]
    assert (found["diff"], found["n"], found["n_prompts"]) == (40.0, 27, 3)
    assert found["lo"] <= 40 <= found["hi"]
    assert analysis.timing(latency, [("b", "nobody")])["diffs"] == []


def test_prompts_without_a_score_are_not_counted():
    """Six of thirty prompts could be scored: the answer says six."""
    values = {"a": [1, 0] * 3 + [None] * 24, "b": [1] * 6 + [None] * 24}
    generations, scores = make_rows(values)
    out = analysis.summary(generations, scores, None, make_cells("a", "b"))
    assert out["n_prompts"].tolist() == [30, 30]
    assert words.scored_prompts(out).tolist() == [6, 6]
    text = analysis.answer_in_words(out, make_cells("a", "b"))
    assert "; 6 of 30 prompts could be scored)" in text
    assert "30 prompts)" not in text
    read_back = pd.DataFrame(out.to_dict("list"))
    assert words.scored_prompts(read_back).tolist() == [6, 6]


def test_held_out_prompts_without_a_score_are_not_counted():
    """The headline of a study with a split counts them the same way."""
    values = {"a": [1, 0] * 20, "b": [1] * 20 + [1] * 10 + [None] * 10}
    generations, scores = make_rows(values)
    generations["split"] = (["select"] * 20 + ["confirm"] * 20) * 2
    cells = make_cells("a", "b")
    pick, again = (
        analysis.summary(generations, scores, None, cells, split=s) for s in ("select", "confirm")
    )
    first = analysis.answer_in_words(pick, cells, confirm=again).splitlines()[0]
    assert "quality 100.0 %" in first
    assert "10 of 20 prompts could be scored)" in first


def test_the_scorer_is_named():
    """Whose scores they are stands in the answer, where it is known."""
    generations, scores = make_rows({"a": [1, 0]})
    name = str(scores["scorer"].iloc[0])
    out = analysis.summary(generations, scores, None, make_cells("a"), primary=name)
    assert analysis.answer_in_words(out).endswith(f"Rows: 2 scored by {name}, 0 failed.")


@pytest.mark.parametrize(
    ("value", "text"), [(-0.3, "0"), (0.0, "0"), (-1234.0, "-1,234"), (5, "+5")]
)
def test_what_rounds_to_nothing_has_no_sign(value: float, text: str):
    """No minus zero in any sentence."""
    assert words.signed(value) == text


def test_too_few_requests_have_a_next_step():
    """The command that is named times enough: 8 prompts at a time, those already timed counted."""
    latency = make_latency({"a": 100, "b": 50}, prompts=8, rounds=2)
    text = said(latency)
    assert " Time more: `workbench latency RUN --rounds 4`." in text
    enough = make_latency({"a": 100, "b": 50}, prompts=8, rounds=4)
    assert "Time more" not in said(enough)


def test_nothing_flatters_a_baseline_that_is_best():
    """Only a cell that was picked by its score may look better than it is."""
    values = {"a": [1] * 20, "b": [1, 0] * 10, "c": [0] * 20}
    generations, scores = make_rows(values)
    cells = make_cells("a", "b", "c")
    text = analysis.answer_in_words(analysis.summary(generations, scores, None, cells), cells)
    assert text.startswith("No setting scores above the baseline")
    assert "may look better" not in text


RACE = {
    "race": {"dropped": {"c": "loses"}, "n_prompts": {"a": 20, "b": 20, "c": 4, "d": 10}},
}


def test_who_left_a_race():
    """Those dropped, and those that a search asked less than others; without a race nobody."""
    assert words.left_race(RACE) == {"c": 4, "d": 10}
    assert words.left_race({}) == {}


def test_cells_that_left_a_race_are_no_equals():
    """However well they score on fewer prompts, they stand below the others, on no front, and are named."""
    values: dict[str, list[Any]] = {
        "a": [1, 0] * 10,
        "b": [1] * 19 + [0],
        "c": [1] * 4,
        "d": [1] * 9 + [0],
    }
    generations, scores = make_rows(values)
    cells, left = make_cells("a", "b", "c", "d"), words.left_race(RACE)
    latency = make_latency({"a": 100, "b": 100, "c": 10, "d": 10})
    out = analysis.summary(generations, scores, latency, cells, left=left)
    assert list(words.ranked(out, "a").index) == ["b", "a", "c", "d"]
    assert out.set_index("cell_id")["on_front"].fillna(value=False).tolist() == [
        False,
        True,
        False,
        False,
    ]
    text = analysis.answer_in_words(out, cells)
    assert text.startswith("Best: cell b")
    assert (
        "2 of 4 cells left the race early, after 4 to 10 prompts: their scores are of fewer prompts than the others'."
        in text.splitlines()
    )
    whole = analysis.summary(generations, scores, latency, cells)
    assert words.ranked(whole, "a").index[0] == "c"
    assert "left the race" not in analysis.answer_in_words(whole, cells)
