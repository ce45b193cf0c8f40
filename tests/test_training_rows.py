"""Training rows: the forms they come in, everything that is wrong with them, and which are held out."""

from __future__ import annotations

import csv
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import prompts
from workbench.errors import PromptSetError
from workbench.prompts import PromptSet
from workbench.training.questions import fingerprint
from workbench.training.rows import Data, read

if TYPE_CHECKING:
    from pathlib import Path

USER = {"role": "user", "content": "What is 3 + 4?"}
ANSWER = {"role": "assistant", "content": "7"}
SYSTEM = {"role": "system", "content": "Be brief."}


def write(path: Path, rows: list[Any]) -> Path:
    """A JSONL file; texts are written as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refused(data: Any) -> str:
    """The message of the refusal."""
    with pytest.raises(PromptSetError) as caught:
        read(data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("row", "messages", "answer"),
    [
        ({"messages": [USER, ANSWER]}, [USER], "7"),
        ({"messages": [SYSTEM, USER, ANSWER]}, [SYSTEM, USER], "7"),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, [USER, ANSWER, USER], "7"),
        ({"prompt": "What is 3 + 4?", "target": "7"}, [USER], "7"),
        ({"input": "What is 3 + 4?", "target": 7}, [USER], "7"),
        ({"prompt": "What is 3 + 4?", "target": 7.5}, [USER], "7.5"),
        ({"messages": [USER], "target": " 7\n"}, [USER], " 7\n"),
        ({"prompt": "What is 3 + 4?", "target": "7", "system": "Be brief."}, [SYSTEM, USER], "7"),
        ({"messages": [USER, ANSWER], "system": "Be brief."}, [SYSTEM, USER], "7"),
        (
            {"id": "a", "metadata": {"k": 1}, "messages": [USER, ANSWER | {"weight": 1}]},
            [USER],
            "7",
        ),
    ],
)
def test_forms_of_a_row(tmp_path: Path, row: Any, messages: list[Any], answer: str) -> None:
    """From a file or a list, a row gives what is asked and what to say; of a conversation that is the last answer."""
    path = write(tmp_path / "rows.jsonl", [row])
    for data, place in ((path, f"{path}:1"), (str(path), f"{path}:1"), ([row], "row 1")):
        (example,) = read(data).examples
        assert list(example.messages) == messages
        assert (example.answer, example.place) == (answer, place)
        assert example.fingerprint == fingerprint([USER])


def test_tools_and_groups_are_kept() -> None:
    """Tool definitions go to the template, a group decides the side."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    (example,) = read([{"messages": [USER, ANSWER], "tools": [tool], "group": "g"}]).examples
    assert (example.tools, example.group) == ((tool,), "g")


def test_other_sources(tmp_path: Path) -> None:
    """Prompt sets with targets, CSV files and sets that ship are read as prompt sets are."""
    table = tmp_path / "rows.csv"
    table.write_text("id,prompt,target\na,What is 3 + 4?,7\n", encoding="utf-8")
    for data in (table, prompts.load(table)):
        (example,) = read(data).examples
        assert (example.place, example.answer) == ("'a'", "7")
    shipped = read("builtin:arithmetic")
    assert len(shipped.examples) == len(prompts.load("builtin:arithmetic"))
    assert shipped.file_sha256 is None
    assert read(shipped) is shipped


def test_conversations_in_other_sources(tmp_path: Path) -> None:
    """The answer at the end of a conversation is trained on, wherever the conversation is from; two answers are too many."""
    talk = [SYSTEM, USER, ANSWER]
    table = tmp_path / "rows.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "messages"], ["a", json.dumps(talk)]])
    inline = PromptSet.from_records([{"id": "a", "messages": talk, "group": "g"}])
    for data in (table, inline):
        (example,) = read(data).examples
        assert (list(example.messages), example.answer) == ([SYSTEM, USER], "7")
    assert read(inline).sha256 == read([{"messages": talk, "group": "g"}]).sha256
    both = PromptSet.from_records([{"id": "a", "messages": talk, "target": "8"}])
    assert refused(both) == (
        "training data: 'a': has a target, and its last message is the assistant's too; leave one of them out"
    )


def test_an_answer_of_weight_0_is_not_trained_on_by_way_of_a_set(tmp_path: Path) -> None:
    """Read as a prompt set and trained on, the row is refused as it is when the file is read."""
    rows = [{"messages": [USER, ANSWER | {"weight": 0}]}, {"messages": [SYSTEM, USER, ANSWER]}]
    path = write(tmp_path / "rows.jsonl", rows)
    made = prompts.load(path)
    said = "the answer has weight 0, and only weight 1 is trained on; leave the row out"
    assert refused(path) == f"training data: {path}:1: {said}"
    assert refused(made) == f"training data: {made.prompts[0].id!r}: {said}"


