"""Prompt files with columns of their own, tables with tabs, and fine-tuning files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TEXT

from workbench.errors import PromptSetError
from workbench.prompts import PromptSet, fileforms, load

TABLE = "Nr,Question,Answer,Country\n1,What?,Oslo,Norway\n2,Where?,,Peru\n"
FIELDS = {"id": "Nr", "prompt": "Question", "target": "Answer"}


def _file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def _problems(spec):
    with pytest.raises(PromptSetError) as caught:
        load(spec)
    return list(caught.value.problems)


def test_columns_by_other_names(tmp_path):
    """A field map reads anybody's CSV; columns it does not name are left out."""
    made = load({"file": str(_file(tmp_path, "q.csv", TABLE)), "fields": FIELDS})
    assert [p.to_dict() for p in made] == [
        {"id": "1", "messages": [{"role": "user", "content": "What?"}], "target": "Oslo"},
        {"id": "2", "messages": [{"role": "user", "content": "Where?"}]},
    ]


@pytest.mark.parametrize(
    ("theirs", "found"),
    [
        (["Country", "Answer"], {"Country": "Norway", "Answer": "Oslo"}),
        ({"land": "Country"}, {"land": "Norway"}),
    ],
)
def test_columns_as_variables(tmp_path, theirs, found):
    """Columns become variables of a template under their own or new names; such a row needs no text."""
    path = _file(tmp_path, "q.csv", TABLE)
    made = load({"file": str(path), "fields": {"vars": theirs}})
    assert (made.prompts[0].vars, made.prompts[0].messages) == (found, ())
    assert len(made.unasked) == 2


def test_the_same_table_in_four_forms(tmp_path):
    """CSV, TSV and JSONL with a map give the set that rows of our own names give."""
    own = load([{"id": "1", "prompt": "What?", "target": "Oslo"}, {"id": "2", "prompt": "Where?"}])
    lines = [
        {"Nr": 1, "Question": "What?", "Answer": "Oslo", "x": 1},
        {"Nr": 2, "Question": "Where?", "Answer": None},
    ]
    forms = {
        "q.csv": TABLE,
        "q.tsv": TABLE.replace(",", "\t"),
        "q.jsonl": "\n".join(map(json.dumps, lines)),
    }
    for name, text in forms.items():
        path = _file(tmp_path, name, text)
        assert load({"file": str(path), "fields": FIELDS}).sha256 == own.sha256, name
    plain = _file(tmp_path, "own.tsv", "id\tprompt\ttarget\n1\tWhat?\tOslo\n2\tWhere?\t\n")
    assert load(plain).sha256 == own.sha256


def test_columns_inside_objects(tmp_path):
    """A dotted name goes into an object, unless a column has that very name."""
    rows = [{"q": {"text": "Hi"}, "a": {"text": ["x", "y"]}, "a.b": 1}]
    path = _file(tmp_path, "q.jsonl", "\n".join(map(json.dumps, rows)))
    fields = {"prompt": "q.text", "target": "a.text", "id": "a.b"}
    (made,) = load({"file": str(path), "fields": fields})
    assert (made.id, made.target) == ("1", ["x", "y"])


@pytest.mark.parametrize("name", ["q.csv", "q.jsonl"])
def test_missing_columns_are_listed(tmp_path, name):
    """A map that does not fit the file says which columns there are, once."""
    rows = [{"Nr": 1, "Question": "What?"}, {"Nr": 2, "Question": "Where?"}]
    text = "Nr,Question\n1,a\n" if name == "q.csv" else "\n".join(map(json.dumps, rows))
    path = _file(tmp_path, name, text)
    where = f"{path}:1" if name == "q.csv" else f"{path}"
    assert _problems(
        {"file": str(path), "fields": {"prompt": "Frage", "target": "Nr", "id": "n"}}
    ) == [
        f"{where}: no column 'Frage'; there are: Nr, Question",
        f"{where}: no column 'n'; there are: Nr, Question",
    ]


