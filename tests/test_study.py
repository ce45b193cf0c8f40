"""Studies: the file and the Python form, defaults, every problem at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from strategies import grids

from workbench.errors import PromptSetError, StudyError
from workbench.prompts import PromptSet
from workbench.scorers import get_scorer
from workbench.study import Study, entries

SET = PromptSet.from_records([{"id": f"q{i}", "prompt": f"{i}?"} for i in range(4)])
EXAMPLE = """\
name: quickstart
model: demo
adapters: [base, ./adapters/terse]
prompts: sums.jsonl
system: null
grid: {temperature: [0, 0.3, 0.7, 1.0], top_k: [10, 50], repetition_penalty: [1.0, 1.15]}
fixed: {max_tokens: 48}
repeats: 3
seed: 7
scorers: [numeric, degeneration]
split: {confirm: 0.3}
latency: {prompts: 8, warmup: 2, rounds: 3}
engine: {kind: local, device: auto, kernel: auto}
"""


@pytest.fixture
def folder(tmp_path):
    """A folder with a study, its prompts and an adapter directory."""
    (tmp_path / "adapters" / "terse").mkdir(parents=True)
    (tmp_path / "sums.jsonl").write_text('{"id": "a", "prompt": "1+1?", "target": 2}\n')
    (tmp_path / "s.yaml").write_text(EXAMPLE)
    return tmp_path


def _problems(**values):
    with pytest.raises(StudyError) as caught:
        Study(**{"prompts": SET} | values)
    return list(caught.value.problems)


def test_the_example_of_the_documentation(folder):
    """The study of the documentation reads as written: 2 adapters x (2 greedy + 12 drawing cells)."""
    study = Study.from_yaml(folder / "s.yaml")
    assert (study.name, study.repeats, study.seed, study.scorers) == (
        "quickstart",
        3,
        7,
        ("numeric", "degeneration"),
    )
    assert study.adapters == {"base": None, "terse": "./adapters/terse"}
    assert study.adapter_paths == {"base": None, "terse": str(folder / "adapters" / "terse")}
    assert study.split == {"confirm": 0.3}
    assert study.latency == {"prompts": 8, "warmup": 2, "rounds": 3}
    plan = study.plan()
    assert (len(plan.cells), len(plan.collapsed), plan.n_rows) == (28, 4, 2 * (2 + 12 * 3))
    assert plan.saved_rows == 2 * 16 * 3 - plan.n_rows
    assert plan.baseline.label == "greedy"


def test_defaults():
    """A study needs only prompts."""
    study = Study(prompts=["Hi"])
    assert study.to_dict() == {
        "name": "study",
        "model": "demo",
        "adapters": ["base"],
        "prompts": ["Hi"],
        "system": None,
        "grid": {},
        "fixed": {},
        "repeats": 1,
        "seed": 0,
        "scorers": [],
        "split": {"confirm": 0.0},
        "latency": {"prompts": 8, "warmup": 2, "rounds": 3},
        "engine": {"kind": "local", "device": "auto", "kernel": "auto"},
        "baseline": None,
        "defaults": "card",
        "allow_inert": False,
        "allow_overlap": False,
    }
    assert [cell.label for cell in study.cells()] == ["T=0.6"]


BAD = """\
name: quick start
modle: demo
adapters: [base, ./none, base]
prompts: none.jsonl
system: 3
grid:
  temperature: [0, 0.3, 9]
  top_q: [1]
  top_k: 5
