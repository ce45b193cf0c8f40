"""From a run's tables to one tidy frame and one summary row per cell.

Rules, the same everywhere:

* **Quality** of a cell: mean over prompts of the mean over repeats of the primary score. Rows that failed or could not be
  scored are left out and counted, never taken as 0; a cell without any scored row has no quality.
* **Latency** of a cell: over the measured requests (warm-up left out). A block is one prompt in one round, timed for every
  cell in turn; a block with a noisy request is left out whole, so that cells are always compared on the same requests. If
  that would leave less than half of the blocks, none is left out. A median is always given; p90 only from 64 requests;
  the front only where every timed cell has requests enough for an interval and noisy ones could be left out.
* **Loop**: an answer that ends in a passage of at least three words (or CJK characters, or punctuation marks), exactly the
  same three or more times in a row.
"""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench import resample, stats
from workbench.errors import WorkbenchError
from workbench.scorers.degeneration import has_loop
from workbench.tables import SETTINGS
from workbench.words import P90_MIN, answer_in_words, baseline_of, broken, labels_of, ranked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "KEY",
    "SUMMARY_COLUMNS",
    "answer_in_words",
    "baseline_of",
    "broken",
    "frame",
    "has_loop",
    "labels_of",
    "measured",
    "summary",
    "timing",
    "tokens_of",
]

KEY: Final = ["cell_id", "prompt_id", "repeat"]
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
    "template",
)


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


def tokens_of(rows: pd.DataFrame) -> pd.Series:
    """Output tokens of answers that did not fail; NaN where they were not counted.

    The end of an answer is a token too, so 0 says that nobody counted (answers made elsewhere), not that there are none.
    """
    tokens = rows["n_output_tokens"].astype(float)
    return tokens.where(tokens > 0)


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


# --------------------------------------------------------------------------------------------- latency


def measured(latency: pd.DataFrame) -> pd.DataFrame:
    """The latency rows that count: warm-up left out, and noisy ones by the rule in the module docstring."""
    timed = latency[latency["warm"] == 1]
    noisy = timed["noisy"].eq(1).fillna(value=False).astype(bool)
    block = timed.groupby(["prompt_id", "round"], sort=False).ngroup()
    quiet = ~block.isin(block[noisy])
    return timed[quiet] if block[quiet].nunique() >= 0.5 * block.nunique() else timed


def _latency_columns(timed: pd.DataFrame) -> pd.DataFrame:
    """Median and p90 columns of the summary, indexed by cell_id."""
    by_cell = timed.groupby("cell_id", sort=False)
    columns = ["ttft_ms", "tpot_ms", "e2el_ms"]
    out = by_cell[columns].median().add_suffix("_p50")
    enough = by_cell["e2el_ms"].count() >= P90_MIN
    out["e2el_ms_p90"] = by_cell["e2el_ms"].quantile(0.9).where(enough)
    return out


def timing(
    latency: pd.DataFrame, pairs: Iterable[tuple[str, str]], rng: np.random.Generator | int = 0
) -> dict[str, Any]:
    """What the timed requests of a run can carry, as plain values.

    Args:
        latency: The latency table.
        pairs: (cell, other): cells whose times are compared, over requests of the same prompt and round.
        rng: Generator or seed of the bootstrap.

    Returns:
        ``n`` and ``noisy``: timed requests, and those flagged as noisy. ``n_prompts`` and ``rounds``: of which prompts, and how
        often. ``kept``: noisy ones count, since too few would be
        left. ``few``: requests that count in the cell with the fewest. ``enough``: every timed cell has the requests and
        prompts that an interval of its median takes. ``diffs``: for each pair with a request in common cell, other,
        diff (ms, median of the differences), lo and hi (95 %, bootstrap over prompts; None if too few), n and n_prompts.
    """
    timed = latency[latency["warm"].eq(1)]
    counted = measured(latency)
    noisy = int(timed["noisy"].eq(1).sum())
    cells = counted.groupby("cell_id")
    few, prompts = cells.size().min(), cells["prompt_id"].nunique().min()
    return {
        "n": len(timed),
        "noisy": noisy,
        "n_prompts": int(timed["prompt_id"].nunique()),
        "rounds": int(timed["round"].nunique()),
        "kept": bool(noisy) and len(counted) == len(timed),
        "few": int(few),
        "enough": bool(few >= resample.MIN_FOR_MEDIAN and prompts >= 2),
        "diffs": [found for pair in pairs if (found := _time_diff(counted, pair, rng))],
    }


