"""The Python API: run, continue, repeat, read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from loras import write_tiny
from studies import N_CELLS, N_PROMPTS, N_ROWS, N_TIMED, SMALL, Stopping, never, study_file, sums

from workbench import api
from workbench.engines.scripted import PlantedQuality, ScriptedEngine
from workbench.errors import AdapterError, EngineError, OutOfMemory, ScorerError, StoreError
from workbench.prompts import PromptSet
from workbench.records import Score
from workbench.scorers import FunctionScorer
from workbench.store import RunStore
from workbench.study import Study

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from workbench.engines.local.engine import LocalEngine

KEY = ["cell_id", "prompt_id", "repeat"]

GENERATIONS = (
    "run_id cell_id adapter temperature top_p top_k min_p repetition_penalty frequency_penalty presence_penalty "
    "max_tokens prompt_id group repeat split seed prompt text token_ids n_prompt_tokens n_output_tokens "
    "finish_reason error batch_rows"
)
SUMMARY = (
    "cell_id adapter temperature top_p top_k min_p repetition_penalty frequency_penalty presence_penalty max_tokens "
    "n_prompts n_scored n_failed quality quality_lo quality_hi diff_vs_baseline diff_lo diff_hi p_adjusted "
    "ttft_ms_p50 tpot_ms_p50 e2el_ms_p50 e2el_ms_p90 n_output_tokens_mean truncated_rate loop_rate on_front p_on_front template"
)
"""The columns that the design promises, in order."""


def run(study: Any, engine: Any = None, out: Any = None, **options: Any) -> api.Run:
    """Run without a bar or a word, and untimed unless asked for."""
    options = {"progress": False, "say": lambda _: None, "latency": False, **options}
    return api.run(study, engine, out, **options)


def small(**changes: Any) -> Study:
    """The small study, made in Python."""
    return Study(**(SMALL | {"prompts": sums(N_PROMPTS)} | changes))


def tokens(done: api.Run) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Tokens by key."""
    frame = done.generations[[*KEY, "token_ids"]]
    return {tuple(row[:3]): tuple(row[3]) for row in frame.itertuples(index=False)}


# Running


def test_a_study_file_runs_to_the_end(tmp_path: Path) -> None:
    """One call answers, scores and times everything and writes the exports, with the study's own engine."""
    done = run(study_file(tmp_path), out=tmp_path / "out", latency=True)
    assert done.path.parent == tmp_path / "out" / "small"
    assert done.path.name == done.id
    assert done.manifest["status"] == "finished"
    assert (len(done.generations), len(done.scores), len(done.cells)) == (N_ROWS, N_ROWS, N_CELLS)
    assert (done.latency["warm"] == 1).sum() == N_TIMED
    assert done.latency["tokens_match"].eq(1).all()
    assert done.primary == "numeric"
    assert repr(done) == f"Run('{done.path}': 5 cells, 54 rows, finished)"
    names = {p.relative_to(done.path).as_posix() for p in done.path.rglob("*") if p.is_file()}
    assert names >= {
        "manifest.json",
        "run.sqlite",
        "generations.parquet",
        "scores.parquet",
        "latency.parquet",
        "summary.csv",
        "plots/quality_latency.png",
    }


def test_a_finished_run_runs_nothing(tmp_path: Path) -> None:
    """The same study again gives the same run and asks the engine nothing; ``new`` starts another, with the same tokens."""
    first = run(small(), out=tmp_path, latency=True)
    said: list[str] = []
    second = run(small(), never(), out=tmp_path, latency=True, say=said.append)
    assert second.path == first.path
    assert said == [
        f"{first.path}: finished before (54 rows); nothing to run",
        f"{first.path}: 10 requests timed before; nothing to time",
    ]
    third = run(small(), out=tmp_path, new=True)
    assert third.path != first.path
    assert tokens(third) == tokens(first)
    assert len(tokens(first)) == N_ROWS


def test_limit_draws_some_prompts(tmp_path: Path) -> None:
    """Only so many prompts run, the same ones each time; another limit is another run."""
    some = run(small(), out=tmp_path, limit=2)
    assert some.generations["prompt_id"].nunique() == 2
    assert some.manifest["n_rows"] == N_ROWS / 3
    assert run(small(), never(), out=tmp_path, limit=2).path == some.path
    more = run(small(), out=tmp_path, limit=3)
    assert more.path != some.path
    assert tokens(some).items() < tokens(more).items()
    assert run(small(), out=tmp_path, limit=99).manifest["n_rows"] == N_ROWS


