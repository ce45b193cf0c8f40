"""A decision as a whole: from a run, finished or not, to text, table and files; and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Command, workbench
from loras import write_tiny
from studies import study_file

import workbench as wb
from workbench import api, deciding
from workbench.deciding.deploy import GENERATION_CONFIG, OPENAI, SNIPPET, VLLM, WORKERS_AI
from workbench.errors import StoreError

__all__ = ["workbench"]

FILES = {"decision.md", "decision.json", GENERATION_CONFIG, SNIPPET, OPENAI, VLLM, WORKERS_AI}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one run that holds prompts out, timed."""
    folder = tmp_path_factory.mktemp("made")
    file = study_file(folder, 60, split={"confirm": 0.4}, system="Be short.")
    api.run(file, out=folder / "results", progress=False, say=lambda _: None)
    return folder / "results"


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy of it where the command looks."""
    return Path(shutil.copytree(made, tmp_path / "results"))


@pytest.fixture(scope="module")
def decision(made: Path) -> deciding.Decision:
    """The decision on it."""
    return wb.decide(wb.open_run("latest", made))


def test_parts(decision):
    """Text, table, files and values are all there, and say the same."""
    assert set(decision.artefacts) == FILES
    assert decision.pick in set(decision.table["cell_id"])
    assert decision.text.splitlines()[-1].startswith("Not tested: ")
    values = decision.to_dict()
    assert (values["pick"], tuple(values["ties"]), values["text"]) == (
        decision.pick,
        decision.ties,
        decision.text,
    )
    assert json.loads(decision.artefacts["decision.json"]) == values
    assert decision.markdown() == decision.artefacts["decision.md"] == decision._repr_markdown_()
    assert [row["cell_id"] for row in values["table"]] == list(decision.table["cell_id"])


def test_where_it_comes_from(decision, made):
    """The values hold what identifies the run, and no path."""
    manifest = wb.open_run("latest", made).manifest
    origin = decision.to_dict()["made_from"]
    assert origin["run_id"] == manifest["run_id"]
    assert origin["content_hash"] == manifest["content_hash"]
    assert origin["prompt_set"]["sha256"] == manifest["prompt_set"]["sha256"]
    assert origin["engine"]["weight_hash"] == manifest["engine"]["weight_hash"]
    everything = "".join(decision.artefacts.values())
    assert str(made.parent) not in everything
    assert str(Path.home()) not in everything


def test_the_system_message_goes_along(decision):
    """What every prompt began with is in the requests."""
    for name in (OPENAI, WORKERS_AI):
        assert json.loads(decision.artefacts[name])["messages"][0] == {
            "role": "system",
            "content": "Be short.",
        }


def test_section(decision, made):
    """A report gets the same sentences, and the table in words; where there is nothing to decide it gets nothing."""
    run = wb.open_run("latest", made)
    found = deciding.section(run)
    assert found is not None
    assert "\n".join(found.sentences) == decision.text
    assert found.title == "Keep the baseline" or found.title.startswith("Use ")
    assert [row[0] for row in found.rows] == list(decision.table["role"])[: len(found.rows)]
    assert all(len(row) == len(found.columns) for row in found.rows)
    assert f"| {' | '.join(found.rows[0])} |" in decision.markdown()
    alone = run.cells.head(1)
    assert deciding.section(_Changed(run, cells=alone)) is None
    assert deciding.section(_Changed(run, scores=run.scores.assign(value=None))) is None
    assert deciding.section(_Changed(run, primary=None)) is None


class _Changed:
    """A run with some of its tables changed."""

    def __init__(self, run: wb.Run, **changes: Any) -> None:
        self._run, self._changes = run, changes

    def __getattr__(self, name: str) -> Any:
        return self._changes[name] if name in self._changes else getattr(self._run, name)


def test_same_seed_same_files(decision, made):
    """The same run and seed give the same bytes."""
    assert wb.decide(wb.open_run("latest", made)).artefacts == decision.artefacts


def test_an_adapter_that_wins(tmp_path):
    """Name and path of the adapter are those of the study, and its limits elsewhere are told."""
    folder = write_tiny(tmp_path / "adapters" / "terse")
    adapters = [{"terse": "adapters/terse"}]
    file = study_file(tmp_path, 30, adapters=adapters, grid={"temperature": [0]})
    run = api.run(file, out=tmp_path / "results", progress=False, say=lambda _: None)
    found = wb.decide(run)
    assert folder.is_dir()
    assert found.choice.baseline == found.pick
    assert "--lora-modules terse=adapters/terse" in found.artefacts[VLLM]
    assert json.loads(found.artefacts[WORKERS_AI])["lora"] == "terse"
    notes = found.to_dict()["notes"][WORKERS_AI]
    assert any(note.startswith("Workers AI wants model_type") for note in notes)
    assert str(tmp_path) not in "".join(found.artefacts.values())


def test_an_unfinished_run(made, tmp_path):
    """A run that was broken off can be decided on: the prompts that all cells answered count."""
    import sqlite3

    copy = Path(shutil.copytree(made, tmp_path / "results"))
    run = wb.open_run("latest", copy)
    with sqlite3.connect(run.path / "run.sqlite") as db:
        db.execute(
            "DELETE FROM generations WHERE cell_id = ? AND prompt_id = 'p3'",
            (run.cells["cell_id"][1],),
        )
    found = wb.decide(wb.open_run("latest", copy))
    assert "1 prompt that not every cell was asked does not count." in found.text
    assert found.choice.n_left_out == 1


def test_write(decision, made, tmp_path):
    """Files go to the run's folder or to the one named; what else is there stays."""
    (tmp_path / "mine.txt").write_text("keep", "utf-8")
    files = decision.write(tmp_path)
    assert {f.name for f in files} == FILES
    assert {p.name for p in tmp_path.iterdir()} == {*FILES, "mine.txt"}
    assert all(f.read_text("utf-8") == decision.artefacts[f.name] for f in files)
    own = decision.write()
    assert own[0].parent == wb.open_run("latest", made).path / "decision"


