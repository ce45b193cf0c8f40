"""What names a set of prompts: told apart and checked before anything is read."""

from __future__ import annotations

import json

import pytest

from workbench import prompts
from workbench.errors import PromptSetError
from workbench.prompts import load, sources, spec_problems

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SETS = {
    "arithmetic": "c03b329870c61c7b000e8a2d66a0257115c3de317f28f692e39a766c14e66f3b",
    "capitals": "034ce73a6238529512842e873c2da1b3c338cbb105a3c2c3f1d1cb6b474ce665",
    "sentiment": "e42d9d54f5649553cbed60a1100d8fd122d88d7cc5a633ae8c1053535999fb3c",
}


@pytest.mark.parametrize(
    "spec",
    [
        "x.jsonl",
        "x.csv",
        "x.tsv",
        "x.yaml",
        "builtin:anything",
        "hf:./folder/test",
        "hf:data.parquet",
        f"hf:owner/name/test@{COMMIT}",
        {"file": "x.csv"},
        {"file": "x.csv", "fields": {"prompt": "Q", "vars": ["a", "b"], "metadata": {"c": "d"}}},
        {"hf": "owner/name", "split": "test", "revision": COMMIT, "config": "c", "limit": 3},
        {"hf": "./folder"},
    ],
)
def test_good_specs(spec):
    """Every form that the documentation names is accepted without a look at any file."""
    assert spec_problems(spec) == []
    assert prompts.is_file_name(spec)


FIND = (
    "it must be a commit (40 hex digits), so that the prompts stay the same; the data set's history shows it, and so does: "
    "python -c \"import huggingface_hub as h; print(h.HfApi().dataset_info('owner/name').sha)\""
)
KNOWN = "id, messages, prompt, input, target, metadata, group, tools, vars"


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        ("x.json", ["x.json: a prompt file ends in .jsonl, .ndjson, .csv, .tsv, .yaml, .yml"]),
        ("hf:owner/name/test", [f"hf:owner/name/test: revision is missing; {FIND}"]),
        ("hf:owner/name/test@main", [f"hf:owner/name/test: revision 'main' can move; {FIND}"]),
        (
            {"hf": "owner/name", "revision": COMMIT},
            ["hf:owner/name: split is missing, for example test"],
        ),
        (
            {"hf": "./x", "revision": COMMIT},
            ["hf:./x: revision is for the hub; this is a local path"],
        ),
        (
            {"hf": "a b", "split": "test", "revision": COMMIT},
            ["hf:a b/test: 'a b' is neither a local path nor owner/name"],
        ),
        ({"file": 3}, ["file: 3: file must be a non-empty text, got 3"]),
        ({"file": ""}, ["file: : file must be a non-empty text, got ''"]),
        (
            {"file": "x.csv", "feilds": {}},
            ["file: x.csv: unknown key 'feilds', did you mean 'fields'?"],
        ),
        (
            {"file": "x.csv", "fields": {"promt": "Q"}},
            [
                "file: x.csv: fields: unknown field 'promt', did you mean 'prompt'?",
                "file: x.csv: fields: needs exactly one of messages, prompt, input, or vars; has none of them",
            ],
        ),
        (
            {"file": "x.csv", "fields": {"prompt": "a", "input": "b", "target": 3, "vars": []}},
            [
                "file: x.csv: fields: target must be a column's name, got 3",
                "file: x.csv: fields: vars must be a column's name, a list of them, or name: column, got []",
                "file: x.csv: fields: needs exactly one of messages, prompt, input, or vars; has prompt and input",
            ],
        ),
        (
            {"file": "x.csv", "fields": {"vars": ["a", "The b"]}},
            [
                "file: x.csv: fields: vars: 'The b' cannot be a variable's name; give it one (name: column)"
            ],
        ),
        ({"file": "x.csv", "fields": [1]}, ["file: x.csv: fields: must be field: column, got [1]"]),
        (
            {"file": "hf:x"},
            ["file: hf:x: file names a file; write prompts: hf:x, or hf: without file"],
        ),
        (
            {"file": "x.yaml", "fields": {"prompt": "a"}},
            ["x.yaml: fields are for tables; a promptfoo file has its own names"],
        ),
        (
            {"hf": "./x", "limit": 0, "split": 3},
            [
                "hf: ./x: split must be a non-empty text, got 3",
                "hf: ./x: limit must be a whole number of at least 1, got 0",
            ],
        ),
    ],
)
def test_bad_specs(spec, problems):
    """Everything wrong with a spec is said at once, and load says the same."""
    assert spec_problems(spec) == problems
    with pytest.raises(PromptSetError) as caught:
        load(spec)
    assert list(caught.value.problems) == problems


