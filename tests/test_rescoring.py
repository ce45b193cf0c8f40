"""Scoring a run again: no model, old scores kept, the manifest tells who judged when."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from commands import Command, workbench
from studies import N_ROWS, SMALL, Stopping, never, study_file, sums

from workbench import api, judging, rescoring
from workbench.engines.scripted import ScriptedEngine
from workbench.errors import ScorerError, StoreError
from workbench.records import Score
from workbench.scorers import base, get_scorer
from workbench.scorers.together import Means
from workbench.store import RunStore, ScoreRow
from workbench.study import Study

__all__ = ["workbench"]

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


def worded(run: api.Run) -> judging.Worded:
    """Its cells and prompts."""
    return judging.Worded(run.plan.cells, run.prompt)


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
    versions = after.all_scores["scorer_version"].unique()
    assert len(after.scores["scorer_version"].unique()) == 1
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


def test_progress_is_told_row_by_row(done: api.Run) -> None:
    """Every row is judged once, and counted."""
    steps: list[int] = []
    result = rescoring.rescore(
        done.path, worded(done), [get_scorer("exact")], Means(), on_rows=steps.append
    )
    assert (sum(steps), result.n_rows) == (N_ROWS, N_ROWS)


def test_a_call_cut_short_changes_nothing(done: api.Run) -> None:
    """Never a mixture of two judges: all of the new scores, or none."""
    before = done.summary()

    def stop(_: int, seen: list[int] = []) -> None:  # noqa: B006 - a counter of this test
        seen.append(1)
        if len(seen) == 20:
            raise KeyboardInterrupt

    strict = get_scorer({"numeric": {"pick": "first"}})
    with pytest.raises(KeyboardInterrupt):
        rescoring.rescore(done.path, worded(done), [strict], Means(), on_rows=stop)
    after = api.Run(done.path)
    assert len(after.scores) == N_ROWS
    assert after.manifest == done.manifest
    pd.testing.assert_frame_equal(after.summary(), before)


def test_scores_without_their_manifest_do_not_count(done: api.Run) -> None:
    """Killed between the scores and the manifest: the judge that the manifest names still counts alone."""
    key = tuple(done.scores.loc[0, ["cell_id", "prompt_id", "repeat"]])
    with RunStore.open(done.path, write=True) as store:
        store.add_scores([ScoreRow((key[0], key[1], int(key[2])), "numeric", "99", Score(1.0))])
    after = api.Run(done.path)
    pd.testing.assert_frame_equal(after.scores, done.scores)
    pd.testing.assert_frame_equal(after.summary(), done.summary())
    assert len(after.all_scores) == N_ROWS + 1


def test_a_run_continued_with_another_judge_is_judged_alike(tmp_path: Path) -> None:
    """Rows of before and after get their scores from one version, and that is said."""
    study = Study(**(SMALL | {"prompts": sums(6), "latency": False}))
    cut = Stopping(ScriptedEngine(), KeyboardInterrupt(), answers=20)
    first = api.run(study, cut, tmp_path, progress=False, say=lambda _: None)
    again(first, {"numeric": {"pick": "first"}})
    told: list[str] = []
    whole = api.run(study, ScriptedEngine(), tmp_path, progress=False, say=told.append)
    assert whole.path == first.path
    assert len(whole.scores) == N_ROWS
    assert whole.scores["scorer_version"].unique().tolist() == [get_scorer("numeric").version]
    assert any("all answers are judged again" in line for line in told)


def test_scorers_of_one_name_are_refused(done: api.Run, tmp_path: Path) -> None:
    """Two functions of one name could not be told apart in the record; a shipped name is taken."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text("def polite(text, prompt):\n    return 1\n", "utf-8")
    with pytest.raises(ScorerError, match="two scorers are called 'polite'"):
        again(done, f"{tmp_path}/a.py:polite", f"{tmp_path}/b.py:polite")
    with pytest.raises(ScorerError, match="'contains' ships with the workbench"):
        again(done, f"{tmp_path}/a.py:contains")
    assert api.Run(done.path).manifest == done.manifest


PASS = {"pass_at_k": {"k": 2, "scorer": "contains"}}


class Modelled:
    """A scorer that needs the model: it judges by what the engine says of itself."""

    name, version, needs_engine = "modelled", "1", True

    def __init__(self, stop_at: int = 10**9) -> None:
        self.options: dict[str, Any] = {}
        self.stop_at = stop_at
        self.asked: list[str] = []

    def score(self, text: str, prompt: Any) -> Score:
        """Must not be called."""
        raise AssertionError(f"called for {prompt.id}: {text}")

    def judge_together(self, asked: Any, means: Means) -> list[Score]:
        """1 for the baseline's answers, 0 for others."""
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(asked[0].prompt.id)
        assert means.engine.info.engine == "scripted"  # type: ignore[union-attr]
        return [Score(float(a.cell.cell_id == means.baseline)) for a in asked]


