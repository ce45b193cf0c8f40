"""Searching ranges, from a study to a decision: a run like any other, found with few rows, and the same after a kill."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from killedsearch import OPTIONS, ROWS, Killed, N, planted, study
from typer.testing import CliRunner

import workbench as wb
from workbench.api import time_requests
from workbench.cli import app
from workbench.errors import ParamError, SettingInert, StudyError
from workbench.runs import Run
from workbench.tuning import tune
from workbench.tuning.proposing import FILE
from workbench.tuning.searching import front

if TYPE_CHECKING:
    from workbench.study import Study

optuna = pytest.importorskip("optuna")


def searched(out: Path, declared: Study | None = None, **options: Any) -> Any:
    """What a search found."""
    options = {**OPTIONS, "say": lambda _: None, **options}
    return tune(declared or study(), planted(), out, **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One search."""
    return searched(tmp_path_factory.mktemp("whole"))


def keys(run: Run) -> set[tuple[str, str, int]]:
    """The rows of a run."""
    return set(map(tuple, run.generations[["cell_id", "prompt_id", "repeat"]].to_numpy()))


def test_the_hill_is_found(found: Any) -> None:
    """With few rows the pick is near the top of the hill, and is measured on the prompts held out."""
    row = found.run.cells.set_index("cell_id").loc[found.decision.pick]
    assert abs(row["temperature"] - 0.9) < 0.3
    assert abs(row["top_p"] - 0.6) < 0.2
    assert found.decision.choice.held_out
    assert len(found.run.generations) <= 1200
    assert found.run.manifest["status"] == "finished"
    assert found.run.unfinished is None


def test_it_is_a_run_like_any_other(tmp_path: Path, found: Any) -> None:
    """Summary, comparison, decision and plan have the cells that were tried; the manifest counts them."""
    run = wb.open_run(shutil.copytree(found.run.path, tmp_path / "copy"))
    n = len(run.cells)
    assert n == run.manifest["n_cells"] == run.manifest["race"]["n_trials"] + 1
    assert len(run.summary()) == n
    assert {c.cell_id for c in run.plan.cells} == set(run.cells["cell_id"])
    assert [c.label for c in run.plan.cells] == list(run.cells["label"])
    assert run.cells["label"].is_unique
    assert run.study.search == study().search
    assert wb.decide(run).pick == found.decision.pick
    assert found.decision.text in found.text
    assert "settings were tried" in found.text
    rows = run.generations[run.generations["split"].eq("select")]
    asked = rows.groupby("cell_id")["prompt_id"].nunique()
    assert run.manifest["race"]["n_prompts"] == asked.to_dict()
    times = time_requests(run, planted(), prompts=1, warmup=0, rounds=1, progress=False)
    assert times.n_rows == n


def test_all_answer_the_same_prompts(found: Any) -> None:
    """A cell that answered fewer answered the first of them, and the finalists all that any cell did."""
    rows = found.run.generations
    rows = rows[rows["split"].eq("select")]
    sets = rows.groupby("cell_id")["prompt_id"].agg(frozenset)
    assert len(set(sets)) == len({len(s) for s in sets})
    ordered = sorted(set(sets), key=len)
    assert all(a < b for a, b in itertools.pairwise(ordered))
    finalists = found.run.manifest["race"]["finalists"]
    assert {len(sets[c]) for c in finalists} == {len(ordered[-1])}


def test_optuna_has_the_trials(found: Any) -> None:
    """Every cell is a trial with its values, those dropped are pruned, and the best of them are near the hill."""
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{found.run.path / FILE}")
    assert len(stored.trials) == found.run.manifest["race"]["n_trials"]
    labels = found.run.cells.set_index("cell_id")["label"]
    pruned = {t.user_attrs["cell"] for t in stored.trials if t.state.name == "PRUNED"}
    assert pruned == {labels[c] for c in found.race.dropped}
    assert all(t.intermediate_values for t in stored.trials)
    assert stored.best_trial.user_attrs["cell"] == labels[found.race.leader()]
    assert stored.metric_names == ["contains over the baseline"]


def test_the_same_call_again_runs_nothing(found: Any) -> None:
    """And says the same; another number of trials is another run."""
    again = searched(found.run.path.parents[1])
    assert again.run.path == found.run.path
    assert again.text == found.text
    assert again.to_dict() == found.to_dict()