@pytest.mark.parametrize("answers", [0, 20])
def test_an_interrupted_run_continues(tmp_path: Path, answers: int) -> None:
    """After Ctrl-C the run is readable, nothing was timed, and the next call does only the rest."""
    engine = Stopping(ScriptedEngine(), KeyboardInterrupt(), answers)
    stopped = run(small(), engine, out=tmp_path, latency=True)
    assert stopped.manifest["status"] == "interrupted"
    assert (len(stopped.generations), len(stopped.latency)) == (answers, 0)
    assert len(stopped.summary()) == N_CELLS
    assert f"Rows: {answers} scored by numeric, 0 failed." in stopped.answer()
    assert stopped.answer().startswith("This run is not complete: ")
    engine = Stopping(ScriptedEngine(), AssertionError())
    done = run(small(), engine, out=tmp_path)
    assert (done.path, done.manifest["status"]) == (stopped.path, "finished")
    assert len(engine.asked) == N_ROWS - answers
    whole = run(small(), out=tmp_path / "whole")
    assert tokens(done) == tokens(whole)


def test_an_interrupted_latency_pass_continues(tmp_path: Path) -> None:
    """Ctrl-C while timing is told by the status, and the next call times only the rest."""
    engine = Stopping(ScriptedEngine(), KeyboardInterrupt(), streams=4)
    stopped = run(small(), engine, out=tmp_path, latency=True)
    assert stopped.manifest["status"] == "interrupted"
    assert (len(stopped.generations), (stopped.latency["warm"] == 1).sum()) == (N_ROWS, 3)
    engine = Stopping(ScriptedEngine(), AssertionError(), streams=1 + N_TIMED - 3)
    done = run(small(), engine, out=tmp_path, latency=True)
    assert (done.path, done.manifest["status"]) == (stopped.path, "finished")
    assert (done.latency["warm"] == 1).sum() == N_TIMED
    assert engine.asked == []


def test_an_engine_that_gives_up_loses_nothing(tmp_path: Path) -> None:
    """Its error comes through; what was answered is kept, and the run continues to the tokens of an uninterrupted one."""
    with pytest.raises(OutOfMemory, match=r"^not one row fits$"):
        run(small(), Stopping(ScriptedEngine(), OutOfMemory("not one row fits"), 20), out=tmp_path)
    (path,) = (tmp_path / "small").iterdir()
    assert len(api.Run(path).generations) == 20
    done = run(small(), out=tmp_path)
    assert done.path == path
    assert tokens(done) == tokens(run(small(), out=tmp_path / "whole"))


@pytest.mark.model
def test_the_same_study_twice_on_the_demo_model(tmp_path: Path, demo_engine: LocalEngine) -> None:
    """Two runs, and one that was broken off and continued, have the same token ids in every row."""
    study = Study(
        name="twice",
        prompts=["What is 3 + 4?", "Name a red bird."],
        grid={"temperature": [0, 1.0], "repetition_penalty": [1.0, 1.2]},
        fixed={"max_tokens": 6},
        repeats=2,
        seed=3,
        latency={"prompts": 1, "warmup": 0, "rounds": 1},
    )
    first = run(study, demo_engine, out=tmp_path, latency=True)
    second = run(study, demo_engine, out=tmp_path, new=True)
    assert second.path != first.path
    assert tokens(first) == tokens(second)
    assert len(tokens(first)) == 12
    assert len(set(tokens(first).values())) > 6
    with pytest.raises(EngineError, match=r"^the machine sleeps$"):
        run(
            study,
            Stopping(demo_engine, EngineError("the machine sleeps"), 5),
            out=tmp_path / "broken",
        )
    engine = Stopping(demo_engine, AssertionError())
    third = run(study, engine, out=tmp_path / "broken")
    assert len(engine.asked) == 12 - 5
    assert tokens(third) == tokens(first)
    assert first.latency["tokens_match"].tolist() == [1] * 4
    assert first.manifest["engine"]["quantization"] == "awq-4bit-g32"


