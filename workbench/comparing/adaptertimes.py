"""What an adapter costs in latency: paired over requests of the same prompt and round, cell by cell and over all cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from workbench import analysis, stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from workbench.comparing.gains import Pair
    from workbench.comparing.pairs import RunTables

TIMES: Final = ("ttft_ms", "tpot_ms", "e2el_ms")
COLUMNS: Final = tuple(
    column
    for name in TIMES
    for column in (
        f"baseline_{name}",
        name,
        *(f"{name}_{kind}{end}" for kind in ("diff", "ratio") for end in ("", "_lo", "_hi")),
    )
)
_SAME: Final = ["prompt_id", "repeat", "round"]


def latency(
    run: RunTables, pairs: Sequence[Pair], rng: np.random.Generator, level: float
) -> pd.DataFrame:
    """Times of adapters beside the baseline's.

    Returns:
        One row per pair, and after those of an adapter one over all of them (``cell_id`` None): ``adapter``, ``cell_id``,
        ``baseline_id``, ``settings``, then for each of `TIMES`, over the requests timed in both: the medians
        (``baseline_ttft_ms``, ``ttft_ms``), the median difference (``ttft_ms_diff`` with ``_lo`` and ``_hi``: bootstrap over
        prompts and rounds) and the median ratio (``ttft_ms_ratio``, likewise); and ``n_timed``, pairs of requests, with
        ``n_timed_prompts``. NaN and 0 where nothing was timed.
    """
    requests = _requests(run, pairs)
    adapter_of = {pair.cell: pair.adapter for pair in pairs}
    pooled = requests.assign(cell_id=requests["cell_id"].map(adapter_of))
    single = _estimates(requests, rng, level)
    whole = _estimates(pooled, rng, level)
    rows: list[tuple[Any, ...]] = []
    for adapter in dict.fromkeys(p.adapter for p in pairs):
        mine = [p for p in pairs if p.adapter == adapter]
        rows += [(adapter, p.cell, p.baseline, p.settings, single.get(p.cell)) for p in mine]
        rows.append((adapter, None, None, None, whole.get(adapter)))
    about = pd.DataFrame(
        [row[:4] for row in rows], columns=["adapter", "cell_id", "baseline_id", "settings"]
    )
    counts = ["n_timed", "n_timed_prompts"]
    found = pd.DataFrame([row[4] or {} for row in rows], columns=[*COLUMNS, *counts])
    found[counts] = found[counts].fillna(0).astype("int64")
    return about.join(found.astype(dict.fromkeys(COLUMNS, float)))


def _requests(run: RunTables, pairs: Sequence[Pair]) -> pd.DataFrame:
    """Requests of the same prompt, repeat and round in both cells of a pair, one row each."""
    columns = ["cell_id", *_SAME, *TIMES]
    if not len(run.latency) or not pairs:
        names = [*(f"{t}_0" for t in TIMES), *(f"{t}_1" for t in TIMES)]
        return pd.DataFrame(columns=["cell_id", *_SAME, *names])
    timed = analysis.measured(run.latency)[columns].sort_values(columns[:4], kind="stable")
    of = {str(cell): rows.drop(columns="cell_id") for cell, rows in timed.groupby("cell_id")}
    empty = timed.iloc[:0].drop(columns="cell_id")
    parts = [
        of.get(p.baseline, empty)
        .merge(of.get(p.cell, empty), on=_SAME, suffixes=("_0", "_1"))
        .assign(cell_id=p.cell)
        for p in pairs
    ]
    return pd.concat(parts, ignore_index=True)


def _estimates(
    requests: pd.DataFrame, rng: np.random.Generator, level: float
) -> dict[str, dict[str, float]]:
    """For each value of ``cell_id``: medians, paired differences and ratios, with intervals."""
    out: dict[str, dict[str, float]] = {}
    for name in TIMES:
        rows = requests[requests[f"{name}_0"].notna() & requests[f"{name}_1"].notna()]
        if rows.empty:
            continue
        old, new = (rows[f"{name}_{side}"].astype(float) for side in (0, 1))
        rows = rows.assign(diff=new - old, ratio=(new / old).where(old > 0))
        medians = rows.groupby("cell_id")[[f"{name}_0", f"{name}_1"]].median()
        for cell, before, after in medians.itertuples():
            out.setdefault(str(cell), {}).update({f"baseline_{name}": before, name: after})
        for kind in ("diff", "ratio"):
            found = stats.median_interval(rows, kind, level=level, rng=rng)
            for row in found.to_dict("records"):
                ends = {"": row["p50"], "_lo": row["lo"], "_hi": row["hi"]}
                out[row["cell_id"]].update({f"{name}_{kind}{e}": v for e, v in ends.items()})
    counts = requests.groupby("cell_id")["prompt_id"].agg(["size", "nunique"])
    for cell, n, prompts in counts.itertuples():
        out.setdefault(str(cell), {}).update({"n_timed": n, "n_timed_prompts": prompts})
    return out
