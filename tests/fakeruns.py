"""Runs that are only tables: any size in a moment, and whatever truth a test plants in them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench import analysis
from workbench.prompts import PromptSet
from workbench.study import Study
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.plan import Cell, Plan

GRID: dict[str, list[Any]] = {
    "temperature": [0, 0.6, 1.0, 1.5],
    "top_k": [5, 50],
    "repetition_penalty": [1.0, 1.1],
}
"""Sixteen combinations, fourteen cells."""
WORDS = "the sum of both is what we get when one more is added to it and then some".split()  # noqa: SIM905


@dataclass
class FakeRun:
    """The tables of a run, and the plan behind them."""

    plan: Plan
    cells: pd.DataFrame
    generations: pd.DataFrame
    scores: pd.DataFrame
    latency: pd.DataFrame
    primary: str = "numeric"

    @property
    def prompts(self) -> PromptSet:
        """The prompts."""
        return self.plan.prompt_set

    @property
    def manifest(self) -> dict[str, Any]:
        """What is needed of it."""
        return {"baseline": self.plan.baseline.cell_id, "scorers": [{"name": self.primary}]}

    def cell_id(self, name: str | None = None) -> str:
        """The id of a cell, given as an id or a label."""
        if name is None:
            return self.plan.baseline.cell_id
        return next(c.cell_id for c in self.plan.cells if name in (c.cell_id, c.label))

    @cached_property
    def _summary(self) -> pd.DataFrame:
        split = "select" if self.generations["split"].nunique() == 2 else None
        return analysis.summary(
            self.generations,
            self.scores,
            self.latency,
            self.cells,
            primary=self.primary,
            split=split,
            n_boot=200,
        )

    def summary(self) -> pd.DataFrame:
        """One row per cell."""
        return self._summary.copy()


def usual(cell: Cell) -> float:
    """Chance of a right answer: greedy and narrow is better, a penalty harms."""
    p = cell.params
    return (
        0.62
        - 0.2 * min(p.temperature, 1.5)
        - (0.08 if p.top_k == 50 else 0)
        - (0.12 if p.repetition_penalty else 0)
    )


def make_run(
    grid: dict[str, list[Any]] | list[dict[str, Any]] | None = None,
    n_prompts: int = 60,
    repeats: int = 2,
    *,
    right: Callable[[Cell], float] = usual,
    exact: bool = False,
    timed: bool = True,
    adapters: tuple[str, ...] = ("base",),
    confirm: float = 0.0,
    seed: int = 0,
    baseline: dict[str, Any] | None = None,
) -> FakeRun:
    """A run of a study with made-up answers.

    Args:
        grid: As in a study; default: `GRID`.
        n_prompts: At least 1.
        repeats: At least 1.
        right: Chance of a right answer in a cell, or with ``exact`` the score itself.
        exact: Every prompt of a cell scores ``right``, which must fit 0..1.
        timed: With latencies: 8 prompts, 3 rounds.
        adapters: Names.
        confirm: Share of the prompts held out.
        seed: Decides what is left to chance.
        baseline: Settings of the baseline; default: the study's rule.
    """
    rows = [
        {"id": f"sum-{i:03d}", "prompt": f"What is {i} + 1?", "target": str(i + 1)}
        for i in range(n_prompts)
    ]
    study = Study(
        name="made-up",
        model="scripted",
        prompts=PromptSet.from_records(rows, "sums"),
        grid=GRID if grid is None else grid,
        adapters=list(adapters),
        fixed={} if grid and "max_tokens" in grid else {"max_tokens": 48},
        repeats=repeats,
        scorers=["numeric"],
        split={"confirm": confirm},
        **({"baseline": baseline} if baseline else {}),
    )
    plan = study.plan()
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 0.2, n_prompts)
    luck = rng.random((n_prompts, repeats))
    parts = [
        _answers(plan, cell, order, right(cell), hard, luck, rng, exact=exact)
        for order, cell in enumerate(plan.cells)
    ]
    table = pd.concat(parts, ignore_index=True)
    scores = table[["cell_id", "prompt_id", "repeat"]].assign(
        scorer="numeric", scorer_version="1", value=table.pop("score"), reason=None
    )
    return FakeRun(plan, _cells(plan), table, scores, _latency(plan, table, rng, timed=timed))


def _cells(plan: Plan) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "cell_id": cell.cell_id,
            "label": cell.label,
            "name": cell.name,
            "adapter": cell.adapter,
            "template": cell.template,
            **{s: getattr(cell.params, s) for s in SETTINGS},
            "stop": None,
            "is_baseline": cell == plan.baseline,
        }
        for cell in plan.cells
    ).astype(dict.fromkeys(SETTINGS, float))


def _answers(  # noqa: PLR0917 - a table has many parts
    plan: Plan,
    cell: Cell,
    order: int,
    chance: float,
    hard: Any,
    luck: Any,
    rng: np.random.Generator,
    *,
    exact: bool,
) -> pd.DataFrame:
    """One row per answer of a cell."""
    n, k = len(plan.prompt_set), cell.rows(plan.study.repeats)
    luck = np.where(rng.random((n, k)) < 0.7, luck[:, :k], rng.random((n, k)))
    score = (luck < np.clip(chance + hard, 0.02, 0.98)[:, None]).astype(float)
    if exact:
        score = np.full((n, k), chance)
    heat = cell.params.temperature
    length = rng.poisson(9 + 8 * heat + 3 * (cell.params.repetition_penalty is not None), (n, k))
    length = np.clip(length + (rng.random((n, k)) < 0.03 + 0.12 * heat) * 60, 1, 48)
    stuck = rng.random((n, k)) < (0.2 if heat == 0 else 0.03)
    texts = [
        _text(int(size), bool(s), rng if heat else np.random.default_rng(i // k))
        for i, (size, s) in enumerate(zip(length.ravel(), stuck.ravel(), strict=True))
    ]
    finish = np.where(length.ravel() >= 48, "length", "stop")
    return pd.DataFrame(
        {
            "run_id": "made-up",
            "cell_id": cell.cell_id,
            "adapter": cell.adapter,
            "prompt_id": np.repeat([p.id for p in plan.prompt_set], k),
            "group": None,
            "repeat": np.tile(np.arange(k), n),
            "split": np.repeat([plan.splits[p.id] for p in plan.prompt_set], k),
            "text": texts,
            "n_output_tokens": length.ravel(),
            "finish_reason": finish,
            "score": score.ravel(),
            "order": order,
        }
    )


def _text(n_words: int, stuck: bool, rng: np.random.Generator) -> str:
    if stuck:
        return "I think it is so. " * max(3, n_words // 5)
    return " ".join(rng.choice(WORDS, n_words))


def _latency(
    plan: Plan, table: pd.DataFrame, rng: np.random.Generator, *, timed: bool
) -> pd.DataFrame:
    """Eight prompts, three rounds: 45 ms to the first token, 21 ms for each further one."""
    first = [p.id for p in plan.prompt_set][:8]
    rows = table[table["prompt_id"].isin(first) & table["repeat"].eq(0)] if timed else table[:0]
    parts = [rows.assign(round=r) for r in range(3)]
    out = pd.concat(parts, ignore_index=True)
    n = out["n_output_tokens"].to_numpy(float)
    ttft = 45 + rng.gamma(2, 2, len(out))
    tpot = np.where(n > 1, 21 + rng.normal(0, 0.5, len(out)), np.nan)
    total = ttft + np.nan_to_num(tpot) * (n - 1)
    columns = ["cell_id", "prompt_id", "repeat", "round", "n_output_tokens"]
    return out[columns].assign(warm=1, noisy=0, ttft_ms=ttft, tpot_ms=tpot, e2el_ms=total)