def test_scores_of_answers_together_are_those_of_the_run(tmp_path: Path, done: api.Run) -> None:
    """Judged in a run, or added later: the same scores, beside those of the others."""
    study = Study(**(SMALL | {"prompts": sums(6), "latency": False, "scorers": [PASS, "numeric"]}))
    at_once = api.run(study, out=tmp_path / "at once", progress=False, say=lambda _: None)
    later = again(done, PASS, "contains")
    columns = ["cell_id", "prompt_id", "repeat", "scorer_version", "value", "explanation"]
    tables = [r.scores[r.scores.scorer == "pass_at_k"][columns] for r in (at_once, later)]
    assert len(tables[0]) == N_ROWS
    pd.testing.assert_frame_equal(*(t.reset_index(drop=True) for t in tables))
    assert later.scores.groupby("scorer").size().to_dict() == dict.fromkeys(
        ("numeric", "pass_at_k", "contains"), N_ROWS
    )


def test_failed_rows_have_no_score_together(done: api.Run) -> None:
    """They are counted among those without a score, and nothing is recorded for them."""
    with RunStore.open(done.path, write=True) as store:
        store._db.execute(
            "UPDATE generations SET finish_reason = 'error', error = 'boom' WHERE prompt_id = 'p1'"
        )
    told: list[str] = []
    after = again(api.Run(done.path), PASS, say=told.append)
    found = after.scores[after.scores.scorer == "pass_at_k"]
    assert "p1" not in set(found["prompt_id"])
    assert told == ["pass_at_k: 9 of 54 answers have no score (not generated: boom)"]


def test_a_scorer_that_needs_the_model_says_so(done: api.Run) -> None:
    """Without an engine nothing is judged; the message says how to give one."""
    with pytest.raises(ScorerError) as caught:
        again(done, "exact", Modelled())
    assert str(caught.value) == (
        "scorer modelled needs the model; load it with `workbench score RUN --with-model`, or give one: "
        "wb.score(run, [...], engine=engine)"
    )
    assert len(api.Run(done.path).all_scores) == N_ROWS


def test_a_scorer_that_needs_the_model_gets_it(done: api.Run) -> None:
    """The engine given; the manifest says which one it was."""
    after = again(done, Modelled(), engine=ScriptedEngine())
    found = after.scores[after.scores.scorer == "modelled"]
    assert found.groupby("cell_id")["value"].mean().sum() == 1.0
    assert after.manifest["rescored"][-1]["engine"]["engine"] == "scripted"
    assert "engine" not in again(after, "exact").manifest["rescored"][-1]


def test_the_engine_must_have_the_weights_of_the_run(done: api.Run) -> None:
    """Another model's opinion is not the one asked for; answers made elsewhere are judged by any."""
    other = Stopping(ScriptedEngine("other"), AssertionError())
    other.info = replace(other.info, weight_hash="another")
    with pytest.raises(StoreError) as caught:
        again(done, Modelled(), engine=other)
    assert str(caught.value) == (
        f"{done.path}: made with scripted, and the weights of other are not the same"
    )
    elsewhere = {**done.manifest["engine"], "engine": "imported", "weight_hash": None}
    with RunStore.open(done.path, write=True) as store:
        store.update_manifest(engine=elsewhere)
    assert "modelled" in set(again(api.Run(done.path), Modelled(), engine=other).scores["scorer"])


def test_what_a_model_has_judged_is_kept(done: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short, the scores do not count yet; the next call goes on, and one after that judges all again."""
    monkeypatch.setattr(judging, "CHUNK_ROWS", 1)
    with pytest.raises(KeyboardInterrupt):
        again(done, Modelled(stop_at=2), engine=ScriptedEngine())
    cut = api.Run(done.path)
    assert cut.manifest == done.manifest
    assert set(cut.scores["scorer"]) == {"numeric"}
    rest, whole = Modelled(), Modelled()
    after = again(cut, rest, engine=ScriptedEngine())
    assert rest.asked == ["p2", "p3", "p4", "p5"]
    assert len(after.scores) == 2 * N_ROWS
    again(after, whole, engine=ScriptedEngine())
    assert whole.asked == [f"p{i}" for i in range(6)]


def test_k_above_the_repeats_of_the_run_is_refused(done: api.Run) -> None:
    """Before anything is judged."""
    with pytest.raises(ScorerError) as caught:
        again(done, {"pass_at_k": {"k": 3, "scorer": "contains"}})
    assert str(caught.value) == (
        "scorer pass_at_k: k is 3, and the study asks each prompt 2 times; k must be at most its repeats"
    )


def test_the_command_loads_the_model_when_told(
    workbench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--with-model`` gives the engine of the run, closed in the end; without it the message says so."""
    run = api.run(study_file(tmp_path, latency=False), out=tmp_path, progress=False)
    engines: list[Stopping] = []

    def engine_of(*_: Any, **__: Any) -> Stopping:
        engines.append(never())
        return engines[-1]

    monkeypatch.setattr(api, "engine_of", engine_of)
    monkeypatch.setitem(base._OWN, "modelled", Modelled())  # type: ignore[misc]
    words = ["score", str(run.path), "--scorers", "modelled", "--quiet"]
    refused = workbench(*words)
    assert (refused.code, engines) == (1, [])
    assert "--with-model" in refused.err
    assert workbench(*words, "--with-model").code == 0
    assert [engine.closed for engine in engines] == [1]
    assert "modelled" in set(api.Run(run.path).scores["scorer"])
