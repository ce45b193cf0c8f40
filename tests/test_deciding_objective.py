"""Objectives and limits: reading them, and being sure that a limit is broken."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.deciding.objective import (
    METRICS,
    OPERATORS,
    Limit,
    parse_limits,
    parse_objectives,
    surely_broken,
)
from workbench.errors import ParamError, ScorerError, StudyError

P90 = Limit("e2el_ms_p90", "<=", 900)
LISTED = ", ".join(METRICS)
FORM = "must be a metric, one of <=, <, >=, >, and a number, such as 'e2el_ms_p90<=900'"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, ["numeric"]),
        ("quality", ["numeric"]),
        ("  degeneration ", ["degeneration"]),
        ("quality, -n_output_tokens", ["numeric", "-n_output_tokens"]),
        (["quality", "-e2el_ms_p90", "degeneration"], ["numeric", "-e2el_ms_p90", "degeneration"]),
    ],
)
def test_objectives(given, expected):
    """The primary scorer, a scorer by name, and costs beside it, in commas or one by one."""
    found = parse_objectives(given, ["numeric", "degeneration"])
    assert [str(o) for o in found] == expected
    assert [o.minimise for o in found] == [text.startswith("-") for text in expected]
    assert [o.timed for o in found] == ["_ms_" in text for text in expected]


@pytest.mark.parametrize(
    "text",
    ["qualty", "n_output_tokens", "", "e2el_ms", "-quality", "-numeric", "-e2el_ms_p50", "quality, numeric", "quality,"],
)  # fmt: skip
def test_unknown_objectives(text):
    """What else it could be is listed: nothing that is no score comes first, and nothing twice."""
    with pytest.raises(ParamError) as caught:
        parse_objectives(text, ["numeric"])
    times = ", ".join(f"-{t}_ms_p{q}" for t in ("ttft", "tpot", "e2el") for q in (50, 90, 95))
    assert str(caught.value) == (
        f"--objective must be one of quality, numeric, and beside it others of them or of -n_output_tokens, {times}, "
        f"got {text!r}"
    )


def test_objectives_without_a_scorer():
    """A study without scorers has no quality."""
    with pytest.raises(ScorerError) as caught:
        parse_objectives("quality", [])
    assert str(caught.value) == "a study without scorers cannot be tuned: name one in `scorers`"


@given(st.sampled_from(METRICS), st.sampled_from(list(OPERATORS)), st.integers(0, 10_000))
@settings(max_examples=60)
def test_limits_read_back(metric, op, number):
    """A limit written as text is the same limit, with or without spaces."""
    value = number / 10_000 if metric.endswith("_rate") else number / 4
    for space in ("", " "):
        (limit,) = parse_limits([f"{metric}{space}{op}{space}{value!r}"])
        assert limit == Limit(metric, op, value)
    assert parse_limits([str(limit)]) == (limit,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "e2el_ms_p90",
            f"'e2el_ms_p90' {FORM}",
        ),
        (
            "e2el_ms_p90==900",
            f"'e2el_ms_p90==900' {FORM}",
        ),
        (
            "e2el_p90<=900",
            "'e2el_p90<=900': unknown metric 'e2el_p90', did you mean 'e2el_ms_p90'?",
        ),
        ("zebra<1", f"'zebra<1': unknown metric 'zebra'; known: {LISTED}"),
        (
            "ttft_ms_p50<fast",
            "'ttft_ms_p50<fast': the limit must be a number that is at least 0, got 'fast'",
        ),
        (
            "ttft_ms_p50<=-3",
            "'ttft_ms_p50<=-3': the limit must be a number that is at least 0, got '-3'",
        ),
        (
            "ttft_ms_p50<=inf",
            "'ttft_ms_p50<=inf': the limit must be a number that is at least 0, got 'inf'",
        ),
        (
            "loop_rate<=5",
            "'loop_rate<=5': the limit must be a share from 0 to 1, got '5'",
        ),
    ],
)
def test_unreadable_limits(text, problem):
    """Each mistake is told with what is allowed."""
    with pytest.raises(StudyError) as caught:
        parse_limits([text])
    assert str(caught.value) == f"--subject-to: {problem}"


def test_all_problems_at_once():
    """Several wrong limits are told together; right ones among them are not mentioned."""
    with pytest.raises(StudyError) as caught:
        parse_limits(["loop_rate<2", "tpot_ms_p95<=30", "x"])
    assert str(caught.value).splitlines() == [
        "--subject-to: 2 problems",
        "  - 'loop_rate<2': the limit must be a share from 0 to 1, got '2'",
        f"  - 'x' {FORM}",
    ]


def test_what_a_limit_is_about():
    """Its column, its quantile, and its value in some numbers."""
    assert [(x.column, x.quantile) for x in parse_limits(["ttft_ms_p95<9", "loop_rate<=0"])] == [
        ("ttft_ms", 0.95),
        ("loop_rate", None),
    ]
    tokens = Limit("n_output_tokens_mean", "<", 20)
    assert tokens.column == "n_output_tokens"
    assert tokens.estimate([10, float("nan"), 20]) == 15
    assert tokens.holds([10, 20]) is True
    assert tokens.holds([20, 20]) is False
    assert tokens.holds([float("nan")]) is None
    assert P90.estimate(range(101)) == pytest.approx(90)
    assert P90.holds([900] * 19 + [901]) is True


SLOW = np.where(np.arange(60) % 2, 1_000.0, 100.0)


def test_a_limit_surely_broken():
    """Half of the requests above a p90 limit is proof; a tenth is not, and neither are four slow ones at one prompt."""
    assert surely_broken(SLOW, P90)
    assert not surely_broken(np.where(np.arange(60) % 10 == 9, 1_000.0, 100.0), P90)
    assert not surely_broken([], P90)
    assert not surely_broken([float("nan")] * 50, P90)
    same = ["p1"] * 30
    assert surely_broken([1_000.0] * 30, P90)
    assert not surely_broken([1_000.0] * 30, P90, same)


def test_the_other_direction():
    """A median that must be at least 500 is surely broken by fast requests, and a rate by its opposite."""
    assert surely_broken([100.0] * 30, Limit("tpot_ms_p50", ">=", 500))
    assert not surely_broken([600.0] * 30, Limit("tpot_ms_p50", ">=", 500))
    assert surely_broken([0.0] * 30, Limit("truncated_rate", ">", 0.5))
    assert not surely_broken([1.0] * 30, Limit("truncated_rate", ">", 0.5))


def test_equality_counts_for_the_operator():
    """Requests exactly on the limit keep ``<=`` and break ``<``."""
    assert surely_broken([900.0] * 30, Limit("e2el_ms_p90", "<", 900))
    assert not surely_broken([900.0] * 30, P90)


def test_rates_and_means():
    """Rates are tested as they are, a mean of tokens on the scale of the most there can be."""
    assert surely_broken([1, 0, 0] * 30, Limit("truncated_rate", "<=", 0.05))
    assert not surely_broken([1] + [0] * 19, Limit("truncated_rate", "<=", 0.05))
    assert surely_broken([0, 1], Limit("loop_rate", "<=", 0))
    assert not surely_broken([0, 0], Limit("loop_rate", "<=", 0))
    assert not surely_broken([1, 1] * 50, Limit("loop_rate", "<=", 1))
    tokens = Limit("n_output_tokens_mean", "<=", 20)
    assert surely_broken([60] * 30, tokens, most=64)
    assert not surely_broken([15] * 30, tokens, most=64)
    for most in (None, 30):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared below
            surely_broken([60], tokens, most=most)
        assert str(caught.value) == (
            f"n_output_tokens_mean<=20 needs the largest number of tokens there can be, got {most}"
        )


@pytest.mark.parametrize(("values", "clusters"), [([1.0, 2.0], ["a"]), ([[1.0]], None)])
def test_shapes_of_values(values, clusters):
    """One value a request, and one cluster for each."""
    message = "values must have one dimension, and clusters one name for each"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        surely_broken(values, P90, clusters)


def test_level_over_repeated_looks():
    """A p90 exactly on its limit is called broken at any of 40 looks in at most 1 % of 600 series, heavy tail or not."""
    rng = np.random.default_rng(3)
    times = rng.lognormal(6, 1.5, (600, 200))
    limit = Limit("e2el_ms_p90", "<=", float(np.exp(6 + 1.5 * 1.2815515655446004)))
    looks = [any(surely_broken(x[:n], limit) for n in range(5, 201, 5)) for x in times]
    assert np.mean(looks) <= 0.01


def test_level_with_prompts_that_are_always_slow():
    """Where one prompt in ten is always slow, 8 timings of each do not make it proof; taken as independent they would."""
    rng = np.random.default_rng(4)
    names = np.repeat([f"p{i}" for i in range(25)], 8).tolist()
    times = [np.repeat(np.where(rng.random(25) < 0.1, 2e3, 10.0), 8) for _ in range(400)]
    assert np.mean([surely_broken(x, P90, names) for x in times]) <= 0.01
    assert np.mean([surely_broken(x, P90) for x in times]) > 0.1
