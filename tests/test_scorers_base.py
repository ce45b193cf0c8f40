"""What all scorers share: targets checked before a run, what a generation knows, installed scorers, very long answers."""

from __future__ import annotations

import sys
import types
from importlib import metadata

import pytest

from workbench.errors import ScorerError
from workbench.prompts import Prompt, PromptSet
from workbench.records import Generation, Score
from workbench.scorers import FAMILIES, base, get_scorer, score_generation, target_problems
from workbench.scorers.base import kind


def rows(*targets):
    return PromptSet.from_records(
        [{"id": f"q{n}", "prompt": "?", "target": target} for n, target in enumerate(targets, 1)]
    )


def generation(text, *, tokens=(1, 2, 3), finish_reason="stop"):
    return Generation("c", "p", 0, text, tokens, 1, finish_reason)


@pytest.mark.parametrize(
    ("spec", "targets", "said"),
    [
        ("numeric", (1, "2 apples", [3, "4"]), []),
        (
            "numeric",
            (1, 2, [{"a": 1}], None),
            [
                (
                    "scorer numeric: 2 of 4 prompts have no target it can use "
                    "(first: 'q3': the target is a list of objects, not a number)"
                )
            ],
        ),
        (
            "numeric",
            ("blue",),
            [
                (
                    "scorer numeric: 1 of 1 prompts has no target it can use "
                    "(first: 'q1': the target is 'blue', not a number)"
                )
            ],
        ),
        (
            "exact",
            ({"a": 1}, "x"),
            [
                (
                    "scorer exact: 1 of 2 prompts has no target it can use "
                    "(first: 'q1': the target is an object, not text)"
                )
            ],
        ),
        (
            {"choice": {"labels": ["yes", "no"]}},
            ("yes", "maybe", "perhaps"),
            [
                (
                    "scorer choice: 2 of 3 prompts have no target it can use "
                    "(first: 'q2': the target, 'maybe', is not one of yes, no)"
                )
            ],
        ),
        (
            "json",
            ("{", None),
            [
                (
                    "scorer json: 1 of 2 prompts has no target it can use "
                    "(first: 'q1': the target is not JSON: Expecting property name enclosed in double quotes at column 2)"
                )
            ],
        ),
        ("degeneration", (None, {"a": 1}), []),
        (
            "length",
            (None,),
            [
                (
                    "scorer length: 1 of 1 prompts has no target it can use "
                    "(first: 'q1': neither min nor max is set, and the target is none)"
                )
            ],
        ),
        (
            "tool_call",
            ("f",),
            [
                (
                    "scorer tool_call: 1 of 1 prompts has no target it can use (first: 'q1': the target is no call "
                    '{"name", "arguments"}, no list of calls, and not "none")'
                )
            ],
        ),
    ],
)
def test_unusable_targets_are_told_before_a_run(spec, targets, said):
    """One line says how many prompts a scorer cannot judge, and why the first."""
    assert target_problems(get_scorer(spec), rows(*targets)) == said


def test_a_function_is_not_asked_about_targets():
    """Nobody knows which targets an own function can use."""
    own = base.FunctionScorer("own", lambda text, prompt: 1.0)  # noqa: ARG005 - as any judge
    assert target_problems(own, rows(None)) == []


def test_needs_target_is_kept():
    """Families that need a target refuse a prompt without one; the others say they do not need it."""
    extra = {"regex": {"pattern": "x"}, "length": {"max": 3}, "majority_vote": {"scorer": "exact"}}
    extra |= {name: {"k": 1, "scorer": "exact"} for name in ("pass_at_k", "pass_hat_k")}
    for name, cls in FAMILIES.items():
        made = get_scorer({name: extra.get(name)})
        said = made.target_problem(Prompt("p", ({"role": "user", "content": "?"},)))
        assert (said is not None) is cls.needs_target


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "nothing"),
        (3, "a number"),
        (True, "true or false"),
        ("a", "a text"),
        ({}, "an object"),
        ([], "a list"),
        ([1, 2.5], "a list of numbers"),
        ([1, "a"], "a mixed list"),
    ],
)
def test_kinds_of_targets(value, name):
    """A target is called by a plain word."""
    assert kind(value) == name