def test_the_studys_own_engine_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that ``run`` made is closed, after an error too; one that was given stays open."""
    made: list[Stopping] = []

    def engine_for(study: Study, *, progress: bool) -> Stopping:
        assert (study.name, progress) == ("small", False)
        made.append(Stopping(ScriptedEngine(), EngineError("broke"), 10 if made else 10**9))
        return made[-1]

    monkeypatch.setattr(api, "engine_for", engine_for)
    run(small(), out=tmp_path)
    with pytest.raises(EngineError, match=r"^broke$"):
        run(small(), out=tmp_path, new=True)
    assert [engine.closed for engine in made] == [1, 1]
    given = ScriptedEngine()
    run(small(), given, out=tmp_path, new=True)
    assert list(given.generate([])) == []
    assert len(made) == 2


def test_an_unknown_scorer_is_refused_before_the_engine_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model is loaded for a study that cannot be scored."""
    monkeypatch.setattr(api, "engine_for", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ScorerError) as caught:
        run(small(scorers=["numerc"]), out=tmp_path)
    assert str(caught.value) == "unknown scorer 'numerc', did you mean 'numeric'?"


def test_scorers_of_ones_own(tmp_path: Path) -> None:
    """A function is the primary scorer of a study made in Python, and an exception in it is no 0."""

    def short(text: str, prompt: Any) -> float:
        if prompt.id == "p0":
            raise ValueError("no idea")
        return Score(1.0 if len(text) < 40 else 0.0)

    done = run(small(scorers=[FunctionScorer("short", short), "numeric"]), out=tmp_path)
    assert done.primary == "short"
    bad = done.scores.query("scorer == 'short' and prompt_id == 'p0'")
    assert bad["value"].isna().all()
    assert set(bad["reason"]) == {"scorer short failed: ValueError: no idea"}
    table = done.summary()
    assert table["n_failed"].tolist() == [1, 2, 2, 2, 2]
    assert table["n_scored"].tolist() == [5, 10, 10, 10, 10]


def test_failed_rows_are_counted_and_never_zero(tmp_path: Path) -> None:
    """A prompt that fails leaves the quality of the others alone; a cell with nothing scored has none."""
    rows = sums(N_PROMPTS)
    rows[1]["prompt"] = "How long is this? " * 20
    right = PlantedQuality(lambda _: 1.0, {f"p{i}": str(i + 1) for i in range(N_PROMPTS)})
    study = small(prompts=rows, latency={"prompts": N_PROMPTS, "warmup": 1, "rounds": 1})
    done = run(study, ScriptedEngine(quality=right, context_length=50), out=tmp_path, latency=True)
    assert done.manifest["status"] == "failed rows"
    table = done.summary()
    assert table["quality"].tolist() == [1.0] * N_CELLS
    assert table["n_failed"].tolist() == [1, 2, 2, 2, 2]
    assert table["n_scored"].tolist() == [5, 10, 10, 10, 10]
    assert done.answer().endswith("Rows: 45 scored by numeric, 9 failed or not scorable.")
    failed = done.generations.query("prompt_id == 'p1'")
    assert failed["error"].str.contains("exceed the context of 50 tokens").all()
    assert done.latency.query("warm == 1").groupby("cell_id").size().eq(N_PROMPTS - 1).all()
    again = run(study, ScriptedEngine(quality=right), out=tmp_path)
    assert (again.path, again.manifest["status"]) == (done.path, "finished")
    assert again.summary()["n_failed"].sum() == 0


def test_a_cell_without_any_answer_has_no_quality(tmp_path: Path) -> None:
    """It is NaN in the table and empty in the file, never 0."""
    grid = {"fine": {"temperature": 0}, "endless": {"max_tokens": 5000}, "hot": {"temperature": 2}}
    done = run(small(grid=grid, fixed={}), out=tmp_path, latency=True)
    table = done.summary().set_index(done.cells["label"])
    endless = table.loc["endless"]
    assert endless[["quality", "quality_lo", "diff_vs_baseline", "e2el_ms_p50"]].isna().all()
    assert (endless["n_scored"], endless["n_failed"]) == (0, 2 * N_PROMPTS)
    assert table.loc[["fine", "hot"], "quality"].notna().all()
    assert "Cells without any score: 1 of 3." in done.answer()
    assert pd.read_csv(done.path / "summary.csv")["quality"].isna().sum() == 1


