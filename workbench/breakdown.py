"""What the answers of each cell are made of: their lengths, how they ended, and where their time went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from workbench import analysis, stats
from workbench.measures import RunTables, rows_of

if TYPE_CHECKING:
    from workbench.resample import Rng

QUANTILES: Final = {"p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
ENDINGS: Final = ("stop", "tool_calls", "length", "error")
"""How an answer can end; "length" is the limit max_tokens, "error" a failed row."""


def lengths(run: RunTables) -> pd.DataFrame:
    """Output lengths and finish reasons of each cell, of the rows that the summary is about.

    Returns:
        One row per cell in study order: ``cell_id``, ``label``, ``n`` (rows), ``p05`` to ``p95`` and ``mean`` of the output tokens of the
        rows that did not fail, ``max_tokens``, and the shares of rows, 0..1, that ended by ``stop``, ``tool_calls``, ``length``
        (cut at max_tokens) and ``error``. NaN for a cell without rows; lengths are NaN where tokens were not counted.
    """
    rows = rows_of(run, ["cell_id", "n_output_tokens", "finish_reason"])
    out = run.cells.set_index("cell_id")[["label", "max_tokens"]]
    answers = rows[rows["finish_reason"].ne("error")]
    done = analysis.tokens_of(answers).groupby(answers["cell_id"], sort=False)
    for name, q in QUANTILES.items():
        out[name] = done.quantile(q)
    out["mean"] = done.mean()
    counts = pd.crosstab(rows["cell_id"], rows["finish_reason"]).reindex(
        index=out.index, columns=list(ENDINGS), fill_value=0
    )
    out["n"] = counts.sum(axis=1)
    out = out.join(counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0))
    columns = ["cell_id", "label", "n", *QUANTILES, "mean", "max_tokens", *ENDINGS]
    return out.reset_index()[columns]


def latency_parts(
    run: RunTables, *, level: float = 0.95, n_boot: int = 2_000, rng: Rng = 0
) -> pd.DataFrame:
    """Where the time of one answer goes in each cell: until the first token, then token by token.

    For every request, e2el_ms = ttft_ms + (n - 1) tpot_ms with n output tokens. The medians of the parts need not add up to
    the median of the whole; ``ttft_ms`` is the median until the first token, and ``decode_ms`` what is left of the median of the
    whole.

    Args:
        run: A run.
        level: Confidence level, strictly between 0 and 1.
        n_boot: Resamples of prompts and rounds.
        rng: Generator or seed of the resamples.

    Returns:
        One row per timed cell in study order: ``cell_id``, ``label``, ``n`` (requests that count, by the rule of
        `analysis.measured`), ``n_prompts``, and medians: ``ttft_ms``, ``decode_ms``, ``e2el_ms`` with its bounds ``e2el_ms_lo`` and
        ``e2el_ms_hi`` (NaN below 20 requests), ``tpot_ms`` (NaN if every answer was one token), and ``n_output_tokens``.
    """
    columns = ["ttft_ms", "e2el_ms", "tpot_ms", "n_output_tokens"]
    if run.latency is None or run.latency.empty:
        timed = pd.DataFrame(columns=["cell_id", "prompt_id", *columns], dtype=float)
        bounds = pd.DataFrame(columns=["lo", "hi"], dtype=float)
    else:
        timed = analysis.measured(run.latency)
        bounds = stats.median_interval(timed, level=level, n_boot=n_boot, rng=rng)
        bounds = bounds.set_index("cell_id")
    by_cell = timed.groupby("cell_id", sort=False)
    out = by_cell[columns].median()
    out["n"], out["n_prompts"] = by_cell.size(), by_cell["prompt_id"].nunique()
    out["e2el_ms_lo"], out["e2el_ms_hi"] = bounds["lo"], bounds["hi"]
    out["decode_ms"] = out["e2el_ms"] - out["ttft_ms"]
    labels = run.cells.set_index("cell_id")[["label"]]
    out = labels.join(out, how="inner").reset_index()
    first = ["cell_id", "label", "n", "n_prompts", "ttft_ms", "decode_ms", "e2el_ms"]
    return out[[*first, "e2el_ms_lo", "e2el_ms_hi", "tpot_ms", "n_output_tokens"]]
