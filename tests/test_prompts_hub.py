"""Data sets: local ones for real, the hub as far as it goes without a network."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import TEXT

import datasets
from workbench.errors import PromptSetError
from workbench.prompts import load

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = {
    "question": ["2+2?", "3+3?", "4+4?"],
    "answer": ["4", "6", "8"],
    "label": [0, 1, -1],
    "extra": [{"deep": {"note": "a"}}, {"deep": {"note": "b"}}, {"deep": {"note": None}}],
}
FIELDS = {"prompt": "question", "target": "answer"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _table():
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["easy", "hard"]),
            "extra": {"deep": {"note": datasets.Value("string")}},
        }
    )
    return datasets.Dataset.from_dict(ROWS, features=features)


def _problems(spec, base_dir=None):
    with pytest.raises(PromptSetError) as caught:
        load(spec, base_dir)
    return list(caught.value.problems)


def _save(kind, tmp_path):
    """One table in each form a local data set may have; its spec."""
    table = _table()
    if kind == "saved":
        table.save_to_disk(tmp_path / "set")
        return {"hf": str(tmp_path / "set")}
    if kind == "saved splits":
        datasets.DatasetDict({"train": table.select([0]), "test": table}).save_to_disk(
            tmp_path / "set"
        )
        return {"hf": str(tmp_path / "set"), "split": "test"}
    if kind == "folder":
        (tmp_path / "set").mkdir()
        table.to_parquet(tmp_path / "set" / "test-00000-of-00001.parquet")
        return {"hf": str(tmp_path / "set"), "split": "test"}
    write = {"parquet": table.to_parquet, "csv": table.to_csv, "json": table.to_json}
    if kind == "csv":
        write["csv"] = table.remove_columns("extra").to_csv
    write[kind](tmp_path / f"set.{kind}")
    return {"hf": str(tmp_path / f"set.{kind}")}


@pytest.mark.parametrize("kind", ["saved", "saved splits", "folder", "parquet", "csv", "json"])
def test_local_data_sets(tmp_path, kind):
    """A table saved in any of the usual forms is read, with its columns renamed, without a network."""
    made = load(_save(kind, tmp_path) | {"fields": FIELDS})
    assert [p.messages[0]["content"] for p in made] == ROWS["question"]
    assert [str(p.target) for p in made] == ROWS["answer"]


def test_fields_of_every_kind(tmp_path):
    """Classes come by name, columns inside objects by path, and several columns as variables."""
    spec = _save("saved", tmp_path)
    fields = {
        "prompt": "question",
        "target": "label",
        "vars": {"q": "question", "a": "answer"},
        "metadata": ["answer"],
        "group": "extra.deep.note",
    }
    made = load(spec | {"fields": fields, "limit": 2})
    assert [p.target for p in made] == ["easy", "hard"]
    assert made.prompts[0].vars == {"q": "2+2?", "a": "4"}
    assert made.prompts[1].metadata == {"answer": "6"}
    assert [p.group for p in made] == ["a", "b"]
    whole = load(spec | {"fields": fields})
    assert (whole.prompts[2].target, whole.prompts[2].group) == (None, None)


def test_text_form_of_a_spec(tmp_path):
    """hf:path/split and hf:path work for local data sets, looked up beside the study first."""
    table = _table().rename_columns({"question": "prompt", "answer": "target"})
    datasets.DatasetDict({"test": table}).save_to_disk(tmp_path / "set")
    made = load("hf:./set/test", base_dir=tmp_path)
    assert made.sha256 == load("hf:set/test", base_dir=tmp_path).sha256
    assert made.sha256 == load(f"hf:{tmp_path}/set").sha256
    assert made.source == "hf:./set/test"
    assert [p.target for p in made] == ROWS["answer"]
    table.to_parquet(tmp_path / "set.parquet")
    assert load("hf:set.parquet", base_dir=tmp_path).sha256 == made.sha256


def test_chats_give_their_last_answer_as_target(tmp_path):
    """A column of conversations is split as a fine-tuning file is, and the table's empty keys go."""
    chats = [
        [{"role": "user", "content": "Hi", "name": None}, {"role": "assistant", "content": "Ho"}],
        [{"role": "user", "content": "Bye", "name": "Ann"}],
    ]
    datasets.Dataset.from_dict({"messages": chats}).save_to_disk(tmp_path / "set")
    first, second = load(f"hf:{tmp_path}/set")
    assert (first.messages, first.target) == (({"role": "user", "content": "Hi"},), "Ho")
    assert second.messages == ({"role": "user", "content": "Bye", "name": "Ann"},)
    assert second.target is None


