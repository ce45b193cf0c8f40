"""The health table: planted signs are counted, once each, with bounds that belong to prompts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fakeruns import make_run

from workbench import health as module
from workbench.health import COLUMNS, health
from workbench.prompts import Prompt
from workbench.scorers.degeneration import agreement, signs
from workbench.stats import proportion_interval

LOOP = "I think it is so. I think it is so. I think it is so. I think it is so."
GERMAN = (
    "Das ist nicht die Antwort, die du von mir haben willst, und ich weiß auch nicht, was es ist."
)


def planted(texts: dict[str, str], n_prompts: int = 10, repeats: int = 1):
    """A run of two cells in which some prompts of the first are answered with a given text."""
    run = make_run({"temperature": [0.3, 0.9]}, n_prompts, repeats, timed=False)
    rows = run.generations
    rows["text"] = [f"The sum of both is {i}." for i in range(len(rows))]
    rows["finish_reason"] = "stop"
    first = rows["cell_id"] == run.cells["cell_id"][0]
    for prompt, text in texts.items():
        rows.loc[first & rows["prompt_id"].eq(prompt), "text"] = text
    return run


def test_planted_signs_are_counted():
    """Two loops, one empty answer, one in German and one cut off among ten prompts."""
    run = planted({"sum-000": LOOP, "sum-001": LOOP, "sum-002": " \n", "sum-003": GERMAN})
    run.generations.loc[4, "finish_reason"] = "length"
    one, two = health(run).to_dict("records")
    assert (one["n"], one["loop_rate"], one["empty_rate"], one["truncated_rate"]) == (
        10,
        0.2,
        0.1,
        0.1,
    )
    switches = [
        s
        for t in run.generations["text"][:10]
        if (s := signs(t, prompt_text="What is 1 + 1?").language_switch) is not None
    ]
    assert one["language_switch_rate"] == pytest.approx(np.mean(switches)) == 1 / len(switches)
    assert one["repeated_ngrams"] == pytest.approx(2 * signs(LOOP).repeated_ngrams / 10)
    assert [two[c] for c in ("loop_rate", "empty_rate", "truncated_rate")] == [0, 0, 0]
    assert np.isnan(one["agreement"])
    assert [one["label"], two["label"]] == ["T=0.3", "T=0.9"]


def test_figures_match_answer_by_answer():
    """Against a plain loop over the answers of a larger run, several repeats and failed rows."""
    run = make_run(n_prompts=15, repeats=3)
    run.generations.loc[[1, 40, 41], "finish_reason"] = "error"
    table = health(run)
    rows = run.generations[run.generations["finish_reason"] != "error"]
    for row in table.to_dict("records"):
        mine = rows[rows["cell_id"] == row["cell_id"]]
        asked = [run.prompts[p].messages[-1]["content"] for p in mine["prompt_id"]]
        seen = [signs(t, prompt_text=q) for t, q in zip(mine["text"], asked, strict=True)]
        assert row["n"] == len(mine)
        assert row["loop_rate"] == pytest.approx(np.mean([s.loop for s in seen]))
        assert row["repeated_ngrams"] == pytest.approx(np.mean([s.repeated_ngrams for s in seen]))
        pairs = [s.distinct_2 for s in seen if s.distinct_2 is not None]
        assert row["distinct_2"] == pytest.approx(np.mean(pairs))
        agreed = [agreement(list(g)) for _, g in mine.groupby("prompt_id")["text"] if len(g) > 1]
        assert row["agreement"] == pytest.approx(np.mean(agreed) if agreed else np.nan, nan_ok=True)
        assert row["n_output_tokens_mean"] == pytest.approx(mine["n_output_tokens"].mean())


def test_agreement_is_over_repeats_of_one_prompt():
    """Three repeats of which two are equal agree in one pair of three; other prompts do not matter."""
    run = planted({}, n_prompts=2, repeats=3)
    first = run.generations["cell_id"] == run.cells["cell_id"][0]
    run.generations.loc[first, "text"] = ["Four.", "four. ", "Five.", "Six.", "Six.", "Six."]
    assert health(run)["agreement"].tolist() == pytest.approx([(1 / 3 + 1) / 2, 0.0])


def test_bounds_are_wilsons_with_one_answer_a_prompt():
    """One answer per prompt that shows the sign or not: Wilson's interval over the prompts."""
    table = health(planted({"sum-000": LOOP, "sum-001": LOOP}), intervals=True)
    lo, hi = proportion_interval([2, 0], 10)
    np.testing.assert_allclose(table["loop_rate_lo"], lo)
    np.testing.assert_allclose(table["loop_rate_hi"], hi)
    assert set(table.columns) >= {f"{c}_{end}" for c in COLUMNS for end in ("lo", "hi")}