def test_a_line_cut_short_is_said_plainly(tmp_path: Path) -> None:
    """Where a text does not end, no word is said twice."""
    path = write(tmp_path / "rows.jsonl", ['{"prompt": "a'])
    assert refused(path) == (
        f"training data: {path}:1: not JSON: Unterminated string starting at column 12"
    )


def test_hashes(tmp_path: Path) -> None:
    """The file's hash is that of its bytes; the rows' hash is of what they say, not of how the file is written."""
    rows = [{"prompt": f"Say {i}", "target": str(i)} for i in range(3)]
    one = read(write(tmp_path / "one.jsonl", rows))
    spaced = write(tmp_path / "two.jsonl", ["", *[json.dumps(r, indent=None) + " " for r in rows]])
    two = read(spaced)
    assert one.sha256 == two.sha256 == read(rows).sha256
    assert two.file_sha256 == hashlib.sha256(spaced.read_bytes()).hexdigest() != one.file_sha256
    assert read(rows[::-1]).sha256 != one.sha256
    assert read([{**rows[0], "target": "x"}, *rows[1:]]).sha256 != one.sha256
    assert (one.source, read(rows).source) == (str(tmp_path / "one.jsonl"), "rows")


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    """Rows without an answer, with two, with one that is no text; twice the same; lines that are no rows."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f", "arguments": {}}]}
    path = write(
        tmp_path / "rows.jsonl",
        [
            {"messages": [USER]},
            {"prompt": "a", "target": ""},
            {"prompt": "b", "target": ["x"]},
            {"messages": [USER, ANSWER], "target": "7"},
            {"messages": [USER, call]},
            {"messages": [USER, ANSWER | {"weight": 0}]},
            {"prompt": "c", "target": "x", "system": 3},
            {"messages": [SYSTEM, USER, ANSWER], "system": "Hi"},
            {"messages": [{"role": "assistant", "content": "Hi"}, ANSWER]},
            {"id": "d", "prompt": "d", "target": "x"},
            {"id": "d", "prompt": "e", "target": "x"},
            {"prompt": "f", "target": "x"},
            {"prompt": "f", "target": "x"},
            {"prompt": "f", "target": "y"},
            '"a text"',
            "{",
            {"prompt": "g", "answer": "x"},
        ],
    )
    assert refused(path) == "training data: 14 problems\n" + "\n".join(
        f"  - {path}:{problem}"
        for problem in (
            "1: no answer: give a target, or end messages with the assistant's",
            "2: the answer is empty",
            "3: the answer must be a text or a number, got a list; write it as text",
            "4: has a target, and its last message is the assistant's too; leave one of them out",
            "5: the answer is a tool call; write the call as the text that the model should say",
            "6: the answer has weight 0, and only weight 1 is trained on; leave the row out",
            "7: system must be a text before a prompt, got 3",
            "8: has a system field and a system message; leave one of them out",
            "9: no user asks anything in it",
            f"11: id 'd' is already used at {path}:10",
            f"13: the same row as {path}:12",
            "15: a row must be an object, got a text",
            "16: not JSON: Expecting property name enclosed in double quotes at column 2",
            "17: unknown key 'answer'; known: id, messages, prompt, input, target, metadata, group, tools, vars",
        )
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "training data: {0}: no rows"),
        (b"\n \n", "training data: {0}: no rows"),
        (b'{"prompt": "a"}\n\xff', "{0}:2: not UTF-8 text; save it as UTF-8"),
    ],
)
def test_files_that_hold_nothing(tmp_path: Path, content: bytes, problem: str) -> None:
    """An empty file and one that is no text are said to be that."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert refused(path) == problem.format(path)


def test_a_missing_file(tmp_path: Path) -> None:
    """It is named, with where it was looked for."""
    path = tmp_path / "none.jsonl"
    assert refused(path) == f"training data: {path}: no such file (looked in {tmp_path})"
    assert refused([]) == "training data: rows: no rows"


def test_a_set_without_targets() -> None:
    """Prompts alone are nothing to learn from."""
    asked = PromptSet.from_records([{"id": "a", "prompt": "Hi"}])
    said = "training data: 'a': no answer: give a target, or end messages with the assistant's"
    assert refused(asked) == said


# ------------------------------------------------------------------------------------------------ holding out

GROUPS = st.sampled_from([None, "f", "g", "h", "i", "j"])
ROWS = st.lists(st.tuples(st.integers(0, 15), GROUPS), min_size=1, max_size=25, unique=True)
"""What is asked, a group: the same question also in several groups."""


def made(pairs: list[tuple[int, str | None]]) -> Data:
    """Rows that ask about numbers, some in groups."""
    return read(
        [{"prompt": f"Say {n}", "target": f"{n} {group}", "group": group} for n, group in pairs]
    )


