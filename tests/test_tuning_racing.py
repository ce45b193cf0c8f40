"""Tuning by racing, from a study to a decision: what is asked, what is not, and that a killed race decides the same."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from killedsearch import Killed

import workbench as wb
from workbench import latency
from workbench.engines.scripted import PlantedQuality, ScriptedClock, ScriptedEngine
from workbench.errors import ParamError, ScorerError, StudyError
from workbench.study import Study
from workbench.tuning import timing, tune

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from workbench.records import Generation, Request

N = 150
ROWS = [{"id": f"p{i}", "prompt": f"What is {i} + 1?", "target": str(i + 1)} for i in range(N)]
EASE = {f"p{i}": float(x) for i, x in enumerate(np.random.default_rng(1).beta(0.6, 0.6, N))}
BEST = "T=0.4 k=50"
BASELINE = "T=0.8 k=50"


def chance(request: Request) -> float:
    """Best at temperature 0.4 and top_k 50, worse the farther from it."""
    away = abs((request.params.temperature or 0) - 0.4)
    few = 0.1 if request.params.top_k == 5 else 0.0
    return float(np.clip(EASE[request.prompt_id] + 0.25 - 0.6 * away - few, 0, 1))


def planted(chance_of: Any = chance, prefill_ms: Any = 20.0) -> ScriptedEngine:
    """An engine that is right with a known chance, and takes a known time."""
    answers = {row["id"]: row["target"] for row in ROWS}
    quality = PlantedQuality(chance_of, answers)
    return ScriptedEngine(quality=quality, clock=ScriptedClock(prefill_ms, 1.0))


def study(**changes: Any) -> Study:
    """Twelve cells on 150 prompts."""
    values: dict[str, Any] = {
        "name": "race",
        "model": "scripted",
        "prompts": ROWS,
        "grid": {"temperature": [0.2, 0.4, 0.6, 0.8, 1.0, 1.2], "top_k": [5, 50]},
        "fixed": {"max_tokens": 12},
        "repeats": 2,
        "split": {"confirm": 0.3},
        "scorers": ["contains"],
        "latency": {"prompts": 4, "warmup": 1, "rounds": 2},
        "baseline": BASELINE,
    }
    return Study(**values | changes)


def raced(out: Path, engine: Any = None, declared: Study | None = None, **options: Any) -> Any:
    """Tune without bars; what was found and what was said."""
    said: list[str] = []
    options = {"progress": False, "say": said.append, **options}
    return tune(declared or study(), engine or planted(), out, **options), said


def test_the_best_cell_is_found_with_fewer_rows(tmp_path: Path) -> None:
    """Losers stop early, baseline and best answer all, and the decision is measured on the prompts held out."""
    found, said = raced(tmp_path)
    run, labels = found.run, found.run.cells.set_index("cell_id")["label"]
    assert labels[found.decision.pick] == BEST
    assert found.n_rows_grid == 12 * N * 2
    rows = run.generations.groupby("cell_id")["prompt_id"].nunique()
    rows.index = labels[rows.index]
    assert rows[BEST] == rows[BASELINE] == N
    assert rows["T=1.2 k=5"] < 40
    assert len(run.generations) < 0.55 * found.n_rows_grid
    held = set(run.generations.loc[run.generations["split"].eq("confirm"), "cell_id"])
    assert held == set(run.manifest["race"]["finalists"]) <= set(found.race.alive)
    assert found.decision.choice.held_out
    assert run.manifest["status"] == "finished"
    assert run.unfinished is None
    assert any(" dropped, " in line and f"{BEST} leads" in line for line in said)
    assert (run.path / "decision" / "decision.md").is_file()
    dropped = run.manifest["race"]["dropped"]
    assert set(dropped) == set(found.race.dropped)
    assert f"{len(run.generations):,} rows were asked" in found.text


def test_the_same_call_again_runs_nothing(tmp_path: Path) -> None:
    """And says the same; a plain run of the same study is another run."""
    first, _ = raced(tmp_path)
    again, said = raced(tmp_path)
    assert again.run.path == first.run.path
    assert again.text == first.text
    assert again.to_dict() == first.to_dict()
    assert "nothing to run" in said[0]
    plain = wb.run(study(latency=None), planted(), tmp_path, progress=False, say=lambda _: None)
    assert plain.path != first.run.path


def rows_of(run: Any) -> tuple[set[Any], set[Any]]:
    """Keys of the answers, and of the timed requests."""
    keys = ["cell_id", "prompt_id", "repeat"]
    timed = run.latency[run.latency["warm"].eq(1)]
    return (
        set(map(tuple, run.generations[keys].to_numpy())),
        set(map(tuple, timed[[*keys, "round"]].to_numpy())),
    )


def slow(request: Request) -> float:
    """Too slow at temperature 0.4; it takes two looks to be sure of that."""
    return 500.0 if request.params.temperature == 0.4 else 20.0


@pytest.mark.parametrize(
    ("after", "options", "prefill_ms"),
    [
        pytest.param(100, {}, 20.0, marks=pytest.mark.long),
        pytest.param(1300, {}, 20.0, marks=pytest.mark.long),
        (900, {"budget": "1500 rows"}, 20.0),
        pytest.param(1200, {"budget": "1500 rows"}, 20.0, marks=pytest.mark.long),
        pytest.param(900, {"budget": "9000 tokens"}, 20.0, marks=pytest.mark.long),
        (900, {"subject_to": "ttft_ms_p90<=100"}, slow),
        pytest.param(
            600,
            {"subject_to": "truncated_rate<=0.9", "budget": "1800 rows"},
            20.0,
            marks=pytest.mark.long,
        ),
        pytest.param(
            600,
            {"subject_to": "ttft_ms_p90<=100", "budget": "2000 rows"},
            slow,
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_race_that_was_stopped_decides_the_same(
    tmp_path: Path, after: int, options: dict[str, Any], prefill_ms: Any
) -> None:
    """Wherever it is interrupted, whatever it is limited by: the same is asked and timed in the end, and dropped."""
    whole, _ = raced(tmp_path / "whole", planted(prefill_ms=prefill_ms), **options)
    with pytest.raises(KeyboardInterrupt):
        raced(tmp_path / "parts", Killed(planted(prefill_ms=prefill_ms), after), **options)
    parts, said = raced(tmp_path / "parts", planted(prefill_ms=prefill_ms), **options)
    assert any("continuing" in line for line in said)
    assert rows_of(parts.run) == rows_of(whole.run)
    assert parts.race.to_dict() == whole.race.to_dict()
    assert parts.stopped == whole.stopped
    assert parts.decision.pick == whole.decision.pick


@pytest.mark.parametrize("n", [20, pytest.param(150, marks=pytest.mark.long)])
def test_ctrl_c_while_requests_are_timed_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    """In the race and in the pass after it; the same call then goes on, and asks what an undisturbed one asks."""
    options: Any = {"subject_to": "ttft_ms_p50<=100"}
    whole, _ = raced(tmp_path / "whole", **options)
    genuine, calls = latency._time, itertools.count()

    def timed(*args: Any, **named: Any) -> Any:
        if next(calls) == n:
            raise KeyboardInterrupt
        return genuine(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(latency, "_time", timed)
        with pytest.raises(KeyboardInterrupt):
            raced(tmp_path / "parts", **options)
    (place,) = (tmp_path / "parts" / "race").iterdir()
    assert json.loads((place / "manifest.json").read_text())["status"] == "interrupted"
    parts, _ = raced(tmp_path / "parts", **options)
    assert rows_of(parts.run) == rows_of(whole.run)
    assert parts.decision.pick == whole.decision.pick


def test_a_cell_that_surely_breaks_a_limit_stops(tmp_path: Path) -> None:
    """The best cell is too slow: it is dropped for that, and the best of the others is on top."""
    found, said = raced(tmp_path, planted(prefill_ms=slow), subject_to=["ttft_ms_p50<=100"])
    labels = found.run.cells.set_index("cell_id")["label"]
    why = {labels[cell]: text for cell, text in found.run.manifest["race"]["dropped"].items()}
    assert why[BEST].startswith("surely breaks ttft_ms_p50<=100: 500 in ")
    assert labels[found.decision.choice.top] in ("T=0.2 k=50", "T=0.6 k=50")
    assert any(BEST in line and "dropped" in line for line in said)


class Long(ScriptedEngine):
    """Cuts the answers of cold settings, which are the best here."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = planted(self.chance)

    @staticmethod
    def chance(request: Request) -> float:
        """The best that keeps to max_tokens is temperature 1.0."""
        gain = {0.2: 0.3, 0.4: 0.35, 0.6: 0.3, 1.0: 0.15, 1.2: -0.1}
        return float(
            np.clip(EASE[request.prompt_id] + gain.get(request.params.temperature, 0), 0, 1)
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer."""
        for request in requests:
            cold = (request.params.temperature or 0) < 0.7
            for generation in self.inner.generate([request]):
                yield (
                    dataclasses.replace(generation, finish_reason="length") if cold else generation
                )


@pytest.mark.parametrize(
    "limit", ["truncated_rate<=0.1", "truncated_rate<=0.1, n_output_tokens_mean<=12"]
)
def test_limits_on_answers_reach_the_race(tmp_path: Path, limit: str) -> None:
    """Cells that are cut do not lead, are dropped for it, and the best of the others is found, as in the full grid."""
    limits = limit.split(", ")
    found, _ = raced(tmp_path, Long(), subject_to=limits)
    temperature = found.run.cells.set_index("cell_id")["temperature"]
    assert temperature[found.decision.pick] == 1.0
    cut = {
        c
        for c, drop in found.race.dropped.items()
        if "surely breaks truncated_rate<=0.1: 100 % in" in drop.why
    }
    assert cut == set(temperature.index[temperature < 0.7])
    assert {drop.leader for c, drop in found.race.dropped.items() if c not in cut}.isdisjoint(cut)
    whole = wb.run(study(), Long(), tmp_path / "whole", progress=False, say=lambda _: None)
    pick = wb.decide(whole, subject_to=limits).pick
    assert whole.cells.set_index("cell_id")["temperature"][pick] == 1.0


def test_those_that_keep_a_limit_are_the_finalists(tmp_path: Path) -> None:
    """Cells that break one, though not surely, come after all that keep it, however good they are."""
    loops = "go on and on and on. " * 12

    class Looping(Long):
        def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
            for generation in super().generate(requests):
                bad = generation.finish_reason == "length" and generation.prompt_id.endswith(
                    ("0", "4", "8")
                )
                text = f"{generation.text} {loops}" if bad else generation.text
                yield dataclasses.replace(generation, text=text, finish_reason="stop")

    declared = study(prompts=ROWS[:40], latency=None)
    found, _ = raced(tmp_path, Looping(), declared, subject_to="loop_rate<=0.15")
    cells = found.run.cells.set_index("cell_id")["temperature"]
    assert not any("breaks" in drop.why for drop in found.race.dropped.values())
    assert len(found.race.alive) > 6
    finalists = found.run.manifest["race"]["finalists"]
    assert len(finalists) == 6
    assert all(cells[cell] > 0.7 for cell in finalists)
    asked = found.run.generations
    assert set(asked.loc[asked["split"].eq("confirm"), "cell_id"]) == set(finalists)


@pytest.mark.parametrize(
    ("latency_of_study", "limit", "least"),
    [
        pytest.param(None, "e2el_ms_p50<=100000", 20, marks=pytest.mark.long),
        ({"prompts": 4, "warmup": 1, "rounds": 2}, "e2el_ms_p90<=100000", 64),
        pytest.param(None, "e2el_ms_p95<=100000", 130, marks=pytest.mark.long),
    ],
)
def test_as_many_requests_are_timed_as_a_limit_needs(
    tmp_path: Path, latency_of_study: Any, limit: str, least: int
) -> None:
    """So that it is known of the finalists, also if the study has no latency pass; and no more than that."""
    found, said = raced(tmp_path, declared=study(latency=latency_of_study), subject_to=limit)
    (checked,) = found.decision.choice.limits
    finalists = found.run.manifest["race"]["finalists"]
    assert {checked.status[cell] for cell in finalists} == {"met"}
    assert found.decision.pick is not None
    assert any(line.startswith(f"timing the {len(finalists)} finalists, ") for line in said)
    n = found.run.latency[found.run.latency["warm"].eq(1)]["cell_id"].value_counts()
    assert all(least <= n[cell] <= least + 16 for cell in finalists)


def test_timing_ends_with_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is then not known is said, and the same call again does not time on."""
    monkeypatch.setattr(timing._Pass, "_over", lambda self: self.sent >= 30)
    found, said = raced(tmp_path, declared=study(latency=None), subject_to="e2el_ms_p90<=100000")
    n = found.run.latency["warm"].eq(1).sum()
    assert "timing: budget spent; not known for all finalists: e2el_ms_p90<=100000 (" in said[-1]
    assert found.decision.pick is None
    again, _ = raced(tmp_path, declared=study(latency=None), subject_to="e2el_ms_p90<=100000")
    assert again.run.latency["warm"].eq(1).sum() == n


def spent(run: Any) -> dict[str, int]:
    """Rows and tokens of a run, timed requests included."""
    timed = run.latency[run.latency["warm"].eq(1)]
    return {
        "rows": len(run.generations) + len(timed),
        "tokens": int(run.generations["n_output_tokens"].sum() + timed["n_output_tokens"].sum()),
    }


@pytest.mark.parametrize(
    "options",
    [
        {"budget": "420 rows"},
        pytest.param({"budget": "700 rows"}, marks=pytest.mark.long),
        pytest.param({"budget": "1500 rows"}, marks=pytest.mark.long),
        {"budget": "5000 tokens"},
        {"budget": "900 rows", "subject_to": "ttft_ms_p50<=100"},
    ],
)
def test_a_budget_is_kept(tmp_path: Path, options: dict[str, Any]) -> None:
    """With the prompts held out and the timed requests; tokens to within what an estimate of them is wrong."""
    found, _ = raced(tmp_path, **options)
    most, what = options["budget"].split()
    assert spent(found.run)[what] <= int(most) * (1 if what == "rows" else 1.02)
    assert found.stopped.startswith("budget: ")
    assert found.decision.choice.held_out
    assert found.run.generations["split"].eq("confirm").any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"budget": "10 rows"},
            (
                "at least 412 rows for this study (240 for 10 prompts of 12 cells; 172 for the 43 prompts held out, baseline "
                "and one cell), got '10 rows'"
            ),
        ),
        (
            {"budget": "420 rows", "subject_to": "e2el_ms_p90<=900"},
            (
                "at least 580 rows for this study (240 for 10 prompts of 12 cells; 172 for the 43 prompts held out, baseline "
                "and one cell; 168 to time), got '420 rows'"
            ),
        ),
        (
            {"budget": "20m, 300 tokens"},
            (
                "at least 412 tokens for this study (240 for 10 prompts of 12 cells; 172 for the 43 prompts held out, "
                "baseline and one cell), got '20.0 min, 300 tokens'"
            ),
        ),
    ],
)
def test_a_budget_that_cannot_do_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """With what it takes, before anything runs."""
    with pytest.raises(ParamError) as caught:
        raced(tmp_path, **options)
    assert str(caught.value) == f"--budget must be {message}"
    assert not list(tmp_path.iterdir())