def test_a_scorer_may_look_at_the_whole_generation():
    """The finish reason and the tokens reach a scorer that asks for them, and it is guarded like any other."""

    class Ends:
        name, version = "ends", "1"
        options = types.MappingProxyType({})

        def score(self, text, prompt):
            raise NotImplementedError

        def judge_generation(self, generation, prompt):
            return Score(float(generation.finish_reason == "stop"), prompt.id)

    prompt = rows(None)["q1"]
    assert score_generation(Ends(), generation("x"), prompt) == Score(1.0, "q1")
    assert score_generation(Ends(), generation("x", finish_reason="length"), prompt).value == 0
    failed = Generation("c", "p", 0, "", (), 1, "error", error="full")
    assert score_generation(Ends(), failed, prompt).reason == "not generated: full"


@pytest.mark.parametrize(
    ("finish_reason", "tokens", "value"),
    [("stop", (1, 2, 3), 1.0), ("length", (1, 2, 3), 0.0), ("stop", (), 1.0)],
)
def test_tokens_are_counted_without_the_end(finish_reason, tokens, value):
    """The end token counts only where the answer was cut and has none."""
    judge = get_scorer({"length": {"unit": "tokens", "max": 2}})
    row = generation("a b c", tokens=tokens, finish_reason=finish_reason)
    prompt = rows(None)["q1"]
    assert score_generation(judge, row, prompt).value == value
    said = "the number of tokens is known only for an answer of a run"
    assert judge.score("a b c", prompt).reason == said


def test_an_installed_package_adds_scorers(tmp_path, monkeypatch):
    """A package that is really there, with its entry points on disk, is found by name and takes options."""
    info = tmp_path / "politeness-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: politeness\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[workbench.scorers]\npolite = politeness:polite\nwordy = politeness:Wordy\n"
    )
    (tmp_path / "politeness.py").write_text(
        "from dataclasses import dataclass\n"
        "from workbench.records import Score\n"
        "def polite(text, prompt):\n    return 'please' in text.lower()\n"
        "@dataclass(frozen=True)\n"
        "class Wordy:\n"
        "    least: int = 5\n"
        "    name = 'wordy'\n    version = '3'\n"
        "    @property\n    def options(self):\n        return {'least': self.least}\n"
        "    def score(self, text, prompt):\n"
        "        return Score(float(len(text.split()) >= self.least))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.version("politeness") == "1.0"
    prompt = rows(None)["q1"]
    assert get_scorer("polite").score("Please wait", prompt).value == 1
    wordy = get_scorer({"wordy": {"least": 2}})
    assert (wordy.version, wordy.score("a b", prompt).value) == ("3", 1)
    with pytest.raises(ScorerError) as caught:
        get_scorer({"wordy": {"most": 2}})
    assert str(caught.value) == "scorer wordy: unknown option 'most'; known: least"
    sys.modules.pop("politeness")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"contains": {"forbid": "a"}},
            "scorer contains: forbid must be a list of texts, got 'a'",
        ),
        (
            {"contains": {"echo": 0}},
            "scorer contains: echo must be a whole number at least 1, got 0",
        ),
        (
            {"contains": {"compounds": "no"}},
            "scorer contains: compounds must be true or false, got 'no'",
        ),
        (
            {"choice": {"labels": [["sport", "Sports"], "sports"]}},
            (
                "scorer choice: labels must be a list of two or more different texts, "
                "got [['sport', 'Sports'], 'sports']"
            ),
        ),
        (
            {"choice": {"labels": [["sport", 1], "music"]}},
            (
                "scorer choice: labels must be a list of two or more different texts, "
                "got [['sport', 1], 'music']"
            ),
        ),
        (
            {"numeric": {"pick": "equal"}},
            "scorer numeric: pick must be auto, equation, first or last, got 'equal'",
        ),
        (
            {"regex": {"pattern": "a", "timeout_s": 0}},
            "scorer regex: timeout_s must be a number above 0, at most 3600, got 0",
        ),
        (
            {"numeric": {"units": "weight"}},
            "scorer numeric: units must be units with their factors, or one of length, mass, time, got 'weight'",
        ),
        (
            {"numeric": {"need_unit": True}},
            "scorer numeric: need_unit must be false without units, got True",
        ),
        (
            {"json": {"tolerance": "1"}},
            "scorer json: tolerance must be a number at least 0, got '1'",
        ),
        (
            {"instruction": {"score_by": "any"}},
            "scorer instruction: score_by must be fraction or all, got 'any'",
        ),
        (
            {"tool_call": {"arguments": "some"}},
            "scorer tool_call: arguments must be exact, partial or ignore, got 'some'",
        ),
        ({"edit": {"unit": "lines"}}, "scorer edit: unit must be characters or words, got 'lines'"),
        ({"edit": {"at_least": 2}}, "scorer edit: at_least must be a number from 0 to 1, got 2"),
        ({"chrf": {"beta": 0}}, "scorer chrf: beta must be a whole number from 1 to 5, got 0"),
        (
            {"length": {"min": 1.5}},
            "scorer length: min must be a whole number at least 0, got 1.5",
        ),
        (
            {"length": {"min": 3, "max": 2}},
            "scorer length: min must be at most max, got 3 and 2",
        ),
        (
            {"degeneration": {"signs": ["loops"]}},
            (
                "scorer degeneration: signs must be a list of loop, repeated, distinct, empty, truncated, language, "
                "got ['loops']"
            ),
        ),
        (
            {"degeneration": {"signs": []}},
            "scorer degeneration: signs must be a list of loop, repeated, distinct, empty, truncated, language, got []",
        ),
        (
            {"degeneration": {"repeated": 2}},
            "scorer degeneration: repeated must be a number from 0 to 1, got 2",
        ),
    ],
)
def test_wrong_options_are_refused(spec, message):
    """An option out of range is refused with what is allowed and what was given."""
    with pytest.raises(ScorerError) as caught:
        get_scorer(spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "spec",
    [
        {"contains": {"forbid": ["no"], "mode": "share"}},
        {"contains": {"compounds": False, "settled": True, "echo": 9}},
        {"choice": {"labels": [["sports", "sport"], "music"]}},
        {"choice": {"letters": False}},
        {"numeric": {"pick": "equation"}},
        {"numeric": {"units": "mass", "need_unit": True, "spaces": True}},
        {"json": {"extra": False, "tolerance": 0.1}},
        {"instruction": {"loose": True, "score_by": "all"}},
        {"tool_call": {"arguments": "partial", "ordered": True}},
        {"edit": {"unit": "words", "at_least": 0.5}},
        {"chrf": {"word_order": 2}},
        {"length": {"min": 1, "max": 3, "unit": "tokens", "slack": 0.5}},
        {"degeneration": {"signs": ["loop", "truncated"], "repeated": 0.5}},
        {"regex": {"pattern": "a", "full": True, "timeout_s": 2.5}},
    ],
)
def test_options_read_back(spec):
    """A scorer's options, as recorded, make the same scorer."""
    made = get_scorer(spec)
    assert made.options == spec[made.name]
    assert get_scorer({made.name: made.options}) == made


