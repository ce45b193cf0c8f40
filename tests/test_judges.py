"""What a run says of its judge: from its record alone, in the summary's words and the report's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from studies import study_file

import workbench as wb
from workbench import judges
from workbench.engines.scripted import ScriptedEngine
from workbench.reporting import facts, limitations

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.records import Request

LINE = (
    "Judge: 100 % of 32 verdicts could be read; order swapped: 0 % of 16 agree, first place favoured in 100 % of 32; "
    "it is the model that answered, and models favour themselves."
)


def table(*recorded: str | None, scorer: str = "judge") -> pd.DataFrame:
    """A scores table."""
    return pd.DataFrame({"scorer": [scorer] * len(recorded), "answer": list(recorded)})


def manifest(**entry: Any) -> dict[str, Any]:
    """A manifest with one scorer."""
    return {"scorers": [{"name": "judge", "options": {}} | entry], "engine": {"model": "demo"}}


def test_a_run_without_a_judge_has_no_line():
    """Whatever its other scorers record."""
    other = manifest(name="exact")
    assert judges.judged(table("4", scorer="exact"), other) is None
    assert judges.in_words(table("4"), other) is None
    assert judges.in_words(table("4"), {"scorers": None}) is None
    assert judges.judges_itself(other) is False


def test_the_line_counts_only_what_was_put_to_the_judge():
    """Other scorers' answers, and rows without a record, are left out."""
    scores = pd.concat([table("4", "?", None), table("x", scorer="exact")])
    found = judges.judged(scores, manifest())
    assert found is not None
    assert (found.n_answers, found.n_verdicts, found.n_read) == (2, 2, 1)


@pytest.mark.parametrize(
    ("options", "itself"),
    [({}, True), ({"model": None}, True), ({"model": "demo"}, True), ({"model": "wise"}, False)],
)
def test_a_judge_that_is_the_judged_model_is_told(options, itself):
    """By default it is; another model is not."""
    found = manifest(options=options)
    assert judges.judges_itself(found) is itself
    own = "; it is the model that answered, and models favour themselves" if itself else ""
    assert judges.in_words(table("4", "5", "?"), found) == (
        f"Judge: 67 % of 3 verdicts could be read{own}."
    )


def biased(request: Request) -> str | None:
    """A judge that always takes the first answer; every cell has answers of its own."""
    own = f"It is {request.cell_id}." if request.prompt_id.startswith("p") else None
    return "Verdict: A" if request.cell_id == "judge" else own


def test_the_figures_reach_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study with a judge: its line is in the answer in words and among the limits of the report, and needs no model."""
    monkeypatch.chdir(tmp_path)
    path = study_file(
        tmp_path,
        n_prompts=4,
        grid={"temperature": [0, 0.7, 1.3]},
        scorers=["contains", {"judge": {"mode": "pairwise"}}],
        latency=False,
        baseline={"temperature": 0},
        repeats=2,
    )
    engine = ScriptedEngine(responses=biased)
    wb.run(path, engine, "results", progress=False, say=lambda _: None)
    engine.close()
    run = wb.open_run("latest")
    verdicts = run.scores[run.scores["scorer"].eq("judge")]
    base = verdicts["cell_id"].eq(run.manifest["baseline"])
    assert set(verdicts["value"]) == {0.5}
    assert verdicts.loc[base, "answer"].isna().all()
    assert set(verdicts.loc[~base, "answer"]) == {"A/A"}
    assert judges.in_words(run.scores, run.manifest) == LINE
    assert run.answer(width=None).splitlines()[-1] == LINE
    assert ("The judge.", LINE) in limitations.listing(facts.Facts(run))
