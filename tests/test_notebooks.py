"""Every notebook runs from top to bottom, and is committed without outputs."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import nbformat
import pytest

if TYPE_CHECKING:
    from pathlib import Path

TINY = {
    "TERSE": "../tests/data/tiny_sums.jsonl",
    "POLITE": "../tests/data/tiny_manners.jsonl",
}
SMALL: dict[str, dict[str, Any]] = {
    "01_quickstart": {"LIMIT": 3},
    "02_sampling_grid": {"LIMIT": 2, "STUDY": "../tests/data/sampling_small.yaml"},
    "03_adapters": {"LIMIT": 6, "TRAINING": {"rank": 2, "epochs": 1}, **TINY},
    "04_tuning": {"LIMIT": 24, "TRIALS": 2},
    "05_latency": {"LIMIT": 3, "PROMPTS": 2, "ROUNDS": 1},
    "06_reading_results": {"STUDIES": 20},
    "07_own_data": {"LIMIT": 6},
}
PICTURES = {
    "01_quickstart": 1,
    "02_sampling_grid": 7,
    "03_adapters": 6,
    "04_tuning": 3,
    "05_latency": 2,
    "06_reading_results": 2,
    "07_own_data": 1,
}
NAMES = sorted([*SMALL, "report"])
"""The report's notebook is run by tests/test_reporting.py."""
LONGEST_CELL_LINES = 10


def test_every_notebook_is_known(root: Path) -> None:
    """A new notebook must say here how it is run small."""
    assert sorted(p.stem for p in (root / "notebooks").glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_clean(root: Path, name: str) -> None:
    """No outputs, no counts, short cells, parameters first."""
    notebook = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert code[0].metadata.get("tags") == ["parameters"]
    assert max(len(cell.source.splitlines()) for cell in code) <= LONGEST_CELL_LINES


@pytest.mark.model
@pytest.mark.parametrize("name", SMALL)
def test_runs(root: Path, tmp_path: Path, name: str) -> None:
    """It runs with a real kernel, and every code cell leaves no error behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # papermill's and its libraries' own, not ours
        import papermill

        parameters = {**SMALL[name], "OUT": str(tmp_path / "results"), "DEVICE": "cpu"}
        made = papermill.execute_notebook(
            root / "notebooks" / f"{name}.ipynb",
            tmp_path / f"{name}.ipynb",
            parameters,
            cwd=root / "notebooks",
            progress_bar=False,
        )
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds
    pictures = [o for c in code for o in c.outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == PICTURES[name]


VERDICTS = """
import json
print(json.dumps({
    name: table.headline.set_index("adapter")[["verdict", "diff_lo", "diff_hi"]].to_dict("index")
    for name, table in (("sums", found), ("elsewhere", other))
}))
"""


@pytest.mark.long
@pytest.mark.model
def test_what_the_demo_adapters_do(root: Path, tmp_path: Path) -> None:
    """The one helps with sums, on prompts held out, beyond chance, and with nothing else; the other does not help with sums."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        import papermill

        notebook = nbformat.read(root / "notebooks" / "03_adapters.ipynb", as_version=4)
        for cell in notebook.cells:
            cell.source = cell.source.replace("../", f"{root}/")
        notebook.cells.append(nbformat.v4.new_code_cell(VERDICTS))
        nbformat.write(notebook, tmp_path / "in.ipynb")
        made = papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            {"OUT": str(tmp_path / "results"), "DEVICE": "cpu"},
            cwd=root / "notebooks",
            progress_bar=False,
        )
    found = json.loads(made.cells[-1].outputs[0].text)
    terse = found["sums"]["terse-sums"]
    assert terse["verdict"] == "better"
    assert terse["diff_lo"] > 0
    assert found["sums"]["polite"]["verdict"] != "better"
    assert found["elsewhere"]["terse-sums"]["verdict"] != "better"


def test_own_data_takes_columns_of_other_names(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notebook's cells before the run work on a file with other columns, named where the notebook says."""
    path = tmp_path / "own.csv"
    path.write_text("Question,Answer\nWhy?,42\nHow?,43\n", encoding="utf-8")
    notebook = nbformat.read(root / "notebooks" / "07_own_data.ipynb", as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    upto = next(n for n, source in enumerate(code) if "load_engine" in source)
    monkeypatch.chdir(root / "notebooks")
    names: dict[str, Any] = {}
    exec(code[0], names)
    assert names["FIELDS"] == {}
    names |= {"CSV": str(path), "FIELDS": {"prompt": "Question", "target": "Answer"}}
    for source in code[1:upto]:
        exec(source, names)
    assert names["prompt"].target == "42"
    assert len(names["study"].plan().prompt_set) == 2