def test_files_are_looked_for_only_when_asked(tmp_path):
    """A study can be checked on a machine that lacks its files."""
    spec = {"file": "none.csv", "fields": {"prompt": "Q"}}
    assert spec_problems(spec, tmp_path) == []
    (problem,) = spec_problems(spec, tmp_path, check_files=True)
    assert problem.startswith(f"none.csv: no such file (looked in {tmp_path} and ")


def test_specs_are_joined(tmp_path):
    """A list may mix all forms of sources; rows do not go with them."""
    (tmp_path / "a.csv").write_text("Q\nHi\n")
    (tmp_path / "b.jsonl").write_text('{"id": "b", "prompt": "Ho"}')
    spec = {"file": "a.csv", "fields": {"prompt": "Q"}}
    made = load([spec, "b.jsonl"], tmp_path)
    assert (len(made), made.name, made.source) == (2, "a+b", "a.csv, b.jsonl")
    with pytest.raises(PromptSetError) as caught:
        load([spec, {"prompt": "x"}], tmp_path)
    assert caught.value.problems == ("a list of files cannot also hold an object",)


def test_sets_that_ship(tmp_path, monkeypatch):
    """builtin: finds a set in the registry, refuses a changed one, and lists the names."""
    (tmp_path / "greetings.jsonl").write_text('{"id": "a", "prompt": "Hi"}')
    good = load(tmp_path / "greetings.jsonl").sha256
    entries = {"greetings": {"file": "greetings.jsonl", "sha256": good}}
    (tmp_path / "registry.json").write_text(json.dumps(entries))
    monkeypatch.setattr(sources, "registry_file", lambda: tmp_path / "registry.json")
    assert prompts.builtin("greetings") == tmp_path / "greetings.jsonl"
    made = load("builtin:greetings")
    assert (made.name, made.source, made.sha256) == ("greetings", "builtin:greetings", good)
    with pytest.raises(PromptSetError) as caught:
        load("builtin:farewells")
    assert caught.value.problems == (
        "builtin:farewells: unknown prompt set 'farewells'; known: greetings",
    )
    (tmp_path / "greetings.jsonl").write_text('{"id": "a", "prompt": "Ho"}')
    with pytest.raises(PromptSetError) as caught:
        load("builtin:greetings")
    assert caught.value.problems == (
        f"builtin:greetings: {tmp_path}/greetings.jsonl is not as it was shipped; install it again",
    )
    (tmp_path / "registry.json").write_text("[")
    with pytest.raises(PromptSetError, match=r"registry.json: cannot be read \("):
        prompts.builtin("greetings")


@pytest.mark.parametrize("name", SETS)
def test_hashes_of_shipped_sets_stay(name):
    """The first sets keep the hash that results made with them carry."""
    root = sources.Path(__file__).parent.parent
    assert load(root / "datasets" / f"{name}.jsonl").sha256 == SETS[name]


def test_a_path_is_a_name(tmp_path):
    """A file may be named by a Path, also in an object."""
    path = tmp_path / "x.csv"
    path.write_text("Q\nhi\n")
    fields = {"prompt": "Q"}
    assert prompts.spec_problems({"file": path, "fields": fields}, check_files=True) == []
    made = load({"file": path, "fields": fields})
    assert (made.sha256, made.source) == (
        load({"file": str(path), "fields": fields}).sha256,
        str(path),
    )
