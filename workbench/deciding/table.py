"""The table of a decision: the pick, the baseline, and what ties, as numbers and as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench.deciding.naming import rows_of, settings, varied
from workbench.reporting.amounts import bounds, count, ms, number, percent, points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.deciding.choose import Choice

    Row = Mapping[str, Any]

MOST: Final = 10
"""Rows of the Markdown table."""
QUALITY: Final = ("quality", "quality_lo", "quality_hi")
VERSUS: Final = ("diff_vs_baseline", "diff_lo", "diff_hi")
COSTS: Final = ("e2el_ms_p50", "e2el_ms_p90", "n_output_tokens_mean", "truncated_rate")


def table(choice: Choice, cells: pd.DataFrame) -> pd.DataFrame:
    """One row for the pick, the baseline, the highest score and each cell that ties with it.

    Returns:
        ``role`` ("pick", "baseline", "pick, baseline", "highest score", "tie"), ``cell_id``, ``settings`` (in words), then
        those of `QUALITY` and `VERSUS` on the prompts that chose (shares; after a race without the interval), the same with ``confirm_`` before on those held out
        (NaN if none are), `COSTS` (milliseconds, tokens, share), one column for each limit: whether it is met.
    """
    roles: dict[str, list[str]] = {}
    named = [(choice.pick, "pick"), (choice.baseline, "baseline")]
    if choice.top not in (choice.pick, choice.baseline):
        named.append((choice.top, "highest score"))
    for cell, role in [*named, *((c, "tie") for c in choice.ties)]:
        if cell is not None and not (role == "tie" and cell in roles):
            roles.setdefault(cell, []).append(role)
    names = varied(cells)
    about = rows_of(cells)
    select = choice.select.set_index("cell_id")
    out = pd.DataFrame({"role": [", ".join(r) for r in roles.values()], "cell_id": list(roles)})
    out["settings"] = [settings(about[c], names) for c in roles]
    wanted = [*QUALITY, *VERSUS]
    out = out.join(select[wanted], on="cell_id")
    if choice.confirm is None:
        held = pd.DataFrame(index=select.index, columns=wanted, dtype=float)
    else:
        held = choice.confirm.set_index("cell_id")[wanted]
    out = out.join(held.add_prefix("confirm_"), on="cell_id").join(
        select[list(COSTS)], on="cell_id"
    )
    if choice.raced:  # they would be right of prompts that had not decided who is left
        out[["diff_lo", "diff_hi"]] = np.nan
    for limited in choice.limits:
        out[limited.text] = [limited.status[c] for c in roles]
    return out


def texts(rows: pd.DataFrame, choice: Choice) -> dict[str, list[str]]:
    """The first `MOST` rows in words and rounded numbers, heading to column; columns without content are left out."""
    shown = [{str(k): v for k, v in r.items()} for r in rows.head(MOST).to_dict("records")]
    chose = "quality on the prompts that chose, %" if choice.held_out else "quality, %"
    columns = {
        "": [r["role"] for r in shown],
        "settings": [r["settings"] for r in shown],
        chose: [_quality(r, "") for r in shown],
        "against the baseline": [_versus(r, "") for r in shown],
        "quality held out, %": [_quality(r, "confirm_") for r in shown],
        "against the baseline, held out": [_versus(r, "confirm_") for r in shown],
        "median ms": [ms(r["e2el_ms_p50"]) for r in shown],
        "p90 ms": [ms(r["e2el_ms_p90"]) for r in shown],
        "tokens": [number(r["n_output_tokens_mean"]) for r in shown],
        "cut off %": [percent(r["truncated_rate"], 0) for r in shown],
        **{limited.text: [str(r[limited.text]) for r in shown] for limited in choice.limits},
    }
    empty = ("", ms(float("nan")))
    return {h: c for h, c in columns.items() if any(v not in empty for v in c)}


def markdown(rows: pd.DataFrame, choice: Choice) -> str:
    """The table as Markdown."""
    kept = texts(rows, choice)
    text = [i < 2 or h in {limited.text for limited in choice.limits} for i, h in enumerate(kept)]
    lines = [_line(list(kept)), _line(["---" if t else "---:" for t in text])]
    lines += [_line(list(values)) for values in zip(*kept.values(), strict=True)]
    if len(rows) > MOST:
        lines += ["", f"And {count(len(rows) - MOST, 'more tie')}, in `decision.json`."]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |"


def _quality(row: Row, side: str) -> str:
    value, lo, hi = (row[side + c] for c in QUALITY)
    if pd.isna(value):
        return ""
    return percent(value) + (f" ({between})" if (between := bounds(lo, hi)) else "")


def _versus(row: Row, side: str) -> str:
    value, lo, hi = (row[side + c] for c in VERSUS)
    if "baseline" in row["role"] or pd.isna(value):
        return ""
    return points(value) + (f" ({between})" if (between := bounds(lo, hi, signed=True)) else "")
