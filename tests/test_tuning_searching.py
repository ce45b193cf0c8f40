"""Searching ranges, from a study to a decision: a run like any other, found with few rows, and the same after a kill."""

from __future__ import annotations

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
from killedsearch import OPTIONS, ROWS, N, planted, study
from typer.testing import CliRunner

import workbench as wb
from workbench.api import time_requests
from workbench.cli import app
from workbench.errors import ParamError, StudyError
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
        for _ in range(after + 40):  # the first are asked to see what settings do
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
    """Cells that surely are too slow are dropped, and the pick keeps it."""
    limited = study(latency={"prompts": 4, "warmup": 0, "rounds": 5})
    got = searched(tmp_path, limited, subject_to="ttft_ms_p50<=40", trials=16)
    assert any("surely breaks ttft_ms_p50<=40" in d.why for d in got.race.dropped.values())
    assert got.decision.pick is not None
    assert got.run.cells.set_index("cell_id")["temperature"][got.decision.pick] <= 0.75


@pytest.mark.parametrize(
    ("options", "most"),
    [({"budget": "500 rows"}, 500), ({"budget": "3000 tokens"}, 3000), ({"budget": "100 rows"}, 200 + 36 * 6)],
)  # fmt: skip
def test_a_budget_is_kept(tmp_path: Path, options: dict[str, Any], most: int) -> None:
    """Prompts held out included; only the first round and what follows from it may be more than there is."""
    got = searched(tmp_path, trials=None, **options)
    rows = got.run.generations
    assert (len(rows) if "rows" in options["budget"] else rows["n_output_tokens"].sum()) <= most
    assert got.stopped.startswith("budget: ")
    assert rows["split"].eq("confirm").any()


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
