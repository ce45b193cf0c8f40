"""Prompt sets: formats, refusals with file and line, hashes, subsets."""

from __future__ import annotations

import csv
import io
import json
import os

import pytest
from hypothesis import given, settings
from strategies import rows

from workbench import prompts
from workbench.errors import PromptSetError
from workbench.prompts import Prompt, PromptSet, load


def _file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def _problems(spec, **kw):
    with pytest.raises(PromptSetError) as caught:
        load(spec, **kw)
    return list(caught.value.problems)


def test_jsonl_fields(tmp_path):
    """Every field of a row arrives, and prompt and input are user messages."""
    lines = [
        {"id": "a", "prompt": "Hi", "target": 3, "group": "g", "metadata": {"x": [1]}},
        {"id": 7, "input": "Ho", "tools": [{"name": "t"}]},
        {
            "id": "c",
            "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}],
        },
    ]
    path = _file(tmp_path, "set.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    made = load(path)
    assert (made.name, len(made), [p.id for p in made]) == ("set", 3, ["a", "7", "c"])
    user = {"role": "user", "content": "Hi"}
    assert made["a"] == Prompt("a", (user,), 3, {"x": [1]}, "g", None)
    assert made["7"].tools == ({"name": "t"},)
    assert made["c"].messages[0] == {"role": "system", "content": "S"}
    assert (made["a"].cluster, made["7"].cluster) == ("g", "7")
    assert "a" in made
    assert "b" not in made


def test_csv_is_the_same_set(tmp_path):
    """A CSV file with the same content has the same hash, whatever its spelling."""
    text = (
        "\ufeffid,prompt,target,metadata,group,tools\r\n"
        'a,"two\nlines, and a ""quote""",x,"{""k"": 1}",g,\r\n'
        'b,Ho,,,,"[{""name"": ""t""}]"\r\n'
    )
    path = tmp_path / "set.csv"
    path.write_bytes(text.encode())
    records = [
        {"id": "b", "prompt": "Ho", "tools": [{"name": "t"}]},
        {
            "id": "a",
            "input": 'two\nlines, and a "quote"',
            "target": "x",
            "metadata": {"k": 1},
            "group": "g",
        },
    ]
    assert load(path).sha256 == load(records).sha256


def test_openai_batch(tmp_path):
    """A batch file gives prompts; its decoding settings are kept but do not act."""
    row = {
        "custom_id": "q1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "m",
            "temperature": 0.2,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "metadata": {"topic": "x"},
            "tools": [{"type": "function"}],
        },
    }
    made = load(_file(tmp_path, "batch.jsonl", json.dumps(row)))["q1"]
    assert made.messages == ({"role": "user", "content": "Hi"},)
    assert made.tools == ({"type": "function"},)
    batch = {"url": "/v1/chat/completions", "model": "m", "temperature": 0.2}
    assert made.metadata == {"topic": "x", "batch": batch}


def test_every_problem_is_listed_with_its_line(tmp_path):
    """One reading finds all problems of a file, in order, several of one row included."""
    lines = [
        '{"id": "a", "prompt": "Hi"}',
        '{"id": "b", "prompt": "  "}',
        "{nope}",
        '{"id": "c", "promt": "x"}',
        '{"id": "d", "prompt": "x", "input": "y"}',
        "[1]",
        '"text"',
        '{"id": "", "prompt": "x", "metadata": 3, "zzz": 1}',
        '{"id": "e", "messages": [{"role": "boss", "content": 1, "contnet": ""}]}',
        '{"id": "f", "prompt": "x", "target": NaN}',
        '{"id": "g", "id": "h", "prompt": "x"}',
        '{"id": "i", "messages": "x"}',
        '{"id": "j", "messages": []}',
        '{"id": "k", "prompt": "x", "tools": ["t"]}',
        '{"id": "l", "prompt": "x", "target": 1e999}',
        '{"id": "m", "prompt": "\\ud800"}',
        '{"id": "a", "prompt": "again"}',
    ]
    path = _file(tmp_path, "bad.jsonl", "\n".join(lines))
    assert _problems(path) == [
        f"{path}:2: the prompt is empty",
        f"{path}:3: not JSON: Expecting property name enclosed in double quotes at column 2",
        f"{path}:4: unknown key 'promt', did you mean 'prompt'?",
        f"{path}:4: needs exactly one of messages, prompt, input; has none of them",
        f"{path}:5: needs exactly one of messages, prompt, input; has prompt and input",
        f"{path}:6: a row must be an object, got a list",
        f"{path}:7: a row must be an object, got a text",
        (
            f"{path}:8: unknown key 'zzz'; known: id, messages, prompt, input, target, metadata,"
            " group, tools, vars"
        ),
        f"{path}:8: metadata must be an object, got 3",
        f"{path}:8: id must be a non-empty text, got ''",
        f"{path}:9: messages[0]: unknown key 'contnet', did you mean 'content'?",
        f"{path}:9: messages[0]: role must be one of system, user, assistant, tool, got 'boss'",
        f"{path}:9: messages[0]: content must be text, got 1",
        f"{path}:10: NaN is not JSON",
        f"{path}:11: key 'id' occurs twice",
        f"{path}:12: messages must be a list of messages, got 'x'",
        f"{path}:13: the prompt is empty",
        f"{path}:14: tools must be a list of objects, got ['t']",
        f"{path}:15: holds a value that JSON cannot",
        f"{path}:16: holds a value that JSON cannot",
        f"{path}:17: id 'a' is already used at {path}:1",
    ]


