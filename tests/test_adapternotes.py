"""What is told of an adapter wherever its scores are: what it was trained on, and whether it acts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pairedruns import paired_run
from test_trained_on import ASKED, engine_with, record, run

from workbench import comparing
from workbench.adapternotes import notes

if TYPE_CHECKING:
    from pathlib import Path

FACTS = {
    "trained_on": {"own": ["p1", "p2"], "one": ["p1"], "clean": [], "found": None},
    "engine": {"extra": {"adapters": {"idle": {"inert": True}, "own": {"inert": False}}}},
}


@pytest.mark.parametrize(
    ("name", "prompts", "said"),
    [
        ("base", None, []),
        ("clean", None, []),
        (
            "own",
            None,
            [
                "own was trained on 2 prompts of this run: how it answers them says nothing of others."
            ],
        ),
        (
            "one",
            None,
            [
                "one was trained on 1 prompt of this run: how it answers them says nothing of others."
            ],
        ),
        (
            "own",
            {"p2", "p3"},
            ["own was trained on 1 of these prompts: how it answers them says nothing of others."],
        ),
        ("own", {"p3"}, []),
        (
            "found",
            None,
            ["found has no record of its training: these prompts may have been part of it."],
        ),
        ("idle", None, ["idle changes nothing: it is as good as no adapter."]),
    ],
)
def test_notes(name: str, prompts: set[str] | None, said: list[str]) -> None:
    """A sentence for each thing to know, none where there is nothing; of the prompts that are judged."""
    assert notes(FACTS, [name, name], prompts) == said


def test_without_a_record() -> None:
    """A run that recorded nothing of adapters tells nothing."""
    assert notes({}, ["base", "own"]) == []


def test_told_by_summary_and_comparisons(tmp_path: Path) -> None:
    """The summary, two cells side by side, and adapters compared say it, the trained one being the baseline or not."""
    folder = record(tmp_path / "formal", [ASKED[2], ASKED[5]])
    done = run(engine_with(folder), tmp_path / "out", allow_overlap=True)
    said = (
        "formal was trained on 2 prompts of this run: how it answers them says nothing of others."
    )
    assert said in done.answer(width=None)
    assert said in comparing.by_adapter(done, "formal").text
    assert said in comparing.by_adapter(done, "base").text
    cell = done.cells.loc[done.cells["adapter"].eq("formal"), "cell_id"].iloc[0]
    here = "formal was trained on 2 of these prompts: how it answers them says nothing of others."
    assert comparing.compare(done, cell).notes == (here,)
    assert here in comparing.compare_runs(done, done, done.cell_id(), cell).notes


def test_no_record_in_a_comparison_of_adapters(tmp_path: Path) -> None:
    """That nothing is known of its training is told of an adapter, too."""
    folder = record(tmp_path / "formal", ASKED, "b" * 64)
    found = comparing.by_adapter(run(engine_with(folder), tmp_path / "out"), "base")
    assert found.no_record == ("formal",)
    assert "formal has no record of its training" in found.text


def test_nothing_of_the_base_model() -> None:
    """Two cells without adapters have no such notes."""
    tables = paired_run({"base": {"p0": [0], "p1": [1]}, "a": {"p0": [1], "p1": [1]}})
    assert comparing.compare(tables, "a").notes == ()