fixed: {top_p: 3, temperature: 1e-1}
repeats: 0
repeats: 3
seed: -1
scorers: [numeric, {a: {}, b: {}}, numeric]
split: {confirm: 1.0}
latency: {prompt: 8, rounds: 0}
engine: {kind: remote, device: tpu, kernel: x, max_rows: 0, memory_gib: -1}
baseline: [1]
defaults: model
allow_inert: maybe
allow_overlap: 1
"""


def test_every_problem_at_once_with_its_line(tmp_path):
    """One reading of a bad file lists all that is wrong with it, in the order of its lines."""
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    with pytest.raises(StudyError) as caught:
        Study.from_yaml(path)
    here = Path.cwd()
    assert list(caught.value.problems) == [
        "line 1: name: must be letters, digits, '.', '_' and '-', starting with a letter or digit, got 'quick start'",
        "line 2: unknown field 'modle', did you mean 'model'?",
        "line 3: adapters[1]: no such directory: ./none",
        "line 3: adapters[2]: 'base' is listed twice",
        f"line 4: prompts: none.jsonl: no such file (looked in {tmp_path} and {here})",
        "line 5: system: must be a text or null, got 3",
        "line 7: grid.temperature[2]: must be a number at least 0 and at most 5, got 9",
        "line 8: grid: unknown setting 'top_q', did you mean 'top_p'?",
        "line 9: grid.top_k: must be a list of values, got 5",
        "line 10: fixed.top_p: must be a number at least 0 and at most 2, or none, got 3",
        "line 10: fixed.temperature: must be a number at least 0 and at most 5, got '1e-1' (a text to YAML: write 1.0e-1, not 1e-1)",
        "line 10: fixed.temperature: is in the grid too; keep one of the two",
        "line 12: 'repeats' is already given at line 11",
        "line 13: seed: must be an integer at least 0 and at most 9999999999, got -1",
        "line 14: scorers[1]: must be a name or {name: {options}}, got {'a': {}, 'b': {}}",
        "line 14: scorers[2]: 'numeric' is listed twice",
        "line 15: split.confirm: must be a number at least 0 and below 1, got 1.0",
        "line 16: latency: unknown key 'prompt', did you mean 'prompts'?",
        "line 16: latency.rounds: must be an integer at least 1, got 0",
        "line 17: engine.kind: must be one of local, scripted, got 'remote'",
        "line 17: engine.kernel: must be one of auto, int4, fp32, bf16, got 'x'",
        "line 17: engine.device: must be auto, cpu, cuda or cuda:N, got 'tpu'",
        "line 17: engine.max_rows: must be an integer at least 1, got 0",
        "line 17: engine.memory_gib: must be a number above 0, got -1",
        "line 18: baseline: must be a cell's name, label or id, or its settings, got [1]",
        "line 19: defaults: must be card or checkpoint, got 'model'",
        "line 20: allow_inert: must be true or false, got 'maybe'",
        "line 21: allow_overlap: must be true or false, got 1",
    ]
    assert str(caught.value).startswith(f"{path}: 28 problems\n  - line 1: name: ")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"promts": 1}, "unknown field 'promts', did you mean 'prompts'?"),
        ({"prompts": None}, "prompts: is missing: a prompt file, a list of files, rows or texts"),
        ({"prompts": []}, "prompts: is missing: a prompt file, a list of files, rows or texts"),
        (
            {"prompts": 3},
            "prompts: must be a source (file, hf:, builtin:), a list of sources, rows or texts, or a PromptSet, got 3",
        ),
        ({"prompts": [{"prompt": ""}]}, "prompts[0]: the prompt is empty"),
        (
            {"prompts": "x.txt"},
            "prompts: x.txt: a prompt file ends in .jsonl, .ndjson, .csv, .tsv, .yaml, .yml",
        ),
        ({"model": ""}, "model: must be demo, a path or a Hugging Face id, got ''"),
        ({"model": "./no-model"}, "model: no such directory: ./no-model"),
        (
            {"adapters": []},
            "adapters: must be 'base', a path, {name: path}, or a list of these, got []",
        ),
        ({"adapters": [{"a": None}]}, "adapters[0]: adapter 'a' needs a path, got None"),
        (
            {"adapters": [{"base": "x"}]},
            "adapters[0]: the name 'base' means no adapter; give this one another name",
        ),
        (
            {"adapters": ["x/a", "y/a"]},
            "adapters[1]: 'a' is listed twice; name one of them: {other_name: path}",
        ),
        ({"adapters": [3]}, "adapters[0]: must be 'base', a path or {name: path}, got 3"),
        (
            {"grid": "x"},
            "grid: must be setting: [values], a list of settings, or name: settings, got 'x'",
        ),
        ({"grid": {"top_k": []}}, "grid.top_k: must be a list of values, got []"),
        ({"grid": [3]}, "grid[0]: must be settings (name: value), got 3"),
        (
            {"grid": [{"top_k": 1}, {"topk": 1}]},
            "grid[1]: unknown setting 'topk', did you mean 'top_k'?",
        ),
        (
            {"grid": {"cold": {"top_k": 0}}},
            "grid.cold.top_k: must be an integer at least 1, or none, got 0",
        ),
        ({"fixed": 3}, "fixed: must be settings (name: value), got 3"),
        ({"repeats": True}, "repeats: must be an integer at least 1, got True"),
        ({"split": 0.3}, "split: must hold confirm; got 0.3"),
        ({"latency": 3}, "latency: must hold prompts, warmup, rounds; got 3"),
        ({"scorers": [3]}, "scorers[0]: must be a name or {name: {options}}, got 3"),
        (
            {"baseline": "warm", "grid": {"cold": {"top_k": 1}}},
            "baseline: no cell 'warm'; cells: 'cold'",
        ),
        ({"baseline": {"top_k": 3}}, "baseline: no cell has {'top_k': 3}"),
        ({"baseline": {"topk": 3}}, "baseline: unknown setting 'topk', did you mean 'top_k'?"),
    ],
)
def test_one_problem(values, problem):
    """Each thing that can be wrong is said in one exact line."""
    assert _problems(**values) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty"),
        ("- a\n", "line 1: a study is a mapping of fields, got ['a']"),
        (
            "a: [\n",
            "line 2, column 1: not YAML: expected the node content, but found '<stream end>'",
        ),
    ],
)
def test_files_that_are_no_study(tmp_path, text, problem):
    """A file that is not a mapping is refused without guessing."""
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(StudyError) as caught:
        Study.from_yaml(path)
    assert str(caught.value) == f"{path}: {problem}"


def test_a_missing_file(tmp_path):
    """A study file that is not there is a StudyError that says so."""
    with pytest.raises(StudyError) as caught:
        Study.from_yaml(tmp_path / "no.yaml")
    assert (
        str(caught.value) == f"{tmp_path / 'no.yaml'}: cannot be read (No such file or directory)"
    )


def test_paths_are_found_beside_the_file_then_here(folder, monkeypatch):
    """Prompts, adapters and model are looked up beside the study file first, then in the current directory."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "s.yaml").write_text(EXAMPLE)
    monkeypatch.chdir(folder)
    study = Study.from_yaml(elsewhere / "s.yaml")
    assert study.load_prompts()["a"].target == 2
    assert study.adapter_paths["terse"] == str(folder / "adapters" / "terse")
    (elsewhere / "adapters" / "terse").mkdir(parents=True)
    assert study.adapter_paths["terse"] == str(elsewhere / "adapters" / "terse")
    assert (
        Study(prompts=SET, model="Qwen/Qwen1.5-7B-Chat-AWQ").model_path
        == "Qwen/Qwen1.5-7B-Chat-AWQ"
    )
    assert Study(prompts=SET, model=Path("adapters")).model_path == str(folder / "adapters")