def test_problems_of_local_data_sets(tmp_path):
    """A missing split, column or folder says what there is."""
    datasets.DatasetDict({"train": _table(), "test": _table()}).save_to_disk(tmp_path / "set")
    spec = {"hf": str(tmp_path / "set"), "fields": FIELDS}
    label = f"hf:{tmp_path}/set"
    known = "question, answer, label, extra"
    assert _problems(spec) == [f"{label}: split is missing; there are: train, test"]
    assert _problems(spec | {"split": "val"}) == [
        f"{label}/val: no split 'val'; there are: train, test"
    ]
    assert _problems(spec | {"split": "test", "fields": {"prompt": "frage"}}) == [
        f"{label}/test: no column 'frage'; there are: {known}"
    ]
    (problem,) = _problems({"hf": str(tmp_path / "set"), "split": "test"})
    assert problem == (
        f"{label}/test: no column prompt, input, messages or vars; there are: {known}; "
        "say which is which, for example fields: {prompt: question, target: answer}"
    )
    assert _problems("hf:./none", tmp_path) == [
        f"hf:./none: no such file or folder: {tmp_path}/none"
    ]
    (tmp_path / "x.txt").write_text("x")
    assert _problems(f"hf:{tmp_path}/x.txt") == [
        f"hf:{tmp_path}/x.txt: a data file ends in .parquet, .arrow, .csv, .json, .jsonl"
    ]
    _table().save_to_disk(tmp_path / "one")
    assert _problems({"hf": str(tmp_path / "one"), "split": "val", "fields": FIELDS}) == [
        f"hf:{tmp_path}/one/val: no split 'val'; it is one table; leave split out"
    ]


def test_rows_that_are_no_prompts_are_listed(tmp_path):
    """Every bad row is named by its number."""
    table = datasets.Dataset.from_dict({"prompt": ["a", "", "b"], "id": ["1", "2", "1"]})
    table.save_to_disk(tmp_path / "set")
    label = f"hf:{tmp_path}/set"
    assert _problems(label) == [
        f"{label} row 2: the prompt is empty",
        f"{label} row 3: id '1' is already used at {label} row 1",
    ]


def test_a_damaged_file_is_one_sentence(tmp_path):
    """What the package cannot read is a problem of the set, not a crash."""
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nonsense")
    (problem,) = _problems(f"hf:{tmp_path}/x.parquet")
    assert problem.startswith(f"hf:{tmp_path}/x.parquet: ")
    assert "\n" not in problem


def test_a_script_is_never_run(tmp_path):
    """A folder with a loading script is refused, or read without it; the script does not run."""
    (tmp_path / "set").mkdir()
    mark = tmp_path / "ran"
    (tmp_path / "set" / "set.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    assert len(_problems(f"hf:{tmp_path}/set")) == 1
    assert not mark.exists()


def test_the_hub_without_a_network():
    """An unreachable hub is one sentence with a way out."""
    (problem,) = _problems(f"hf:owner/name/test@{COMMIT}")
    assert problem.startswith(
        "hf:owner/name/test: the hub cannot be reached, and the data set is not in the cache; save it where there is a "
        "network (save_to_disk) and give hf: its folder ("
    )


def test_the_hub_is_asked_for_one_commit(monkeypatch):
    """A hub's data set is loaded at the pinned commit, one split, as many rows as asked for, and nothing is trusted."""
    asked = {}

    def loaded(*args, **kwargs):
        asked.update(kwargs, args=args)
        return _table()

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    spec = {"hf": "owner/name", "config": "main", "split": "test", "revision": COMMIT}
    made = load(spec | {"fields": FIELDS, "limit": 2})
    assert asked == {"args": ("owner/name", "main"), "split": "test[:2]", "revision": COMMIT}
    assert (len(made), made.source) == (2, f"hf:owner/name/test@{COMMIT}")


def test_what_the_hub_lacks_is_told(monkeypatch):
    """The package's own words about splits and configurations are passed on, its first line."""
    for error, said in [
        (ValueError("Unknown split \"x\". Should be one of ['train'].\nmore"), "Unknown split"),
        (datasets.exceptions.DatasetNotFoundError("Dataset x doesn't exist."), "there is no such"),
        (RuntimeError("Dataset scripts are no longer supported"), "Dataset scripts are no longer"),
    ]:

        def failing(*_, error=error, **__):
            raise error

        monkeypatch.setattr(datasets, "load_dataset", failing)
        (problem,) = _problems(f"hf:owner/name/x@{COMMIT}")
        assert problem.startswith(f"hf:owner/name/x: {said}")
        assert "\n" not in problem


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(TEXT, min_size=1, max_size=4, unique=True))
def test_round_trip_through_parquet(tmp_path_factory, texts):
    """Any texts come back from a Parquet file as they went in."""
    path = tmp_path_factory.mktemp("set") / "x.parquet"
    rows = [{"id": str(n), "prompt": text, "target": text} for n, text in enumerate(texts)]
    datasets.Dataset.from_list(rows).to_parquet(path)
    assert load(f"hf:{path}").sha256 == load(rows).sha256
