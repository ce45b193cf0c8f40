"""Scorers that judge several answers together: asked for whole prompts, completed by running again, never fatal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from studies import SMALL, Stopping, never, sums

from workbench import api, judging, stats
from workbench.engines.scripted import ScriptedEngine
from workbench.records import Generation, Score
from workbench.scorers import score_generation
from workbench.scorers.together import Asked, JudgesTogether, Means
from workbench.store import RunStore
from workbench.study import Study
from workbench.tuning import tune

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from workbench.prompts import Prompt
    from workbench.records import Request

PASS: Any = {"pass_at_k": {"k": 2, "scorer": "contains"}}


@dataclass
class Judge:
    """Judges with a function; remembers what it was asked."""

    judge: Callable[[Sequence[Asked], Means], Any] = lambda asked, _: [Score(1.0)] * len(asked)
    name: str = "together"
    version: str = "1"
    needs_engine: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    calls: list[list[Asked]] = field(default_factory=list)
    means: Means | None = None

    def score(self, text: str, prompt: Prompt) -> Score:
        """Must not be called."""
        raise AssertionError(f"called for {prompt.id}: {text}")

    def judge_together(self, asked: Sequence[Asked], means: Means) -> Any:
        """Note the call, and judge."""
        self.calls.append(list(asked))
        self.means = means
        return self.judge(asked, means)


class Failing(ScriptedEngine):
    """Fails some requests."""

    def __init__(self, *keys: tuple[str, int]) -> None:
        super().__init__()
        self.keys = keys

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer, or fail where it is to fail."""
        for request in requests:
            if (request.prompt_id, request.repeat) in self.keys:
                yield Generation.failed(request, "boom")
            else:
                yield from super().generate([request])


def study(*scorers: Any, n: int = 6, **changes: Any) -> Study:
    """A small study: greedy, and four warm cells with two repeats."""
    values = SMALL | {"prompts": sums(n), "latency": False, "scorers": list(scorers)} | changes
    return Study(**values)


def run(out: Path, declared: Study, engine: Any = None, **options: Any) -> api.Run:
    """Run it quietly."""
    options = {"progress": False, "say": lambda _: None} | options
    return api.run(declared, engine, out, **options)


def values(done: api.Run, scorer: str) -> dict[tuple[str, str, int], float]:
    """Key to score."""
    table = done.scores[done.scores["scorer"].eq(scorer)]
    columns = table[["cell_id", "prompt_id", "repeat", "value"]]
    return {tuple(row[:3]): row[3] for row in columns.itertuples(index=False)}


def drop_scores(done: api.Run, where: str) -> None:
    """Take scores out of a record."""
    with RunStore.open(done.path, write=True) as store, store._transaction() as db:
        db.execute(f"DELETE FROM scores WHERE {where}")


def test_all_answers_to_a_prompt_come_together(tmp_path: Path) -> None:
    """In the order of the record, as each cell words the prompt, with the engine and the baseline."""
    judge, engine = Judge(needs_engine=True), ScriptedEngine()
    wordings = {"plain": None, "loud": "{{ input }}!"}
    declared = study(judge, "contains", templates=wordings, n=3)
    done = run(tmp_path, declared, engine)
    (call,) = judge.calls
    keys = [a.generation.key for a in call]
    table = done.generations[["cell_id", "prompt_id", "repeat"]]
    assert keys == [tuple(row) for row in table.itertuples(index=False)]
    assert judge.means == Means(engine, done.manifest["baseline"])
    for a in call:
        assert a.cell.cell_id == a.generation.cell_id
        assert a.prompt == done.plan.prompt(*a.generation.key[:2])
        assert a.prompt.messages[-1]["content"].endswith("!") == (a.cell.template == "loud")
        assert a.generation.prompt
        assert a.generation.token_ids
    assert len(values(done, "together")) == len(values(done, "contains")) == len(keys)
    assert [s["name"] for s in done.manifest["scorers"]] == ["together", "contains"]