def test_time_that_is_up_after_the_first_block(tmp_path: Path) -> None:
    """Nothing more is asked, and nothing is claimed."""
    found, said = raced(tmp_path, budget="0.001s")
    assert set(found.run.generations["split"]) == {"select"}
    assert found.race.n_prompts == 10
    assert not found.decision.choice.held_out
    assert found.decision.pick == found.run.manifest["baseline"]
    assert any(
        line.startswith("budget: used up (")
        and line.endswith("take 172 rows more, so no gain is measured: give a larger one")
        for line in said
    )
    assert "no prompt held out was asked" in found.text


def test_time_of_earlier_calls_counts(tmp_path: Path) -> None:
    """What a call that was killed took is in the manifest, up to its last block."""
    with pytest.raises(KeyboardInterrupt):
        raced(tmp_path, Killed(planted(), 500), budget="1h")
    (place,) = (tmp_path / "race").iterdir()
    manifest = json.loads((place / "manifest.json").read_text())
    assert len(manifest["race"]["blocks"]) == 1
    manifest["race"]["blocks"][-1]["wall_s"] = 3599.9999
    (place / "manifest.json").write_text(json.dumps(manifest | {"calls": []}))
    found, _ = raced(tmp_path, budget="1h")
    assert found.stopped == "budget: 60.0 min of 60.0 min"
    assert found.race.n_prompts == 10


