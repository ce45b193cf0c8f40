"""Counting, checks of instructions, and tool calls in the forms models write them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TEXT

from workbench.prompts import Prompt
from workbench.scorers import checks, counts, get_scorer
from workbench.scorers.instruction import loosened
from workbench.scorers.toolcalls import Call, parse_calls

PLAIN = st.lists(st.sampled_from(["red", "Don't", "well-known", "3.5", "x1"]), max_size=12)
ARGUMENTS = st.dictionaries(
    st.from_regex(r"[a-z]{1,5}", fullmatch=True)
    .filter(str.isidentifier)
    .filter(
        lambda s: (
            s
            not in {
                "is",
                "in",
                "if",
                "or",
                "as",
                "and",
                "not",
                "for",
                "def",
                "del",
                "try",
                "from",
                "else",
                "pass",
                "with",
                "elif",
            }
        )
    ),
    st.integers(-9, 9) | st.booleans() | TEXT.filter(lambda t: "<" not in t and "`" not in t),
    max_size=3,
)


def prompt(target=None, question="What is it?", tools=None):
    return Prompt("p", ({"role": "user", "content": question},), target, tools=tools)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hello there. Bye!", ["Hello there.", "Bye!"]),
        ("Mr. Smith met Dr. Who. They left.", ["Mr. Smith met Dr. Who.", "They left."]),
        ("It costs 3.50. See e.g. this.", ["It costs 3.50.", "See e.g. this."]),
        ("1. First\n2. Second.", ["1. First", "2. Second."]),
        ("The answer is no. Really.", ["The answer is no.", "Really."]),
        ('He said "Go." Then left...', ['He said "Go."', "Then left..."]),
        ("它很好。真的。", ["它很好。", "真的。"]),
        ("J. R. Smith and I. Yes.", ["J. R. Smith and I.", "Yes."]),
        ("... !!! ???", []),
    ],
)
def test_sentences(text, found):
    """Where a sentence ends, and where a point ends none."""
    assert counts.sentences(text) == found


@given(PLAIN)
def test_words_are_counted(words):
    """A text of n words has n words, and meets exactly the limits that allow n."""
    text = " ".join(words)
    n = len(words)
    assert counts.words(text) == words
    for name, limit, ok in (
        ("min_words", n, True),
        ("min_words", n + 1, False),
        ("max_words", n, True),
        ("exact_words", n, True),
        ("exact_words", n + 1, False),
    ):
        assert checks.run({"check": name, "n": limit}, text, None)[0] is ok


@given(st.lists(st.text("ab*,\n", max_size=6), min_size=1, max_size=4))
def test_loose_never_lowers(parts):
    """What a strict judgement accepts, a loose one accepts."""
    text = "\n".join(parts)
    target = [
        {"check": "no_commas"},
        {"check": "min_bullets", "n": 1},
        {"check": "max_lines", "n": 2},
    ]
    strict, loose = (
        get_scorer({"instruction": {"loose": loose}}).score(text, prompt(target))
        for loose in (False, True)
    )
    assert loose.value >= strict.value


def test_loose_forms():
    """The eight forms, those that are alike or empty left out."""
    assert loosened("one") == ["one"]
    assert loosened("a\n*b*\nc") == [
        *("a\n*b*\nc", "*b*\nc", "a\n*b*", "*b*"),
        *("a\nb\nc", "b\nc", "a\nb", "b"),
    ]


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("max_words", "an instruction is {check: name, ...}, got 'max_words'"),
        ({"n": 3}, "an instruction is {check: name, ...}, got {'n': 3}"),
        ({"check": "max_word", "n": 3}, "unknown check 'max_word', did you mean 'max_words'?"),
        ({"check": "max_words"}, "check max_words: needs n"),
        (
            {"check": "max_words", "n": -1},
            "check max_words: n must be a whole number at least 0, got -1",
        ),
        (
            {"check": "max_words", "n": True},
            "check max_words: n must be a whole number at least 0, got True",
        ),
        ({"check": "no_commas", "n": 1}, "check no_commas: it takes no arguments"),
        (
            {"check": "include", "word": ["a"], "words": ["a"]},
            "check include: unknown argument 'word', did you mean 'words'?",
        ),
        (
            {"check": "include", "words": "a"},
            "check include: words must be a list of texts, got 'a'",
        ),
        (
            {"check": "letter_count", "letter": "ab"},
            "check letter_count: letter must be one letter, got 'ab'",
        ),
        (
            {"check": "starts_with", "text": "a", "match_case": 1},
            "check starts_with: match_case must be true or false, got 1",
        ),
        (
            {"check": "exact_words", "n": 1, "marker": "-"},
            "check exact_words: unknown argument 'marker'; known: n",
        ),
        (
            {"check": "min_bullets", "n": 1, "marker": ""},
            "check min_bullets: marker must be a text, got ''",
        ),
    ],
)
def test_wrong_instructions_are_told(instruction, message):
    """An instruction that cannot be checked is named, with what is allowed."""
    assert checks.problem(instruction) == message
    judge = get_scorer("instruction")
    good = {"check": "no_commas"}
    assert judge.target_problem(prompt([good, instruction])) == message
    assert judge.score("x", prompt([good, instruction])).reason == message


def test_the_explanation_names_what_was_not_followed():
    """A reader sees which checks failed and what was there instead."""
    target = [
        {"check": "max_words", "n": 2},
        {"check": "include", "words": ["red"]},
        {"check": "quoted"},
    ]
    found = get_scorer("instruction").score("one two red", prompt(target))
    assert found.explanation == (
        "1 of 3 followed; not: max_words (3 words), quoted (from 'o' to 'd')"
    )


@settings(max_examples=60, deadline=None)  # the first text loads the language model
@given(st.text(max_size=80))
def test_every_check_judges_every_text(text):
    """No text makes a check raise."""
    fill = {
        "n": 1,
        "words": ["a"],
        "word": "a",
        "letter": "a",
        "text": "a",
        "options": ["a"],
        "code": "en",
    }
    for name, check in checks.CHECKS.items():
        instruction = {"check": name} | {arg: fill[arg] for arg in check.needs}
        assert checks.problem(instruction) is None
        ok, seen = checks.run(instruction, text, "q")
        assert isinstance(ok, bool)
        assert isinstance(seen, str)


FORMS = {
    "tag": lambda c: f"<tool_call>\n{_json(c)}\n</tool_call>",
    "open tag": lambda c: f"Sure. <tool_call>{_json(c)}",
    "ReAct": lambda c: (
        f"Thought: x\nAction: {c.name}\nAction Input: {json.dumps(c.arguments)}\nObservation: "
    ),
    "function": lambda c: f"<function={c.name}>{json.dumps(c.arguments)}</function>",
    "JSON": lambda c: f" {_json(c)} ",
    "fence": lambda c: f"Here:\n```json\n{_json(c)}\n```\nDone.",
    "prose": lambda c: f"I call {_json(c)} now.",
    "list": lambda c: f"[TOOL_CALLS] [{_json(c)}]",
    "text": lambda c: json.dumps(
        {"function": {"name": c.name, "arguments": json.dumps(c.arguments)}}
    ),
    "Python": lambda c: f"{c.name}({', '.join(f'{k}={v!r}' for k, v in c.arguments.items())})",
}


def _json(call):
    return json.dumps({"name": call.name, "arguments": call.arguments})


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(arguments=ARGUMENTS)
def test_a_call_reads_back(form, arguments):
    """A call written in any form is found with its name and arguments, and nothing else is."""
    call = Call("get_it", arguments)
    found = parse_calls(FORMS[form](call))
    assert found.calls == [call]
    assert found.problems == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>',
            "a <tool_call> is not JSON: Expecting ',' delimiter at column 36",
        ),
        ('<tool_call>{"a": 1}</tool_call>', "a <tool_call> has no name with arguments"),
        (
            "Action: f\nAction Input: Paris",
            "the arguments of f are not JSON: Expecting value at column 1",
        ),
        ("<function=f>[1]</function>", "the arguments of f are no object"),
        (
            '{"name": "f", "arguments": {"a": 1}',
            "a call in JSON is not JSON: Expecting ',' delimiter at column 36",
        ),
    ],
)
def test_malformed_calls_are_explained(text, problem):
    """What is wrong with an attempt is said, and it counts as no call but as an attempt."""
    found = parse_calls(text)
    assert found.calls == []
    assert found.problems == [problem]
    judge = get_scorer("tool_call")
    wanted = prompt({"name": "f", "arguments": {"a": 1}})
    assert judge.score(text, wanted).explanation == problem
    assert judge.score(text, prompt("none")).value == 0


def test_what_was_wrong_with_a_call_is_told():
    """Wrong arguments, calls left out and calls too many are named."""
    judge = get_scorer({"tool_call": {"arguments": "partial"}})
    wanted = [{"name": "f", "arguments": {"a": 1, "b": 2}}, {"name": "g", "arguments": {}}]
    found = judge.score("[f(a=1, b=3), h()]", prompt(wanted))
    assert found.value == pytest.approx(2 / 3 / 2)
    assert found.answer == 'f({"a": 1, "b": 3}); h({})'
    assert found.explanation == "f: wrong b; g is not called; h is called without need"


@pytest.mark.parametrize(
    "part", ["<tool_call>", "Action: f\n", '{"name": "f", "arguments": ', "f(", "[TOOL_CALLS] ["]
)
def test_a_looping_caller_returns(part):
    """A model stuck on the beginning of a call is judged without hanging."""
    wanted = prompt({"name": "f", "arguments": {}})
    assert get_scorer("tool_call").score(part * 20_000, wanted).value == 0