def test_prompts_are_taken_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk holds whole prompts, and ends with the one that fills it."""
    monkeypatch.setattr(judging, "CHUNK_ROWS", 12)  # 9 rows a prompt
    judge = Judge()
    run(tmp_path, study(judge, n=5))
    assert [len(call) for call in judge.calls] == [18, 18, 9]
    chunks = [{a.prompt.id for a in call} for call in judge.calls]
    assert chunks == [{"p0", "p1"}, {"p2", "p3"}, {"p4"}]


def test_the_runs_own_kind_of_scorer_is_not_touched(tmp_path: Path) -> None:
    """Scores of row scorers are the same with and without one that judges together."""
    alone = run(tmp_path / "a", study("numeric", "contains"))
    both = run(tmp_path / "b", study(PASS, "numeric", Judge(), "contains"))
    for name in ("numeric", "contains"):
        assert values(alone, name) == values(both, name)


def test_one_row_is_never_put_to_it() -> None:
    """Scoring one answer says so instead of calling it."""
    judge = Judge()
    assert isinstance(judge, JudgesTogether)
    row = Generation("c", "p", 0, "text", (1,), 1, "stop")
    found = score_generation(judge, row, None)  # type: ignore[arg-type]
    assert found == Score(None, reason="scorer together judges several answers together")


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        (lambda *_: 1 / 0, "scorer together failed: ZeroDivisionError: division by zero"),
        (lambda *_: [], "scorer together gave 0 scores for 18 answers"),
        (lambda *_: None, "scorer together failed: TypeError: 'NoneType' object is not iterable"),
        (
            lambda asked, _: [Score(1.5)] * len(asked),
            "scorer together gave 1.5; a score is between 0 and 1",
        ),
        (
            lambda asked, _: [Score(float("nan"))] * len(asked),
            "scorer together gave nan; a score is between 0 and 1",
        ),
        (lambda asked, _: [0.5] * len(asked), "scorer together gave 0.5, which is no Score"),
        (lambda asked, _: [Score(None)] * len(asked), "not scored"),
    ],
)
def test_a_broken_scorer_costs_its_own_scores(tmp_path: Path, judge: Any, reason: str) -> None:
    """Every answer is unscored with the reason; the run is finished and the others' scores are there."""
    done = run(tmp_path, study(Judge(judge), "contains", n=2))
    assert done.status == "finished"
    table = done.scores[done.scores["scorer"].eq("together")]
    assert table["value"].isna().all()
    assert table["reason"].unique().tolist() == [reason]
    assert len(table) == len(values(done, "contains")) == 18


def test_a_chunk_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the answers of the chunk that broke have no score."""
    monkeypatch.setattr(judging, "CHUNK_ROWS", 1)

    def picky(asked: Sequence[Asked], _: Means) -> list[Score]:
        if asked[0].prompt.id == "p1":
            raise ValueError("not this one")
        return [Score(0.5)] * len(asked)

    done = run(tmp_path, study(Judge(picky), n=3))
    found = values(done, "together")
    assert {p for (_, p, _), value in found.items() if np.isnan(value)} == {"p1"}


def test_an_interrupted_judge_is_completed_by_running_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while judging: what was judged is kept, the next call asks no model and judges the rest."""
    monkeypatch.setattr(judging, "CHUNK_ROWS", 1)

    def stop(asked: Sequence[Asked], _: Means) -> list[Score]:
        if asked[0].prompt.id == "p2":
            raise KeyboardInterrupt
        return [Score(1.0)] * len(asked)

    first = run(tmp_path, study(Judge(stop)))
    assert first.status == "interrupted"
    assert {p for _, p, _ in values(first, "together")} == {"p0", "p1"}
    rest = Judge()
    second = run(tmp_path, study(rest), never())
    assert (second.path, second.status) == (first.path, "finished")
    assert [call[0].prompt.id for call in rest.calls] == ["p2", "p3", "p4", "p5"]
    assert len(values(second, "together")) == len(second.generations)
    third = Judge()
    run(tmp_path, study(third), never())
    assert third.calls == []


def test_a_finished_run_without_its_scores_is_completed(tmp_path: Path) -> None:
    """Only prompts that lack some are judged again, all their answers together."""
    whole = run(tmp_path, study(PASS, "contains"))
    before = values(whole, "pass_at_k")
    drop_scores(whole, "scorer = 'pass_at_k' AND prompt_id = 'p3' AND repeat = 1")
    assert len(values(api.Run(whole.path), "pass_at_k")) < len(before)
    said: list[str] = []
    again = run(tmp_path, study(PASS, "contains"), never(), say=said.append)
    assert again.path == whole.path
    assert values(again, "pass_at_k") == before
    assert said == [
        f"{whole.path}: continuing, 54 of 54 rows done",
        f"{whole.path}: done, 54 rows",
    ]


def test_another_version_does_not_open_a_finished_run(tmp_path: Path) -> None:
    """As for row scorers: it is said, and `workbench score` is what judges again."""
    done = run(tmp_path, study(Judge()))
    newer, said = Judge(version="2"), list[str]()
    run(tmp_path, study(newer), never(), say=said.append)
    assert newer.calls == []
    assert said[-1] == (
        f"{done.path}: scorer together was version 1 and is 2 now; `workbench score` judges the answers again"
    )


