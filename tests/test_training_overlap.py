"""Whether a prompt was trained on: what counts as the same question, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from workbench import prompts
from workbench.errors import AdapterError, ModelError, PromptSetError
from workbench.prompts import PromptSet
from workbench.training import train
from workbench.training.overlap import FORMAT, RECORD, check_none, fingerprint, overlap

if TYPE_CHECKING:
    from pathlib import Path


def asks(text: str) -> str | None:
    """Fingerprint of one question."""
    return fingerprint([{"role": "user", "content": text}])


def test_overlap_names_the_prompts(tmp_path: Path) -> None:
    """An adapter's folder and a prompt set, in whatever form, give the ids of the prompts that were trained on."""
    seen = [asks("What is 1 + 15?"), asks("What is 5 + 5")]
    record = {"format": FORMAT, "prompt_hashes": seen}
    (tmp_path / RECORD).write_text(json.dumps(record), encoding="utf-8")
    arithmetic = prompts.load("builtin:arithmetic")
    wanted = tuple(
        p.id
        for p in arithmetic
        if p.messages[-1]["content"] in ("What is 1 + 15?", "What is 5 + 5?")
    )
    assert len(wanted) == 2
    for asked in (arithmetic, "builtin:arithmetic", list(arithmetic)):
        assert overlap(tmp_path, asked) == wanted
        assert overlap(str(tmp_path), asked) == wanted
    assert overlap(tmp_path, "builtin:capitals") == ()
    assert overlap(tmp_path, "builtin:templated") == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "{0}: no training.json, so not trained with the workbench"),
        (
            "{",
            "{0}/training.json: cannot be read (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        ),
        ("[]", "{0}/training.json: damaged; copy it again, or train again"),
        ("{}", "{0}/training.json: damaged; copy it again, or train again"),
        ('{"format": 3}', "{0}/training.json: damaged; copy it again, or train again"),
        (
            '{"format": 3, "prompt_hashes": [3]}',
            "{0}/training.json: damaged; copy it again, or train again",
        ),
        (
            '{"format": 3, "prompt_hashes": [], "adapter": "abc"}',
            "{0}/training.json: damaged; copy it again, or train again",
        ),
        (
            '{"format": 1, "prompt_hashes": []}',
            "{0}/training.json: has format 1, this version of the workbench reads 3; train again into another folder",
        ),
    ],
)
def test_without_a_record_nothing_is_said(tmp_path: Path, text: str | None, problem: str) -> None:
    """A folder without a whole record is an error, never "no overlap"."""
    if text is not None:
        (tmp_path / RECORD).write_text(text, encoding="utf-8")
    with pytest.raises(AdapterError) as caught:
        overlap(tmp_path, "builtin:arithmetic")
    assert str(caught.value) == problem.format(tmp_path)


def test_overlapping_rows_are_refused_with_ids() -> None:
    """The message names each row with the prompt it meets, and how many there are."""
    evaluated = PromptSet.from_records(
        [{"id": f"q{i}", "prompt": f"What is {i} + {i}?"} for i in range(9)], "doubles"
    )
    texts = ("What is 1+1", "what is 5 + 6?", "WHAT IS 2 + 2")
    trained = {f"rows.jsonl:{n}": [str(asks(text))] for n, text in enumerate(texts, 1)}
    with pytest.raises(PromptSetError) as caught:
        check_none(trained, [evaluated], "rows.jsonl")
    assert str(caught.value) == (
        "rows.jsonl: 2 of 3 rows ask what evaluated prompts ask; take them out of one or the other:\n"
        "  - rows.jsonl:1: asks what 'q1' of doubles asks\n"
        "  - rows.jsonl:3: asks what 'q2' of doubles asks"
    )


def test_of_many_overlapping_rows_the_first_are_shown() -> None:
    """A screen holds the refusal of 81 rows; the error has them all, each once."""
    sums = [{"id": f"q{i}", "prompt": f"What is {i} + 1?"} for i in range(81)]
    sets = [PromptSet.from_records(sums, name) for name in ("one", "two")]
    trained = {f"r:{i}": [str(asks(f"what is {i}+1"))] for i in range(100)}
    with pytest.raises(PromptSetError) as caught:
        check_none(trained, sets, "r")
    lines = str(caught.value).splitlines()
    assert lines[0] == (
        "r: 81 of 100 rows ask what evaluated prompts ask; take them out of one or the other:"
    )
    assert lines[1:] == [
        *(f"  - r:{i}: asks what 'q{i}' of one asks" for i in range(5)),
        "  and 76 more",
    ]
    assert len(caught.value.problems) == 81


# ---------------------------------------------------------------------------------- chats of several messages


