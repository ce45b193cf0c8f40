"""Rows made again: what comes out the same, what does not, and how close it was."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reports
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.engines.local.sampling import RowSettings, draw
from workbench.engines.scripted import PlantedQuality, ScriptedClock, ScriptedEngine
from workbench.errors import AdapterError, StoreError
from workbench.latency import Reproducibility
from workbench.params import SEED_MAX, SamplingParams
from workbench.reproducing import margins, verify
from workbench.reproducing.rows import MODES, first_difference
from workbench.reproducing.sameness import short
from workbench.rundir import read_manifest, write_manifest
from workbench.runs import Run

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.engines.local.engine import LocalEngine

SAME = Reproducibility(5, 5, 1.0)


def planted(n: int = 6, wrong: str | None = None) -> ScriptedEngine:
    """The engine of `reports.make_run`; it answers one prompt otherwise if asked to."""
    answers = {f"p{i}": f"The sum is {i + 1}." for i in range(n)}
    if wrong is not None:
        answers[wrong] = "The sum is not known."
    return ScriptedEngine(
        quality=PlantedQuality(lambda _: 1.0, answers), clock=ScriptedClock(40.0, 20.0)
    )


def made(folder: Path, **changes: Any) -> Run:
    """A small run whose every answer is right."""
    return reports.make_run(folder, n_prompts=6, engine=planted(), latency=False, **changes)


def test_the_same_engine_makes_the_same_rows(tmp_path: Path) -> None:
    """Every mode is token-identical, the manifest keeps the grade, and another seed takes other rows."""
    run = made(tmp_path)
    said: list[str] = []
    found = verify(run, planted(), 5, seed=1, say=said.append)
    assert found.ok
    assert found.grades == dict.fromkeys(MODES, SAME)
    assert (found.divergences, found.texts_changed, found.scores_known) == ((), (), False)
    assert said == [
        f"{run.path}: 5 rows to make again: alone, with {found.n_requests - 15} neighbours, shuffled"
    ]
    assert found.text == (
        f"{run.path}: 5 rows made again on cpu, kernel numpy\n"
        "  alone (one at a time): 5 of 5 rows token-identical (100.0%)\n"
        "  batch (among its neighbours of the plan): 5 of 5 rows token-identical (100.0%)\n"
        "  shuffled (all of them in one batch, in random order): 5 of 5 rows token-identical (100.0%)"
    )
    (kept,) = read_manifest(run.path)["verified"]
    assert kept["modes"]["shuffled"] == {
        "n_compared": 5,
        "n_same": 5,
        "share": 1.0,
        "first_divergence": None,
        "largest_margin": None,
        "n_ties": 0,
    }
    assert (kept["n_rows"], kept["seed"], kept["kernel"]) == (5, 1, "numpy")
    verify(run, planted(), 2)
    assert [v["n_rows"] for v in read_manifest(run.path)["verified"]] == [5, 2]


def test_a_row_that_comes_out_otherwise_is_told(tmp_path: Path) -> None:
    """A prompt answered otherwise is found in every mode, at its first other token; without scores that is not ok."""
    run = made(tmp_path)
    found = verify(run, planted(wrong="p3"), 1000)
    assert not found.ok
    assert {d.prompt_id for d in found.divergences} == {"p3"}
    assert {d.mode for d in found.divergences} == set(MODES)
    rows = run.generations
    n_rows, n_other = len(rows), int(rows["prompt_id"].eq("p3").sum())
    assert found.grades["alone"] == (n_rows, n_rows - n_other, (n_rows - n_other) / n_rows)
    one = found.divergences[0]
    ids = rows.set_index(["cell_id", "prompt_id", "repeat"])["token_ids"]
    recorded = list(ids[one.cell_id, one.prompt_id, one.repeat])
    assert recorded[one.position] == one.recorded != one.now
    assert one.position == 3
    assert (one.margin, one.tie) == (None, None)
    lines = found.text.splitlines()
    assert lines[1].endswith("; first at token 4")
    assert lines[-1] == (
        "  This engine gives no scores, so it is not known how close the candidates were."
    )
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["reproduced"] is False


def test_a_text_that_is_not_that_of_its_tokens_is_told(tmp_path: Path) -> None:
    """A text changed in the record is found though the tokens are the same."""
    run = made(tmp_path)
    with sqlite3.connect(run.path / "run.sqlite") as db:
        done = db.execute("UPDATE generations SET text = 'The sum is 7.' WHERE rowid = 1")
        assert done.rowcount == 1
        key = db.execute("SELECT cell_id, prompt_id, repeat FROM generations WHERE rowid = 1")
        cell, prompt, repeat = key.fetchone()
    db.close()
    found = verify(run, planted(), 1000)
    assert not found.ok
    assert found.divergences == ()
    assert found.texts_changed == ((cell, prompt, repeat),)
    assert found.text.splitlines()[-1] == (
        f"  cell {cell}, prompt {prompt!r}, repeat {repeat}: the recorded text is not that of its tokens"
    )


def test_neighbours_are_those_of_the_plan(tmp_path: Path) -> None:
    """One row of a run made in batches of 4 is made again with the three rows that stood beside it in the plan."""
    run = made(tmp_path)
    with sqlite3.connect(run.path / "run.sqlite") as db:
        db.execute("UPDATE generations SET batch_rows = 4")
    db.close()
    asked: list[list[Any]] = []

    class Watched(ScriptedEngine):
        def generate(self, requests: Any) -> Any:
            asked.append([r.key for r in requests])
            engine = planted()
            return engine.generate(run.plan.request(*key) for key in asked[-1])

    found = verify(run, Watched(), 1, seed=3)
    assert found.grades["batch"] == (1, 1, 1.0)
    (key,), batch, (again,) = asked
    assert key == again
    order = list(run.plan.keys())
    start = order.index(key) // 4 * 4
    assert batch == order[start : start + 4]
    assert found.n_requests == 6


def test_what_cannot_be_made_again_is_said_first(tmp_path: Path) -> None:
    """Imported answers, other weights, another adapter and an engine given in Python: one sentence, and nothing is noted."""
    run = made(tmp_path)
    manifest = read_manifest(run.path)

    def with_engine(**changes: Any) -> Run:
        write_manifest(run.path, manifest | {"engine": manifest["engine"] | changes})
        return Run(run.path)

    give, now = "give the engine here too", short(manifest["engine"]["weight_hash"])
    cases: list[tuple[dict[str, Any], Any, type[Exception], str]] = [
        (
            {"engine": "imported", "extra": {"file": "x.jsonl"}},
            None,
            StoreError,
            f"{run.path}: its answers were imported from x.jsonl, so nothing here can make them again",
        ),
        (
            {"engine": "http"},
            None,
            StoreError,
            f"{run.path}: made with a http engine given in Python, and the study names a scripted one; {give}",
        ),
        (
            {"weight_hash": "0123456789abcdef"},
            planted(),
            StoreError,
            f"{run.path}: made with scripted, weights sha256 0123456789ab; those of scripted are {now} now",
        ),
        (
            {"adapters": {"terse": "0123456789abcdef"}},
            planted(),
            AdapterError,
            f"{run.path}: adapter 'terse' was sha256 0123456789ab in this run; the one of scripted is none now",
        ),
    ]
    for changes, engine, kind, said in cases:
        with pytest.raises(kind) as caught:
            verify(with_engine(**changes), engine)
        assert str(caught.value) == said
    assert "verified" not in read_manifest(run.path)
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        verify(run, planted(), 0)


@given(st.lists(st.integers(0, 3), max_size=6), st.lists(st.integers(0, 3), max_size=6))
def test_first_difference(a: list[int], b: list[int]) -> None:
    """Up to the place both are the same; there they differ, or one ends."""
    n = first_difference(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


SETTINGS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    top_k=st.sampled_from([None, 1, 3, 50]),
    top_p=st.sampled_from([None, 0.1, 0.7, 1.0]),
    min_p=st.sampled_from([None, 0.05, 0.5]),
    seed=st.integers(1, SEED_MAX),
)


@settings(max_examples=200, deadline=None)
@given(SETTINGS, st.integers(0, 2**32 - 1), st.integers(0, 40))
def test_scores_are_what_the_draw_compares(
    params: SamplingParams, seed: int, position: int
) -> None:
    """The best score is that of the token that the engine draws, and its lead is the draw's."""
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 4, 200)).float()
    token, lead = draw(
        logits.clone()[None], RowSettings.of([params], "cpu"), torch.tensor([position])
    )
    found = margins.scores(logits, params, position)
    assert int(found.argmax()) == int(token)
    first, second = found.topk(2).values
    assert float(first - second) == pytest.approx(float(lead[0]), abs=1e-5)


