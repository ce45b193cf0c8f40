"""A study run again, and two runs side by side."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import reports
from loras import write_adapter

import workbench as wb
from workbench import adapters
from workbench.engines.scripted import PlantedQuality, ScriptedClock, ScriptedEngine
from workbench.errors import AdapterError, StoreError
from workbench.reproducing import diff, rerun
from workbench.rundir import read_manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.runs import Run

QUIET: dict[str, Any] = {"progress": False, "say": lambda _: None}
GRID = {"temperature": [0, 0.7]}


def planted(n: int = 12, right: float = 0.5) -> ScriptedEngine:
    """Answers each sum rightly with a chance."""
    answers = {f"p{i}": f"The sum is {i + 1}." for i in range(n)}
    return ScriptedEngine(
        quality=PlantedQuality(lambda r: right if r.params.temperature else 0.8, answers),
        clock=ScriptedClock(40.0, 20.0),
    )


def made(folder: Path, engine: ScriptedEngine | None = None, **changes: Any) -> Run:
    """A run of two cells."""
    declared: dict[str, Any] = {"grid": GRID, "baseline": None, "latency": False} | changes
    return reports.make_run(folder, n_prompts=12, engine=engine or planted(), **declared)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A study file with its prompt file."""
    rows = [{"id": f"q{i}", "prompt": f"What is {i} + 1?", "target": str(i + 1)} for i in range(8)]
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    (folder / "s.yaml").write_text(
        "name: filed\nmodel: scripted\nprompts: p.jsonl\ngrid: {temperature: [0, 0.7]}\nfixed: {max_tokens: 8}\n"
        "scorers: [numeric]\nlatency: {prompts: 2, warmup: 0, rounds: 1}\nengine: {kind: scripted}\n",
        "utf-8",
    )
    return folder


# ---------------------------------------------------------------------------------------------------- again


