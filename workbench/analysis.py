"""From a run's tables to one tidy frame, one summary row per cell, and the answer in words.

Rules, the same everywhere:

* **Quality** of a cell: mean over prompts of the mean over repeats of the primary score. Rows that failed or could not be
  scored are left out and counted, never taken as 0; a cell without any scored row has no quality.
* **Latency** of a cell: over the measured requests (warm-up left out). Requests flagged as noisy are left out too, in
  all cells, unless that would leave some cell with less than half of its requests: then none is left out, so that cells are
  always compared under the same rule. A median is always given; p90 only from 64 requests.
* **Loop**: an answer that ends in a passage of at least three words (or CJK characters, or punctuation marks), exactly the
  same three or more times in a row.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from workbench import stats
from workbench.errors import WorkbenchError
from workbench.latency import MIN_N
from workbench.plan import SHORT
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable

KEY: Final = ["cell_id", "prompt_id", "repeat"]
P90_MIN: Final = dict(MIN_N)[90.0]
SUMMARY_COLUMNS: Final = (
    "cell_id",
    "adapter",
    *SETTINGS,
    "n_prompts",
    "n_scored",
    "n_failed",
    "quality",
    "quality_lo",
    "quality_hi",
    "diff_vs_baseline",
    "diff_lo",
    "diff_hi",
    "p_adjusted",
    "ttft_ms_p50",
    "tpot_ms_p50",
    "e2el_ms_p50",
    "e2el_ms_p90",
    "n_output_tokens_mean",
    "truncated_rate",
    "loop_rate",
    "on_front",
    "p_on_front",
)

_CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_UNIT: Final = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+|[^\w\s]")


# ---------------------------------------------------------------------------------------- the tidy frame


def frame(
    generations: pd.DataFrame,
    scores: pd.DataFrame,
    cells: pd.DataFrame,
    primary: str | None = None,
) -> pd.DataFrame:
    """One row per generation, with its primary score.

    Args:
        generations: Columns of the run record; more and fewer are fine, the key is needed.
        scores: Columns cell_id, prompt_id, repeat, scorer, value and reason; of several versions of a scorer the
            last recorded counts.
        cells: Columns cell_id, label and is_baseline.
        primary: Name of the scorer; may be None if there is only one (or none).

    Returns:
        ``generations`` plus label, is_baseline, score (0..1, NaN = none), reason (why there is none) and failed (True if
        the answer failed or could not be scored; an answer nobody scored yet is neither scored nor failed).

    Raises:
        WorkbenchError: ``primary`` is needed, or is not among the scores.
    """
    judged = _judged(scores, _primary(scores, primary))
    out = generations.merge(judged, how="left", on=KEY, validate="one_to_one")
    broken = out["finish_reason"].eq("error").to_numpy(bool)
    out.loc[broken, "score"] = np.nan
    out["failed"] = broken | (out.pop("_judged").eq(True) & out["score"].isna()).to_numpy(bool)
    about = cells.set_index("cell_id")
    out["label"] = out["cell_id"].map(about["label"])
    out["is_baseline"] = out["cell_id"].map(about["is_baseline"]).eq(True)
    return out


def _primary(scores: pd.DataFrame, primary: str | None) -> str | None:
    """The scorer whose scores count."""
    names = list(pd.unique(scores["scorer"]))
    if primary is None and len(names) > 1:
        raise WorkbenchError(f"several scorers: say which is primary, one of {', '.join(names)}")
    if primary is not None and names and primary not in names:
        raise WorkbenchError(f"no scores of {primary!r}; there are scores of {', '.join(names)}")
    return primary if primary is not None or not names else str(names[0])


def _judged(scores: pd.DataFrame, primary: str | None) -> pd.DataFrame:
    """The scores of one scorer, one row per generation."""
    mine = scores.loc[scores["scorer"] == primary, [*KEY, "value", "reason"]]
    if mine.duplicated(KEY).any():
        mine = mine.drop_duplicates(KEY, keep="last")
    return mine.rename(columns={"value": "score"}).assign(_judged=True)


def has_loop(text: str) -> bool:
    """Whether an answer ends in a loop (see the module docstring); a last round cut short still counts.

    >>> has_loop("I think so. I think so. I think so. I th"), has_loop("very, very good")
    (True, False)
    """
    text = text.rstrip()
    tail = text[-3:]
    if (
        len(tail) < 3 or text.count(tail) < 3
    ):  # a passage of three units has at least three characters
        return False
    end, done = len(text), 0
    at = text.rfind(tail, 0, end - 1)
    while at >= 0 and 3 * (period := end - 3 - at) <= end:
        if period > done and text[-3 * period : -period] == text[-2 * period :]:
            length = _periodic(text, period)
            for times in (1, 2, 3):  # "no no no" is a passage of three words that repeats
                whole = times * period
                if 3 * whole <= length and len(_UNIT.findall(text[-whole:])) >= 3:
                    return True
            done = length // 3
        at = text.rfind(tail, 0, at + 2)
    return False


def _periodic(text: str, period: int) -> int:
    """Length of the longest end of ``text`` in which every character equals the one ``period`` later."""
    length = 2 * period
    while length + period <= len(text) and text.endswith(text[-period:], 0, len(text) - length):
        length += period
    while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
        length += 1
    return length


# --------------------------------------------------------------------------------------------- latency


def measured(latency: pd.DataFrame) -> pd.DataFrame:
    """The latency rows that count: warm-up left out, and noisy ones by the rule in the module docstring."""
    timed = latency[latency["warm"] == 1]
    noisy = timed["noisy"].eq(1).fillna(value=False).astype(bool)
    quiet_share = (~noisy).groupby(timed["cell_id"]).mean()
    return timed[~noisy] if (quiet_share >= 0.5).all() else timed


def _latency_columns(timed: pd.DataFrame) -> pd.DataFrame:
    """Median and p90 columns of the summary, indexed by cell_id."""
    by_cell = timed.groupby("cell_id", sort=False)
    columns = ["ttft_ms", "tpot_ms", "e2el_ms"]
    out = by_cell[columns].median().add_suffix("_p50")
    enough = by_cell["e2el_ms"].count() >= P90_MIN
    out["e2el_ms_p90"] = by_cell["e2el_ms"].quantile(0.9).where(enough)
    return out


# --------------------------------------------------------------------------------------------- summary


def summary(
    generations: pd.DataFrame,
    scores: pd.DataFrame,
    latency: pd.DataFrame | None,
    cells: pd.DataFrame,
    baseline: str | None = None,
    *,
    primary: str | None = None,
    split: str | None = None,
    rng: np.random.Generator | int = 0,
    n_boot: int = 2_000,
    level: float = 0.95,
) -> pd.DataFrame:
    """One row per cell, in the order of ``cells``, with the columns `SUMMARY_COLUMNS`.

    Args:
        generations: As for `frame`; text may be left out (then ``loop_rate`` is NaN).
        scores: As for `frame`.
        latency: The latency table, or None if latency was not measured.
        cells: The cells table: cell_id, label, adapter, settings, is_baseline.
        baseline: Cell id to compare with; default: the one marked in ``cells``.
        primary: Name of the primary scorer.
        split: "select" or "confirm" uses only those prompts for everything but latency.
        rng: Generator or seed of the sign flips and the bootstrap.
        n_boot: Bootstrap draws for ``p_on_front``.
        level: Confidence level of all intervals, strictly between 0 and 1.

    Returns:
        Quality, differences and rates as fractions (0..1), latency in milliseconds. ``n_prompts`` counts the cell's
        prompts; ``n_scored`` and ``n_failed`` count rows. ``quality_lo/hi``: see `stats.PromptMeans.interval`;
        differences: `stats.paired_difference`; front: `stats.pareto`, against ``e2el_ms_p50``. What is unknown is NaN
        (``on_front``: NA), never 0.

    Raises:
        WorkbenchError: No baseline, an unknown one, or a problem of `frame`.
    """
    generator = np.random.default_rng(rng)
    baseline = _baseline(cells, baseline)
    rows = generations if split is None else generations[generations["split"] == split]
    used = [*KEY, "group", "finish_reason", "n_output_tokens", "text"]
    tidy = frame(rows[[c for c in used if c in rows]], scores, cells, primary)
    table = stats.prompt_means(tidy)
    out = cells.set_index("cell_id")[["adapter", *SETTINGS]]
    out = out.join(_counts(tidy)).join(_quality(table, level))
    counts = ["n_prompts", "n_scored", "n_failed"]
    out[counts] = out[counts].fillna(0).astype("int64")
    if baseline in table.cells:
        versus = stats.paired_difference(table, baseline, generator, level=level)
        versus = versus.set_index("cell_id")[["diff", "diff_lo", "diff_hi", "p_adjusted"]]
        out = out.join(versus.rename(columns={"diff": "diff_vs_baseline"}))
    if latency is not None and len(latency):
        timed = measured(latency)
        front = stats.pareto(table, n_boot, generator, latency=timed).set_index("cell_id")
        out = out.join(_latency_columns(timed)).join(front[["on_front", "p_on_front"]])
    out = out.reset_index().reindex(columns=list(SUMMARY_COLUMNS))
    out["on_front"] = out["on_front"].astype("boolean")
    out.attrs["baseline"] = baseline
    return out


def _baseline(cells: pd.DataFrame, baseline: str | None) -> str:
    """The cell that the others are compared with."""
    known = list(cells["cell_id"])
    if baseline is None:
        marked = list(cells.loc[cells["is_baseline"].astype(bool), "cell_id"])
        if len(marked) != 1:
            raise WorkbenchError(f"one cell must be marked as the baseline, got {len(marked)}")
        return str(marked[0])
    if baseline not in known:
        raise WorkbenchError(f"baseline must be a cell_id of this run, got {baseline!r}")
    return baseline


def _counts(tidy: pd.DataFrame) -> pd.DataFrame:
    """Counts and rates of the summary, indexed by cell_id; rates are over the answers that did not break."""
    done = tidy["finish_reason"].ne("error")
    out = pd.DataFrame(
        {
            "n_prompts": tidy.groupby("cell_id", sort=False)["prompt_id"].nunique(),
            "n_scored": tidy["score"].notna().groupby(tidy["cell_id"], sort=False).sum(),
            "n_failed": tidy["failed"].groupby(tidy["cell_id"], sort=False).sum(),
        }
    )
    answers = tidy[done]
    rates = pd.DataFrame(
        {
            "n_output_tokens_mean": answers["n_output_tokens"],
            "truncated_rate": answers["finish_reason"].eq("length"),
            "loop_rate": _loops(answers["text"]) if "text" in answers else np.nan,
        }
    )
    return out.join(rates.groupby(answers["cell_id"], sort=False).mean())


def _loops(texts: Iterable[str]) -> list[bool]:
    return [has_loop(text) for text in texts]


def _quality(table: stats.PromptMeans, level: float) -> pd.DataFrame:
    """Quality columns of the summary, indexed by cell_id."""
    lo, hi = table.interval(level)
    columns = {"quality": table.quality, "quality_lo": lo, "quality_hi": hi}
    return pd.DataFrame(columns, index=pd.Index(table.cells, name="cell_id"))


# -------------------------------------------------------------------------------------- the answer in words


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


def labels_of(table: pd.DataFrame, cells: pd.DataFrame | None = None) -> dict[str, str]:
    """A short name for each cell of a summary.

    Args:
        table: A summary.
        cells: The cells table, whose labels are used; without it, names are made from what varies.
    """
    if cells is not None:
        return dict(zip(cells["cell_id"], cells["label"], strict=True))
    varied = [c for c in SETTINGS if table[c].nunique(dropna=False) > 1]
    adapters = table["adapter"].nunique() > 1
    names = {}
    for row in table.to_dict("records"):
        parts = [f"{SHORT[c]}={row[c]:g}" for c in varied if pd.notna(row[c])]
        names[row["cell_id"]] = (
            " ".join([*parts, *([row["adapter"]] if adapters else [])]) or "default"
        )
    return names


def answer_in_words(
    table: pd.DataFrame,
    cells: pd.DataFrame | None = None,
    *,
    baseline: str | None = None,
    confirm: pd.DataFrame | None = None,
    alpha: float = 0.05,
) -> str:
    """What the run found, in plain sentences that claim no more than the numbers do.

    Args:
        table: A summary; where there is a split, the one of its "select" prompts.
        cells: The cells table, for the names of the cells.
        baseline: Cell id; default: as told by `baseline_of`.
        confirm: The summary of the "confirm" prompts, on which the best cell is looked at once more.
        alpha: A difference counts if its Holm-adjusted p-value is below this.

    Returns:
        One sentence or two a line.
    """
    names = labels_of(table, cells)
    scored = table[table["quality"].notna()]
    if scored.empty:
        return f"No answer was scored.\n{_rows_in_words(table)}"
    rows = scored.sort_values(
        ["quality", "e2el_ms_p50"], ascending=[False, True], kind="stable", na_position="last"
    ).set_index("cell_id")
    best = rows.iloc[0]
    base = baseline_of(table) if baseline is None else baseline
    lines = [_headline(rows, base, names, alpha)]
    if base in rows.index and base != best.name:
        lines.append(_difference(best, rows.loc[base], names[str(base)]))
    if base in rows.index and len(rows) > 1:
        lines.append(_verdicts(rows.drop(index=base), alpha))
    if confirm is not None:
        again = confirm.set_index("cell_id").loc[best.name]
        lines.append(f"On the prompts held out, the same cell: {_quality_in_words(again)}.")
    elif len(rows) > 2:
        lines.append(
            f"The best of {len(rows)} looks better than it is, being picked by this very score; "
            "only held-out prompts tell its true quality."
        )
    lines += [_latency_in_words(rows, base, names), _rows_in_words(table)]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _quality_in_words(row: pd.Series) -> str:
    prompts = f"{row['n_prompts']:,} prompt{'s' * (row['n_prompts'] != 1)}"
    if pd.isna(row["quality"]):
        return f"not scored ({prompts})"
    bounds = "too few prompts for an interval"
    if pd.notna(row["quality_lo"]):
        bounds = f"95 % interval {100 * row['quality_lo']:.1f} to {100 * row['quality_hi']:.1f}"
    return f"quality {_percent(row['quality'])} ({bounds}; {prompts})"


def _headline(rows: pd.DataFrame, base: str | None, names: dict[str, str], alpha: float) -> str:
    best = rows.iloc[0]
    top = f"{names[str(best.name)]}, {_quality_in_words(best)}"
    if len(rows) == 1:
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
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
    return (
        f"{text}Difference on the same prompts: {diff:+.1f} points (interval {lo:+.1f} to {hi:+.1f}, "
        f"taken alone); {shown} with all comparisons counted (Holm)."
    )


def _verdicts(others: pd.DataFrame, alpha: float) -> str:
    sure = others["p_adjusted"] < alpha
    n_better = int((sure & (others["diff_vs_baseline"] > 0)).sum())
    n_worse = int((sure & (others["diff_vs_baseline"] < 0)).sum())
    return (
        f"Against the baseline, of {len(others)}: {n_better} better, {n_worse} worse, "
        f"{len(others) - n_better - n_worse} not distinguishable."
    )


def _latency_in_words(rows: pd.DataFrame, base: str | None, names: dict[str, str]) -> str:
    timed = rows[rows["e2el_ms_p50"].notna()]
    if timed.empty:
        return "Latency was not measured: run `workbench latency RUN`."
    best, text = rows.iloc[0], "It has no latency."
    if pd.notna(best["e2el_ms_p50"]):
        text = f"Its median answer takes {best['e2el_ms_p50']:,.0f} ms"
        other = rows["e2el_ms_p50"].get(base)
        if base != best.name and pd.notna(other):
            change = best["e2el_ms_p50"] / other - 1
            text += f", the baseline's {other:,.0f} ms ({100 * change:+.0f} %)"
        text += "."
    fast = timed.loc[timed["e2el_ms_p50"].idxmin()]
    if fast.name != best.name:
        text += (
            f" Fastest: {names[str(fast.name)]}, {fast['e2el_ms_p50']:,.0f} ms at "
            f"{_percent(fast['quality'])}."
        )
    if timed["e2el_ms_p90"].isna().all():
        text += f" n too small for p90 (it needs {P90_MIN} requests a cell)."
    return text


def _rows_in_words(table: pd.DataFrame) -> str:
    """How many rows were scored and how many failed."""
    empty = int((table["n_scored"] == 0).sum())
    text = f"Rows: {table['n_scored'].sum():,} scored, {table['n_failed'].sum():,} failed."
    return text + (f" Cells without any score: {empty} of {len(table)}." if empty else "")