def chat(*said: str, system: str = "") -> list[dict[str, str]]:
    """Messages of user and assistant in turn, after a system message if there is one."""
    roles = ("user", "assistant")
    talk = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
    return [{"role": "system", "content": system}, *talk] if system else talk


def met(rows: list[dict[str, object]], *prompts: list[dict[str, str]]) -> set[int]:
    """Numbers of the prompts for which training on the rows is refused; the others find that there is no model."""
    found = set()
    for n, messages in enumerate(prompts):
        evaluated = PromptSet.from_records([{"id": f"p{n}", "messages": messages}], "asked")
        with pytest.raises((PromptSetError, ModelError)) as caught:
            train(rows, "./nowhere", out="nowhere-either", evaluated=evaluated, progress=False)
        if caught.type is PromptSetError:
            assert " of asked asks" in str(caught.value)
            found.add(n)
    return found


FORM = "Summarize the document."


def test_a_form_asked_of_another_document_is_no_overlap() -> None:
    """Where each row asks the same of another document, only the same document is the same prompt."""
    rows: list[dict[str, object]] = [
        {"messages": chat(FORM, system=f"Document {i}: box {i} is red."), "target": f"Box {i}."}
        for i in range(100)
    ]
    new = chat(FORM, system="Document: the box is lost.")
    seen = chat(FORM.upper(), system="document 7:  box 7 is red")
    assert met(rows, new, seen) == {1}


def test_a_form_asked_of_a_document_in_an_earlier_turn() -> None:
    """The same where the document is what the user said before."""
    rows: list[dict[str, object]] = [
        {"messages": chat(f"I have box {i}.", "Yes?", "And what is in it?", f"Ball {i}.")}
        for i in range(9)
    ]
    new = chat("I have box 99.", "Yes?", "And what is in it?")
    seen = chat("I have box 3.", "Yes?", "And what is in it?")
    assert met(rows, new, seen) == {1}


def test_instructions_make_no_other_question() -> None:
    """Questions answered after several instructions overlap with the same question after any other, or none."""
    styles = {"Answer in digits.": "{}", "Answer with words.": "it is {}"}
    rows: list[dict[str, object]] = [
        {"messages": chat(f"What is {i} + {i}?", system=style), "target": said.format(2 * i)}
        for i in range(9)
        for style, said in styles.items()
    ]
    other = chat("what is 4+4", system="Be polite.")
    worked = chat("What is 1 + 70?", "71", "What is 4 + 4?")
    assert met(rows, other, chat("What is 4 + 4?"), worked, chat("What is 9 + 9?")) == {0, 1, 2}


def test_worked_examples_make_no_other_question() -> None:
    """The same question after other examples, answered alike, overlaps with itself after none."""
    rows: list[dict[str, object]] = [
        {"messages": chat(f"What is {i} + 90?", str(i + 90), "What is 4 + 4?"), "target": "8"}
        for i in range(9)
    ]
    assert met(rows, chat("What is 4 + 4?"), chat("What is 5 + 5?")) == {0}


def test_a_question_early_in_a_conversation_counts() -> None:
    """A conversation whose earlier turn asks an evaluated question is refused, though only its last answer is trained on."""
    rows: list[dict[str, object]] = [
        {
            "messages": chat(
                "What is 1 + 15?", "16", "Thank you! What is the capital of Peru?", "Lima"
            )
        }
    ]
    early, late = chat("what is 1+15"), chat("Thank you. What is the capital of Peru")
    example = chat("Thank you. What is the capital of Peru", "Lima", "What is 9 + 9?")
    assert met(rows, early, late, example) == {0, 1}


def test_what_was_checked_is_told() -> None:
    """Sets without overlap come back by name, hash and size."""
    evaluated = PromptSet.from_records(["What is 1 + 1?", "What is 2 + 2?"], "two")
    trained = {"row 1": [str(asks("What is 3 + 3?"))]}
    assert check_none(trained, [evaluated], "rows") == [
        {"name": "two", "sha256": evaluated.sha256, "n": 2}
    ]
    assert check_none(trained, [], "rows") == []


def test_prompts_that_only_a_template_asks_cannot_be_checked() -> None:
    """Passing them silently would be a check that checked nothing."""
    evaluated = PromptSet.from_records([{"id": "a", "vars": {"x": 1}}, "What is 2 + 2?"], "verbs")
    with pytest.raises(PromptSetError) as caught:
        check_none({}, [evaluated], "rows")
    assert str(caught.value) == (
        "verbs: 1 of 2 prompts have only variables, so what they ask cannot be compared with the training data; "
        "give a file in which they are asked"
    )
