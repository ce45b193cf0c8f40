"""How many more prompts or repeats would settle what is not settled, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from workbench import analysis, stats
from workbench.words import ranked

if TYPE_CHECKING:
    from workbench.measures import Tables

MIN_CLUSTERS: Final = 5
"""With fewer groups of prompts the spread between them is not known."""
TOO_FEW: Final = "How many more prompts would settle it cannot be told from so few."


def settling(rows: pd.DataFrame, cell: str, baseline: str, comparisons: int = 1) -> str | None:
    """What would settle a cell against another.

    Args:
        rows: Scored answers of at least these two cells, as from `workbench.analysis.frame`.
        cell: Cell id.
        baseline: Cell id it is compared with.
        comparisons: Cells compared with the baseline, at least 1.

    Returns:
        A sentence; None if no prompt is scored in both.
    """
    pair = rows[rows["score"].notna() & rows["cell_id"].isin([cell, baseline])]
    prompts = pair.groupby("cell_id", sort=False)["prompt_id"].unique()
    if len(prompts) < 2:
        return None
    both = pair[pair["prompt_id"].isin(set(prompts.iloc[0]) & set(prompts.iloc[1]))]
    if both.empty:
        return None
    group = both["group"] if "group" in both else pd.Series(None, index=both.index, dtype=object)
    if group.fillna("p:" + both["prompt_id"].astype(str)).nunique() < MIN_CLUSTERS:
        return TOO_FEW
    return stats.needed(both, cell, baseline, comparisons=comparisons).short


def of_summary(
    run: Tables, table: pd.DataFrame, confirm: pd.DataFrame | None = None, alpha: float = 0.05
) -> str | None:
    """What would settle the cell that scores highest against the baseline; None if that is settled, or if it is the baseline.

    Args:
        run: The run.
        table: Its summary; where there is a split, the one of its "select" prompts.
        confirm: The summary of the "confirm" prompts; they decide where there are any.
        alpha: A difference counts if its Holm-adjusted p-value is below this.
    """
    base = analysis.baseline_of(table)
    rows = ranked(table, base)
    if rows.empty or base not in rows.index or rows.index[0] == base:
        return None
    best = str(rows.index[0])
    held = None if confirm is None else confirm.set_index("cell_id")
    split, comparisons = None, max(int(rows["p_adjusted"].notna().sum()), 1)
    if held is not None and pd.notna(held["quality"].get(best)):
        if held["diff_lo"][best] > 0 or held["diff_hi"][best] < 0:
            return None
        split, comparisons = "confirm", 1
    elif rows["p_adjusted"][best] < alpha and rows["diff_vs_baseline"][best] > 0:
        return None
    elif confirm is not None:
        split = "select"
    answers = run.generations[run.generations["cell_id"].isin([best, base])]
    answers = answers if split is None else answers[answers["split"].eq(split)]
    scores = run.scores[run.scores["cell_id"].isin([best, base])]
    kept = [*analysis.KEY, "group", "finish_reason"]
    tidy = analysis.frame(
        answers[[c for c in kept if c in answers]], scores, run.cells, run.primary
    )
    return settling(tidy, best, str(base), comparisons)