def _time_diff(
    timed: pd.DataFrame, pair: tuple[str, str], rng: np.random.Generator | int
) -> dict[str, Any] | None:
    """One entry of ``diffs`` of `timing`."""
    key = ["prompt_id", "repeat", "round"]
    new, old = (timed.loc[timed["cell_id"].eq(c), [*key, "e2el_ms"]] for c in pair)
    both = new.merge(old, on=key, suffixes=("", "_old"))
    both = both.assign(ms=both["e2el_ms"] - both["e2el_ms_old"], cell_id=pair[0])
    both = both[both["ms"].notna()]
    if both.empty:
        return None
    found = stats.median_interval(both, "ms", rng=rng).iloc[0]
    lo, hi = (None if pd.isna(found[c]) else float(found[c]) for c in ("lo", "hi"))
    values = {"cell": pair[0], "other": pair[1], "diff": float(found["p50"]), "lo": lo, "hi": hi}
    return values | {"n": len(both), "n_prompts": int(both["prompt_id"].nunique())}


def _told_apart(out: pd.DataFrame, baseline: str) -> list[tuple[str, str]]:
    """Whose times the answer in words compares: the best cell with the baseline, the fastest with the best."""
    rows = ranked(out, baseline)
    times = rows["e2el_ms_p50"].dropna()
    if times.empty:
        return []
    best, fastest = str(rows.index[0]), str(times.sort_values(kind="stable").index[0])
    return [pair for pair in ((best, baseline), (fastest, best)) if pair[0] != pair[1]]


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
    left: Mapping[str, int] | None = None,
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
        left: Cells that left a race, and after how many prompts (`workbench.words.left_race`); they are on no front.
        rng: Generator or seed of the sign flips and the bootstrap.
        n_boot: Bootstrap draws for ``p_on_front``.
        level: Confidence level of all intervals, strictly between 0 and 1.

    Returns:
        Quality, differences and rates as fractions (0..1), latency in milliseconds. ``n_prompts`` counts the cell's
        prompts; ``n_scored`` and ``n_failed`` count rows. ``quality_lo/hi``: see `stats.PromptMeans.interval`;
        differences: `stats.paired_difference`; front: `stats.pareto`, against ``e2el_ms_p50``. What is unknown is NaN
        (``on_front``: NA), never 0. ``attrs`` hold what a summary in words needs besides: baseline, level, primary,
        prompts_scored (cell id to the number of prompts with a score), left and timing (see `timing`).

    Raises:
        WorkbenchError: No baseline, an unknown one, or a problem of `frame`.
    """
    generator = np.random.default_rng(rng)
    baseline = _baseline(cells, baseline)
    rows = generations if split is None else generations[generations["split"] == split]
    used = [*KEY, "group", "finish_reason", "n_output_tokens", "text"]
    tidy = frame(rows[[c for c in used if c in rows]], scores, cells, primary)
    table = stats.prompt_means(tidy)
    out = cells.set_index("cell_id").reindex(columns=["adapter", "template", *SETTINGS])
    out = out.join(_counts(tidy)).join(_quality(table, level))
    known: dict[str, Any] = {"baseline": baseline, "level": level, "primary": primary}
    n_scored = (table.rows > 0).sum(1)
    known["left"] = dict(left or {})
    known["prompts_scored"] = dict(zip(map(str, table.cells), map(int, n_scored), strict=True))
    counts = ["n_prompts", "n_scored", "n_failed"]
    out[counts] = out[counts].fillna(0).astype("int64")
    if baseline in table.cells:
        versus = stats.paired_difference(table, baseline, generator, level=level)
        versus = versus.set_index("cell_id")[["diff", "diff_lo", "diff_hi", "p_adjusted"]]
        out = out.join(versus.rename(columns={"diff": "diff_vs_baseline"}))
    if latency is not None and len(latency):
        timed = measured(latency)
        out = out.join(_latency_columns(timed))
        out.attrs["left"] = known["left"]
        latency = latency[~latency["cell_id"].isin(known["left"])]
        timed = timed[~timed["cell_id"].isin(known["left"])]
        front = stats.pareto(table, n_boot, generator, latency=timed).set_index("cell_id")
        if len(timed):
            known["timing"] = timing(latency, _told_apart(out.reset_index(), baseline), generator)
            if known["timing"]["enough"] and not known["timing"]["kept"]:
                out = out.join(front[["on_front", "p_on_front"]])
    out = out.reset_index().reindex(columns=list(SUMMARY_COLUMNS))
    out["on_front"] = out["on_front"].astype("boolean")
    out.attrs |= known
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
            "n_output_tokens_mean": tokens_of(answers),
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


def plain(value: Any) -> Any:
    """A value as JSON knows it: tables as rows, dataclasses as mappings; None for what is missing or not finite."""
    if isinstance(value, pd.DataFrame):
        return [plain(row) for row in value.to_dict("records")]
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return (
        None if value is pd.NA or (isinstance(value, float) and not np.isfinite(value)) else value
    )