def test_name_comes_from_the_file(tmp_path):
    """A study file without a name is called after its file."""
    (tmp_path / "warm.yaml").write_text("prompts: [Hi, Ho]\n")
    assert Study.from_yaml(tmp_path / "warm.yaml").name == "warm"


@pytest.mark.parametrize(
    "prompts",
    [
        ["Hi", "Ho"],
        [{"id": "a", "prompt": "Hi"}],
        ("Hi",),
        SET,
        "sums.jsonl",
        Path("sums.jsonl"),
        ["sums.jsonl"],
    ],
    ids=["texts", "rows", "tuple", "set", "file", "path", "files"],
)
def test_prompts_in_python(folder, monkeypatch, prompts):
    """Prompts may be a file, files, rows, texts or a PromptSet."""
    monkeypatch.chdir(folder)
    study = Study(prompts=prompts)
    study.validate()
    assert len(study.load_prompts()) >= 1
    assert study.replace(seed=3).prompts == study.prompts


def test_three_grids_mean_the_same():
    """The product, the list and the named form make the same cells."""
    product = Study(prompts=SET, grid={"temperature": [0, 0.7]})
    listed = Study(prompts=SET, grid=[{"temperature": 0}, {"temperature": 0.7}])
    named = Study(prompts=SET, grid={"cold": {"temperature": 0}, "warm": {"temperature": 0.7}})
    ids = [[c.cell_id for c in s.cells()] for s in (product, listed, named)]
    assert ids[0] == ids[1] == ids[2]
    assert [c.label for c in listed.cells()] == ["greedy", "T=0.7"]
    assert [(c.label, c.name) for c in named.cells()] == [("cold", "cold"), ("warm", "warm")]


