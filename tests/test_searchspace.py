"""The search space of a study: every form reads as one, every mistake is named with its line, values are sensible numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import StudyError
from workbench.searchspace import Dimension, dimensions
from workbench.study import Study

if TYPE_CHECKING:
    from pathlib import Path


def space(search: dict[str, Any], **more: Any) -> tuple[Dimension, ...]:
    """The dimensions of a study with this search."""
    study = Study(prompts=["Hi"], search=search, **more)
    return dimensions(study.search, list(study.adapters), list(study.templates))


def test_forms_read_as_one() -> None:
    """A list of two ends is a range; a study keeps one form, so equal ones have one hash."""
    short = Study(prompts=["Hi"], search={"temperature": [0, 1.5]})
    long = Study(prompts=["Hi"], search={"temperature": {"low": 0, "high": 1.5, "log": False}})
    assert short.search == long.search == {"temperature": {"low": 0, "high": 1.5}}
    assert short.sha256 == long.sha256
    assert Study.from_dict(short.to_dict()) == short


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"temperature": [0, 1.5]}, Dimension("temperature", low=0, high=1.5, step=0.01)),
        ({"repetition_penalty": [1, 1.3]}, Dimension("repetition_penalty", low=1, high=1.3, step=0.001)),
        ({"temperature": {"low": 0, "high": 1, "step": 0.3}}, Dimension("temperature", low=0, high=0.9, step=0.3)),
        ({"top_k": [1, 50]}, Dimension("top_k", low=1, high=50, step=1)),
        ({"top_k": {"low": 1, "high": 50, "step": 10}}, Dimension("top_k", low=1, high=41, step=10)),
        ({"top_k": {"low": 1, "high": 200, "log": True}}, Dimension("top_k", low=1, high=200, log=True)),
        ({"top_k": {"choices": [10, None]}}, Dimension("top_k", (10, None))),
    ],
)  # fmt: skip
def test_ranges(search: dict[str, Any], expected: Dimension) -> None:
    """A range has a step of two or three digits, its own, or a logarithmic scale."""
    assert space(search) == (expected,)


def test_templates_are_searched() -> None:
    """Several of them are choices without a word, or as many as are named."""
    named = {"templates": {"a": "{{ input }}", "b": "{{ input }}!", "c": None}}
    assert space({"top_p": [0.5, 1]}, **named)[1] == Dimension("template", ("a", "b", "c"))
    some = space({"top_p": [0.5, 1], "template": ["b", "a"]}, **named)
    assert some[1] == Dimension("template", ("b", "a"))


@given(st.floats(1e-4, 4.9), st.floats(1e-3, 5), st.booleans(), st.floats(0, 1))
def test_values_stay_inside(low: float, width: float, log: bool, place: float) -> None:
    """Whatever the range, a rounded value is in it and written with few digits on the scale of the range."""
    high = min(low + width, 5.0)
    if not low < high:
        return
    (d,) = space({"temperature": {"low": low, "high": high, "log": log}})
    raw = low * (high / low) ** place if log else low + place * (d.high - low)
    assert low <= d.value(raw) <= high
    assert d.value(d.value(raw)) == d.value(raw)


def test_the_baseline_is_the_one_cell() -> None:
    """It is the settings given, or those of ``fixed``; adapters and templates are those it names."""
    study = Study(
        prompts=["Hi"],
        search={"top_p": [0.5, 1]},
        fixed={"max_tokens": 9},
        templates={"a": "{{ input }}", "b": "{{ input }}!"},
        baseline={"temperature": 0.3, "template": "b"},
    )
    (cell,) = study.cells()
    assert (cell.params.temperature, cell.params.max_tokens, cell.template) == (0.3, 9, "b")
    assert study.plan().baseline == cell


def test_every_problem_is_listed(tmp_path: Path) -> None:
    """With its line, all at once."""
    path = tmp_path / "s.yaml"
    path.write_text(
        "prompts: [Hi]\n"
        "grid: {min_p: [0.1]}\n"
        "fixed: {repetition_penalty: 1.1}\n"
        "baseline: greedy\n"
        "search:\n"
        "  temperature: [2, 1.5]\n"
        "  top_k: {low: 0.5, high: 20, lg: true}\n"
        "  top_q: [0, 1]\n"
        "  min_p: 0.1\n"
        "  adapter: [terse]\n"
        "  max_tokens: {choices: [8, 8, 0]}\n"
        "  top_p: {low: 0.0, high: 1.0, log: true}\n"
        "  frequency_penalty: {low: 0, high: 1, step: 3}\n"
        "  presence_penalty: {choices: [0], low: 1}\n"
        "  repetition_penalty: [1, 1.2]\n",
        encoding="utf-8",
    )
    with pytest.raises(StudyError) as refused:
        Study.from_yaml(path)
    forms = (
        "[low, high], {low, high}, {low, high, step}, {low, high, log: true} or {choices: [...]}"
    )
    assert list(refused.value.problems) == [
        "line 2: grid: cannot stand beside search: give settings to compare with as baseline, values as choices of the search",
        "line 3: fixed.repetition_penalty: is in the search too; keep one of the two",
        "line 4: baseline: with a search, give the baseline's settings: {temperature: 0.7, ...}",
        "line 6: search.temperature: low must be below high, got 2 and 1.5",
        "line 7: search.top_k: unknown key 'lg', did you mean 'log'?",
        "line 7: search.top_k.low: must be an integer at least 1, or none, got 0.5",
        "line 8: search: unknown setting 'top_q', did you mean 'top_p'?",
        f"line 9: search.min_p: must be {forms}, got 0.1",
        "line 10: search.adapter.choices[0]: no adapter 'terse' in adapters; there are base",
        "line 11: search.max_tokens.choices[1]: 8 is listed twice",
        "line 11: search.max_tokens.choices[2]: must be an integer at least 1, got 0",
        "line 12: search.top_p.log: takes a low above 0, and no step",
        "line 13: search.frequency_penalty.step: must be a number above 0 and at most high - low, got 3",
        "line 14: search.presence_penalty.low: cannot stand beside choices",
    ]


def test_an_end_that_is_no_number() -> None:
    """None is off for many settings, but no end of a range."""
    with pytest.raises(StudyError, match=r"^study: search\.top_p\.high: must be a number$"):
        Study(prompts=["Hi"], search={"top_p": [0.5, None]})