def linked(data: Data) -> list[set[str]]:
    """Places of the rows that belong together, by joining until nothing changes."""
    sets = [({e.fingerprint, f"group {e.group or e.place}"}, {e.place}) for e in data.examples]
    joined: list[tuple[set[str], set[str]]] = []
    for names, places in sets:
        met = [other for other in joined if other[0] & names]
        joined = [other for other in joined if not other[0] & names]
        joined.append((names.union(*(o[0] for o in met)), places.union(*(o[1] for o in met))))
    return [places for _, places in joined]


@given(ROWS, st.floats(0, 0.9), st.randoms(use_true_random=False))
def test_the_split_is_told_by_the_rows(
    pairs: list[tuple[int, str | None]], share: float, random: Any
) -> None:
    """Every row is on one side, in order, whatever the order of the rows; no question and no group is on both sides."""
    data = made(pairs)
    train, held = data.split(share)
    assert sorted([*train, *held], key=data.examples.index) == list(data.examples)
    assert list(train) == sorted(train, key=data.examples.index)
    assert train
    moved = list(pairs)
    random.shuffle(moved)
    assert {e.content() for e in made(moved).split(share)[1]} == {e.content() for e in held}
    assert not {e.fingerprint for e in train} & {e.fingerprint for e in held}
    assert not {e.group for e in train if e.group} & {e.group for e in held if e.group}


@given(ROWS, st.floats(1e-9, 0.9))
def test_nothing_or_about_the_share_is_held_out(
    pairs: list[tuple[int, str | None]], share: float
) -> None:
    """A share of 0 holds nothing out; any other something, if there is a choice, and no more than twice the share if it can."""
    data = made(pairs)
    assert data.split(0) == (data.examples, ())
    held = {e.place for e in data.split(share)[1]}
    together = linked(data)
    assert bool(held) == (len(together) > 1)
    if held:
        twice = 2 * max(1, round(share * len(data.examples)))
        smallest = min(map(len, together))
        assert len(held) <= max(twice, smallest)


def test_a_question_in_two_groups_joins_them() -> None:
    """Rows linked by a third row are on its side."""
    rows = [("Say 1", "g"), ("Say 2", "g"), ("Say 2", "h"), ("say 3.", "h"), ("Say 3", None)]
    data = read(
        [{"prompt": p, "target": str(i), "group": g} for i, (p, g) in enumerate(rows)]
        + [{"prompt": f"Name {i}", "target": "x"} for i in range(9)]
    )
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        held = {e.place for e in data.split(share)[1]}
        assert len({f"row {n}" in held for n in range(1, 6)}) == 1


def test_rows_that_ask_the_same_of_different_documents_are_told_apart() -> None:
    """A hundred documents with one instruction are a hundred questions; one document twice is on one side."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": f"Document {i // 2}: red."},
                {"role": "user", "content": "Summarize the document."},
            ],
            "target": f"Red {i}.",
        }
        for i in range(200)
    ]
    train, held = read(rows).split(0.1)
    assert (len(train), len(held)) == (180, 20)
    assert not {str(e.messages[0]) for e in train} & {str(e.messages[0]) for e in held}


def test_rows_that_ask_the_same_after_other_instructions_stay_together() -> None:
    """A question that is asked in three styles is on one side with all three."""
    rows = [
        {"prompt": f"Say {i}", "system": style, "target": f"{style} {i}"}
        for i in range(30)
        for style in ("brief", "long", "rude")
    ]
    train, held = read(rows).split(0.1)
    assert (len(train), len(held)) == (81, 9)
    assert not {e.messages[1]["content"] for e in train} & {e.messages[1]["content"] for e in held}


@pytest.mark.parametrize("name", list("abcdefgh"))
def test_a_large_group_is_not_held_out_whole(name: str) -> None:
    """Of 100 rows in one group and one in another, the one is held out, whichever comes first by its hash."""
    big = [{"prompt": f"Say {i} {name}", "target": "x", "group": name} for i in range(100)]
    data = read([*big, {"prompt": "alone", "target": "x", "group": "tiny"}])
    train, held = data.split(0.1)
    assert (len(train), len(held)) == (100, 1)


def test_the_share_asked_for_is_held_out() -> None:
    """Of rows that stand alone, exactly the share is held out, and a smaller share is part of a larger one."""
    data = read([{"prompt": f"Say {n}", "target": "x"} for n in range(1000)])
    small, large = ({e.place for e in data.split(share)[1]} for share in (0.1, 0.3))
    assert (len(small), len(large)) == (100, 300)
    assert small < large
    fewer = read([{"prompt": f"Say {n}", "target": "x"} for n in range(990)])
    moved = {e.messages[0]["content"] for e in fewer.split(0.1)[1]}
    kept = {e.messages[0]["content"] for e in data.split(0.1)[1]}
    assert len(kept ^ moved) < 15
