"""Measures: columns of the summary with their units, and the rows and cells they are about."""

from __future__ import annotations

import pytest
from fakeruns import make_run

from workbench import analysis
from workbench.errors import WorkbenchError
from workbench.measures import (
    MEASURES,
    baseline_cell,
    check_level,
    failed_rows,
    measure,
    rows_of,
)

RUN = make_run(n_prompts=30, confirm=0.4)
"""Fourteen cells; some prompts held out."""


def test_rows_are_those_of_the_summary():
    """With prompts held out only the others count; without, all."""
    held = RUN.generations["split"].eq("confirm")
    assert held.any()
    assert len(rows_of(RUN, ["prompt_id"])) == (~held).sum()
    assert list(rows_of(RUN, ["prompt_id", "no_such"]).columns) == ["prompt_id"]
    run = make_run(n_prompts=3, repeats=1)
    assert len(rows_of(run, ["prompt_id"])) == len(run.generations)


def test_measures_cover_the_summary():
    """Each named measure is a column of the summary, and has a unit."""
    assert set(MEASURES) <= set(analysis.SUMMARY_COLUMNS)
    assert all(m.unit for m in MEASURES.values())
    assert measure("n_failed", ["n_failed"]).axis == "n failed"


def test_differences_have_signs():
    """How far one value is from another, in the measure's unit; what rounds to nothing is 0."""
    assert MEASURES["quality"].apart(-0.0207) == "\u22122.1"
    assert MEASURES["quality"].apart(0.0207) == "+2.1"
    assert MEASURES["quality"].apart(-0.0001) == "0"
    assert MEASURES["e2el_ms_p50"].apart(1234.4) == "+1,234"


def test_what_is_no_measure_is_refused():
    """A column that is not there, and a baseline that is not."""
    with pytest.raises(WorkbenchError) as caught:
        measure("qualty")
    assert str(caught.value) == "unknown value 'qualty', did you mean 'quality'?"
    with pytest.raises(WorkbenchError) as caught:
        baseline_cell(RUN.cells, "nobody")
    assert str(caught.value).startswith("no cell 'nobody'; cells: greedy, greedy rep=1.1, ")
    assert baseline_cell(RUN.cells) == baseline_cell(RUN.cells, RUN.cell_id())


def test_a_summary_has_the_intervals_it_was_made_with():
    """Another level needs the rows; a summary that was made with another says so itself."""
    table = RUN.summary()
    check_level(table, 0.95)
    with pytest.raises(WorkbenchError) as caught:
        check_level(table, 0.5)
    said = (
        "level must be 0.95, that of the summary's intervals, got 0.5; give the run for any other"
    )
    assert str(caught.value) == said
    half = analysis.summary(
        RUN.generations, RUN.scores, None, RUN.cells, primary="numeric", level=0.5, n_boot=10
    )
    check_level(half, 0.5)
    with pytest.raises(WorkbenchError, match=r"^level must be 0\.5, "):
        check_level(half, 0.95)


def test_only_a_summary_hides_which_rows_failed():
    """A run tells which prompts failed, a summary only how many rows."""
    table = RUN.summary()
    assert not failed_rows(table)
    assert failed_rows(table.assign(n_failed=1))
    assert not failed_rows(RUN)