def test_only_the_best_are_finalists(tmp_path: Path) -> None:
    """Where more are left, five beside the baseline answer the prompts held out; the others are told apart from dropped ones."""
    found, _ = raced(tmp_path, planted(lambda r: EASE[r.prompt_id]), study(prompts=ROWS[:60]))
    assert len(found.race.alive) == 12
    rows = found.run.generations
    finalists = found.run.manifest["race"]["finalists"]
    assert set(rows.loc[rows["split"].eq("confirm"), "cell_id"]) == set(finalists)
    assert len(finalists) == 6
    assert found.course.startswith(
        "12 cells raced (all prompts asked): 0 were dropped on the way, 6 finalists, the baseline among them, answered "
        "the prompts held out; 6 were neither. "
    )


def test_without_a_split_some_prompts_are_held_out(tmp_path: Path) -> None:
    """A winner is never judged by the prompts that picked it alone."""
    found, said = raced(tmp_path, declared=study(split=None))
    assert said[0] == ("split: the study holds no prompts out; tuning holds out 43 of 150 prompts")
    assert found.decision.choice.held_out


@pytest.mark.parametrize(
    ("n", "split", "said"),
    [
        (40, None, ["split: the study holds no prompts out; tuning holds out 15 of 40 prompts"]),
        (
            12,
            None,
            [
                "split: the study holds no prompts out; tuning holds out 7 of 12 prompts",
                "split: 5 prompts to choose with, 7 held out: too few to show much (10 of each are needed)",
            ],
        ),
        (
            20,
            {"confirm": 0.3},
            [
                "split: 13 prompts to choose with, 7 held out: too few to show much (10 of each are needed)"
            ],
        ),
    ],
)
def test_enough_prompts_are_held_out(tmp_path: Path, n: int, split: Any, said: list[str]) -> None:
    """As many as it takes to measure on them, where there are 30; it is said before anything runs if a side is too small."""
    declared = study(prompts=ROWS[:n], split=split, latency=None)
    found, lines = raced(tmp_path, declared=declared)
    assert lines[: len(said)] == said
    assert found.decision.choice.held_out


