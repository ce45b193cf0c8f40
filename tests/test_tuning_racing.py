"""Tuning by racing, from a study to a decision: what is asked, what is not, and that a killed race decides the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import workbench as wb
from workbench.engines.scripted import PlantedQuality, ScriptedClock, ScriptedEngine
from workbench.errors import ParamError, ScorerError, StudyError
from workbench.study import Study
from workbench.tuning import tune

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
    assert held == set(found.race.alive)
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


class Killed(ScriptedEngine):
    """Stops after some answers."""

    def __init__(self, inner: ScriptedEngine, after: int) -> None:
        super().__init__()
        self.inner, self.after = inner, after

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer some."""
        for generation in self.inner.generate(requests):
            if self.after == 0:
                raise KeyboardInterrupt
            self.after -= 1
            yield generation


@pytest.mark.parametrize("after", [100, 500, 1300])
def test_a_race_that_was_stopped_decides_the_same(tmp_path: Path, after: int) -> None:
    """Wherever it is interrupted, the same rows are asked in the end, and the same cells dropped."""
    whole, _ = raced(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        raced(tmp_path / "parts", Killed(planted(), after))
    parts, said = raced(tmp_path / "parts")
    assert "continuing" in said[0]
    keys = [
        set(map(tuple, f.run.generations[["cell_id", "prompt_id", "repeat"]].to_numpy()))
        for f in (whole, parts)
    ]
    assert keys[0] == keys[1]
    assert parts.race.to_dict() == whole.race.to_dict()
    assert parts.decision.pick == whole.decision.pick


def test_a_cell_that_surely_breaks_a_limit_stops(tmp_path: Path) -> None:
    """The best cell is too slow: it is dropped for that, and the best of the others is on top."""
    slow = lambda r: 500.0 if r.params.temperature == 0.4 else 20.0  # noqa: E731
    found, said = raced(tmp_path, planted(prefill_ms=slow), subject_to=["ttft_ms_p50<=100"])
    labels = found.run.cells.set_index("cell_id")["label"]
    why = {labels[cell]: text for cell, text in found.run.manifest["race"]["dropped"].items()}
    assert why[BEST].startswith("surely breaks ttft_ms_p50<=100: 500 in ")
    assert labels[found.decision.choice.top] in ("T=0.2 k=50", "T=0.6 k=50")
    assert any(BEST in line and "dropped" in line for line in said)


@pytest.mark.parametrize(("budget", "most"), [("700 rows", 700), ("5000 tokens", 5000)])
def test_a_budget_is_kept(tmp_path: Path, budget: str, most: int) -> None:
    """It is never exceeded by more than a block, and the prompts held out still fit into it."""
    found, _ = raced(tmp_path, budget=budget)
    rows = found.run.generations
    spent = len(rows) if "rows" in budget else int(rows["n_output_tokens"].sum())
    block = 12 * 25 * 2 * (1 if "rows" in budget else 12)
    assert spent <= most + block
    assert found.stopped.startswith("budget: ")
    assert found.decision.choice.held_out
    assert rows["split"].eq("confirm").any()


def test_without_a_split_some_prompts_are_held_out(tmp_path: Path) -> None:
    """A winner is never judged by the prompts that picked it alone."""
    found, said = raced(tmp_path, declared=study(split=None))
    assert said[0] == (
        "split: the study holds no prompts out; tuning holds out 30 % of them, 43 of 150"
    )
    assert found.decision.choice.held_out


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (40, "tuning holds out 30 % of them, 15 of 40"),
        (12, "tuning holds out 50 % of them, 7 of 12, too few to measure on (10 are needed)"),
    ],
)
def test_enough_prompts_are_held_out(tmp_path: Path, n: int, said: str) -> None:
    """As many as it takes to measure on them, where there are 30; it is announced."""
    declared = study(prompts=ROWS[:n], split=None, latency=None)
    found, lines = raced(tmp_path, declared=declared)
    assert lines[0] == f"split: the study holds no prompts out; {said}"
    assert found.decision.choice.held_out


def test_more_are_held_out_where_a_few_are_too_few(tmp_path: Path) -> None:
    """Of 30 prompts whose ids fall so that 30 % of them are 7, as many more as it takes."""
    rows = [row | {"id": row["id"].replace("p", "s")} for row in ROWS[:30]]
    found, said = raced(tmp_path, declared=study(prompts=rows, split=None, latency=None))
    assert said[0].endswith("tuning holds out 45 % of them, 11 of 30")
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


def test_the_record_replays_the_race(tmp_path: Path) -> None:
    """race.json holds every block with its scores."""
    found, _ = raced(tmp_path)
    record = json.loads((found.run.path / "race.json").read_text(encoding="utf-8"))
    asked = [p for event in record["history"] if "prompts" in event for p in event["prompts"]]
    assert len(asked) == len(set(asked)) == found.race.n_prompts
