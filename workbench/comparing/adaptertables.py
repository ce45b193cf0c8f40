"""The tables of a comparison of adapters: cell by cell, averaged over settings, by setting, and the best cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench import analysis, stats
from workbench.comparing.dependence import dependence
from workbench.comparing.gains import Answers, Pair, averaged, compared
from workbench.comparing.matching import settings_names
from workbench.factors import design

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from workbench.comparing.pairs import RunTables

    Mask = NDArray[np.bool_]

ALL: Final = "all"
"""Name of all prompts together, beside the sets and the splits."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What all tables share.

    Attributes:
        answers: All answers.
        pairs: The cells that are compared.
        itself: Names of the adapters that are the baseline by content.
        rng: Generator of sign flips and bootstrap.
        level: Confidence level of the intervals.
    """

    answers: Answers
    pairs: list[Pair]
    itself: frozenset[str]
    rng: np.random.Generator
    level: float

    def only(self, adapter: str) -> list[Pair]:
        """The pairs of one adapter."""
        return [p for p in self.pairs if p.adapter == adapter]


def cells_table(
    setup: Setup,
    mask: Mask,
    sets: Mapping[str, Mask],
    latency: pd.DataFrame,
) -> pd.DataFrame:
    """One row per adapter, cell and set."""
    about = pd.DataFrame(setup.pairs, columns=["adapter", "cell_id", "baseline_id", "settings"])
    parts = [
        about.assign(set=name).join(
            compared(setup.answers, setup.pairs, mask & where, setup.rng, setup.level)
        )
        for name, where in sets.items()
    ]
    out = _tested(pd.concat(parts, ignore_index=True), setup)
    times = latency[latency["cell_id"].notna()].set_index("cell_id")
    times = times.drop(columns=["adapter", "settings", "baseline_id"])
    out = out.join(times.reindex(out["cell_id"].where(out["set"].eq(ALL))).set_axis(out.index))
    order = {name: i for i, name in enumerate(dict.fromkeys(p.adapter for p in setup.pairs))}
    ranks = out["adapter"].map(order)
    first = ["adapter", "set", "cell_id", "baseline_id", "settings"]
    out = out.loc[ranks.sort_values(kind="stable").index, [*first, *out.columns.drop(first)]]
    return out.reset_index(drop=True)


def _tested(rows: pd.DataFrame, setup: Setup) -> pd.DataFrame:
    """With adjusted p-values and verdicts; an adapter that is the baseline is not tested where it answered alike."""
    identical = rows["n_identical"].eq(rows["n_answers"]) & rows["n_answers"].gt(0)
    identical &= ~rows["diff"].ne(0)  # a scorer that judges by chance can still differ
    itself = identical & rows["adapter"].isin(setup.itself)
    rows.loc[itself, ["diff_lo", "diff_hi", "p_value"]] = np.nan
    rows["p_adjusted"] = stats.adjust(rows["p_value"])
    rows["verdict"] = _verdicts(rows, identical, 1 - setup.level)
    return rows


def _verdicts(rows: pd.DataFrame, identical: pd.Series, alpha: float) -> NDArray[Any]:
    apart = rows["diff_lo"].gt(0) | rows["diff_hi"].lt(0)
    sure = rows["p_adjusted"].lt(alpha)
    return np.select(
        [
            rows["n_prompts"].eq(0),
            identical,
            rows["diff_lo"].isna() | rows["p_value"].isna(),
            apart & sure & rows["diff"].gt(0),
            apart & sure,
            apart | rows["p_value"].lt(alpha),
        ],
        ["not scored", "identical", "too few", "better", "worse", "edge"],
        "cannot tell",
    ).astype(object)


def averages(
    setup: Setup,
    masks: Mapping[str | None, Mask],
    sets: Mapping[str, Mask],
) -> pd.DataFrame:
    """One row per split, adapter and set; adjusted within a split."""
    parts = []
    for split, mask in masks.items():
        found = [
            averaged(setup.answers, setup.pairs, mask & where, setup.rng, setup.level).assign(
                set=name
            )
            for name, where in sets.items()
        ]
        rows = _tested(pd.concat(found, ignore_index=True), setup)
        parts.append(rows.assign(split=split or ALL))
    out = pd.concat(parts, ignore_index=True)
    first = ["split", "adapter", "set"]
    return out[[*first, *out.columns.drop(first)]]


def interaction(
    run: RunTables, setup: Setup, mask: Mask, adapters: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Whether gains depend on settings: (contrasts, gains by level)."""
    plan = getattr(run, "plan", None)
    about = design(run.cells, plan.collapsed if plan is not None else ())
    varied = [name for name in about.varied if name != "adapter"]
    levels, contrasts = [], []
    for adapter in adapters:
        mine = setup.only(adapter)
        for name in varied if mine else ():
            own = about.only({"adapter": adapter})
            found = dependence(
                setup.answers, mine, own, name, where=mask, rng=setup.rng, level=setup.level
            )
            levels.append(found.levels.assign(adapter=adapter, setting=name))
            contrasts.append({"adapter": adapter, "setting": name} | found.contrast)
    columns = ["level", "n_cells", "gain", "gain_lo", "gain_hi"]
    gains = (
        pd.concat(levels, ignore_index=True)
        if levels
        else pd.DataFrame(columns=[*columns, "adapter", "setting"])
    )
    ends = ["highest", "lowest", "contrast", "contrast_lo", "contrast_hi", "p_value"]
    tests = pd.DataFrame(contrasts, columns=["adapter", "setting", *ends, "n_prompts", "why_not"])
    tests.insert(8, "p_adjusted", stats.adjust(tests["p_value"].to_numpy(float)))
    tests.insert(10, "testable", tests["why_not"].isna())
    return tests, gains[["adapter", "setting", *columns]]


