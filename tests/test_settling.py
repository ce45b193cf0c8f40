"""What would settle a comparison is said where it is open, by the numbers of `stats.needed`, and only there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fakeruns import make_run
from test_analysis import make_cells, make_rows

from workbench import analysis, stats
from workbench.settling import TOO_FEW, of_summary, settling

if TYPE_CHECKING:
    import pandas as pd


def rows(values: dict[str, list[float]], **columns: object) -> pd.DataFrame:
    """Scored answers as `analysis.frame` gives them."""
    generations, scores = make_rows(values)
    tidy = analysis.frame(generations, scores, make_cells(*values))
    return tidy.assign(**columns)


OPEN = {"a": [1.0, 0.0] * 20, "b": [1.0, 0.0] * 18 + [1.0] * 4}


def test_an_open_difference_has_its_number() -> None:
    """The sentence is the short one of the planner, for the comparisons there are."""
    tidy = rows(OPEN)
    found = settling(tidy, "b", "a", 3)
    assert found == stats.needed(tidy, "b", "a", comparisons=3).short
    assert found != settling(tidy, "b", "a")
    assert found.endswith(" more prompts would settle the 5 points seen (80 % power).")


@pytest.mark.parametrize("groups", [False, True])
def test_too_few_are_called_so(groups: bool) -> None:
    """Below five prompts, or five groups of them, nothing is estimated."""
    n = 40 if groups else 4
    tidy = rows({c: v[:n] for c, v in OPEN.items()})
    if groups:
        tidy["group"] = "g" + (tidy["prompt_id"].str[1:].astype(int) % 4).astype(str)
    assert settling(tidy, "b", "a") == TOO_FEW


def test_without_a_shared_prompt_nothing_is_said() -> None:
    """Nor where one of the two has no score."""
    tidy = rows(OPEN)
    assert settling(tidy[tidy["cell_id"].eq("a")], "b", "a") is None
    apart = tidy[tidy["cell_id"].eq("a") == tidy["prompt_id"].eq("p0")]
    assert settling(apart, "b", "a") is None


def test_a_summary_asks_only_where_it_is_open() -> None:
    """A cell that surely wins, and a baseline that nothing beats, need no more prompts."""
    sure = make_run(right=lambda c: 0.95 if c.params.temperature == 0 else 0.2)
    assert of_summary(sure, sure.summary()) is None
    top = sure.summary()
    top["quality"] = top["quality"].where(top["cell_id"].eq(sure.cell_id()), 0.0)
    assert of_summary(sure, top) is None
    alike = make_run(right=lambda _: 0.5)
    table = alike.summary()
    said = of_summary(alike, table)
    best = analysis.ranked(table, alike.cell_id()).index[0]
    tidy = analysis.frame(alike.generations, alike.scores, alike.cells, alike.primary)
    n = int(table["p_adjusted"].notna().sum())
    assert said == settling(tidy, best, alike.cell_id(), n)
    assert said is not None
    text = analysis.answer_in_words(table, alike.cells, needed=said)
    assert said in text.splitlines()
