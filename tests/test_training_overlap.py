"""Whether a prompt was trained on: what counts as the same question, and what is refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import prompts
from workbench.errors import AdapterError, PromptSetError
from workbench.prompts import PromptSet
from workbench.training.overlap import FORMAT, RECORD, check_none, fingerprint, overlap

if TYPE_CHECKING:
    from pathlib import Path

WORDS = st.lists(st.from_regex(r"[a-zäß]{1,6}|[0-9]{1,3}", fullmatch=True), min_size=1, max_size=8)
SENTENCE = ".,;:!?\"'()[]{}…«»“”¿"


def asks(text: str) -> str | None:
    """Fingerprint of one question."""
    return fingerprint([{"role": "user", "content": text}])


@given(WORDS, st.data())
def test_case_spaces_and_sentence_signs_do_not_count(words: list[str], data: st.DataObject) -> None:
    """However a question's words are written and set apart, it is the same question."""
    gap = st.text(alphabet=" \t\n" + SENTENCE, max_size=3).map(lambda s: f" {s} ")
    text = "".join(data.draw(st.sampled_from((w, w.upper()))) + data.draw(gap) for w in words)
    assert asks(text) == asks(" ".join(words))


@given(WORDS, WORDS)
def test_other_words_are_another_question(one: list[str], other: list[str]) -> None:
    """Two questions are the same only if their words are, in their order."""
    same = [w.casefold() for w in one] == [w.casefold() for w in other]
    assert (asks(" ".join(one)) == asks(" ".join(other))) == same


SUM = st.lists(st.integers(-99, 9999), min_size=2, max_size=4).flatmap(
    lambda terms: st.tuples(
        st.just(terms), st.lists(st.sampled_from("+-*/%"), min_size=3, max_size=3)
    )
)
FORMS = {"-": "-\u2212\u2013", "*": "*\u00d7\u22c5x", "/": "/\u00f7\u2215", "+": "+", "%": "%"}


def plain_sum(terms: list[int], signs: list[str]) -> str:
    """A sum in one form."""
    return str(terms[0]) + "".join(f" {s} {t}" for s, t in zip(signs, terms[1:], strict=False))


@given(SUM, SUM, st.data())
def test_sums_are_the_same_in_every_form(
    one: tuple[list[int], list[str]], other: tuple[list[int], list[str]], data: st.DataObject
) -> None:
    """However signs, spaces and thousands are written and the question is laid out; another sum is another question."""
    written = data.draw(st.sampled_from(("", "- ", "* ", "**", "`", "_", "\u200b")))
    for i, term in enumerate(one[0]):
        if i:
            forms = FORMS[one[1][i - 1]].replace("x", "x" if term >= 0 else "")  # 3 x -4 has an x
            sign = data.draw(st.sampled_from(forms))
            written += data.draw(st.sampled_from(("", " "))) + f"{sign} "
        written += data.draw(st.sampled_from((str(term), f"{term:,}", f"\u200b{term}")))
    assert asks(f"{written}**") == asks(plain_sum(*one))
    if plain_sum(*one) != plain_sum(*other):
        assert asks(plain_sum(*one)) != asks(plain_sum(*other))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 3 + 4?", "what is 3+4", True),
        ("What is 3 \u2212 4?", "What is 3-4?", True),
        ("What is 3 + 4?", "What is 3 - 4?", False),
        ("What is 3 * 4?", "What is 3 / 4?", False),
        ("What is 3 % 4?", "What is 3 4?", False),
        ("What is 3 + 4?", "What is 4 + 3?", False),
        ("3.5 + 1", "35 + 1", False),
        ("**What is 3 + 4?**", "What is 3 + 4?", True),
        ("- What is 3+4?", "What is 3+4?", True),
        ("`What` is _3 + 4_", "What is 3 + 4?", True),
        ("What is 1,000 + 2?", "What is 1000 + 2?", True),
        ("1,000,000", "1\u202f000\u202f000", True),
        ("1, 200", "1200", False),
        ("1,20", "120", False),
        ("What is 3 \u2013 4?", "What is 3 - 4?", True),
        ("What is 3 \u00d7 4?", "What is 3*4?", True),
        ("What is 3 x 4?", "What is 3 * 4?", True),
        ("What is 3 \u00f7 4?", "What is 3/4?", True),
        ("a \u2212 b", "a-b", True),
        ("a - b", "a * b", False),
        ("Name a well-known city.", "Name a well known city", True),
        ("What's 3 + 4 \u2014 now?", "what's 3+4 - now", True),
        ("What\u200b is\ufeff 3 + 4?", "What is 3 + 4?", True),
        ("What is -4 + 3?", "What is 4 + 3?", False),
        ("(3) - 4", "(3) -4", True),
        ("3 - -4", "3 - 4", False),
        ("2 ** 3", "2 * 3", False),
        ("2 ^ 3", "2 3", False),
        ("3 < 4", "3 > 4", False),
        ("1 2", "12", False),
        ("\uff37hat?", "what", True),  # full width
        ("???", "!!!", False),
        ("???", "???", True),
        ("中国的首都是哪里\uff1f", "中国的首都是哪里", True),
    ],
)
def test_what_is_the_same_question(one: str, other: str, same: bool) -> None:
    """Signs of arithmetic count, other punctuation does not; a text of nothing else stands for itself."""
    assert (asks(one) == asks(other)) == same


def test_only_the_last_user_message_counts() -> None:
    """A system message, a worked example or the way a conversation began makes no other question."""
    plain = asks("What is 3 + 4?")
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "What is 3 + 4?"},
    ]
    assert fingerprint(talk) == plain
    assert fingerprint([*talk, {"role": "assistant", "content": "7"}]) == plain
    assert re.fullmatch("[0-9a-f]{32}", str(plain))


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "Hi"}],
        [{"role": "user", "content": "  "}],
        [{"role": "user", "content": None}],
    ],
)
def test_nothing_asked_has_no_fingerprint(messages: list[dict[str, object]]) -> None:
    """Where no user says anything, there is nothing to compare."""
    assert fingerprint(messages) is None


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
        (
            '{"format": 1, "prompt_hashes": []}',
            "{0}/training.json: has format 1, this version of the workbench reads 2; train again into another folder",
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
    """The message names each row with the prompt it meets."""
    evaluated = PromptSet.from_records(
        [{"id": f"q{i}", "prompt": f"What is {i} + {i}?"} for i in range(9)], "doubles"
    )
    texts = ("What is 1+1", "what is 5 + 6?", "WHAT IS 2 + 2")
    trained = {f"rows.jsonl:{n}": str(asks(text)) for n, text in enumerate(texts, 1)}
    with pytest.raises(PromptSetError) as caught:
        check_none(trained, [evaluated], "rows.jsonl")
    assert str(caught.value) == (
        "rows.jsonl: rows ask what evaluated prompts ask; take them out of one or the other: 2 problems\n"
        "  - rows.jsonl:1: asks what 'q1' of doubles asks\n"
        "  - rows.jsonl:3: asks what 'q2' of doubles asks"
    )


def test_what_was_checked_is_told() -> None:
    """Sets without overlap come back by name, hash and size."""
    evaluated = PromptSet.from_records(["What is 1 + 1?", "What is 2 + 2?"], "two")
    trained = {"row 1": str(asks("What is 3 + 3?"))}
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
