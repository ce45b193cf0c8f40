"""Scorers: hard cases as data, options, and what happens when judging fails."""
# ruff: noqa: ARG001, ARG005 - a scorer takes (text, prompt) whether it needs them or not

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import TEXT

from workbench.errors import ScorerError
from workbench.prompts import Prompt
from workbench.records import Generation, Score
from workbench.scorers import base, get_scorer, known_scorers, score_generation, scorer
from workbench.scorers.numbers import numbers

RUN_TIME = ("exponential backtracking",)
"""Sources of cases whose answer, not their target, gives no score."""
CASES = json.loads((Path(__file__).parent / "data" / "scorer_cases.json").read_text("utf-8"))


def _prompt(target=None, question="?", tools=None, **metadata):
    return Prompt("p", ({"role": "user", "content": question},), target, metadata, None, tools)


def _generation(text="", **changes):
    values = {"finish_reason": "stop", "n_prompt_tokens": 1, "token_ids": (1,)} | changes
    return Generation("c", "p", 0, text, **values)


@pytest.fixture
def clean_registry(monkeypatch):
    """Scorers registered by one test are gone in the next."""
    monkeypatch.setattr(base, "_OWN", {})


@pytest.mark.parametrize("case", CASES, ids=[f"{c['scorer']}: {c['why']}" for c in CASES])
def test_hard_cases(case):
    """Every case of the data file gets the score it says, for the reason it says."""
    judge = get_scorer({case["scorer"]: case.get("options")})
    prompt = _prompt(
        case["target"], case.get("question", "?"), case.get("tools"), **case.get("metadata", {})
    )
    row = _generation(case["text"], finish_reason=case.get("finish_reason", "stop"))
    found = score_generation(judge, row, prompt)
    if case["expected"] is None:
        assert found.value is None, found
    else:
        assert found.value == pytest.approx(case["expected"], abs=1e-9), found
    assert (found.reason is None) == (found.value is not None)
    assert not (found.reason or "").startswith(f"scorer {judge.name} failed")
    if "answer" in case:
        assert found.answer == case["answer"]


@pytest.mark.parametrize("case", CASES, ids=[f"{c['scorer']}: {c['why']}" for c in CASES])
def test_unusable_targets_are_known_before_a_run(case):
    """A target that gives no score is told beforehand, in the same words; a usable one is not."""
    judge = get_scorer({case["scorer"]: case.get("options")})
    prompt = _prompt(case["target"], tools=case.get("tools"), **case.get("metadata", {}))
    said = judge.target_problem(prompt)
    if case["expected"] is not None:
        assert said is None
    elif case["source"] not in RUN_TIME:
        assert said
        assert judge.score(case["text"], prompt).reason == said


def test_cases_have_a_source():
    """Every case says why it is hard and where it comes from, none is there twice, and each family has a dozen."""
    assert all(case["why"] and case["source"] for case in CASES)
    assert len({json.dumps(case, sort_keys=True) for case in CASES}) == len(CASES)
    counts = Counter(case["scorer"] for case in CASES)
    alone = {name for name, cls in base.FAMILIES.items() if not hasattr(cls, "judge_together")}
    assert set(counts) == alone - {"asserts"}  # which judges by these, and has tests of its own
    assert min(counts.values()) >= 12


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("numerc", "unknown scorer 'numerc', did you mean 'numeric'?"),
        (
            {"numeric": {"tolerence": 1}},
            "scorer numeric: unknown option 'tolerence', did you mean 'tolerance'?",
        ),
        (
            {"numeric": {"tolerance": -1}},
            "scorer numeric: tolerance must be a number at least 0, got -1",
        ),
        (
            {"numeric": {"units": {"km": 0}}},
            "scorer numeric: units must be units with their factors, each above 0, got {'km': 0}",
        ),
        (
            {"exact": {"ignore_case": "no"}},
            "scorer exact: ignore_case must be true or false, got 'no'",
        ),
        (
            {"contains": {"mode": "some"}},
            "scorer contains: mode must be any, all or share, got 'some'",
        ),
        ("regex", "scorer regex: needs the option pattern"),
        (
            {"regex": {"pattern": "(a"}},
            "scorer regex: pattern '(a': missing ) at position 2",
        ),
        ({"regex": {"pattern": "a", "group": 1}}, "scorer regex: group must be one of 0, got 1"),
        (
            {"choice": {"labels": ["a", "A"]}},
            "scorer choice: labels must be a list of two or more different texts, got ['a', 'A']",
        ),
        (
            {"choice": {"last_letter": "e"}},
            "scorer choice: last_letter must be a capital letter from B, got 'e'",
        ),
        (
            {"json": {"schema": {"type": "objekt"}}},
            "scorer json: not a JSON schema: type: 'objekt' is not valid under any of the given schemas",
        ),
        ({"numeric": [1]}, "scorer numeric: options must be a mapping, got [1]"),
        ({"a": {}, "b": {}}, "a scorer is a name or {name: {options}}, got {'a': {}, 'b': {}}"),
        (3, "a scorer is a name or {name: {options}}, got 3"),
    ],
)
def test_wrong_specs_are_refused(spec, message):
    """An unknown scorer or option is refused with the nearest name, a wrong value with what is allowed."""
    with pytest.raises(ScorerError) as caught:
        get_scorer(spec)
    assert str(caught.value) == message