def test_batch_problems(tmp_path):
    """A batch row is refused for what makes it no chat request."""
    path = _file(
        tmp_path,
        "b.jsonl",
        '{"custom_id": "a", "method": "GET", "url": "/v1/embeddings", "body": {"input": "x"}}\n'
        '{"custom_id": "b"}\n{"body": {"prompt": "x"}, "boddy": 1}\n',
    )
    urls = "/v1/chat/completions, /v1/completions, /v1/responses"
    assert _problems(path) == [
        f"{path}:1: method must be POST, got 'GET'",
        f"{path}:1: url must be one of {urls}, got '/v1/embeddings'",
        f"{path}:2: body is missing",
        f"{path}:3: unknown key 'boddy', did you mean 'body'?",
        f"{path}:3: custom_id is missing",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,promt\na,x\n", ["1: unknown column 'promt', did you mean 'prompt'?"]),
        ("id,id,prompt\n", ["1: column 'id' occurs twice"]),
        ('id,prompt\na,"two\nlines"\nb\n', ["4: 1 values for 2 columns"]),
        (
            "id,prompt,metadata\na,x,{\n",
            [
                "2: metadata: not JSON: Expecting property name enclosed in double quotes at column 2"
            ],
        ),
        ('id,prompt\na,"x\n', ["2: not CSV: unexpected end of data"]),
        (
            "id,prompt\n,x\na,\n",
            ["3: needs exactly one of messages, prompt, input; has none of them"],
        ),
    ],
)
def test_csv_problems(tmp_path, text, expected):
    """CSV problems carry the line on which their row begins."""
    path = _file(tmp_path, "x.csv", text)
    assert _problems(path) == [f"{path}:{problem}" for problem in expected]


UTF8 = 'save it as UTF-8 (in a spreadsheet: "CSV UTF-8")'
MAP = (
    "columns of other names need a map, and those not in it are left out: "
    "fields: {{prompt: {0}, ...}} in a study, --field prompt={0} ... in workbench import"
)
ROW = "id, messages, prompt, input, target, metadata, group, tools, vars"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "id;prompt;target\na;x;y\n",
            ["columns are separated by ';'; separate them by commas (.csv) or tabs (.tsv)"],
        ),
        (
            "id\tprompt\na\tx\n",
            ["columns are separated by a tab; separate them by commas (.csv) or tabs (.tsv)"],
        ),
        (
            "Question,Answer\nx,y\n",
            [
                f"unknown column 'Question'; known: {ROW}",
                f"unknown column 'Answer'; known: {ROW}; {MAP.format('Question')}",
            ],
        ),
        (
            "id,prompt,notes\na,x,y\n",
            [f"unknown column 'notes'; known: {ROW}; {MAP.format('prompt')}"],
        ),
    ],
)
def test_tables_of_other_programs(tmp_path, text, expected):
    """A table with other separators or names is refused with what to do about it."""
    path = _file(tmp_path, "x.csv", text)
    assert _problems(path) == [f"{path}:1: {problem}" for problem in expected]
    path.write_bytes(text.encode("utf-16"))
    assert _problems(path) == [f"{path}:1: not UTF-8 text (byte 0xff), perhaps UTF-16; {UTF8}"]


