"""Checks that come with the prompt."""

from __future__ import annotations

import pytest

from workbench.errors import ScorerError
from workbench.prompts import Prompt
from workbench.records import Generation
from workbench.scorers import asserts
from workbench.scorers.base import get_scorer, score_generation


def _prompt(*checks, **more):
    return Prompt("p", ({"role": "user", "content": "x"},), {"assert": list(checks), **more})


def _score(text, *checks, options=None, **more):
    return get_scorer({"asserts": options or {}}).score(text, _prompt(*checks, **more))


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        ("equals", "Paris", " Paris\n", "Paris!"),
        ("equals", 4, "4", "5"),
        ("equals", {"a": [1]}, '{"a": [1.0]}', '{"a": [2]}'),
        ("equals", [1, 2], "[1, 2]", "[1]"),
        ("contains", "cat", "concatenate", "CAT"),
        ("icontains", "cat", "CATS", "dog"),
        ("contains-any", ["a", "b"], "b", "c"),
        ("contains-all", ["a", "b"], "ab", "a"),
        ("icontains-any", ["A", "B"], "b", "c"),
        ("icontains-all", ["A", "b"], "aB", "a"),
        ("starts-with", "Yes", " Yes, ", "No. Yes"),
        ("regex", r"^\d+$", "42", "4 2"),
        ("is-json", None, '{"a": 1}', 'Here: {"a": 1}'),
        ("is-json", {"type": "object", "required": ["a"]}, '{"a": 1}', '{"b": 1}'),
        ("contains-json", None, 'Here: {"a": 1}', "none"),
    ],
)
def test_every_type_and_its_opposite(kind, value, right, wrong):
    """A check is 1 for what it describes and 0 for the rest; with not- before it the other way round."""
    check = {"type": kind} | ({"value": value} if value is not None else {})
    opposite = check | {"type": f"not-{kind}"}
    assert [_score(t, check).value for t in (right, wrong)] == [1, 0]
    assert [_score(t, opposite).value for t in (right, wrong)] == [0, 1]


def test_weights_thresholds_and_what_failed():
    """The score is the weighted share; mode all compares it with the threshold."""
    checks = [
        {"type": "contains", "value": "a", "weight": 2},
        {"type": "contains", "value": "b"},
        {"type": "is-json"},
    ]
    found = _score("a b", *checks)
    assert (found.value, found.explanation) == (0.75, "2 of 3 checks hold; not: is-json")
    assert _score("a b", *checks, options={"mode": "all"}).value == 0
    assert _score("a b", *checks, options={"mode": "all"}, threshold=0.75).value == 1
    thirds = [{"type": "contains", "value": v} for v in "abc"]
    assert _score("abc", *thirds, options={"mode": "all"}).value == 1


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (None, "the prompt has no target"),
        ("x", 'the target must be {"assert": [checks]}'),
        ({"assert": []}, 'the target must be {"assert": [checks]}'),
        ({"assert": ["x"]}, "check 1: must be an object with type and value, got 'x'"),
        (
            {"assert": [{"type": "llm-rubric"}]},
            f"check 1: type must be one of {', '.join(asserts.TYPES)}, or not-..., got 'llm-rubric'",
        ),
        (
            {"assert": [{"type": "contains", "value": "a"}, {"type": "contains", "value": ["a"]}]},
            "check 2: contains: value must be a text",
        ),
        (
            {"assert": [{"type": "contains-any", "value": "a"}]},
            "check 1: contains-any: value must be a list",
        ),
        ({"assert": [{"type": "equals"}]}, "check 1: equals: value is missing"),
        (
            {"assert": [{"type": "regex", "value": "("}]},
            "check 1: regex: scorer regex: pattern '(': missing ) at position 1",
        ),
        (
            {"assert": [{"type": "is-json", "weight": -1}]},
            "check 1: weight must be a number at least 0, got -1",
        ),
        ({"assert": [{"type": "is-json", "weight": 0}]}, "all weights are 0"),
        ({"assert": [{"type": "is-json"}], "threshold": 2}, "threshold must be from 0 to 1, got 2"),
        (
            {"assert": [{"type": "python", "value": "True"}]},
            "check 1: Python is not run unless the scorer is given allow_python: true",
        ),
    ],
)
def test_what_cannot_be_judged_is_not_scored(target, reason):
    """A check of no use gives no score, never 0, and says why before a run too."""
    prompt = Prompt("p", ({"role": "user", "content": "x"},), target)
    scorer = get_scorer("asserts")
    found = scorer.score("x", prompt)
    assert (found.value, found.reason) == (None, reason)
    assert scorer.target_problem(prompt) == reason


def test_python_runs_only_where_it_is_allowed():
    """An expression or a function's body of output and context gives a truth value, a number, or a mapping."""
    allowed = {"allow_python": True}
    for source, value in [
        ("len(output) == 3", 1),
        ("'check' in output", 0),
        ("n = len(output)\nreturn n / 4", 0.75),
        ("{'pass': False, 'score': 0.5}", 0.5),
        ("context['vars'] == {}", 1),
    ]:
        assert _score("abc", {"type": "python", "value": source}, options=allowed).value == value
    answer = Generation("c", "p", 0, "abc", (1,), 1, "stop")
    broken = _prompt({"type": "python", "value": "1 / 0"})
    found = score_generation(get_scorer({"asserts": allowed}), answer, broken)
    assert (found.value, found.reason) == (
        None,
        "scorer asserts failed: ZeroDivisionError: division by zero",
    )


def test_options():
    """An option out of range is refused."""
    with pytest.raises(
        ScorerError, match=r"^scorer asserts: mode must be share or all, got 'some'$"
    ):
        get_scorer({"asserts": {"mode": "some"}})