@pytest.mark.usefixtures("clean_registry")
def test_unknown_scorer_lists_all():
    """A name near no other gets the whole list."""
    with pytest.raises(ScorerError) as caught:
        get_scorer("zzzzzz")
    assert str(caught.value) == f"unknown scorer 'zzzzzz'; known: {', '.join(known_scorers())}"
    assert {"choice", "contains", "exact", "json", "numeric", "regex"} <= set(known_scorers())


def test_options_read_back():
    """A scorer's options, as recorded, make the same scorer."""
    for spec in (
        "exact",
        {"numeric": {"tolerance": 0.5, "units": {"km": 1000}}},
        {"choice": {"labels": ["yes", "no"]}},
        {"regex": {"pattern": "a(b)", "pick": "last"}},
        {"json": {"schema": {"type": "object"}, "partial": True}},
    ):
        made = get_scorer(spec)
        assert made.options == ({} if isinstance(spec, str) else spec[made.name])
        assert get_scorer({made.name: made.options}) == made
        assert get_scorer(made) is made


@pytest.mark.usefixtures("clean_registry")
def test_own_scorers():
    """A function becomes a scorer under its name, and may give a number, a truth value or a Score."""

    @scorer
    def short(text, prompt):
        return len(text) < 5

    @scorer("half", version="2")
    def other(text, prompt):
        return Score(0.5, text)

    assert get_scorer("short").score("Hi", _prompt()) == Score(1.0)
    assert short("too long", _prompt()) is False
    assert get_scorer("half").score("x", _prompt()) == Score(0.5, "x")
    assert (other.name, other.version) == ("half", "2")
    with pytest.raises(ScorerError, match=r"^scorer half: it takes no options$"):
        get_scorer({"half": {"x": 1}})
    with pytest.raises(ScorerError) as caught:
        scorer("numeric")(lambda text, prompt: 1)
    assert str(caught.value) == "scorer 'numeric' ships with the workbench; choose another name"


def test_installed_scorers(monkeypatch):
    """An installed package adds scorers through its entry points: functions and classes."""

    class Point:
        def __init__(self, name, made):
            self.name, self.load = name, lambda: made

    points = [Point("loud", lambda text, prompt: text.isupper()), Point("broken", 3)]
    monkeypatch.setattr(base.metadata, "entry_points", lambda group: points)
    assert get_scorer("loud").score("HI", _prompt()).value == 1.0
    assert "loud" in known_scorers()
    with pytest.raises(ScorerError, match=r"^scorer broken: not a scorer, got 3$"):
        get_scorer("broken")


def test_a_failed_generation_is_not_scored():
    """A row that was never answered has no score, and says why."""
    failed = _generation(finish_reason="error", error="out of memory", token_ids=())
    found = score_generation(get_scorer("exact"), failed, _prompt("x"))
    assert found == Score(None, reason="not generated: out of memory")


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (1.5, "scorer own gave 1.5; a score is between 0 and 1"),
        (-0.1, "scorer own gave -0.1; a score is between 0 and 1"),
        (float("nan"), "scorer own gave nan; a score is between 0 and 1"),
        (Score(None), "not scored"),
        (
            None,
            "scorer own failed: TypeError: float() argument must be a string or a real number, not 'NoneType'",
        ),
    ],
)
def test_a_bad_score_is_no_score(result, reason):
    """A value that is no score becomes no value, with a reason, never 0."""
    own = scorer("own")(lambda text, prompt: result)
    assert score_generation(own, _generation("x"), _prompt()) == Score(None, reason=reason)


@pytest.mark.usefixtures("clean_registry")
def test_a_scorer_that_raises_does_not_stop_the_run():
    """The message of a scorer that breaks is the reason of the row."""

    @scorer
    def breaks(text, prompt):
        raise KeyError("target")

    found = score_generation(breaks, _generation("x"), _prompt())
    assert found == Score(None, reason="scorer breaks failed: KeyError: 'target'")


@pytest.mark.parametrize("name", ["exact", "contains", "numeric", "choice", "json"])
@settings(max_examples=40)
@given(
    text=st.text(max_size=60), target=st.none() | TEXT | st.integers() | st.lists(TEXT, max_size=2)
)
def test_any_answer_gets_a_verdict(name, text, target):
    """Whatever a model writes, a scorer gives 0..1 or a reason, and does not raise."""
    found = get_scorer(name).score(text, _prompt(target))
    assert (found.value is None) == (found.reason is not None)
    assert found.value is None or 0 <= found.value <= 1