TARGETS = {
    "choice": "Rome",
    "instruction": [{"check": "max_words", "n": 3}, {"check": "max_sentences", "n": 3}],
    "json": {"a": 1},
    "length": 3,
    "numeric": 7,
    "tool_call": {"name": "f", "arguments": {}},
}


ALONE = {name for name, cls in FAMILIES.items() if not hasattr(cls, "judge_together")}


@pytest.mark.parametrize("name", sorted(ALONE - {"asserts"}))
@pytest.mark.parametrize("part", ["answer is ", "1,234 ", '{"a": ', "not Rome. ", "1/", "```\n"])
def test_a_huge_answer_gets_a_verdict(name, part):
    """An answer of 100,000 characters is judged, not refused, by every family."""
    judge = get_scorer({name: {"pattern": "(x+x+)+y"} if name == "regex" else None})
    target = None if name in ("regex", "degeneration") else TARGETS.get(name, "Rome")
    prompt = Prompt(
        "p", ({"role": "user", "content": "?"},), target, {"choices": ["Rome", "Paris"]}
    )
    found = judge.score(part * (100_000 // len(part)), prompt)
    assert 0 <= found.value <= 1


@pytest.mark.parametrize(
    "spec",
    [
        {"contains": {"compounds": False, "settled": True, "echo": 9}},
        {"numeric": {"pick": "equation"}},
        {"choice": {"letters": False}},
    ],
)
@pytest.mark.parametrize(
    "part", ["Rome, ", "not Rome or ", "1 + 1 = ", "= 7 + ", "Who is Rome? ", "a-", "equals "]
)
def test_a_huge_answer_gets_a_verdict_with_options(spec, part):
    """Options that look at the neighbourhood of a word do not make a looping answer hang."""
    choices = [["Rome", "Roma"], ["Paris"]]
    target = 7 if "numeric" in spec else "Rome"
    message = {"role": "user", "content": "Who is Rome? " * 50}
    prompt = Prompt("p", (message,), target, {"choices": choices})
    found = get_scorer(spec).score(part * (100_000 // len(part)), prompt)
    assert 0 <= found.value <= 1