def test_entries_of_a_grid_override_fixed():
    """A listed entry may set what fixed sets; in a product that would be ambiguous and is refused."""
    study = Study(prompts=SET, fixed={"max_tokens": 8}, grid=[{"top_k": 5}, {"max_tokens": 9}])
    assert [c.params.max_tokens for c in study.cells()] == [8, 9]
    assert _problems(fixed={"top_k": 5}, grid={"top_k": [1]}) == [
        "fixed.top_k: is in the grid too; keep one of the two"
    ]


def test_numpy_values_are_numbers():
    """A grid made with numpy is the grid made with numbers."""
    made = Study(
        prompts=SET, grid={"temperature": np.linspace(0, 1, 3), "top_k": list(np.arange(1, 3))}
    )
    assert made == Study(prompts=SET, grid={"temperature": [0.0, 0.5, 1.0], "top_k": [1, 2]})


@pytest.mark.parametrize(
    ("values", "label"),
    [
        ({}, "T=0.6"),
        ({"grid": {"temperature": [1, 0.6]}}, "T=0.6"),
        ({"grid": {"temperature": [1, 0.3]}}, "T=1"),
        ({"grid": {"temperature": [1, 0.6]}, "adapters": ["org/a", "base"]}, "T=0.6"),
        ({"grid": {"temperature": [1, 0]}, "baseline": "greedy"}, "greedy"),
        ({"grid": {"a": {"top_k": 3}, "b": {"top_k": 4}}, "baseline": "b"}, "b"),
        ({"grid": {"a": {"temperature": 0}, "b": {"top_k": 1}}, "baseline": "b"}, "a"),
        ({"grid": {"temperature": [1, 0]}, "baseline": {"temperature": 0, "top_k": 7}}, "greedy"),
        (
            {
                "grid": {"temperature": [1, 0]},
                "adapters": ["base", "org/a"],
                "baseline": {"temperature": 0, "adapter": "a"},
            },
            "greedy a",
        ),
    ],
)
def test_baseline(values, label):
    """The baseline is the card's defaults if the study has them, else the first cell, else what is named."""
    assert Study(prompts=SET, **values).plan().baseline.label == label