@pytest.mark.parametrize(
    "after",
    [200, pytest.param(30, marks=pytest.mark.long), pytest.param(420, marks=pytest.mark.long)],
)
def test_a_killed_search_goes_on(tmp_path: Path, found: Any, after: int) -> None:
    """After kill -9 the same call asks no committed row again, and ends as if nothing had been."""
    script = Path(__file__).with_name("killedsearch.py")
    command = [sys.executable, str(script), str(tmp_path), "4"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, text=True) as process:
        assert process.stdout is not None
        for _ in range(after + 72):  # the first 72 are asked to see what the settings do
            assert process.stdout.readline() != "end\n"
        process.kill()
    (place,) = (tmp_path / "search").iterdir()
    before = keys(Run(place))
    assert 0 < len(before) < len(found.run.generations)
    asked: list[Any] = []
    engine = planted(fail=lambda r: asked.append(r.key))
    again = tune(study(), engine, tmp_path, **{**OPTIONS, "say": lambda _: None})
    assert again.run.path == place
    assert not before & set(asked)
    assert keys(again.run) == keys(found.run)
    assert again.decision.pick == found.decision.pick
    assert again.race.to_dict() == found.race.to_dict()
    stored, whole = (
        optuna.load_study(study_name="search", storage=f"sqlite:///{run.path / FILE}").trials
        for run in (again.run, found.run)
    )
    assert [(t.params, t.values, t.state) for t in stored] == [
        (t.params, t.values, t.state) for t in whole
    ]


def test_several_objectives(tmp_path: Path) -> None:
    """The front is listed with its figures: better answers that take longer, none of which another beats."""
    said: list[str] = []
    options = {"objective": ["quality", "-ttft_ms_p50"], "say": said.append, "trials": 16}
    got = searched(tmp_path, study(latency={"prompts": 2, "warmup": 0, "rounds": 1}), **options)
    names = ["contains", "-ttft_ms_p50"]
    assert list(got.front.columns) == ["cell_id", "settings", *names]
    numbers = got.front[names].to_numpy()
    assert len(numbers) > 1
    assert all(a > b for a, b in zip(numbers[:, 0], numbers[1:, 0], strict=False))
    assert all(a > b for a, b in zip(numbers[:, 1], numbers[1:, 1], strict=False))
    assert not got.race.dropped
    assert "Of 2 objectives (contains, -ttft_ms_p50) no other finalist beats:" in got.text
    assert got.to_dict()["front"][0]["settings"] == got.front["settings"][0]
    stored = optuna.load_study(study_name="search", storage=f"sqlite:///{got.run.path / FILE}")
    assert [d.name for d in stored.directions] == ["MAXIMIZE", "MINIMIZE"]
    again = searched(tmp_path, study(latency={"prompts": 2, "warmup": 0, "rounds": 1}), **options)
    assert again.text == got.text


def test_short_answers(tmp_path: Path) -> None:
    """Tokens are an objective beside quality."""
    got = searched(tmp_path, objective="quality, -n_output_tokens", trials=8)
    assert list(got.front.columns)[2:] == ["contains", "-n_output_tokens"]
    assert got.front["-n_output_tokens"].between(1, 12).all()


def test_a_limit_on_times(tmp_path: Path) -> None:
    """Cells that are too slow are no finalists and not searched near, and the limit is known of the pick."""
    got = searched(tmp_path, study(), subject_to="ttft_ms_p50<=40", trials=16)
    (limit,) = got.decision.choice.limits
    finalists = got.run.manifest["race"]["finalists"]
    assert {limit.status[cell] for cell in finalists} == {"met"}
    assert got.decision.pick is not None
    temperature = got.run.cells.set_index("cell_id")["temperature"]
    assert max(temperature[cell] for cell in finalists if cell != got.race.baseline) <= 0.75


@pytest.mark.parametrize("limit", ["ttft_ms_p50<=5", "n_output_tokens_mean<=0.5"])
def test_cells_that_surely_break_a_limit_are_dropped(tmp_path: Path, limit: str) -> None:
    """For times and for answers; where none keeps it, nothing is picked."""
    got = searched(tmp_path, study(), subject_to=limit, trials=8, budget=())
    assert got.race.dropped
    assert all(d.why.startswith(f"surely breaks {limit}: ") for d in got.race.dropped.values())
    assert got.race.baseline in got.race.alive
    assert got.decision.pick is None