# ------------------------------------------------------------------------------------------- the demo model


def demo_run(folder: Path, engine: LocalEngine, **changes: Any) -> Run:
    """A run of the demo model, exact fp32, four rows a prompt."""
    study = wb.Study(
        name="demo",
        prompts=["What is 3 + 4?", "Name a colour.", "What is the capital of France?"],
        grid={"temperature": [0, 0.9], "top_p": [0.8]},
        fixed={"max_tokens": 10, "repetition_penalty": 1.1},
        repeats=3,
        seed=5,
        latency=False,
        engine={"kernel": "fp32", "device": "cpu"},
        **changes,
    )
    return wb.run(study, engine, out=folder, progress=False, say=lambda _: None)


@pytest.mark.model
def test_fp32_is_reproduced_in_every_mode(tmp_path: Path, demo_engine: LocalEngine) -> None:
    """All rows of a study come out the same alone, among their neighbours and shuffled; so does the study run again."""
    run = demo_run(tmp_path, demo_engine)
    found = verify(run, demo_engine, 100)
    assert found.grades == dict.fromkeys(MODES, Reproducibility(12, 12, 1.0))
    assert found.ok
    assert found.scores_known
    again = wb.rerun(run, demo_engine, out=tmp_path, progress=False, say=lambda _: None)
    assert wb.diff(run, again).identical