def test_write_in_the_way(decision, tmp_path):
    """A file where the folder should be is said, not a traceback."""
    (tmp_path / "taken").write_text("", "utf-8")
    with pytest.raises(StoreError) as caught:
        decision.write(tmp_path / "taken")
    assert str(caught.value) == f"{tmp_path / 'taken'}: cannot be written (File exists)"


# -------------------------------------------------------------------------------------------------- the command


def test_command(workbench: Command, results: Path, decision: deciding.Decision) -> None:
    """It prints the text, writes the files into the run and says where."""
    done = workbench("decide", "latest")
    folder = wb.open_run("latest", results).path / "decision"
    assert done.code == 0
    assert " ".join(done.out.split()) == " ".join(decision.text.split())
    assert max(map(len, done.out.splitlines())) <= 79
    assert done.err == f"written: {folder.relative_to(results.parent)}\n"
    assert {p.name for p in folder.iterdir()} == FILES


@pytest.mark.usefixtures("results")
def test_command_json(workbench: Command, tmp_path: Path) -> None:
    """JSON is the decision and the files; --out says where they go."""
    done = workbench(
        "decide", "latest", "--json", "--out", "there", "--baseline", "greedy", "--seed", 3
    )
    assert done.code == 0
    assert done.json["made_from"]["seed"] == 3
    assert {Path(f).name for f in done.json["files"]} == FILES
    assert (tmp_path / "there" / "decision.md").is_file()


@pytest.mark.usefixtures("results")
def test_command_no_cell(workbench: Command, tmp_path: Path) -> None:
    """If no cell is known to meet a limit the code is 100, and no settings are written."""
    done = workbench("decide", "latest", "--subject-to", "e2el_ms_p90<=900", "--out", "there", "-q")
    assert done.code == 100
    assert done.out.startswith(
        "No cell is known to meet e2el_ms_p90 <= 900: there is nothing to recommend.\n"
    )
    assert {p.name for p in (tmp_path / "there").iterdir()} == {"decision.md", "decision.json"}


@pytest.mark.usefixtures("results")
def test_command_wrong_limit(workbench: Command) -> None:
    """A limit that cannot be read is one line on standard error."""
    done = workbench("decide", "latest", "--subject-to", "fast")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "workbench: --subject-to: 'fast' must be a metric, one of <=, <, >=, >, and a number, such as 'e2el_ms_p90<=900'\n"
    )