def test_signs_of_degree_have_bounds_of_degree():
    """No repeated passages in greedy answers: as sure with one answer a prompt as in a sampled cell with five."""
    run = make_run({"temperature": [0, 0.5, 0.9]}, 30, 5, timed=False)
    run.generations["text"] = "one two three four five six seven eight nine ten"
    hot = run.generations["cell_id"].eq(run.cells["cell_id"][2])
    some = hot & run.generations["prompt_id"].lt("sum-005")
    run.generations.loc[some, "text"] = "one two three four five one two three four six seven"
    table = health(run, intervals=True)
    assert run.generations["cell_id"].value_counts().to_list() == [150, 150, 30]
    assert table["repeated_ngrams"].tolist()[:2] == [0, 0]
    assert 0 < table["repeated_ngrams"][2] < 0.1
    lo, hi = table["repeated_ngrams_lo"], table["repeated_ngrams_hi"]
    assert hi[0] == pytest.approx(hi[1])
    assert (lo[0], hi[0]) != pytest.approx(proportion_interval(0, 30))
    assert table["loop_rate_hi"][0] == pytest.approx(proportion_interval(0, 30).hi)


def test_repeats_of_a_prompt_are_not_independent():
    """The same ten prompts answered alike five times say no more than once."""
    once = health(planted({"sum-000": LOOP, "sum-001": LOOP}), intervals=True).iloc[0]
    often = health(planted({"sum-000": LOOP, "sum-001": LOOP}, repeats=5), intervals=True).iloc[0]
    assert often["n"] == 5 * once["n"]
    assert often["loop_rate_hi"] - often["loop_rate_lo"] > 0.8 * (
        once["loop_rate_hi"] - once["loop_rate_lo"]
    )


def test_equal_answers_are_looked_at_once(monkeypatch):
    """However often an answer to a prompt occurs, it is examined once."""
    seen = []

    def counting(text, **about):
        seen.append((text, about["prompt_text"]))
        return signs(text, **about)

    monkeypatch.setattr(module, "signs", counting)
    run = planted({}, n_prompts=4, repeats=5)
    run.generations["text"] = "The sum of both is four."
    health(run)
    assert len(seen) == len(set(seen)) == 4


def test_the_cells_wording_is_what_was_asked():
    """With templates, the language is judged by the question as the cell worded it."""
    run = planted({"sum-000": GERMAN})
    run.cells["template"] = ["german", "plain"]
    german = Prompt(
        id="x",
        messages=(
            {
                "role": "user",
                "content": "Was ist die Summe von 1 und 1? Antworte so, wie du es willst.",
            },
        ),
    )
    run.prompt = lambda cell, prompt: (
        german if cell == run.cells["cell_id"][0] else run.prompts[prompt]
    )
    assert (
        health(run)["language_switch_rate"].iloc[0]
        != health(planted({"sum-000": GERMAN}))["language_switch_rate"].iloc[0]
    )


def test_held_out_prompts_are_left_out():
    """The rows are the summary's, so shared columns agree with it."""
    run = make_run(n_prompts=30, confirm=0.4)
    table, summary = health(run), run.summary()
    for column in ("truncated_rate", "loop_rate", "n_output_tokens_mean"):
        np.testing.assert_allclose(table[column], summary[column])


def test_lengths_that_nobody_counted_are_unknown():
    """Answers made elsewhere have no tokens."""
    run = planted({})
    run.generations["n_output_tokens"] = 0
    assert health(run)["n_output_tokens_mean"].isna().all()


def test_a_run_without_answers_is_empty_not_broken():
    """Only failed rows: counts of 0 and NaN, with and without bounds."""
    run = make_run(n_prompts=3, repeats=1, timed=False)
    run.generations["finish_reason"] = "error"
    table = health(run, intervals=True)
    assert (table["n"] == 0).all()
    assert table[list(COLUMNS)].isna().all().all()
    assert isinstance(table, pd.DataFrame)
