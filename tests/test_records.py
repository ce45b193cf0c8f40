"""The records and the latency formulas."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.params import SamplingParams
from workbench.records import Generation, Request, timing


def _request(**changes):
    values = {
        "cell_id": "c",
        "prompt_id": "p",
        "repeat": 2,
        "messages": ({"role": "user", "content": "Hi"},),
        "params": SamplingParams(seed=5),
    }
    return Request(**values | changes)


def test_timing_by_hand():
    """Four tokens at 50, 60, 80 and 110 ms: 50 to the first, then 20 a token."""
    found = timing(1_000_000, [51_000_000, 61_000_000, 81_000_000, 111_000_000])
    assert (found.ttft_ms, found.tpot_ms, found.e2el_ms) == (50.0, 20.0, 110.0)
    assert found.itl_ms == (10.0, 20.0, 30.0)
    assert found.n_output_tokens == 4


def test_one_token_has_no_time_per_token():
    """With one token there is no gap to average."""
    found = timing(0, [5_000_000])
    assert (found.tpot_ms, found.itl_ms, found.ttft_ms, found.e2el_ms) == (None, (), 5.0, 5.0)


@pytest.mark.parametrize("times", [[], [5, 4], [-1]])
def test_impossible_times_are_refused(times):
    """No tokens, or time running backwards, is a mistake of the caller."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is checked below
        timing(0, times)
    assert str(caught.value) == "token_ns must hold at least one time, ascending from sent_ns"


@settings(max_examples=100)
@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=30))
def test_timing_adds_up(gaps_ns):
    """e2el = ttft + (n - 1) * tpot = ttft + sum of the gaps."""
    times, now = [], 0
    for gap in gaps_ns:
        now += gap
        times.append(now)
    found = timing(0, times)
    n = len(times)
    assert found.e2el_ms == pytest.approx(found.ttft_ms + (n - 1) * found.tpot_ms)
    assert found.e2el_ms == pytest.approx(found.ttft_ms + sum(found.itl_ms))
    assert len(found.itl_ms) == n - 1


def test_keys_agree():
    """A generation belongs to the row of its request."""
    request = _request()
    assert request.key == ("c", "p", 2) == Generation.failed(request, "no").key


def test_a_failed_row_says_so():
    """A failed row has no text, no tokens, its seed, and the message."""
    failed = Generation.failed(_request(), "too long", n_prompt_tokens=9)
    assert (failed.finish_reason, failed.error, failed.text) == ("error", "too long", "")
    assert (failed.n_output_tokens, failed.n_prompt_tokens, failed.seed) == (0, 9, 5)