def test_checkpoint_defaults():
    """With defaults: checkpoint, the checkpoint's settings are used, must be given, and must be in range."""
    study = Study(prompts=SET, defaults="checkpoint", fixed={"max_tokens": 8})
    own = {"do_sample": True, "temperature": 0.9, "top_p": None, "top_k": 0, "eos_token_id": 3}
    (cell,) = study.cells(own | {"max_tokens": 99})
    assert (cell.params.temperature, cell.params.max_tokens) == (0.9, 8)
    assert cell.params.top_k is None
    assert study.cells({"do_sample": True})[0].params.temperature == 1
    assert study.cells({"temperature": 0.9})[0].params.greedy
    with pytest.raises(StudyError) as caught:
        study.plan()
    assert str(caught.value) == (
        "study study: defaults: checkpoint needs the checkpoint's settings; load the model first"
    )
    with pytest.raises(StudyError) as caught:
        study.plan(checkpoint_defaults={"do_sample": True, "temperature": 7})
    assert str(caught.value) == (
        "study study: defaults: the checkpoint's settings: "
        "temperature must be a number at least 0 and at most 5, got 7"
    )


@settings(max_examples=40)
@given(grids())
def test_text_round_trip(grid):
    """A study's text reads back as the same study with the same hash."""
    study = Study(name="x", prompts=["Hi"], grid=grid, scorers=["exact"], latency=False)
    again = Study.from_dict(yaml.safe_load(study.text))
    assert (again, again.sha256, again.text) == (study, study.sha256, study.text)


def test_text_does_not_depend_on_the_machine(folder, monkeypatch, tmp_path):
    """The hash has paths as written, so a study moved elsewhere is the same study."""
    first = Study.from_yaml(folder / "s.yaml")
    monkeypatch.chdir(tmp_path)
    again = Study.from_dict(yaml.safe_load(first.text))
    assert again.sha256 == first.sha256
    assert again.replace(seed=8).sha256 != first.sha256


def test_sets_and_objects_are_named_in_the_text():
    """What has no YAML form is named, and reading that back says what to do."""
    judge = get_scorer({"numeric": {"tolerance": 0.5}})
    study = Study(prompts=SET, scorers=[judge, get_scorer("exact")])
    kept = yaml.safe_load(study.text)
    assert kept["scorers"] == [{"numeric": {"tolerance": 0.5}}, "exact"]
    assert kept["prompts"] == {"name": "inline", "n": 4, "sha256": SET.sha256}
    with pytest.raises(StudyError) as caught:
        Study.from_dict(kept)
    assert str(caught.value) == (
        "study: prompts: were given in Python (set 'inline'); make the study again with prompts=..."
    )


def test_validate_sees_files_that_have_gone(folder):
    """A study that was valid is checked again against what is there now."""
    study = Study.from_yaml(folder / "s.yaml")
    (folder / "sums.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(PromptSetError, match="needs exactly one of messages, prompt, input"):
        study.validate()
    (folder / "sums.jsonl").unlink()
    with pytest.raises(StudyError, match=r"prompts: sums\.jsonl: no such file"):
        study.validate()


def test_no_latency_stays_no_latency():
    """Switching the latency pass off survives copying and writing."""
    for off in (False, None):
        study = Study(prompts=SET, latency=off)
        assert study.latency is None
        assert study.replace(seed=1).latency is None
        assert study.to_dict()["latency"] is False


def test_system_message_reaches_the_requests():
    """The study's system message is in every request, also with prompts given later."""
    study = Study(prompts=SET, system="Be brief.")
    for plan in (study.plan(), study.plan(PromptSet.from_records(["Hi"]))):
        assert next(iter(plan)).messages[0] == {"role": "system", "content": "Be brief."}


def test_entries_of_an_empty_grid():
    """No grid is one cell: the fixed settings."""
    assert entries({}) == [(None, {})]


@pytest.mark.parametrize(
    "module",
    [
        "errors",
        "params",
        "records",
        "prompts",
        "prompts.checkrows",
        "problems",
        "yamlmarks",
        "plan",
        "study",
        "scorers",
    ],
)
def test_import_is_light(module):
    """Planning and scoring load no torch, transformers or pandas."""
    code = (
        f"import sys, workbench.{module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "workbench" in loaded
    assert not loaded & {"torch", "transformers", "pandas", "numpy", "jsonschema"}


def test_the_light_import_test_can_fail():
    """The same check does see a heavy module where one is imported."""
    code = "import sys, numpy; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout.split()
