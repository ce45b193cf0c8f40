"""The latency pass of the finalists: how long it must be."""

from __future__ import annotations

from typing import Any

import pytest

from workbench.deciding.objective import parse_limits
from workbench.tuning.timing import needed, per_cell, settings


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("ttft_ms_p50<=9", 20),
        ("tpot_ms_p90<=9", 64),
        ("e2el_ms_p95>9", 130),
        ("truncated_rate<=0.1", 0),
        ("n_output_tokens_mean<=9", 0),
    ],
)
def test_what_a_limit_needs(text: str, least: int) -> None:
    """As many requests as the decision asks for."""
    assert needed(parse_limits([text])[0]) == least


@pytest.mark.parametrize(
    ("declared", "limits", "n", "timed", "expected"),
    [
        (None, [], 100, False, None),
        (None, ["truncated_rate<=0.1"], 100, False, None),
        (None, [], 100, True, (8, 2, 3)),
        ((10, 2, 2), [], 100, False, (10, 2, 2)),
        ((10, 2, 2), ["e2el_ms_p50<=9"], 100, False, (10, 2, 2)),
        ((10, 2, 2), ["e2el_ms_p50<=9", "e2el_ms_p90<=9"], 100, False, (32, 2, 2)),
        ((10, 2, 2), ["e2el_ms_p90<=9"], 12, False, (12, 2, 6)),
        (None, ["e2el_ms_p95<=9"], 100, False, (44, 2, 3)),
    ],
)
def test_a_pass_is_raised_to_what_limits_need(
    declared: Any, limits: list[str], n: int, timed: bool, expected: Any
) -> None:
    """First by prompts, then by rounds; without limits it is as declared."""
    names = ("prompts", "warmup", "rounds")
    given = dict(zip(names, declared, strict=True)) if declared else None
    found = settings(given, parse_limits(limits), n, timed=timed)
    assert found == (dict(zip(names, expected, strict=True)) if expected else None)
    if found:
        assert per_cell(found) >= max([needed(x) for x in parse_limits(limits)], default=0)