def test_a_retried_row_makes_its_prompt_be_judged_again(tmp_path: Path) -> None:
    """A failed row has no score from it; answered at last, it changes what its prompt's repeats share."""
    contains = {"pass_at_k": {"k": 2, "scorer": {"length": {"min": 1}}}}
    first = run(tmp_path, study(contains), Failing(("p1", 1)))
    assert first.status == "failed rows"
    warm = {c.cell_id for c in first.plan.cells if c.rows(2) == 2}
    found = values(first, "pass_at_k")
    assert {key for key, value in found.items() if np.isnan(value)} == {(c, "p1", 0) for c in warm}
    assert all((c, "p1", 1) not in found for c in warm)
    second = run(tmp_path, study(contains))
    assert second.status == "finished"
    found = values(second, "pass_at_k")
    assert len(found) == 54
    assert set(found.values()) == {1.0}


def test_a_resumed_run_is_judged_like_one_that_was_not_cut(tmp_path: Path) -> None:
    """Cut in the middle of a prompt, the scores in the end are those of a run in one go."""
    cut = Stopping(ScriptedEngine(), KeyboardInterrupt(), answers=25)
    assert run(tmp_path / "a", study(PASS), cut).status == "interrupted"
    resumed = run(tmp_path / "a", study(PASS))
    assert values(resumed, "pass_at_k") == values(run(tmp_path / "b", study(PASS)), "pass_at_k")


def test_how_far_it_is_is_said_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bar a line comes after a while; here after every chunk."""
    monkeypatch.setattr(judging, "CHUNK_ROWS", 20)
    monkeypatch.setattr(judging, "TICK_S", 0.0)
    said: list[str] = []
    run(tmp_path, study(Judge()), say=said.append)
    assert said[1:-1] == [
        "together: 3 of 6 prompts judged",
        "together: 6 of 6 prompts judged",
    ]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_repeats_that_share_a_score_are_no_independent_answers(tmp_path: Path, k: int) -> None:
    """Quality, its interval and the difference are those of one value a prompt, not of one a repeat."""
    spec = {"pass_at_k": {"k": k, "scorer": "contains"}}
    grid = {"temperature": [0.7, 1.3]}
    done = run(tmp_path, study(spec, n=24, grid=grid, repeats=4, fixed={"max_tokens": 20}))
    once = done.scores.drop_duplicates(["cell_id", "prompt_id"]).rename(columns={"value": "score"})
    table = stats.prompt_means(once)
    assert not table.binary.any()
    lo, hi = table.interval()
    summary = done.summary().set_index("cell_id").loc[list(table.cells)]
    assert summary["quality"].tolist() == pytest.approx(table.quality.tolist())
    assert summary["quality_lo"].tolist() == pytest.approx(lo.tolist())
    assert summary["quality_hi"].tolist() == pytest.approx(hi.tolist())
    versus = stats.paired_difference(table, done.manifest["baseline"], np.random.default_rng(0))
    versus = versus.set_index("cell_id").loc[list(table.cells)]
    for ours, theirs in (("diff_vs_baseline", "diff"), ("diff_lo",) * 2, ("diff_hi",) * 2):
        pd.testing.assert_series_equal(summary[ours], versus[theirs], check_names=False)
    assert summary["n_scored"].tolist() == [96, 96]


def test_a_race_counts_scores_that_answers_share(tmp_path: Path) -> None:
    """The primary scorer of a race may judge together: each block is judged before cells leave."""
    rows = [{"id": f"p{i}", "prompt": f"Say {i}", "target": i % 10} for i in range(40)]
    grid = {"temperature": [0.2, 1.0, 2.0]}
    declared = study(PASS, prompts=rows, grid=grid, split={"confirm": 0.3})
    tuned = tune(declared, ScriptedEngine(), tmp_path, progress=False, say=lambda _: None)
    means = tuned.run.scores.groupby(["cell_id", "prompt_id"])["value"].first()
    for standing in tuned.race.standing():
        raced = tuned.run.scores[tuned.run.scores["split"].eq("select")]
        mine = means[standing.cell][raced["prompt_id"].unique()[: standing.n_prompts]]
        assert standing.n_prompts >= 10
        assert standing.mean == pytest.approx(mine.mean())
    assert Counter(tuned.run.scores["scorer"]) == {"pass_at_k": len(tuned.run.generations)}