def test_a_limit_on_answers_moves_the_search(tmp_path: Path) -> None:
    """Settings on the hill are cut, so the best is sought beside it."""
    engine = planted()
    whole = engine.generate

    def generate(requests: Any) -> Any:
        for request in requests:
            for answer in whole([request]):
                cut = request.params.temperature > 0.7
                yield dataclasses.replace(answer, finish_reason="length") if cut else answer

    engine.generate = generate  # type: ignore[method-assign] # cuts some answers
    options = OPTIONS | {"say": lambda _: None, "subject_to": "truncated_rate<=0.1"}
    got = tune(study(baseline={"temperature": 0.1}), engine, tmp_path, **options)
    temperature = got.run.cells.set_index("cell_id")["temperature"]
    assert 0.3 < temperature[got.decision.pick] <= 0.7
    finalists = got.run.manifest["race"]["finalists"]
    assert all(temperature[cell] <= 0.7 for cell in finalists)
    assert any(
        "surely breaks truncated_rate<=0.1: 100 % in" in d.why for d in got.race.dropped.values()
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"budget": "500 rows"}, marks=pytest.mark.long),
        {"budget": "250 rows"},
        pytest.param({"budget": "3000 tokens"}, marks=pytest.mark.long),
        {"budget": "600 rows", "subject_to": "ttft_ms_p50<=40"},
    ],
)
def test_a_budget_is_kept(tmp_path: Path, options: dict[str, Any]) -> None:
    """Prompts held out and timed requests included."""
    got = searched(tmp_path, trials=None, **options)
    rows, timed = got.run.generations, got.run.latency[got.run.latency["warm"].eq(1)]
    tokens = int(rows["n_output_tokens"].sum() + timed["n_output_tokens"].sum())
    most, what = options["budget"].split()
    assert (len(rows) + len(timed) if what == "rows" else tokens) <= int(most)
    assert got.stopped.startswith("budget: ")
    assert rows["split"].eq("confirm").any()


def test_a_budget_that_cannot_do_is_refused(tmp_path: Path) -> None:
    """With what it takes, before anything runs."""
    with pytest.raises(ParamError) as caught:
        searched(tmp_path, trials=None, budget="100 rows")
    assert str(caught.value) == (
        "--budget must be at least 242 rows for this study (180 for 20 prompts of 9 cells; 62 for the 31 prompts held out, "
        "baseline and one cell), got '100 rows'"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [310, pytest.param(400, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"budget": "700 rows", "trials": None}, marks=pytest.mark.long),
        {"budget": "900 rows", "trials": None, "subject_to": "ttft_ms_p90<=45"},
        {"budget": "900 rows", "trials": 16, "objective": "quality, -ttft_ms_p50"},
    ],
)
def test_a_search_that_was_stopped_ends_the_same(
    tmp_path: Path, after: int, options: dict[str, Any]
) -> None:
    """Whatever it is limited by: the same settings, answers and timed requests."""
    whole = searched(tmp_path / "whole", **options)
    chosen = {**OPTIONS, **options, "say": lambda _: None}
    with pytest.raises(KeyboardInterrupt):
        tune(study(), Killed(planted(), after), tmp_path / "parts", **chosen)
    parts = tune(study(), planted(), tmp_path / "parts", **chosen)
    assert keys(parts.run) == keys(whole.run)
    assert parts.race.to_dict() == whole.race.to_dict()
    assert parts.decision.pick == whole.decision.pick
    assert len(parts.run.latency.query("warm == 1")) == len(whole.run.latency.query("warm == 1"))


class Deaf(Killed):
    """Does not know top_p."""

    def generate(self, requests: Any) -> Any:
        """Answer."""
        return super().generate(
            dataclasses.replace(r, params=r.params.replace(top_p=None)) for r in requests
        )


def test_settings_that_are_searched_are_tried_first(tmp_path: Path, found: Any) -> None:
    """An engine that ignores one is refused before anything runs; the manifest tells what trying them showed."""
    tried = found.run.manifest["settings"]
    assert set(tried) == {"temperature", "top_p"}
    assert all(entry["acts"] for entry in tried.values())
    assert tried["top_p"]["requested"] == study().search["top_p"]
    with pytest.raises(SettingInert) as caught:
        tune(study(), Deaf(planted(), 10**9), tmp_path, **OPTIONS)
    assert str(caught.value).startswith(
        "the study varies what does nothing with this engine (scripted, "
    )
    assert not list(tmp_path.iterdir())