def test_files_that_cannot_be_read(tmp_path):
    """Empty, foreign, missing and undecodable files are refused in one go."""
    empty = _file(tmp_path, "empty.jsonl", "\n")
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes(b'{"id": "a",\n "prompt": "caf\xe9"}')
    assert _problems([empty, latin, tmp_path / "x.json", "none.csv"], base_dir=tmp_path) == [
        f"{empty}: no prompts",
        f"{latin}:2: not UTF-8 text (byte 0xe9), perhaps Windows-1252 or Latin-1; {UTF8}",
        f"{tmp_path}/x.json: a prompt file ends in .jsonl, .ndjson, .csv, .tsv, .yaml, .yml",
        f"none.csv: no such file (looked in {tmp_path} and {os.getcwd()})",  # noqa: PTH109
    ]


def test_files_are_joined_and_ids_stay_unique(tmp_path):
    """Several files make one set; an id in two of them names both places."""
    a = _file(tmp_path, "a.jsonl", '{"id": "1", "prompt": "x"}')
    b = _file(tmp_path, "b.jsonl", '{"id": "2", "prompt": "x"}')
    made = load(["a.jsonl", "b.jsonl"], base_dir=tmp_path)
    assert (made.name, [p.id for p in made]) == ("a+b", ["1", "2"])
    b.write_text('\n{"id": "1", "prompt": "y"}')
    assert _problems([a, b]) == [f"{b}:2: id '1' is already used at {a}:1"]


def test_base_directory_goes_first(tmp_path, monkeypatch):
    """A relative name is looked up beside the study first, then in the current directory."""
    (tmp_path / "beside").mkdir()
    _file(tmp_path / "beside", "p.jsonl", '{"id": "beside", "prompt": "x"}')
    _file(tmp_path, "p.jsonl", '{"id": "here", "prompt": "x"}')
    monkeypatch.chdir(tmp_path)
    assert load("p.jsonl", base_dir=tmp_path / "beside").prompts[0].id == "beside"
    assert load("p.jsonl", base_dir=tmp_path / "none").prompts[0].id == "here"


def test_plain_texts_get_lasting_ids():
    """A text without an id is named after its content, so its place in the list does not matter."""
    first, second = load(["Hi", "Ho, you."]), load(["Ha", "Hi"])
    assert first.prompts[0].id == second.prompts[1].id
    assert len({p.id for p in [*first, *second]}) == 3
    assert load(first) is first
    assert _problems(["Hi", "Hi"]) == [
        "row 2: the same prompt as row 1; leave one out, or give them ids"
    ]
    twice = [{"prompt": "Hi", "target": n} for n in (1, 2)]
    assert _problems(twice) == [
        "row 2: the same prompt as row 1, with another target; leave one out, or give them ids"
    ]
    assert _problems([]) == ["inline: no prompts"]


@pytest.mark.parametrize(
    ("item", "is_file"),
    [
        ("a.jsonl", True),
        ("my set.csv", True),
        ("data/x.txt", True),
        ("hf:a/b", True),
        ("What is 2.5?", False),
        ("Hi", False),
        ("Hello there.", False),
        ({"prompt": "x"}, False),
        ("e.g.", False),
    ],
)
def test_file_names_and_texts_are_told_apart(item, is_file):
    """One word with a suffix is a file name, prose is a prompt."""
    assert prompts.is_file_name(item) is is_file


@settings(max_examples=40)
@given(rows())
def test_round_trip_and_hash(records):
    """Rows read back as themselves; the hash sees content, not order or format."""
    made = PromptSet.from_records(records)
    again = PromptSet.from_records(
        [json.loads(json.dumps(p.to_dict())) for p in reversed(list(made))]
    )
    assert sorted(again.prompts, key=lambda p: p.id) == sorted(made.prompts, key=lambda p: p.id)
    assert again.sha256 == made.sha256
    changed = [*records[:-1], {**records[-1], "group": "another group"}]
    assert PromptSet.from_records(changed).sha256 != made.sha256


@settings(max_examples=25)
@given(rows())
def test_csv_round_trip(tmp_path_factory, records):
    """Any rows with text targets survive a CSV file."""
    text = [{**r, "target": str(r["target"])} for r in records if r.get("target") not in (None, "")]
    if not text:
        return
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(
        buffer, [k for k in prompts.checkrows.ROW_KEYS if k not in ("prompt", "input")]
    )
    writer.writeheader()
    for row in text:
        coded = {k: json.dumps(row[k]) for k in ("messages", "metadata", "tools") if k in row}
        writer.writerow({**row, **coded})
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_bytes(buffer.getvalue().encode())
    assert load(path).sha256 == PromptSet.from_records(text).sha256