def test_problems_of_mapped_rows_keep_their_lines(tmp_path):
    """A bad row of a mapped file is found where it stands."""
    path = _file(tmp_path, "q.csv", 'Q,V\nHi,{}\n,\n   ,"{""a"": 4}"\nHo,x y\n,[]\n')
    assert _problems({"file": str(path), "fields": {"prompt": "Q", "vars": "V"}}) == [
        f"{path}:4: the prompt is empty",
        f"{path}:5: vars: not JSON: Expecting value at column 1",
        f"{path}:6: needs exactly one of messages, prompt, input; has none of them",
    ]
    rows = _file(tmp_path, "v.jsonl", '{"vars": {"1st": 3}}\n{"prompt": "x", "vars": [1]}\n')
    assert _problems(rows) == [
        f"{rows}:1: vars: '1st' cannot be a variable's name (letters, digits and _)",
        f"{rows}:2: vars must be an object, got [1]",
    ]


def test_fine_tuning_files(tmp_path):
    """Where every row is nothing but messages and ends with the assistant, that message is the target."""
    ask = {"role": "user", "content": "Hi"}
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}, "id": "c", "type": "function"}
    rows = [
        {"messages": [ask, {"role": "assistant", "content": "Ho", "weight": 1}]},
        {
            "messages": [
                ask,
                {"role": "assistant", "content": "a", "weight": 0},
                {"role": "user", "content": "b"},
                {"role": "assistant", "content": "c"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "1?"},
                {"role": "assistant", "tool_calls": [call]},
            ],
            "tools": [{"type": "function"}],
            "parallel_tool_calls": False,
        },
    ]
    made = load(_file(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)))).prompts
    assert [p.target for p in made] == ["Ho", "c", {"name": "add", "arguments": {"a": 1}}]
    assert [len(p.messages) for p in made] == [1, 3, 1]
    assert made[2].tools == ({"type": "function"},)


def test_an_answer_of_weight_0_is_no_target(tmp_path):
    """It stays in the conversation, as the file's other answers of weight 0 do, and the prompt has no target."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}]
    rows = [
        {"messages": [messages[0], messages[1] | {"weight": 0}]},
        {"messages": [messages[0], messages[1] | {"weight": 1}]},
    ]
    context, learned = load(_file(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)))).prompts
    assert (context.messages, context.target) == (tuple(messages), None)
    assert (learned.messages, learned.target) == (tuple(messages[:1]), "No")


def test_an_answer_begun_for_the_model_stays(tmp_path):
    """Unless a file is all fine-tuning rows, last messages stay, so what we write reads back the same."""
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well,"}]
    rows = [{"id": "a", "messages": messages}, {"messages": messages, "target": None}]
    path = _file(tmp_path, "x.jsonl", "\n".join(map(json.dumps, rows)))
    assert [p.messages for p in load(path)] == [tuple(messages), tuple(messages)]
    mixed = [{"messages": messages}, {"messages": messages[:1]}]
    path = _file(tmp_path, "y.jsonl", "\n".join(map(json.dumps, mixed)))
    assert [p.to_dict().get("target") for p in load(path)] == [None, None]
    assert load(path).sha256 == PromptSet.from_records(mixed).sha256


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(TEXT, TEXT, st.none() | TEXT), min_size=1, max_size=4, unique_by=lambda r: r[0]
    )
)
def test_renaming_changes_nothing_else(rows):
    """Rows under foreign names, mapped, are the rows under our names."""
    own = [{"id": i, "prompt": p, "target": t} for i, p, t in rows]
    theirs = [{"Nr": i, "x": {"Question": p}, "Answer": t} for i, p, t in rows]
    fields = {"id": "Nr", "prompt": "x.Question", "target": "Answer"}
    mapped = [fileforms.renamed(row, fields) for row in theirs]
    assert load(mapped).sha256 == load(own).sha256