def best_cells(
    run: RunTables, setup: Setup, masks: tuple[Mask, Mask], adapters: Sequence[str]
) -> pd.DataFrame:
    """The best cell of each adapter, the baseline's first."""
    chooser, measurer = (setup.answers.table(mask) for mask in masks)
    cells = run.cells[run.cells["cell_id"].isin(chooser.cells)]
    quality = dict(zip(chooser.cells, chooser.quality, strict=True))
    speed = {}
    if len(run.latency):
        speed = analysis.measured(run.latency).groupby("cell_id")["e2el_ms"].median().to_dict()
    names = settings_names(run.cells)
    twin = {p.cell: p.baseline for p in setup.pairs}
    rows: list[dict[str, Any]] = []
    top: str | None = None
    for adapter in adapters:
        mine = [
            c
            for c in cells.loc[cells["adapter"].eq(adapter), "cell_id"]
            if not np.isnan(quality[c])
        ]
        best = min(
            mine,
            key=lambda c: (-round(quality[c], 9), twin.get(c) != top, speed.get(c, np.inf)),
            default=None,
        )
        top = best if not rows else top
        row: dict[str, Any] = {"adapter": adapter, "cell_id": best}
        if best is not None:
            own = next((c for c in mine if twin.get(c) == top), None)
            row |= {"settings": names[best], "chosen_quality": quality[best]}
            row["same_settings"] = best == top or twin.get(best) == top
            row |= _measured(setup, measurer, best)
            if rows:
                row |= _versus(setup, masks[1], best, top, "")
            if own not in (None, best):
                row |= _versus(setup, masks[1], best, own, "own_")
        rows.append(row)
    texts = ["adapter", "cell_id", "settings"]
    numbers = [
        "quality",
        "quality_lo",
        "quality_hi",
        "n_prompts",
        "chosen_quality",
        "same_settings",
    ]
    each = ["diff", "diff_lo", "diff_hi", "p_value"]
    out = pd.DataFrame(rows, columns=[*texts, *numbers, *each, *(f"own_{c}" for c in each)])
    for column in (*each, *(f"own_{c}" for c in each)):
        out[column] = out[column].astype(float)
    out.insert(13, "p_adjusted", stats.adjust(out["p_value"].to_numpy(float)))
    out["own_p_adjusted"] = stats.adjust(out["own_p_value"].to_numpy(float))
    return out


def _measured(setup: Setup, table: stats.PromptMeans, cell: str) -> dict[str, Any]:
    """Quality of a cell with its interval."""
    at = int(np.flatnonzero(table.cells == cell)[0])
    lo, hi = table.interval(setup.level)
    n = int((table.rows[at] > 0).sum())
    return {
        "quality": table.quality[at],
        "quality_lo": lo[at],
        "quality_hi": hi[at],
        "n_prompts": n,
    }


def _versus(setup: Setup, mask: Mask, cell: str, other: str | None, prefix: str) -> dict[str, Any]:
    """The paired difference of one cell from another."""
    if other is None:
        return {}
    pairs = [Pair("", cell, other, "")]
    row = compared(setup.answers, pairs, mask, setup.rng, setup.level).iloc[0]
    return {prefix + c: row[c] for c in ("diff", "diff_lo", "diff_hi", "p_value")}
