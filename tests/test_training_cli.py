"""The command that trains: what it prints, where, and what it returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from checkpoints import make_dense
from commands import Command, workbench
from trainings import ROWS

from workbench.cli import training  # noqa: F401 - registers the command
from workbench.engines.local import demo_model

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["workbench"]

SMALL = (
    "--rank",
    2,
    "--targets",
    "q_proj,down_proj",
    "--epochs",
    1,
    "--checks",
    1,
    "--device",
    "cpu",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model."""
    folder = tmp_path_factory.mktemp("cli") / "dense"
    return make_dense(folder, demo_model.ensure(progress=False))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.mark.usefixtures("rows")
def test_training_from_the_command_line(workbench: Command, model: Path, tmp_path: Path) -> None:
    """The result goes to standard output, notes to standard error; a second call does nothing and prints the same."""
    call = ("train", "rows.jsonl", "--out", "adapters/colours", "--model", model, *SMALL)
    done = workbench(*call)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("adapters/colours: trained on ")
    assert lines[1].startswith("  held-out loss ")
    few = "warning: only 2 rows are held out (fewer than 20), so the held-out loss, and which step is kept for it, are mostly luck"
    assert lines[2].startswith(f"  {few}; ")
    assert lines[3].startswith("  adapter ")
    assert lines[4] == "  in a study: adapters: [base, adapters/colours]"
    assert done.err.startswith("rows.jsonl: ")
    assert done.err.splitlines()[1].startswith(f"{few}; ")
    assert done.err.count("\n") == 2
    again = workbench(*call, "--json")
    assert again.code == 0
    assert again.err.startswith("adapters/colours: finished ")
    record = json.loads((tmp_path / "adapters/colours/training.json").read_text(encoding="utf-8"))
    assert again.json == {"path": "adapters/colours", "new": False, **record}
    assert record["data"]["source"] == "rows.jsonl"
    assert record["settings"]["targets"] == ["down_proj", "q_proj"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("none.jsonl",), "training data: none.jsonl: no such file (looked in {here})"),
        (
            ("rows.jsonl", "--learning-rate", 0),
            "learning_rate must be a number above 0, up to 1, got 0.0",
        ),
        (
            ("rows.jsonl", "--evaluated", "none"),
            "prompts: none: a prompt file ends in .jsonl, .ndjson, .csv, .tsv, .yaml, .yml",
        ),
        (("rows.jsonl", "--model", "./nowhere"), "./nowhere: no such folder"),
    ],
)
@pytest.mark.usefixtures("rows")
def test_errors_are_one_line(
    workbench: Command, tmp_path: Path, arguments: tuple[object, ...], problem: str
) -> None:
    """Code 1, the problem on standard error, and no folder made."""
    done = workbench("train", *arguments, "--out", "a")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"workbench: {problem.format(here=tmp_path)}\n"
    assert not (tmp_path / "a").exists()