def test_a_small_space_is_used_up(tmp_path: Path) -> None:
    """Where there is nothing new to propose the search ends; equal settings are one cell."""
    small = study(search={"temperature": {"choices": [0, 0.9]}, "top_k": {"choices": [5, None]}})
    got = searched(tmp_path, small, budget=(), trials=80)
    assert len(got.run.cells) <= 4
    assert got.stopped == "no other settings to propose"


def test_adapters_are_searched(tmp_path: Path) -> None:
    """Several adapters of a study are choices; the baseline has none."""
    folder = tmp_path / "terse"
    folder.mkdir()
    declared = study(adapters=["base", {"terse": str(folder)}])
    from workbench.engines.scripted import PlantedQuality, ScriptedEngine

    quality = PlantedQuality(
        lambda r: 0.9 if r.adapter == "terse" else 0.2, {r["id"]: r["target"] for r in ROWS}
    )
    engine = ScriptedEngine(adapters=["terse"], quality=quality)
    got = tune(declared, engine, tmp_path / "out", **{**OPTIONS, "say": lambda _: None})
    cells = got.run.cells.set_index("cell_id")
    assert cells["adapter"][got.decision.pick] == "terse"
    assert cells["adapter"][got.run.manifest["baseline"]] == "base"


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({"search": None, "grid": {"top_p": [0.5, 0.9]}}, {}, StudyError, "search: --trials goes with a search, and this study has none"),
        ({}, {"trials": 0}, ParamError, "--trials must be a whole number that is at least 1, got 0"),
        ({}, {"objective": "-n_output_tokens"}, ParamError, "--objective must be one of quality, contains, and beside it others of them or of -n_output_tokens, "),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_said(
    tmp_path: Path, changes: Any, options: Any, error: type[Exception], message: str
) -> None:
    """Before anything runs."""
    with pytest.raises(error) as caught:
        searched(tmp_path, study(**changes), **options)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_a_plain_run_is_refused(tmp_path: Path) -> None:
    """Ranges are no cells."""
    with pytest.raises(StudyError) as caught:
        wb.run(study(), planted(), tmp_path)
    assert str(caught.value) == (
        "search: has ranges to search, not cells to run: workbench tune STUDY"
    )


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file, with JSON on standard output."""
    monkeypatch.chdir(tmp_path)
    values = study(engine="scripted", model="demo").to_dict()
    Path("s.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    given = ["tune", "s.yaml", "--trials", "8", "--limit", "60", "--json", "-q"]
    done = CliRunner().invoke(app, given)
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert len(told["race"]["standing"]) == 9
    assert (Path(told["run"]["dir"]) / FILE).is_file()
    assert 0 < told["race"]["n_rows"] < 9 * N


def test_what_is_searched_is_shown(tmp_path: Path) -> None:
    """A dry run and the check of a file name the ranges, and count no rows that nobody knows."""
    values = study(engine="scripted", model="demo").to_dict()
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    for given in (["validate"], ["run", "--dry-run"]):
        told = CliRunner().invoke(app, [given[0], str(tmp_path / "s.yaml"), *given[1:]]).stdout
        assert "search of temperature 0 to 1.5, top_p 0.3 to 1; 1 repeat\n" in told
        assert told.endswith("workbench tune proposes the settings to compare with it\n")
        assert "[baseline]" in told
        assert " rows" not in told
    told = CliRunner().invoke(app, ["validate", str(tmp_path / "s.yaml"), "--json"]).stdout
    assert json.loads(told)["search"] == study().search
    assert json.loads(told)["n_rows"] is None


def test_fronts() -> None:
    """Nothing on it is beaten; equal ones stay together."""
    assert front({"a": [1, 2], "b": [2, 1], "c": [2, 2], "d": [1, 2]}) == ["a", "b", "d"]


def test_planted_problems(root: Path) -> None:
    """The script behind the figures of the page runs, keeps to the rows, and a search is not lost on a hill."""
    spec = importlib.util.spec_from_file_location("b", root / "scripts" / "bench_search.py")
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    for method in bench.METHODS:
        told = bench.measure(method, "mixed", 800, 1, 0)
        assert 0 < told["rows"] <= 800
        assert 0 <= told["behind"] <= 25
    assert bench.measure("tpe", "coupled", 1500, 1, 0)["behind"] < 6
    assert bench.equal_settings("coupled", 600, 1, 0) == 0
