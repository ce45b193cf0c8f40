"""The answer of a run in plain sentences, from its summary."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from workbench.latency import MIN_N
from workbench.plan import SHORT
from workbench.resample import MIN_FOR_MEDIAN
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

P90_MIN: Final = dict(MIN_N)[90.0]
"""Fewest measured requests for a p90."""
_ROOM: Final = 1.5
"""So many times the fewest requests for a median are advised, for noisy ones to be left out."""
_TIMED_AT_ONCE: Final = 8
"""Prompts that ``workbench latency`` times by itself."""


def baseline_of(table: pd.DataFrame) -> str | None:
    """The baseline's cell_id in a summary, or None if it cannot be told.

    A summary read back from CSV has lost its mark; there the baseline is the one row whose difference is 0 by
    definition and was therefore not tested.
    """
    marked = table.attrs.get("baseline")
    if marked is not None and table["cell_id"].eq(marked).any():
        return str(marked)
    untested = table["p_adjusted"].isna() & table["diff_lo"].isna()
    own = table.loc[table["diff_vs_baseline"].eq(0) & untested, "cell_id"]
    return str(own.iloc[0]) if len(own) == 1 else None


def left_race(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Cells that answered fewer prompts than those left in the end, and how many: dropped by a race, or pruned by a search.

    Args:
        manifest: A run's; without "race" no cell left.

    >>> left_race({"race": {"dropped": {"b": "loses"}, "n_prompts": {"a": 40, "b": 10, "c": 20}}})
    {'b': 10, 'c': 20}
    """
    race = manifest.get("race") or {}
    asked = {str(cell): int(n) for cell, n in race.get("n_prompts", {}).items()}
    most = max(asked.values(), default=0)
    return {c: n for c, n in asked.items() if n < most or c in race.get("dropped", {})}


def labels_of(table: pd.DataFrame, cells: pd.DataFrame | None = None) -> dict[str, str]:
    """A short name for each cell of a summary.

    Args:
        table: A summary.
        cells: The cells table, whose labels are used; without it, names are made from what varies.
    """
    if cells is not None:
        return dict(zip(cells["cell_id"], cells["label"], strict=True))
    varied = [c for c in SETTINGS if len(pd.unique(table[c])) > 1]
    named = [c for c in ("template", "adapter") if c in table and len(pd.unique(table[c])) > 1]
    names = {}
    for row in table.to_dict("records"):
        parts = [f"{SHORT[c]}={row[c]:g}" for c in varied if pd.notna(row[c])]
        names[row["cell_id"]] = (
            " ".join([*parts, *(str(row[c]) for c in named if pd.notna(row[c]))]) or "default"
        )
    return names


def broken(text: str, width: int) -> str:
    r"""A text with its lines broken between words; a word longer than a line stays whole.

    >>> broken("one two three", 8)
    'one two\nthree'
    """
    return "\n".join(
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    )


def answer_in_words(
    table: pd.DataFrame,
    cells: pd.DataFrame | None = None,
    *,
    baseline: str | None = None,
    confirm: pd.DataFrame | None = None,
    needed: str | None = None,
    alpha: float = 0.05,
) -> str:
    """What the run found, in plain sentences that claim no more than the numbers do.

    Args:
        table: A summary; where there is a split, the one of its "select" prompts.
        cells: The cells table, for the names of the cells.
        baseline: Cell id; default: as told by `baseline_of`.
        confirm: The summary of the "confirm" prompts, on which the best cell is looked at once more.
        needed: What would settle the best cell against the baseline, see `workbench.settling.of_summary`.
        alpha: A difference counts if its Holm-adjusted p-value is below this.

    Returns:
        One sentence or two a line.
    """
    names = labels_of(table, cells)
    base = baseline_of(table) if baseline is None else baseline
    rows = ranked(table.assign(n_known=scored_prompts(table)), base)
    if rows.empty:
        said = ["No answer was scored.", _rows_in_words(table, confirm)]
        return "\n".join([*said, *_judge_in_words(table), *table.attrs.get("adapters", ())])
    best = rows.iloc[0]
    held = confirm
    if held is not None:
        held = held.assign(n_known=scored_prompts(held)).set_index("cell_id")
    again = None if held is None else _row(held, best.name)
    if again is not None and base in rows.index and pd.notna(again["quality"]):
        before = again if held is None else _row(held, base)
        lines = _confirmed(best, again, before, names, base)
        lines += [needed] if needed else []
        if len(rows) > 1:
            verdicts = _verdicts(rows.drop(index=str(base)), alpha, start="a")
            lines.append(f"On the prompts used for choosing, {verdicts}")
    else:
        lines = [_headline(rows, base, names, alpha)]
        if base in rows.index and base != best.name:
            lines.append(_difference(best, _row(rows, base), names[str(base)]))
        lines += [needed] if needed else []
        if base in rows.index and len(rows) > 1:
            lines.append(_verdicts(rows.drop(index=str(base)), alpha))
        if again is not None:
            lines.append(f"On the prompts held out, the same cell: {_quality_in_words(again)}.")
        elif len(rows) > 2 and base != best.name:
            lines.append(
                f"The best of {len(rows)} may look better than it is, being picked by this very score; "
                "only held-out prompts tell its true quality."
            )
    lines += _race_in_words(rows, table.attrs.get("left", {}))
    lines += [
        _latency_in_words(rows, base, names, table.attrs.get("timing")),
        _rows_in_words(table, confirm),
        *_judge_in_words(table),
        *table.attrs.get("adapters", ()),
    ]
    return "\n".join(lines)