def test_a_run_from_files_is_run_again(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another folder too: the manifest names the first run, requests are timed, and nothing differs."""
    first = wb.run(files / "s.yaml", out=tmp_path / "out", limit=5, **QUIET)
    monkeypatch.chdir(tmp_path)
    again = rerun(str(first.path), out=tmp_path / "out", **QUIET)
    assert again.path != first.path
    assert again.manifest["rerun_of"] == first.id
    assert "rerun_changed" not in again.manifest
    assert again.manifest["prompt_set"]["n_prompts"] == 5
    assert again.manifest["content_hash"] == first.manifest["content_hash"]
    assert len(again.latency) == len(first.latency) > 0
    assert (again.path / "summary.csv").is_file()
    found = diff(first, again)
    assert found.identical
    assert found.inputs == ()
    assert len(rerun(first, out=tmp_path / "out", latency=False, **QUIET).latency) == 0


def test_a_changed_prompt_file_is_an_error_unless_allowed(files: Path, tmp_path: Path) -> None:
    """The hashes then and now are named; allowed, it runs and the manifest says what changed."""
    first = wb.run(files / "s.yaml", out=tmp_path / "out", **QUIET)
    text = (files / "p.jsonl").read_text("utf-8")
    (files / "p.jsonl").write_text(text.replace("What is 3 + 1?", "What is 3 plus 1?"), "utf-8")
    now = wb.Study.from_yaml(files / "s.yaml").load_prompts().sha256[:12]
    was = first.manifest["prompt_set"]["sha256"][:12]
    with pytest.raises(StoreError) as caught:
        rerun(first, out=tmp_path / "out", **QUIET)
    problem = (
        f"the prompts {first.manifest['prompt_set']['source']} were sha256 {was} and are {now} now"
    )
    assert str(caught.value) == f"{first.path}: {problem}; allow it with --allow-changed"
    said: list[str] = []
    again = rerun(first, out=tmp_path / "out", allow_changed=True, progress=False, say=said.append)
    assert said[0] == f"note: {problem}"
    assert again.manifest["rerun_changed"] == [problem]
    found = diff(first, again)
    assert not found.identical
    assert [c.name for c in found.inputs] == ["prompts: sha256"]
    assert found.rows.prompts == (7, 1, 1)
    assert (found.rows.n_both, found.rows.n_only_a, found.rows.n_only_b) == (14, 2, 2)


def test_a_prompt_file_that_is_gone(files: Path, tmp_path: Path) -> None:
    """It is an error; allowed, the prompts kept in the run are asked."""
    first = wb.run(files / "s.yaml", out=tmp_path / "out", **QUIET)
    (files / "p.jsonl").unlink()
    with pytest.raises(StoreError) as caught:
        rerun(first, out=tmp_path / "out", **QUIET)
    assert str(caught.value).startswith(f"{first.path}: the prompts ")
    assert "cannot be read any more" in str(caught.value)
    again = rerun(first, out=tmp_path / "out", allow_changed=True, **QUIET)
    assert diff(first, again).rows.same


def test_a_study_given_in_python_asks_the_prompts_of_the_run(tmp_path: Path) -> None:
    """Prompts that have no file are those kept in the run, under their old name."""
    first = made(tmp_path)
    again = rerun(first, planted(), out=tmp_path, **QUIET)
    assert again.manifest["prompt_set"] == first.manifest["prompt_set"]
    assert again.manifest["study"]["sha256"] == first.manifest["study"]["sha256"]
    assert diff(first, again).identical


def test_a_changed_adapter_is_an_error(tmp_path: Path) -> None:
    """An adapter folder whose content is another one is told by both hashes, before anything is loaded."""
    first = made(tmp_path)
    path = write_adapter(tmp_path / "terse", modules={"model.layers.0.self_attn.q_proj": (8, 8)})
    text = first.manifest["study"]["text"].replace("- base\n", f"- base\n- terse: {path}\n")
    engine = first.manifest["engine"] | {"engine": "local", "adapters": {"terse": "0" * 64}}
    study = first.manifest["study"] | {"text": text}
    write_manifest(first.path, first.manifest | {"engine": engine, "study": study})
    now = adapters.read(path).sha256[:12]
    with pytest.raises(AdapterError) as caught:
        rerun(first.path, planted(), out=tmp_path, **QUIET)
    assert str(caught.value) == (
        f"{first.path}: adapter 'terse' was sha256 000000000000, {path} is {now} now; allow it with --allow-changed"
    )


def test_tuned_and_imported_runs_are_refused(tmp_path: Path) -> None:
    """One sentence says why, and what to do instead."""
    first = made(tmp_path)
    write_manifest(first.path, first.manifest | {"tuning": {"eta": 2}})
    with pytest.raises(StoreError) as caught:
        rerun(first.path, planted(), out=tmp_path, **QUIET)
    assert str(caught.value) == (
        f"{first.path}: made by tuning, which decides on the way which rows to ask for; run `workbench tune` on its "
        "study again, then `workbench diff` on the two runs"
    )
    engine = first.manifest["engine"] | {"engine": "imported", "extra": {"file": "x.jsonl"}}
    write_manifest(first.path, first.manifest | {"engine": engine})
    with pytest.raises(StoreError) as caught:
        rerun(first.path, planted(), out=tmp_path, **QUIET)
    assert str(caught.value) == (
        f"{first.path}: its answers were imported from x.jsonl, so nothing here can make them again"
    )


def test_other_weights_are_refused(tmp_path: Path) -> None:
    """An engine with other weights than the run's is no rerun, unless that is allowed."""
    first = made(tmp_path)
    now = str(first.manifest["engine"]["weight_hash"])
    engine = first.manifest["engine"] | {"weight_hash": "f" * 64}
    write_manifest(first.path, first.manifest | {"engine": engine})
    with pytest.raises(StoreError, match="weights sha256 ffffffffffff; those of scripted are"):
        rerun(first.path, planted(), out=tmp_path, **QUIET)
    again = rerun(first.path, planted(), out=tmp_path, allow_changed=True, **QUIET)
    change = next(c for c in diff(first.path, again).inputs if c.name == "model: weight_hash")
    assert (change.a, str(change.b)) == ("f" * 64, now)


# ----------------------------------------------------------------------------------------------------- diff


def test_identical_is_said_plainly(tmp_path: Path) -> None:
    """Two runs of one study say so in the first sentence, section by section, and as JSON."""
    first, again = (made(tmp_path / name) for name in "ab")
    found = diff(first, again)
    assert found.identical
    lines = found.text.splitlines()
    assert lines[:3] == [
        f"A {first.path}",
        f"B {again.path}",
        "Identical: the same inputs, 36 rows with the same tokens, texts and scores.",
    ]
    assert lines[lines.index("Inputs") + 1] == "  the same"
    assert "  token-identical: 36 of 36 (100.0%)" in lines
    assert "  numeric: 0 up, 0 down, 36 the same" in lines
    assert "  quality of a cell, B minus A on the prompts of both: 2 of 2 the same" in lines
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["identical"] is True
    assert plain["conclusions"]["best"]["same"] is True
    assert plain["rows"]["n_both"] == 36
    assert diff(first, first).identical


def test_scores_and_conclusions_that_changed_are_counted(tmp_path: Path) -> None:
    """A better sampled cell: which rows went up, how far its quality moved with its interval, and the new best cell."""
    first = made(tmp_path / "a", planted(right=0.0))
    again = made(tmp_path / "b", planted(right=1.0))
    found = diff(first, again)
    assert not found.identical
    assert found.inputs == ()
    assert found.rows.scores == {"numeric": {"n": 36, "up": 24, "down": 0, "only_one": 0}}
    assert (found.rows.n_same_tokens, found.rows.n_tokens) == (12, 36)
    assert found.best == ("greedy", "T=0.7")
    row = found.cells.set_index("label").loc["T=0.7"]
    assert (row["quality_a"], row["quality_b"], row["diff"], row["n_prompts"]) == (
        0.0,
        1.0,
        1.0,
        12,
    )
    assert row["lo"] <= 1.0 <= row["hi"]
    assert found.cells.set_index("label").loc["greedy", "diff"] == 0
    lines = found.text.splitlines()
    assert lines[2] == "Not identical; what differs: answers, scores."
    assert "  best cell: changed, greedy -> T=0.7" in lines
    assert "  numeric: 24 up, 0 down, 12 the same" in lines
    words = lines[lines.index("  answer in words, where it differs:") + 1 :]
    assert words[0].startswith("    A: No setting scores above the baseline: greedy, quality ")
    assert words[1].startswith("    B: ")


def test_other_cells_prompts_and_settings_are_matched_where_they_can_be(tmp_path: Path) -> None:
    """What only one run has is counted; the study fields that differ are named with both values."""
    first = made(tmp_path / "a")
    again = made(tmp_path / "b", grid={"temperature": [0.7, 1.3]}, repeats=3)
    found = diff(first, again)
    assert found.rows.cells == (1, 1, 1)
    assert (found.rows.n_both, found.rows.n_only_a, found.rows.n_only_b) == (24, 12, 48)
    assert {c.name: (c.a, c.b) for c in found.inputs} == {
        "study: grid": ({"temperature": [0, 0.7]}, {"temperature": [0.7, 1.3]}),
        "study: repeats": (2, 3),
    }
    assert list(found.cells["label"]) == ["T=0.7"]
    lines = found.text.splitlines()
    assert lines[2] == "Not identical; what differs: 2 inputs, which rows there are."
    assert "  cells: in both 1, only in A 1, only in B 1" in lines


def test_environment_is_no_input(tmp_path: Path) -> None:
    """Another kernel, package and commit are told, and the runs are still identical."""
    first, again = (made(tmp_path / name) for name in "ab")
    manifest = read_manifest(again.path)
    manifest["engine"]["kernel"] = "int4"
    manifest["packages"]["numpy"] = "9.9"
    manifest["git"] = {"commit": "abc", "dirty": True}
    write_manifest(again.path, manifest)
    found = diff(first, again.path)
    named = {c.name: c.b for c in found.environment}
    assert named["kernel"] == "int4"
    assert named["package numpy"] == "9.9"
    assert named["code"] == "abc with changes"
    assert found.identical
    assert found.text.splitlines()[2].endswith("; made in another environment, see below.")


def test_runs_without_a_common_row_or_scorer(tmp_path: Path) -> None:
    """Nothing is compared that cannot be, and the text says why."""
    first = made(tmp_path / "a")
    other = made(tmp_path / "b", scorers=["exact"])
    found = diff(first, other)
    assert found.cells.empty
    assert found.notes == (
        "Qualities are not compared: the primary scorer is numeric in A and exact in B.",
    )
    rows = [{"id": "z", "prompt": "What is 5 + 1?", "target": "6"}]
    alone = made(tmp_path / "c", prompts=wb.PromptSet.from_records(rows, "other"))
    found = diff(first, alone)
    assert (found.rows.n_both, found.rows.n_tokens) == (0, 0)
    assert found.notes == ("The runs have no row in common.",)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["cells"] == []


def test_one_text_and_one_score_are_enough(tmp_path: Path) -> None:
    """A single changed text, and a single missing score, are no identical runs."""
    first, again = (made(tmp_path / name) for name in "ab")
    with sqlite3.connect(again.path / "run.sqlite") as db:
        db.execute("UPDATE generations SET text = 'x' WHERE rowid = 1")
        db.execute("UPDATE scores SET value = NULL WHERE rowid = 2")
    db.close()
    found = diff(first, again.path)
    assert (found.rows.n_same_tokens, found.rows.n_same_text) == (36, 35)
    assert found.rows.scores["numeric"]["only_one"] == 1
    assert not found.identical
    assert found.text.splitlines()[2] == "Not identical; what differs: answers, scores."
