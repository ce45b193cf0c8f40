"""Scoring a run again: no model, old scores kept, the manifest tells who judged when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from studies import N_ROWS, SMALL, never, sums

from workbench import api, rescoring
from workbench.errors import ScorerError, StoreError
from workbench.scorers import get_scorer
from workbench.store import RunStore
from workbench.study import Study

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def done(tmp_path: Path) -> api.Run:
    """A finished run of 54 rows, scored by numeric."""
    study = Study(**(SMALL | {"prompts": sums(6), "latency": False}))
    return api.run(study, out=tmp_path, progress=False, say=lambda _: None)


def again(run: api.Run, *scorers: Any, **options: Any) -> api.Run:
    """Score without a bar."""
    return api.score(run, scorers, progress=False, **options)


def test_another_scorer_is_added(done: api.Run) -> None:
    """Its scores stand beside the old ones; the primary stays what it was."""
    before = done.scores
    after = again(done, "contains")
    assert after.scores.groupby("scorer").size().to_dict() == {
        "numeric": N_ROWS,
        "contains": N_ROWS,
    }
    kept = after.scores[after.scores.scorer == "numeric"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, before)
    assert (after.primary, [s["name"] for s in after.manifest["scorers"]]) == (
        "numeric",
        ["numeric", "contains"],
    )
    pd.testing.assert_frame_equal(after.summary(), done.summary())


def test_scores_are_those_of_the_first_scoring(done: api.Run) -> None:
    """Scoring with the run's own scorer again changes no value."""
    again(done, "numeric")
    columns = ["cell_id", "prompt_id", "repeat", "scorer_version", "value", "answer"]
    pd.testing.assert_frame_equal(api.Run(done.path).scores[columns], done.scores[columns])


def test_other_options_are_another_version(done: api.Run) -> None:
    """Both versions stay; the later one counts, and so does the earlier once it judges again."""
    strict = {"numeric": {"pick": "first"}}
    after = again(done, strict)
    versions = after.scores["scorer_version"].unique()
    plain = get_scorer("numeric").version
    assert len(versions) == 2
    assert set(versions) > {plain}
    (entry,) = after.manifest["scorers"]
    assert entry["options"] == {"pick": "first"}
    assert entry["version"] == next(v for v in versions if v != plain)
    latest = after.scores[after.scores.scorer_version == entry["version"]]
    means = latest.groupby(["cell_id", "prompt_id"])["value"].mean().groupby("cell_id").mean()
    quality = after.summary().set_index("cell_id")["quality"]
    assert quality.to_dict() == pytest.approx(means.to_dict())
    back = again(after, "numeric").summary()["quality"]
    assert back.tolist() == pytest.approx(done.summary()["quality"].tolist())


def test_the_primary_can_change(done: api.Run) -> None:
    """The named scorer is the primary metric from then on, in the summary and the answer."""
    after = again(done, "exact", primary="exact")
    assert after.primary == "exact"
    exact = after.scores[after.scores.scorer == "exact"]
    by_cell = exact.groupby(["cell_id", "prompt_id"])["value"].mean().groupby("cell_id").mean()
    quality = after.summary().set_index("cell_id")["quality"]
    assert quality.to_dict() == pytest.approx(by_cell.to_dict())
    assert api.score(after, ["numeric"], primary="numeric", progress=False).primary == "numeric"


def test_no_model_is_asked(done: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring loads no engine."""
    monkeypatch.setattr(api, "engine_for", never)
    monkeypatch.setattr(api, "load_engine", never)
    assert len(again(done, "exact").scores) == 2 * N_ROWS


def test_the_manifest_tells_who_judged_when(done: api.Run) -> None:
    """Every call is an event with its scorers, their versions and the packages."""
    after = again(again(done, "exact"), "contains")
    events = after.manifest["rescored"]
    assert [[s["name"] for s in e["scorers"]] for e in events] == [["exact"], ["contains"]]
    assert all(e["scored_utc"].endswith("Z") and "awq-workbench" in e["packages"] for e in events)


def test_failed_rows_stay_unscored_and_are_said(done: api.Run) -> None:
    """A row without an answer gets no value, and the reason is told once."""
    with RunStore.open(done.path, write=True) as store:
        store._db.execute(
            "UPDATE generations SET finish_reason = 'error', error = 'boom' WHERE prompt_id = 'p1'"
        )
    told: list[str] = []
    after = again(api.Run(done.path), "exact", say=told.append)
    exact = after.scores[(after.scores.scorer == "exact") & (after.scores.prompt_id == "p1")]
    assert exact["value"].isna().all()
    assert told == ["exact: 9 of 54 answers have no score (not generated: boom)"]


def test_bad_names_change_nothing(done: api.Run) -> None:
    """Unknown scorers and primaries are refused before anything is judged."""
    for scorers, options, said in (
        (["nope"], {}, "nope"),
        ([], {}, "name at least one scorer"),
        (
            ["exact"],
            {"primary": "regex"},
            "primary must be one of numeric, exact, got 'regex'",
        ),
    ):
        with pytest.raises(ScorerError) as caught:
            again(done, *scorers, **options)
        assert said in str(caught.value)
    assert api.Run(done.path).manifest == done.manifest


def test_a_run_in_use_is_refused(done: api.Run) -> None:
    """Another writer is named."""
    with RunStore.open(done.path, write=True), pytest.raises(StoreError) as caught:
        again(done, "exact")
    assert "is writing this run" in str(caught.value)


def test_rows_are_judged_in_chunks(done: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told chunk by chunk, and every row is judged once."""
    monkeypatch.setattr(rescoring, "_CHUNK_ROWS", 20)
    steps: list[int] = []
    result = rescoring.rescore(done.path, done.prompt, [get_scorer("exact")], on_rows=steps.append)
    assert (steps, result.n_rows) == ([20, 20, 14], N_ROWS)
