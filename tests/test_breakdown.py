"""Lengths, endings and parts of the latency, against plain counts."""

from __future__ import annotations

import numpy as np
import pytest
from fakeruns import make_run

from workbench import analysis, breakdown


def test_lengths_match_plain_quantiles():
    """Every quantile, mean and share, cell by cell in study order; failed rows count only as failed."""
    run = make_run(n_prompts=25, repeats=2)
    rows = run.generations
    failed = rows["prompt_id"].eq("sum-003") & rows["cell_id"].eq(run.cells["cell_id"][2])
    rows.loc[failed, "finish_reason"] = "error"
    rows.loc[failed, "n_output_tokens"] = 0
    table = breakdown.lengths(run)
    assert list(table["cell_id"]) == list(run.cells["cell_id"])
    for row in table.to_dict("records"):
        mine = rows[rows["cell_id"] == row["cell_id"]]
        tokens = mine.loc[mine["finish_reason"] != "error", "n_output_tokens"]
        assert row["n"] == len(mine)
        assert row["mean"] == pytest.approx(tokens.mean())
        for name, q in (("p05", 5), ("p25", 25), ("p50", 50), ("p75", 75), ("p95", 95)):
            assert row[name] == pytest.approx(np.percentile(tokens, q))
        for ending in breakdown.ENDINGS:
            assert row[ending] == pytest.approx(mine["finish_reason"].eq(ending).mean())
        assert row["max_tokens"] == 48
    assert table.loc[2, "error"] == pytest.approx(2 / 50)


def test_a_cell_without_answers_has_no_lengths():
    """A cell whose rows are not there yet is a row of NaN."""
    run = make_run(n_prompts=3, repeats=1)
    gone = run.cells["cell_id"][1]
    run.generations = run.generations[run.generations["cell_id"] != gone]
    row = breakdown.lengths(run).iloc[1]
    assert row["n"] == 0
    assert np.isnan([row["p50"], row["mean"], row["stop"]]).all()


def test_lengths_that_nobody_counted_are_unknown():
    """Answers made elsewhere end somehow, and have no known length."""
    run = make_run({"temperature": [0.3, 0.9]}, 4, 1)
    first = run.generations["cell_id"].eq(run.cells["cell_id"][0])
    run.generations.loc[first, "n_output_tokens"] = 0
    one, two = breakdown.lengths(run).to_dict("records")
    assert np.isnan([one["p05"], one["p50"], one["mean"]]).all()
    assert (one["n"], one["stop"] + one["length"]) == (4, 1)
    assert two["mean"] == run.generations.loc[~first, "n_output_tokens"].mean()


def test_latency_parts_add_up():
    """First token and the rest make the median of the whole, which is the summary's."""
    run = make_run(n_prompts=12)
    table = breakdown.latency_parts(run)
    summary = run.summary().set_index("cell_id").loc[table["cell_id"]]
    np.testing.assert_allclose(table["ttft_ms"] + table["decode_ms"], table["e2el_ms"])
    np.testing.assert_allclose(table["e2el_ms"], summary["e2el_ms_p50"])
    np.testing.assert_allclose(table["ttft_ms"], summary["ttft_ms_p50"])
    np.testing.assert_allclose(table["tpot_ms"], summary["tpot_ms_p50"])
    assert (table["e2el_ms_lo"] <= table["e2el_ms"]).all()
    assert (table["e2el_ms"] <= table["e2el_ms_hi"]).all()
    assert set(table["n"]) == {24}
    assert set(table["n_prompts"]) == {8}


def test_only_requests_that_count_and_cells_that_were_timed():
    """Warm-up and noisy blocks are left out by the house rule; an untimed cell has no row."""
    run = make_run(n_prompts=12)
    gone, noisy = run.cells["cell_id"][3], run.cells["cell_id"][0]
    run.latency = run.latency[run.latency["cell_id"] != gone].reset_index(drop=True)
    hit = run.latency["cell_id"].eq(noisy) & run.latency["prompt_id"].eq("sum-000")
    run.latency.loc[hit, "noisy"] = 1
    run.latency.loc[hit, "e2el_ms"] = 1e6
    table = breakdown.latency_parts(run)
    assert gone not in set(table["cell_id"])
    counts = analysis.measured(run.latency)["cell_id"].value_counts()
    assert dict(zip(table["cell_id"], table["n"], strict=True)) == counts.to_dict()
    assert table["e2el_ms"].max() < 1e5
    assert breakdown.latency_parts(make_run(n_prompts=3, timed=False)).empty


def test_one_token_answers_have_no_time_per_token():
    """Where every answer is one token, time per further token is NaN and the bar is all first token."""
    run = make_run({"temperature": [0.3, 0.9]}, 12, 1)
    run.latency["tpot_ms"] = np.nan
    run.latency["e2el_ms"] = run.latency["ttft_ms"]
    table = breakdown.latency_parts(run)
    assert table["tpot_ms"].isna().all()
    np.testing.assert_allclose(table["decode_ms"], 0, atol=1e-12)