def test_without_scorers(tmp_path: Path) -> None:
    """A study without scorers has answers, lengths and latencies, and no quality."""
    done = run(small(scorers=[]), out=tmp_path, latency=True)
    table = done.summary()
    assert done.primary is None
    assert table["quality"].isna().all()
    assert table["n_scored"].eq(0).all()
    assert table["e2el_ms_p50"].notna().all()
    assert done.answer().splitlines()[0] == "No answer was scored."
    assert not (done.path / api.PLOT).exists()


@pytest.mark.parametrize("how", ["study", "argument"])
def test_without_latency(tmp_path: Path, how: str) -> None:
    """``latency: false`` in the study, or as an argument, times nothing, and the words say how to."""
    if how == "study":
        done = run(small(latency=False), out=tmp_path, latency=True)
    else:
        done = run(small(), out=tmp_path)
    assert done.latency.empty
    assert done.summary()["e2el_ms_p50"].isna().all()
    assert "Latency was not measured: run `workbench latency RUN`." in done.answer()
    assert not (done.path / api.PLOT).exists()
    assert (done.path / "latency.parquet").exists()


def test_by_default_it_speaks_on_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ``say`` a notebook still shows what goes on."""
    done = api.run(small(latency=False), out=tmp_path, progress=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{done.path}: 54 rows to run\n{done.path}: done, 54 rows\n"


# Engines


def test_adapters_are_looked_at_before_a_model_is_loaded(tmp_path: Path) -> None:
    """An adapter that is not there, or damaged, is told at once; no run begins."""
    missing, damaged = tmp_path / "missing", write_tiny(tmp_path / "damaged")
    (damaged / "adapter_config.json").write_text("{", encoding="utf-8")
    for path, said in ((missing, "no such folder"), (damaged, "adapter_config.json")):
        with pytest.raises(AdapterError, match=said):
            api.load_engine("no-such-model", ["base", path])
    study = small(adapters=["base", str(damaged)], engine={"kind": "local"}, model="no/such-model")
    with pytest.raises(AdapterError, match=r"adapter_config\.json"):
        run(study, out=tmp_path)
    assert not (tmp_path / "small").exists()


def test_a_study_brings_its_adapters(tmp_path: Path) -> None:
    """They are loaded into an engine that has none, and only those a run uses count for what it is."""
    engine = Loading("demo")
    study = small(adapters=["base", {"terse": "somewhere/terse"}], allow_inert=True)
    done = run(study, engine, out=tmp_path)
    assert engine.asked == [("somewhere/terse", "terse", True, N_PROMPTS)]
    assert done.manifest["engine"]["adapters"] == {"terse": engine.info.adapters["terse"]}
    engine.load_adapter("somewhere/other", "other")
    again = run(study, engine, out=tmp_path)
    assert again.path == done.path
    assert "other" not in again.manifest["engine"]["adapters"]


def test_an_engine_that_loads_none_says_what_it_has(tmp_path: Path) -> None:
    """The adapters that it lacks are named before anything runs."""
    engine = ScriptedEngine(adapters=("formal",))
    with pytest.raises(AdapterError) as caught:
        run(small(adapters=["base", "formal", "terse"]), engine, out=tmp_path)
    assert str(caught.value) == (
        "adapter 'terse' is not loaded, and a scripted engine loads none; it has: base, formal"
    )
    assert not (tmp_path / "small").exists()


def test_a_runs_adapters_must_be_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter whose file changed since is refused with both hashes, and the engine is closed."""
    study = small(adapters=["base", {"terse": "somewhere/terse"}])
    done = run(study, Loading("demo"), out=tmp_path)
    monkeypatch.setattr(api, "engine_for", lambda *_, **__: Loading("demo", "another"))
    was, now = (Loading("demo", salt).digest("somewhere/terse") for salt in ("", "another"))
    with pytest.raises(AdapterError) as caught:
        api.engine_of(api.Run(done.path))
    assert str(caught.value) == (
        f"{done.path}: adapter 'terse' was {was[:12]} in this run, and somewhere/terse is {now[:12]} now"
    )