@pytest.mark.model
def test_a_real_difference_is_told_from_a_tie(tmp_path: Path, demo_engine: LocalEngine) -> None:
    """A token changed in the record has the margin of the draw, far from a tie; the smallest lead bounds it."""
    run = demo_run(tmp_path, demo_engine)
    rows = run.generations
    row = rows[rows["temperature"].gt(0) & rows["n_output_tokens"].ge(4)].iloc[0]
    key = (row["cell_id"], row["prompt_id"], int(row["repeat"]))
    ids = [int(i) for i in row["token_ids"]]
    changed = [*ids[:2], ids[2] + 1, *ids[3:]]
    with sqlite3.connect(run.path / "run.sqlite") as db:
        db.execute(
            "UPDATE generations SET token_ids = ? WHERE cell_id = ? AND prompt_id = ? AND repeat = ?",
            (json.dumps(changed), *key),
        )
    db.close()
    found = verify(run, demo_engine, 100)
    assert not found.ok
    assert [(d.mode, d.position, d.recorded, d.now) for d in found.divergences] == [
        (mode, 2, ids[2] + 1, ids[2]) for mode in MODES
    ]
    assert all(
        d.margin is not None and d.margin > row["min_margin"] * 0.99 for d in found.divergences
    )
    assert not any(d.tie for d in found.divergences)
    request = run.plan.request(*key)
    assert margins.between(demo_engine, request, ids[:2], (ids[2], ids[2])) == (0.0, True)