def test_more_are_held_out_where_a_few_are_too_few(tmp_path: Path) -> None:
    """Of 30 prompts whose ids fall so that 30 % of them are 7, as many more as it takes."""
    rows = [row | {"id": row["id"].replace("p", "s")} for row in ROWS[:30]]
    found, said = raced(tmp_path, declared=study(prompts=rows, split=None, latency=None))
    assert said[0].endswith("tuning holds out 11 of 30 prompts")
    assert found.run.generations["split"].eq("confirm").any()


def test_a_record_tells_which_cells_stopped_early(tmp_path: Path) -> None:
    """The manifest has why and after how many prompts, for tables and pictures to mark them."""
    found, _ = raced(tmp_path)
    told = found.run.manifest["race"]
    rows = found.run.generations
    asked = rows[rows["split"].eq("select")].groupby("cell_id")["prompt_id"].nunique()
    assert told["n_prompts"] == asked.to_dict()
    assert set(told["dropped"]) <= {c for c, n in asked.items() if n < asked.max()}


def test_a_race_has_one_objective(tmp_path: Path) -> None:
    """Several take a search."""
    with pytest.raises(ParamError) as caught:
        raced(tmp_path, objective="quality, -e2el_ms_p50")
    assert str(caught.value) == (
        "--objective must be one, where a grid races, got 'contains, -e2el_ms_p50'"
    )


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        (
            {"scorers": []},
            {},
            ScorerError,
            "a study without scorers cannot be tuned: name one in `scorers`",
        ),
        (
            {"grid": {"temperature": [0.5]}, "baseline": None},
            {},
            StudyError,
            "race: one cell: there is nothing to tune",
        ),
        ({}, {"objective": "nonsense"}, ParamError, "nonsense"),
        ({}, {"subject_to": ["speed<=3"]}, StudyError, "speed"),
        ({}, {"budget": "much"}, ParamError, "much"),
        ({}, {"alpha": 2.0}, ParamError, "alpha must be a number above 0 and below 0.5, got 2.0"),
    ],
)
def test_what_cannot_be_tuned_is_said(
    tmp_path: Path, changes: Any, options: Any, error: type[Exception], message: str
) -> None:
    """Before anything runs."""
    with pytest.raises(error) as caught:
        raced(tmp_path, declared=study(**changes), **options)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_objective_is_checked_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a minute to load one."""
    monkeypatch.setattr("workbench.api.engine_for", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ParamError) as caught:
        tune(study(), None, tmp_path, objective="nope", say=lambda _: None)
    assert str(caught.value).startswith("--objective must be one of quality, contains, ")


def test_the_record_replays_the_race(tmp_path: Path) -> None:
    """race.json holds every block with its scores."""
    found, _ = raced(tmp_path)
    record = json.loads((found.run.path / "race.json").read_text(encoding="utf-8"))
    asked = [p for event in record["history"] if "prompts" in event for p in event["prompts"]]
    assert len(asked) == len(set(asked)) == found.race.n_prompts