@settings(max_examples=100)
@given(
    st.integers(-(10**20), 10**20),
    st.sampled_from(["{}", "It is {}.", "**{}**", "Answer: {}", "{:,}", "\\boxed{{{}}}"]),
)
def test_numeric_finds_any_integer(value, form):
    """An integer written in any of these ways is right for itself and wrong for its neighbour."""
    judge = get_scorer("numeric")
    assert judge.score(form.format(value), _prompt(value)).value == 1
    assert judge.score(form.format(value), _prompt(value + 1)).value == 0


@settings(max_examples=100)
@given(
    st.integers(10, 10**6),
    st.integers(10, 10**6),
    st.sampled_from(["=", " = ", " equals ", " is equal to ", " =\n", " = 0 + "]),
    st.sampled_from(["", ".", ", and 3 + 4 = 7.", "\nThe answer is 5.", " apples or 9", "\n6 + "]),
)
def test_an_equation_gives_its_result(a, b, sign, rest):
    """The result of the first equation counts, whatever is said behind it, unless it is only a part of a sum."""
    judge = get_scorer({"numeric": {"pick": "equation"}})
    text = f"{a} + {b}{sign}{a + b}{rest}"
    found = judge.score(text, _prompt(a + b))
    if sign == " = 0 + ":
        assert found.answer != str(a + b)
    else:
        assert (found.value, found.answer) == (1, str(a + b))
        assert judge.score(text, _prompt(a + b + 1)).value == 0


@settings(max_examples=100)
@given(TEXT, st.sampled_from("\u2010\u2011\u2012\u2013\u2212"), st.sampled_from("\u2018\u2019"))
def test_hyphens_and_apostrophes_are_alike(text, hyphen, apostrophe):
    """Whatever hyphen and apostrophe stand in a text, it equals the same text with those of ASCII."""
    plain = f"a{text}-b'{text}"
    other = plain.replace("-", hyphen).replace("'", apostrophe)
    for spec in ("exact", "contains", "edit"):
        assert get_scorer(spec).score(other, _prompt(plain)).value == 1
        assert get_scorer(spec).score(plain, _prompt(other)).value == 1


@settings(max_examples=100)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numeric_finds_any_float(value):
    """A float as Python writes it is right for itself."""
    assert get_scorer("numeric").score(f"x = {value!r}", _prompt(value)).value == 1


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXT,
        lambda i: st.lists(i, max_size=3) | st.dictionaries(TEXT, i, max_size=3),
        max_leaves=6,
    ),
    st.booleans(),
)
def test_json_equals_itself(value, partial):
    """Any JSON value in a fence equals itself, and loses something when wrapped."""
    judge = get_scorer({"json": {"partial": partial}})
    fenced = f"Here:\n```json\n{json.dumps(value)}\n```"
    if value is not None:
        target = json.dumps(value) if isinstance(value, str) else value
        assert judge.score(fenced, _prompt(target)).value == 1
        assert judge.score(json.dumps([value, 1]), _prompt(target)).value < 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("9" * 400, []),
        ("[" * 100_000, []),
        ("1 2.5 -3", [1, 2.5, -3]),
        ("thirty-nine percent", [39]),
    ],
)
def test_numbers_of_extreme_texts(text, found):
    """Absurd lengths give no number, and ordinary texts all of theirs."""
    assert [n.value for n in numbers(text)] == found


def test_absurd_nesting_is_no_json():
    """A model stuck on one bracket neither raises nor takes long."""
    assert get_scorer("json").score("[" * 100_000, _prompt({"a": 1})).value == 0


def test_references_in_a_schema_are_never_fetched():
    """A schema that points elsewhere gives no score instead of a download."""
    judge = get_scorer({"json": {"schema": {"$ref": "http://localhost:9/x.json"}}})
    found = score_generation(judge, _generation("{}"), _prompt())
    assert found.value is None
    assert found.reason.startswith("scorer json failed: ")


def test_partial_json_names_what_is_wrong():
    """The explanation counts fields and names the wrong ones."""
    judge = get_scorer({"json": {"partial": True}})
    found = judge.score('{"a": 1, "b": {"c": 2}}', _prompt({"a": 1, "b": {"c": 3}, "d": 4}))
    assert found.value == pytest.approx(1 / 3)
    assert found.explanation == "1 of 3 fields right; wrong: b.c, d"


@pytest.mark.parametrize("name", ["exact", "contains", "numeric", "choice", "json"])
@pytest.mark.parametrize(
    "part", ["answer is ", "\\boxed{", "not Rome ", '{"a": ', "1,234", "one hundred "]
)
def test_a_looping_answer_gets_a_verdict(name, part):
    """A model stuck in a loop for thousands of words is judged like any other, without raising."""
    found = get_scorer(name).score(part * 3000, _prompt("Rome", choices=["Rome", "Paris"]))
    assert found.value in (0, 1, None)
