"""The registry of the prompt sets that ship: names, entries, files, and what is said when one is damaged."""

from __future__ import annotations

import json
import re

import pytest

import workbench as wb
from workbench import registry
from workbench.errors import PromptSetError
from workbench.prompts import sources
from workbench.scorers import get_scorer


@pytest.fixture
def damaged(tmp_path, monkeypatch):
    """A registry of one set in a folder of its own; gives a function that writes other entries."""
    monkeypatch.setattr(sources, "registry_file", lambda: tmp_path / "registry.json")
    monkeypatch.setattr(registry, "registry_file", lambda: tmp_path / "registry.json")
    (tmp_path / "hi.jsonl").write_text('{"id": "a", "prompt": "Hi"}\n')
    good = wb.PromptSet.from_file(tmp_path / "hi.jsonl").sha256
    values = {"file": "hi.jsonl", "sha256": good, "n": 1, "scorers": ["contains"]}
    values |= {"max_tokens": 8, "shows": "a greeting"}

    def write(changes=(), drop=()):
        entries = {"hi": {k: v for k, v in {**values, **dict(changes)}.items() if k not in drop}}
        (tmp_path / "registry.json").write_text(json.dumps(entries))
        return tmp_path / "registry.json"

    return write


def test_every_set_loads_and_is_what_the_registry_says():
    """Each name gives an entry, a file and a set that agree with each other."""
    assert len(registry.names()) >= 8
    assert tuple(entry.name for entry in registry.entries()) == registry.names()
    for name in registry.names():
        entry, prompts = registry.entry(name), registry.load(name)
        assert registry.path(name).name == entry.file == f"{name}.jsonl"
        assert (len(prompts), prompts.sha256, prompts.name) == (entry.n, entry.sha256, name)


@pytest.mark.parametrize("name", registry.names())
def test_entries_make_studies(name):
    """What an entry gives to a study is accepted by it and plans every prompt once per cell."""
    entry = registry.entry(name)
    values = entry.study()
    study = wb.Study(name=name, grid={"temperature": [0, 1]}, engine="scripted", **values)
    plan = study.plan()
    assert len(plan.cells) == 2
    assert all(cell.params.max_tokens == entry.max_tokens for cell in plan.cells)
    assert len({prompt.id for prompt in plan.prompt_set}) == entry.n
    assert [get_scorer(spec).name for spec in entry.scorers] == [
        spec if isinstance(spec, str) else next(iter(spec)) for spec in values["scorers"]
    ]


def test_unknown_names_are_told_which_there_are(damaged):
    """A wrong name is refused with the known ones, by entry, path and load alike."""
    damaged()
    for ask in (registry.entry, registry.path, registry.load):
        with pytest.raises(PromptSetError) as caught:
            ask("ho")
        assert "builtin:ho: unknown prompt set 'ho'; known: hi" in str(caught.value)


def test_changed_files_are_refused(damaged):
    """A set whose content is not the registered one does not load."""
    path = damaged()
    assert len(registry.load("hi")) == 1
    path.with_name("hi.jsonl").write_text('{"id": "a", "prompt": "Hi!"}\n')
    with pytest.raises(PromptSetError) as caught:
        registry.load("hi")
    assert caught.value.problems == (
        f"builtin:hi: {path.with_name('hi.jsonl')} is not as it was shipped; install it again",
    )


@pytest.mark.parametrize(
    ("change", "drop", "what"),
    [({}, ("n",), "argument"), ({"colour": 1}, (), "colour"), ({}, ("scorers",), "scorers")],
)
def test_damaged_entries_are_named(damaged, change, drop, what):
    """An entry with a key too many or too few is refused with its name and the registry's place."""
    path = damaged(change, drop)
    with pytest.raises(PromptSetError) as caught:
        registry.entry("hi")
    (problem,) = caught.value.problems
    assert re.fullmatch(
        rf"{re.escape(str(path))}: the entry 'hi' is damaged \(.*{what}.*\); install it again",
        problem,
    )
