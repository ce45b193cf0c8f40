"""Prompt by prompt: what changed between two cells."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bigruns import big_run
from hypothesis import given, settings
from hypothesis import strategies as st
from pairedruns import paired_run

from workbench.api import Run
from workbench.comparing.pairs import CHANGES, changes, question, target_text
from workbench.errors import StoreError
from workbench.prompts import Prompt

SCORE = st.one_of(st.none(), st.just("error"), st.sampled_from([0, 0.25, 1 / 3, 0.5, 1]))
PROMPTS = [f"p{i}" for i in range(4)]
CELL = st.fixed_dictionaries({p: st.lists(SCORE, min_size=1, max_size=3) for p in PROMPTS})


def known(values: list) -> list[float]:
    """The scores among the values."""
    return [v for v in values if v is not None and v != "error"]


def mean(values: list) -> float:
    """Mean of the scores among the values; NaN if there is none."""
    return math.fsum(known(values)) / len(known(values)) if known(values) else math.nan


@settings(max_examples=40, deadline=None)
@given(CELL, CELL)
def test_changes_are_those_of_a_loop_over_prompts(before, after):
    """Scores, differences and kinds of change are what counting them one by one gives; broken answers are no answers."""
    table = changes(paired_run({"a": before, "b": after}, order=PROMPTS), "b")
    both = [
        p for p in PROMPTS if all(any(v != "error" for v in cell[p]) for cell in (before, after))
    ]
    assert table["prompt_id"].tolist() == both
    for row in table.to_dict("records"):
        old, new = mean(before[row["prompt_id"]]), mean(after[row["prompt_id"]])
        np.testing.assert_allclose([row["baseline_score"], row["score"]], [old, new])
        np.testing.assert_allclose(row["diff"], new - old, atol=1e-12)
        close = math.isclose(old, new)
        kind = (2 if close else 0 if new > old else 1) if new - old == new - old else 3
        assert row["change"] == CHANGES[kind]


@settings(max_examples=40, deadline=None)
@given(CELL, CELL)
def test_the_answer_shown_is_the_nearest_to_the_mean_that_shows_the_change(before, after):
    """No repeat is nearer the mean; among the nearest, none is a better witness of the change; then the first counts."""
    table = changes(paired_run({"a": before, "b": after}, order=PROMPTS), "b")
    for row in table.to_dict("records"):
        for side, name, way in (("baseline_", "a", -1), ("", "b", 1)):
            values = (before if name == "a" else after)[row["prompt_id"]]
            k = row[f"{side}repeat"]
            assert row[f"{side}text"] == f"{row['prompt_id']} in {name}, {k}"
            if not known(values):
                assert k == next(i for i, v in enumerate(values) if v != "error")
                continue
            middle = mean(values)
            off = {i: round(abs(v - middle), 9) for i, v in enumerate(values) if v in known(values)}
            nearest = [i for i, far in off.items() if far == min(off.values())]
            direction = way * np.sign(row["diff"]) if abs(row["diff"]) > 1e-12 else 0
            pull = 0 if np.isnan(direction) else direction
            best = max(pull * values[i] for i in nearest)
            assert k == next(i for i in nearest if pull * values[i] == best)
            np.testing.assert_equal(row[f"{side}shown_score"], float(values[k]))


def test_prompts_come_in_the_order_of_the_set():
    """The order of the rows is that of the prompt set, whatever that of the answers."""
    scores = {c: {p: [1] for p in PROMPTS} for c in "ab"}
    table = changes(paired_run(scores, order=["p2", "p0", "p3", "p1"]), "b")
    assert table["prompt_id"].tolist() == ["p2", "p0", "p3", "p1"]


def test_split_and_repeat_choose_rows():
    """A split takes its prompts only; a repeat takes that draw, and the only one of a cell that cannot vary."""
    scores = {"a": {"p0": [0], "p1": [1]}, "b": {"p0": [0, 1], "p1": [1, 0]}}
    run = paired_run(scores, splits={"p1": "confirm"})
    assert changes(run, "b", split="confirm")["prompt_id"].tolist() == ["p1"]
    table = changes(run, "b", repeat=1)
    assert table["change"].tolist() == ["better", "worse"]
    assert table["repeat"].tolist() == [1, 1]
    assert table["baseline_repeat"].tolist() == [0, 0]


def test_a_cell_beside_itself_did_not_change():
    """Comparing a cell with itself gives every prompt, unchanged."""
    table = changes(paired_run({"a": {"p0": [0, 1], "p1": [None]}}), "a", "a")
    assert table["change"].tolist() == ["same", "unscored"]
    assert table["text"].tolist() == table["baseline_text"].tolist()


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}], "Hi"),
        ([{"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "image"}]}], "A"),
        ([{"role": "system", "content": "Be brief."}], "Be brief."),
        ([], ""),
    ],
)
def test_the_question_is_the_last_user_message(messages, text):
    """Text parts are joined, other parts left out; without a user the last message stands in."""
    assert question(Prompt("a", tuple(messages))) == text


def test_the_question_of_a_prompt_for_templates():
    """A prompt that has only variables shows them."""
    assert question(Prompt("a", (), vars={"city": "Köln"})) == '{"city": "Köln"}'


@pytest.mark.parametrize(
    ("target", "text"),
    [("5", "5"), (5, "5"), (None, None), (["é", 1], '["é", 1]'), ({"a": True}, '{"a": true}')],
)
def test_targets_as_text(target, text):
    """Texts stay, other values become JSON."""
    assert target_text(Prompt("a", ({"role": "user", "content": "x"},), target)) == text


def test_the_question_is_the_one_that_was_asked():
    """A cell's own wording is shown; the baseline's too, where it differs; a run that cannot tell shows the prompt."""

    def worded(cell: str, prompt_id: str) -> Prompt:
        said = f"{prompt_id} by {cell}" if cell != "c" else f"{prompt_id} by b"
        return Prompt(prompt_id, ({"role": "user", "content": said},))

    run = paired_run({c: {p: [1] for p in PROMPTS} for c in "abc"})
    assert changes(run, "b")["question"].iloc[0] == "Question p0?"
    run = replace(run, worded=worded)
    table = changes(run, "b")
    assert table["question"].tolist() == [f"{p} by b" for p in PROMPTS]
    assert table["baseline_question"].tolist() == [f"{p} by a" for p in PROMPTS]
    assert changes(run, "c", "b")["baseline_question"].isna().all()


def test_of_a_real_run(tmp_path):
    """On a run directory, cells go by label, and counts agree with the summary's difference."""
    run = Run(big_run(tmp_path / "run", n_cells=3, n_prompts=40, confirm=0.3))
    name = run.cells.label[1]
    table = changes(run, name, split="select")
    summary = run.summary().set_index("cell_id")
    assert len(table) == summary.loc[run.cell_id(name), "n_prompts"]
    np.testing.assert_allclose(
        table["diff"].mean(), summary.loc[run.cell_id(name), "diff_vs_baseline"]
    )
    assert set(changes(run, name)["split"]) == {"select", "confirm"}
    assert table["group"].notna().any()
    assert pd.api.types.is_string_dtype(table["target"])
    with pytest.raises(StoreError) as caught:
        changes(run, "nothing")
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: no cell 'nothing'; cells: {', '.join(run.cells.label)}"
    )
