"""The records of the study file say what is so: every field and key, its default, and examples that hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from docpages import fragment, own_files

from workbench import prompts as prompt_sets
from workbench.errors import StudyError
from workbench.params import FIELDS
from workbench.prompts.checkrows import ROW_KEYS
from workbench.prompts.sources import FILE_KEYS, HUB_KEYS
from workbench.scorers import get_scorer
from workbench.study import Study
from workbench.studyfields import NEEDED, STUDY_FIELDS, Form, StudyField

ROOT = Path(__file__).resolve().parent.parent
BY_NAME = {f.name: f for f in STUDY_FIELDS}
FORMS = [(f, form) for f in STUDY_FIELDS for form in f.forms]
IDS = [f"{f.name}-{n}" for f in STUDY_FIELDS for n in range(len(f.forms))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data sets and what the examples name."""
    (tmp_path / "datasets").symlink_to(ROOT / "datasets")
    own_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def known(values: dict[str, Any]) -> list[str]:
    """The names a study would take where it got ``zzzz``."""
    with pytest.raises(StudyError) as refused:
        Study.from_dict({"prompts": ["Hi"], **values})
    found = re.search(r"unknown \w+ 'zzzz'; known: (.*)", str(refused.value))
    assert found, refused.value
    return found[1].split(", ")


def keys_of(name: str) -> list[list[str]]:
    """The keys of each form of a field that is a mapping."""
    return [[key.name for key in form.keys] for form in BY_NAME[name].forms if form.keys]


def test_every_field_is_there_once() -> None:
    """The records are the fields a study takes, in the order of a study's text."""
    names = [f.name for f in STUDY_FIELDS]
    assert sorted(names) == sorted(known({"zzzz": 1}))
    some = {"templates": {"a": "{{ input }}"}, "search": {"top_p": [0.5, 1]}}
    text = list(Study(prompts=["Hi"], **some).to_dict())
    assert names == text


@pytest.mark.parametrize("name", ["latency", "engine", "split"])
def test_every_key_is_there(name: str) -> None:
    """The keys of a block are those it takes."""
    assert keys_of(name) == [known({name: {"zzzz": 1}})]


def test_every_key_of_the_prompts_is_there() -> None:
    """Rows, files with columns of other names, and data sets; each has the keys that its reader takes."""
    file, hub, row = keys_of("prompts")
    assert known({"prompts": [{"prompt": "Hi", "zzzz": 1}]}) == list(ROW_KEYS)
    assert (file, hub, sorted(row)) == (list(FILE_KEYS), list(HUB_KEYS), sorted(ROW_KEYS))
    for what, keys in (("file", file), ("hf", hub)):
        (problem,) = prompt_sets.spec_problems({what: "a.csv", "zzzz": 1})[:1]
        assert problem.endswith(f"unknown key 'zzzz'; known: {', '.join(keys)}")


def test_grid_fixed_and_baseline_take_the_settings() -> None:
    """What they hold are decoding settings, which the page of the settings lists; a baseline takes two names beside."""
    for values in (
        {"grid": {"zzzz": [1]}},
        {"grid": [{"zzzz": 1}]},
        {"grid": {"a": {"zzzz": 1}}},
        {"fixed": {"zzzz": 1}},
        {"baseline": {"zzzz": 1}},
    ):
        assert known(values) == list(FIELDS)
    assert keys_of("baseline") == [["adapter", "template"]]
    named = {"templates": {"a": "{{ input }}", "b": "{{ input }}!"}}
    study = Study(prompts=["Hi"], baseline={"adapter": "base", "template": "b"}, **named)
    assert study.plan().baseline.template == "b"
    assert {f.name for f in STUDY_FIELDS if any(form.keys for form in f.forms)} == {
        *("prompts", "split", "latency", "engine", "baseline")
    }


def test_defaults_are_those_of_a_study() -> None:
    """A study made of nothing but prompts has them, block by block too; prompts are the one thing needed."""
    study = Study(prompts=["Hi"])
    for record in STUDY_FIELDS:
        if record.name == "prompts":
            assert record.default is NEEDED
        else:
            assert getattr(study, record.name) == record.default, record.name
    for name in ("latency", "engine", "split"):
        for key in BY_NAME[name].forms[0].keys:
            assert getattr(study, name).get(key.name) == key.default, (name, key.name)
    with pytest.raises(StudyError, match=r"study: prompts: is missing"):
        Study()


def test_the_name_of_a_file_is_the_default(folder: Path) -> None:
    """As the record says in words."""
    (folder / "from-file.yaml").write_text("prompts: [Hi]\n", encoding="utf-8")
    assert Study.from_yaml(folder / "from-file.yaml").name == "from-file"
    assert BY_NAME["name"].shown.startswith("the file's name")


@pytest.mark.parametrize(("record", "form"), FORMS, ids=IDS)
def test_every_example_is_valid(folder: Path, record: StudyField, form: Form) -> None:
    """It holds the field, a study with it stands, and of the keys it is shown with it uses only such."""
    values = yaml.safe_load(form.example)
    assert record.name in values
    study = fragment(form.example, folder)
    for scorer in study.scorers:
        get_scorer(scorer)
    held = values[record.name]
    rows = held if isinstance(held, list) and form.keys else [held]
    for row in rows:
        if form.keys and isinstance(row, dict):
            names = {key.name for key in form.keys} | (
                set(FIELDS) if record.name == "baseline" else set()
            )
            assert set(row) <= names


def test_examples_show_what_is_not_the_default() -> None:
    """All but those that spell the default out on purpose; a key that must be given is in its example."""
    study = Study(prompts=["Hi"])
    same = [
        f.name
        for f, form in FORMS
        if f.default is not NEEDED
        and fragment_value(form.example, f.name) == getattr(study, f.name)
    ]
    assert same == ["model", "adapters"]
    for _, form in FORMS:
        held = next(iter(yaml.safe_load(form.example).values()))
        assert all(key.name in held for key in form.keys if key.default is NEEDED)


def fragment_value(example: str, name: str) -> Any:
    """A field of an example as a study keeps it."""
    values = {"prompts": ["Hi"], **yaml.safe_load(example)}
    return getattr(Study.from_dict(values), name)
