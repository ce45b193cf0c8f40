"""What tuning used up: noted block by block, and read again instead of measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from workbench.tuning.budget import Budget, Cost
from workbench.tuning.ledger import Ledger, Used


def store(rows: int, tokens: int, timed: int) -> Any:
    """A record with so many answers, and timed requests of 5 tokens each."""
    table = pd.DataFrame({"warm": [1] * timed + [0], "n_output_tokens": 5})
    counts = SimpleNamespace(n_rows=rows, n_output_tokens=tokens)
    return SimpleNamespace(counts=lambda: counts, latency=lambda _: table)


def test_a_block_is_what_the_record_holds() -> None:
    """Answers and timed requests count, warm-up aside; what comes next is expected to cost as much each."""
    ledger = Ledger(Budget(tokens=1000, rows=200))
    ledger.saw(SimpleNamespace(n_run=3, wall_s=8.0), 1)  # type: ignore[arg-type] # enough of one
    ledger.close(store(90, 450, 10), timing=True)
    assert (ledger.now.rows, ledger.now.timed, ledger.now.tokens) == (90, 10, 500)
    assert ledger.now.request_s == 2.0
    assert ledger.spent.used.rows == 100
    assert ledger.cost(20, 5).tokens == 125
    assert ledger.cost(0, 5).wall_s == 10.0
    assert ledger.fits(95, 5)
    assert not ledger.fits(95, 6)


def test_without_timing_the_table_of_times_is_not_read() -> None:
    """Requests timed later, by another command, are none of its business."""
    ledger = Ledger(Budget())
    ledger.close(store(90, 450, 10), timing=False)
    assert (ledger.now.timed, ledger.now.tokens) == (0, 450)


def test_blocks_of_earlier_calls_are_as_they_were_noted() -> None:
    """Whatever the record holds by now; new ones are measured, and time goes on from where it was."""
    blocks = [
        {"wall_s": 5.0, "tokens": 100, "rows": 20, "timed": 4, "request_s": 0.5},
        {"wall_s": 9.0, "tokens": 300, "rows": 60, "timed": 8, "request_s": 0.25},
    ]
    ledger = Ledger(Budget(rows=1000))
    ledger.begin({"race": {"blocks": blocks}, "calls": [{"wall_s": 7.0}]})
    for block in blocks:
        assert ledger.ahead == Used(**block)  # type: ignore[arg-type] # as JSON gives it
        ledger.close(store(500, 5000, 40), timing=True)
        assert ledger.now == Used(**block)  # type: ignore[arg-type] # as above
    assert ledger.spent.used == Cost(9.0, 300, 68)
    assert ledger.ahead is None
    ledger.close(store(500, 5000, 40), timing=True)
    assert (ledger.now.rows, ledger.now.timed) == (500, 40)
    assert ledger.now.wall_s >= 9.0
    assert [block["rows"] for block in ledger.to_list()] == [20, 60, 500]


def test_a_call_that_ended_well_counts_whole() -> None:
    """Its time is in the manifest, and is more than that at the end of its last block."""
    ledger = Ledger(Budget())
    block = {"wall_s": 5.0, "tokens": 1, "rows": 1, "timed": 0, "request_s": 0.0}
    ledger.begin({"race": {"blocks": [block]}, "calls": [{"wall_s": 4.0}, {"wall_s": 3.0}]})
    assert ledger.elapsed_s >= 7.0
    ledger.resume_at_end()
    assert ledger.now.wall_s == 5.0