def test_later_changes_by_the_caller_do_not_matter():
    """A set does not share lists with the rows it was made from."""
    row = {"id": "a", "messages": [{"role": "user", "content": "Hi"}], "metadata": {"x": []}}
    made = PromptSet.from_records([row])
    row["messages"][0]["content"] = "changed"
    row["metadata"]["x"].append(1)
    assert (made["a"].messages[0]["content"], made["a"].metadata) == ("Hi", {"x": []})


def test_tools_keep_the_order_of_their_keys():
    """A chat template may print a tool as it is, so the order of its keys is part of the prompt."""
    tool = {"type": "function", "function": {"name": "f", "arguments": {}}}
    made = load([{"id": "a", "prompt": "x", "tools": [tool]}])["a"]
    assert json.dumps(made.tools) == json.dumps([tool])


def test_subsets_are_nested_ordered_and_seeded():
    """A smaller subset lies in a larger one, keeps the order, and depends on the seed."""
    made = PromptSet.from_records([{"id": str(i), "prompt": "x"} for i in range(50)])
    small, large = made.subset(5, seed=1), made.subset(20, seed=1)
    ids = [p.id for p in small]
    assert len(small) == 5
    assert set(ids) < {p.id for p in large}
    assert ids == sorted(ids, key=int)
    assert ids != [p.id for p in made.subset(5, seed=2)]
    assert made.subset(50, seed=1) is made
    with pytest.raises(ValueError, match=r"^n must be at least 1, got 0$"):
        made.subset(0, seed=1)


def test_system_message_goes_first():
    """A system message is put before every prompt, and changes the hash."""
    made = load(["Hi"])
    changed = made.with_system("Be brief.")
    assert [m["role"] for m in changed.prompts[0].messages] == ["system", "user"]
    assert changed.prompts[0].id == made.prompts[0].id
    assert changed.sha256 != made.sha256
    assert made.with_system(None) is made


def test_two_system_messages_are_refused():
    """A study's system message does not silently compete with a prompt's own."""
    made = load(["Hi"]).with_system("A")
    with pytest.raises(PromptSetError) as caught:
        made.with_system("B")
    assert str(caught.value) == (
        f"inline: 1 of 1 prompts have a system message of their own ({made.prompts[0].id!r}); "
        "remove it, or leave the study's system empty"
    )


def test_a_set_made_by_hand_is_checked():
    """Duplicate ids and empty sets are refused however the set is made."""
    one = load(["Hi"]).prompts[0]
    with pytest.raises(PromptSetError, match=r"row 2: the same prompt as row 1; leave one"):
        PromptSet("x", (one, one))
    with pytest.raises(PromptSetError, match=r"^prompts: inline: no prompts$"):
        PromptSet("x", ())


def test_prompts_of_several_files_remember_their_file(tmp_path):
    """A joined set tells which prompt came from where, also when only some are drawn; one file alone has no parts."""
    for name in ("red", "blue"):
        lines = "\n".join(f'{{"id": "{name}{k}", "prompt": "{name} {k}?"}}' for k in range(5))
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    joined = load(["red.jsonl", "blue.jsonl"], tmp_path)
    assert joined.sets == {
        "red": tuple(f"red{k}" for k in range(5)),
        "blue": tuple(f"blue{k}" for k in range(5)),
    }
    drawn = joined.subset(4, seed=1)
    assert [i for ids in drawn.sets.values() for i in ids] == [p.id for p in drawn]
    assert joined.with_system("Be brief.").sets == joined.sets
    assert load("red.jsonl", tmp_path).sets == {}


def test_a_file_with_columns_of_other_names(tmp_path):
    """One file is read by its name, or with a map of its columns; no map is no change."""
    path = tmp_path / "own.csv"
    path.write_text("Question,Answer\nWhy?,42\n", encoding="utf-8")
    fields = {"prompt": "Question", "target": "Answer"}
    made = PromptSet.from_file({"file": str(path), "fields": fields}).prompts[0]
    assert (made.messages[-1]["content"], made.target) == ("Why?", "42")
    path.write_text("prompt,target\nWhy?,42\n", encoding="utf-8")
    named = PromptSet.from_file({"file": str(path), "fields": {}})
    assert named.sha256 == PromptSet.from_file(path).sha256


def test_a_question_asked_twice_in_a_file(tmp_path):
    """Rows without ids are called by their lines."""
    path = tmp_path / "own.csv"
    path.write_text("prompt,target\nWhy?,1\nHow?,2\nWhy?,3\n", encoding="utf-8")
    assert _problems(path) == [
        f"{path}:4: the same prompt as {path}:2, with another target; leave one out, or give them ids"
    ]