class Loading(ScriptedEngine):
    """A scripted engine that takes adapters; ``salt`` stands for what is in their files."""

    def __init__(self, model: str, salt: str = "") -> None:
        super().__init__(model)
        self.salt = salt
        self.asked: list[tuple[str, str | None, bool, int]] = []

    def digest(self, path: str) -> str:
        """The identity of a file."""
        return hashlib.sha256(f"{self.salt}{path}".encode()).hexdigest()

    def load_adapter(
        self,
        path: str,
        name: str | None = None,
        *,
        replace: bool = False,
        allow_inert: bool = False,
        probe: Sequence[Any] = (),
    ) -> None:
        """Have an adapter."""
        assert not replace
        if name in self._info.adapters:
            return
        self.asked.append((path, name, allow_inert, len(probe)))
        adapters = {**self._info.adapters, str(name): self.digest(path)}
        self._info = dataclasses.replace(self._info, adapters=adapters)

    def unload_adapter(self, name: str) -> None:
        """Have it no more."""
        raise NotImplementedError


def test_adapters_of_the_scripted_engine(tmp_path: Path) -> None:
    """A study with adapters runs on the scripted engine, one cell per setting and adapter."""
    done = run(small(adapters=["base", "terse"]), out=tmp_path)
    assert done.cells["adapter"].tolist() == ["base"] * N_CELLS + ["terse"] * N_CELLS
    assert done.manifest["engine"]["adapters"].keys() == {"terse"}


def test_settings_of_the_study_and_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine block counts unless a call says otherwise; None says nothing."""
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(api, "load_engine", lambda *a, **k: asked.append({"args": a, **k}))
    study = small(model="some/model", engine={"device": "cpu", "kernel": "int4", "max_rows": 4})
    api.engine_for(study, device="cuda:1", kernel=None, progress=False)
    assert asked == [
        {
            "args": ("some/model",),
            "progress": False,
            "device": "cuda:1",
            "kernel": "int4",
            "max_rows": 4,
        }
    ]
    assert isinstance(api.engine_for(study, kind="scripted"), ScriptedEngine)
    assert len(asked) == 1


def test_a_runs_engine_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative model path is one from the study file's folder, wherever the run is opened from."""
    (tmp_path / "studies" / "model").mkdir(parents=True)
    path = study_file(tmp_path / "studies", model="./model")
    where = str(tmp_path / "studies" / "model")
    done = run(path, ScriptedEngine(where), out=tmp_path)
    asked: list[str] = []

    def found(model: str, *_: Any, **__: Any) -> ScriptedEngine:
        asked.append(model)
        return ScriptedEngine(model)

    monkeypatch.setattr(api, "load_engine", found)
    monkeypatch.chdir(tmp_path)
    api.engine_of(api.Run(done.path), kind="local")
    assert asked == [where]


# Reading


def test_open_run(tmp_path: Path) -> None:
    """By directory, by study directory, by id, and the newest of all."""
    old = run(small(), out=tmp_path)
    new = run(small(name="another"), out=tmp_path)
    newest = run(small(), out=tmp_path, new=True)
    for given, expected in (
        (old.path, old),
        (str(old.path), old),
        (tmp_path / "small", newest),
        (tmp_path / "another", new),
        (old.id, old),
        (newest.id, newest),
    ):
        assert api.open_run(given, tmp_path).path == expected.path
    listed = [manifest["run_id"] for _, manifest in api.all_runs(tmp_path)]
    assert listed == [new.id, newest.id, old.id]
    assert api.open_run("latest", tmp_path).id == newest.id
    assert run(small(), never(), out=tmp_path).id == newest.id