def scored_prompts(table: pd.DataFrame) -> pd.Series:
    """Prompts with a score of each row of a summary; ``n_prompts`` counts those that were answered.

    A summary read back from CSV does not hold them; there it is the most that there can be.
    """
    known = table["cell_id"].map(table.attrs.get("prompts_scored", {}))
    most = table["n_prompts"].clip(upper=table["n_scored"])
    return known.fillna(most).astype(int)


def prompts_in_words(scored: int, asked: int) -> str:
    """How many prompts a quality is of.

    >>> prompts_in_words(30, 30), prompts_in_words(1, 1), prompts_in_words(6, 30)
    ('30 prompts', '1 prompt', '6 of 30 prompts could be scored')
    """
    if scored != asked:
        return f"{scored:,} of {asked:,} prompts could be scored"
    return f"{asked:,} prompt{'s' if asked != 1 else ''}"


def ranked(table: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """The scored cells of a summary, best first, indexed by cell_id.

    Of equal quality the baseline comes first, since a cell that equals it is not above it; then the faster one. Cells that left
    a race (``attrs["left"]``) come after the others: their scores are of fewer prompts.
    """
    scored = table[table["quality"].notna()]
    gone = scored["cell_id"].isin(table.attrs.get("left", {}))
    order = scored.assign(_gone=gone, _other=scored["cell_id"].ne(baseline or "")).sort_values(
        ["_gone", "quality", "_other", "e2el_ms_p50"],
        ascending=[True, False, True, True],
        kind="stable",
        na_position="last",
    )
    return order.drop(columns=["_gone", "_other"]).set_index("cell_id")


def _confirmed(
    best: pd.Series, again: pd.Series, before: pd.Series, names: dict[str, str], base: str | None
) -> list[str]:
    """The headline where prompts were held out: what the chosen cell does on prompts that did not choose it.

    Args:
        best: The chosen cell on the prompts used for choosing.
        again: The chosen cell on the prompts held out.
        before: The baseline on the prompts held out.
        names: Cell names.
        base: The baseline's cell_id.
    """
    chosen = names[str(best.name)]
    if best.name == base:
        return [
            f"No setting scores above the baseline: {chosen}. On the prompts held out: {_quality_in_words(again)}.",
            f"On the prompts used for choosing: {_quality_in_words(best)}.",
        ]
    lines = [f"Chosen: {chosen}. On the prompts held out: {_quality_in_words(again)}."]
    if pd.isna(again["diff_lo"]):
        lines[0] += " Too few of them for a comparison with the baseline."
    else:
        lo, diff, hi = (100 * again[c] for c in ("diff_lo", "diff_vs_baseline", "diff_hi"))
        verdict = "On these prompts alone that is within chance of the baseline."
        if lo > 0:
            verdict = "It beats the baseline beyond chance."
        elif hi < 0:
            verdict = "It is worse than the baseline beyond chance."
        lines[0] += f" {verdict}"
        lines.append(
            f"Baseline: {names[str(base)]}, {_percent(before['quality'])} on the same prompts; "
            f"difference {signed(diff, 1)} points (interval {signed(lo, 1)} to {signed(hi, 1)})."
        )
    lines.append(
        f"It was chosen on the other prompts, by {_quality_in_words(best)}; a score that chose is too good on average."
    )
    return lines


def _row(rows: pd.DataFrame, cell: object) -> pd.Series:
    return rows.loc[[str(cell)]].iloc[0]


def p_in_words(p: float) -> str:
    """A p-value in a sentence."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _quality_in_words(row: pd.Series) -> str:
    if pd.isna(row["quality"]):
        return f"not scored ({prompts_in_words(int(row['n_prompts']), int(row['n_prompts']))})"
    prompts = prompts_in_words(int(row["n_known"]), int(row["n_prompts"]))
    bounds = "too few prompts for an interval"
    if pd.notna(row["quality_lo"]):
        bounds = f"95 % interval {100 * row['quality_lo']:.1f} to {100 * row['quality_hi']:.1f}"
    return f"quality {_percent(row['quality'])} ({bounds}; {prompts})"


def _headline(rows: pd.DataFrame, base: str | None, names: dict[str, str], alpha: float) -> str:
    best = rows.iloc[0]
    top = f"{names[str(best.name)]}, {_quality_in_words(best)}"
    if len(rows) == 1 and base in (None, best.name):
        return f"One cell was scored: {top}."
    if base not in rows.index:
        return f"Highest score: {top}. The baseline has no score to compare with."
    if base == best.name:
        return f"No setting scores above the baseline: {top}."
    better = rows[(rows["p_adjusted"] < alpha) & (rows["diff_vs_baseline"] > 0)]
    if better.empty:
        return f"No setting beats the baseline beyond chance. Highest score: {top}."
    if better.index[0] == best.name:
        return f"Best: {top}. It beats the baseline beyond chance."
    return (
        f"Highest score: {top}. That is within chance of the baseline; "
        f"beyond chance is {names[str(better.index[0])]}, {_quality_in_words(better.iloc[0])}."
    )


def _difference(best: pd.Series, base: pd.Series, name: str) -> str:
    text = f"Baseline: {name}, {_percent(base['quality'])}. "
    if pd.isna(best["p_adjusted"]):
        return f"{text}Too few prompts in common for a comparison."
    lo, diff, hi = (100 * best[c] for c in ("diff_lo", "diff_vs_baseline", "diff_hi"))
    p = best["p_adjusted"]
    shown = p_in_words(p)
    return (
        f"{text}Difference on the same prompts: {signed(diff, 1)} points (interval {signed(lo, 1)} to {signed(hi, 1)}, "
        f"taken alone); {shown} with all comparisons counted (Holm)."
    )


def _verdicts(others: pd.DataFrame, alpha: float, start: str = "A") -> str:
    sure = others["p_adjusted"] < alpha
    n_better = int((sure & (others["diff_vs_baseline"] > 0)).sum())
    n_worse = int((sure & (others["diff_vs_baseline"] < 0)).sum())
    return (
        f"{start}gainst the baseline, of {len(others)}: {n_better} better, {n_worse} worse, "
        f"{len(others) - n_better - n_worse} not distinguishable."
    )


def _latency_in_words(
    rows: pd.DataFrame, base: str | None, names: dict[str, str], timing: dict[str, Any] | None
) -> str:
    timed = rows[rows["e2el_ms_p50"].notna()]
    if timed.empty:
        return "Latency was not measured: run `workbench latency RUN`."
    best, text = rows.iloc[0], "It has no latency."
    if pd.notna(best["e2el_ms_p50"]):
        text = f"Its median answer takes {best['e2el_ms_p50']:,.0f} ms"
        other = rows["e2el_ms_p50"].get(base)
        if base != best.name and pd.notna(other):
            found = _time_diff(timing, best.name, base)
            text += f", the baseline's {other:,.0f} ms{_versus(found, timing)}"
        text += "."
    fast = timed.sort_values("e2el_ms_p50", kind="stable").iloc[0]
    sure = _time_diff(timing, fast.name, best.name)
    if not front_unknown(timing) and sure and (sure["hi"] or 0) < 0:
        text += (
            f" Fastest: {names[str(fast.name)]}, {fast['e2el_ms_p50']:,.0f} ms at "
            f"{_percent(fast['quality'])}."
        )
    if unknown := front_unknown(timing):
        text += f" Which cells are fast cannot be told: {unknown}."
        text += _more_rounds(timing, int(rows["n_prompts"].max()))
    text += _noise_in_words(timing)
    if timed["e2el_ms_p90"].isna().all():
        text += f" n too small for p90 (it needs {P90_MIN} requests a cell)."
    return text


def _time_diff(timing: dict[str, Any] | None, cell: object, other: object) -> dict[str, Any] | None:
    """The difference in time between two cells, if it was computed."""
    diffs = timing["diffs"] if timing else []
    return next((d for d in diffs if (d["cell"], d["other"]) == (cell, other)), None)


def _versus(found: dict[str, Any] | None, timing: dict[str, Any] | None) -> str:
    """The difference of the best cell in time from the baseline's, where its interval is known."""
    if found is None or found["lo"] is None:
        n = found["n"] if found else 0
        return f" (too few timed requests to tell a difference from chance: {n:,} of each)"
    diff, lo, hi = (signed(found[c]) for c in ("diff", "lo", "hi"))
    text = f"; on the same prompt and round {diff} ms (95 % interval {lo} to {hi}, {found['n']:,} pairs)"
    if timing and timing["kept"]:
        return text
    if found["lo"] > 0 or found["hi"] < 0:
        return f"{text}, {'slower' if found['lo'] > 0 else 'faster'} beyond chance"
    return f"{text}, within chance"


def signed(value: float, digits: int = 0) -> str:
    """A number with its sign; what rounds to nothing has none.

    >>> signed(1234.5), signed(-0.2)
    ('+1,234', '0')
    """
    text = f"{value:+,.{digits}f}"
    return text[1:] if not text.strip("+-0.,") else text


def front_unknown(timing: dict[str, Any] | None) -> str | None:
    """Why it cannot be told which cells are fast and which are on the front; None if it can.

    Args:
        timing: ``attrs["timing"]`` of a summary, see `workbench.analysis.timing`.
    """
    if timing is None:
        return "it is not known how many requests were timed"
    if not timing["enough"]:
        return f"some cell has only {timing['few']:,} timed request{'s' * (timing['few'] != 1)} (it takes {MIN_FOR_MEDIAN}, of 2 prompts or more)"
    if timing["kept"]:
        return f"{timing['noisy']:,} of {timing['n']:,} timed requests were noisy"
    return None


def _more_rounds(timing: dict[str, Any] | None, n_prompts: int) -> str:
    """How to time enough requests, where there are too few."""
    if timing is None or timing["enough"] or n_prompts < 2:
        return ""
    again = min(n_prompts, _TIMED_AT_ONCE)
    missing = math.ceil(_ROOM * MIN_FOR_MEDIAN) - timing["few"]
    there = min(timing["n_prompts"], again) * timing["rounds"]
    rounds = max(math.ceil((missing + there) / again), timing["rounds"] + 1)
    return f" Time more: `workbench latency RUN --rounds {rounds}`."


def _race_in_words(rows: pd.DataFrame, left: Mapping[str, int]) -> list[str]:
    """Which of the ranked cells left a race, and that their scores are no equals of the others'."""
    gone = [left[str(cell)] for cell in rows.index if cell in left]
    if not gone:
        return []
    span = f"{min(gone):,}" if min(gone) == max(gone) else f"{min(gone):,} to {max(gone):,}"
    text = f"{len(gone):,} of {len(rows):,} cells left the race early, after {span} prompt{'s' * (max(gone) != 1)}"
    return [f"{text}: their scores are of fewer prompts than the others'."]


def _noise_in_words(timing: dict[str, Any] | None) -> str:
    """What other programs did to the timing."""
    if not timing or not timing["noisy"]:
        return ""
    text = f" Other programs disturbed {timing['noisy']:,} of {timing['n']:,} timed requests; "
    if timing["kept"]:
        return f"{text}they count, as too few would be left: time again on a quiet machine."
    return f"{text}they and the other cells' requests beside them are left out."


def _judge_in_words(table: pd.DataFrame) -> list[str]:
    """How far the run's judge can be trusted, if it had one, see `workbench.judges.in_words`."""
    said = table.attrs.get("judge")
    return [said] if said else []


def _rows_in_words(table: pd.DataFrame, confirm: pd.DataFrame | None = None) -> str:
    """How many rows have a score and how many have none, held-out ones included."""
    parts = [table] if confirm is None else [table, confirm]
    scored = sum(int(part["n_scored"].sum()) for part in parts)
    failed = sum(int(part["n_failed"].sum()) for part in parts)
    by = table.attrs.get("primary")
    by = f" by {by}" if by else ""
    text = f"Rows: {scored:,} scored{by}, {failed:,} failed{' or not scorable' if failed else ''}."
    if confirm is not None:
        text = f"{text[:-1]}; {int(confirm['n_scored'].sum()):,} of the scored are held out."
    empty = int((table["n_scored"] == 0).sum())
    return text + (f" Cells without any score: {empty} of {len(table)}." if empty else "")