def test_an_unknown_run(tmp_path: Path) -> None:
    """The message says what may be given, or that there is nothing."""
    with pytest.raises(StoreError) as caught:
        api.open_run("latest", tmp_path / "none")
    assert str(caught.value) == f"no run 'latest': there are no runs under {tmp_path / 'none'}"
    run(small(), out=tmp_path)
    with pytest.raises(StoreError) as caught:
        api.open_run("nope", tmp_path)
    assert str(caught.value) == (
        f"no run 'nope'; give a run directory or id, or 'latest' for the newest of 1 under {tmp_path}"
    )
    with pytest.raises(StoreError) as caught:
        api.Run(tmp_path)
    assert str(caught.value) == f"{tmp_path}: not a run directory (no manifest.json)"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"system": "Be brief."},
        {"prompts": PromptSet.from_records(sums(N_PROMPTS), "sums")},
        {"prompts": PromptSet.from_records(sums(N_PROMPTS), "sums"), "system": "Be brief."},
        {"split": {"confirm": 0.5}, "baseline": "T=0.7 k=50"},
        {"grid": {"a": {"temperature": 0}, "b": {"top_p": 0.9}}, "adapters": ["base", "terse"]},
        {"defaults": "checkpoint"},
    ],
)
def test_the_plan_is_that_of_the_run(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    """A run read back asks for the very same requests, and its latency can be measured later."""
    study = small(**changes)
    done = run(study, out=tmp_path)
    plan, again = study.plan(None, {}), api.Run(done.path).plan
    assert list(again.requests()) == list(plan.requests())
    assert len(list(plan.requests())) == len(done.generations)
    assert again.splits == plan.splits
    assert again.baseline == plan.baseline
    engine = api.engine_of(api.Run(done.path))
    result = api.time_requests(api.Run(done.path), engine, prompts=1, rounds=1, progress=False)
    assert result.n_run == len(plan.cells)
    assert result.reproducibility.share == 1


def test_the_plan_of_a_limited_run(tmp_path: Path) -> None:
    """It has the prompts that ran."""
    done = run(small(), out=tmp_path, limit=2)
    assert {r.key for r in api.Run(done.path).plan.requests()} == set(tokens(done))


def test_baseline(tmp_path: Path) -> None:
    """By default the study's; another is named by label or id; an unknown one is refused with the labels."""
    done = run(small(baseline={"temperature": 0.7, "top_k": 50}), out=tmp_path)
    ids = dict(zip(done.cells["label"], done.cells["cell_id"], strict=True))

    def own(table: pd.DataFrame) -> list[str]:
        still = table["diff_vs_baseline"].eq(0) & table["p_adjusted"].isna()
        return table.loc[still, "cell_id"].tolist()

    assert own(done.summary()) == [ids["T=0.7 k=50"]]
    assert own(done.summary("greedy")) == own(done.summary(ids["greedy"])) == [ids["greedy"]]
    with pytest.raises(StoreError) as caught:
        done.summary("hot")
    assert str(caught.value) == (
        f"{done.path}: no cell 'hot'; cells: greedy, T=0.7 k=10, T=0.7 k=50, T=1.3 k=10, T=1.3 k=50"
    )


def test_the_summary_is_the_same_each_time(tmp_path: Path) -> None:
    """The bootstrap is seeded."""
    done = run(small(), out=tmp_path)
    pd.testing.assert_frame_equal(done.summary(), api.Run(done.path).summary())


def test_timing_some_cells_later(tmp_path: Path) -> None:
    """Cells are named by label or id; those that do not exist are refused."""
    done = run(small(), out=tmp_path)
    cold, hot = done.cell_id("greedy"), done.cell_id("T=1.3 k=50")
    engine = ScriptedEngine()
    options: dict[str, Any] = {"prompts": 2, "warmup": 0, "rounds": 1, "progress": False}
    api.time_requests(done, engine, cells=["greedy", hot], **options)
    assert api.Run(done.path).latency.groupby("cell_id").size().to_dict() == {cold: 2, hot: 2}
    with pytest.raises(StoreError, match=r": no cell 'warm'; cells: greedy, T=0\.7 k=10, "):
        api.time_requests(done, engine, cells=["warm"], **options)
    api.time_requests(done, engine, cells=[], **options)
    assert len(api.Run(done.path).latency) == 2 * N_CELLS


def test_timing_another_model_is_refused(tmp_path: Path) -> None:
    """Latencies of other weights do not get into a run."""
    done = run(small(), out=tmp_path)
    other = ScriptedEngine("other")
    object.__setattr__(other.info, "weight_hash", "0" * 64)
    with pytest.raises(StoreError) as caught:
        api.time_requests(done, other, progress=False)
    assert str(caught.value) == (
        f"{done.path}: made with scripted, and the weights of other are not the same"
    )
    assert api.Run(done.path).latency.empty


# Files


def test_the_exports_hold_what_the_record_holds(tmp_path: Path) -> None:
    """Parquet and CSV read back with the promised columns, in order, and the record's rows."""
    done = run(small(), out=tmp_path, latency=True)
    written = done.write()
    assert [path.relative_to(done.path).as_posix() for path in written] == [
        "generations.parquet",
        "scores.parquet",
        "latency.parquet",
        "summary.csv",
        "plots/quality_latency.png",
    ]
    generations = pd.read_parquet(done.path / "generations.parquet")
    assert " ".join(generations.columns) == f"{GENERATIONS} stop min_margin template"
    assert list(done.generations.columns) == list(generations.columns)
    read = {tuple(r[:3]): tuple(r[3]) for r in generations[[*KEY, "token_ids"]].to_numpy()}
    assert read == tokens(done)
    assert set(generations["run_id"]) == {done.id}
    seeds = generations.query("temperature > 0").groupby(["prompt_id", "repeat"])["seed"].nunique()
    assert seeds.eq(1).all()
    assert len(pd.read_parquet(done.path / "scores.parquet")) == N_ROWS
    assert len(pd.read_parquet(done.path / "latency.parquet")) == N_TIMED + 1
    summary = pd.read_csv(done.path / "summary.csv")
    assert " ".join(summary.columns) == " ".join(done.summary().columns) == SUMMARY
    assert summary["cell_id"].tolist() == done.cells["cell_id"].tolist()
    assert summary["quality"].to_numpy() == pytest.approx(done.summary()["quality"].to_numpy())
    picture = (done.path / "plots" / "quality_latency.png").read_bytes()
    assert picture.startswith(b"\x89PNG")


def test_the_manifest_says_where_the_numbers_come_from(tmp_path: Path) -> None:
    """Hashes, versions, machine and engine are in it, and the run and its record agree on them."""
    done = run(study_file(tmp_path), out=tmp_path / "out")
    manifest = json.loads((done.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest == done.manifest
    study = Study.from_yaml(tmp_path / "small.yaml")
    assert manifest["study"] == {
        "name": "small",
        "text": study.text,
        "sha256": study.sha256,
        "folder": str(tmp_path.resolve()),
    }
    assert manifest["content_hash"] == study.plan(None, {}).content_hash
    assert manifest["prompt_set"]["n_prompts"] == N_PROMPTS
    assert manifest["baseline"] == study.plan().baseline.cell_id
    assert (manifest["n_cells"], manifest["n_rows"]) == (N_CELLS, N_ROWS)
    with RunStore.open(done.path) as store:
        assert store.run_id == done.id


def test_a_read_only_run_is_readable(tmp_path: Path) -> None:
    """Summary and words need no right to write."""
    done = run(small(), out=tmp_path)
    expected = done.answer()
    files = [done.path, *done.path.rglob("*")]
    modes = [path.stat().st_mode for path in files]
    try:
        for path in files:
            path.chmod(path.stat().st_mode & 0o555)
        assert api.Run(done.path).answer() == expected
    finally:
        for path, mode in zip(files, modes, strict=True):
            path.chmod(mode)


def test_prompts_held_out_do_not_choose(tmp_path: Path) -> None:
    """With a split the summary is of the other prompts, and the answer gives the best cell's held-out quality."""
    done = run(small(prompts=sums(40), split={"confirm": 0.4}), ScriptedEngine(), tmp_path)
    held = done.generations[done.generations["split"] == "confirm"]["prompt_id"].nunique()
    confirm = done.confirmation()
    assert 0 < held < 40
    assert confirm is not None
    assert set(done.summary()["n_prompts"]) == {40 - held}
    assert set(confirm["n_prompts"]) == {held}
    assert "On the prompts held out: quality" in done.answer().splitlines()[0]
    plain = run(small(prompts=sums(40)), ScriptedEngine(), tmp_path)
    assert plain.confirmation() is None
    assert "held out" not in plain.answer().splitlines()[0]


def test_a_split_with_one_side_is_said(tmp_path: Path) -> None:
    """Too few prompts for the split: nothing is held out, and that is said."""
    said: list[str] = []
    study = small(prompts=sums(1), split={"confirm": 0.01})
    done = run(study, ScriptedEngine(), tmp_path, say=said.append)
    assert "split: all 1 prompts fall on one side; nothing is held out" in said
    assert not done.holds_out
    assert set(done.summary()["n_prompts"]) == {1}
