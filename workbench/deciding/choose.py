"""Which cell to use: chosen on some prompts, measured on others.

The highest of many scores is too high on average, even if all cells are equal. So the choice is made on the prompts that the
study does not hold out, and its gain over the baseline is measured on those it does. Where none are held out, or too few, the gain
is estimated by a bootstrap: in each resample of the prompts the best cell is picked, and measured on the prompts that
the resample left out.

The rule. Of the cells that meet the limits, the one with the highest score is compared with the baseline: on the prompts that
picked it with all comparisons counted (Holm), and on the held-out ones alone. It takes the baseline's place if the first shows
it better and the second does not say otherwise, or if the second shows it better by itself: less than 5 in 100 runs
in which nothing is better end with a change. Of several that beat the baseline and cannot be told from the best, one that is
faster beyond chance is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from workbench import analysis, stats
from workbench.comparing.adaptertimes import latency as paired_times
from workbench.comparing.gains import Pair
from workbench.comparing.words import ALPHA
from workbench.deciding import limits as limiting
from workbench.deciding.bag import N_BOOT, out_of_bag
from workbench.errors import WorkbenchError
from workbench.words import ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from workbench.comparing.pairs import RunTables
    from workbench.deciding.bag import OutOfBag
    from workbench.deciding.limits import Limit, Limited

Verdict = Literal["better", "confirmed", "tie", "top", "unconfirmed", "only", "none"]
"""How the choice came about.

``better``: the pick beats the baseline on the prompts that picked it. ``confirmed``: it does on those held out. ``tie``: the best
cannot be told from the baseline, which stays. ``top``: no cell scores above the baseline. ``unconfirmed``: the best beat the
baseline on the prompts that picked it and did not on those held out; the baseline stays. ``only``: the baseline is out, by
its limits or for want of a score. ``none``: no cell is known to meet the limits.
"""
MIN_SIDE: Final = 10
"""Fewest prompts (groups as one) to choose on, and to measure on; with fewer the split is not used."""
WHOLE: Final = 0.9
"""Share of the most prompts that any cell was asked, from which a cell is a candidate."""
SELECT, CONFIRM = "select", "confirm"
NOT_HELD_OUT: Final = "No prompts were held out (`split: {confirm: 0.3}` in the study does that)"


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference in quality from the baseline.

    Attributes:
        diff: Share, -1..1; NaN if no prompt is scored in both.
        lo: Lower bound of the 95 % interval, taken alone; NaN where there is too little to tell.
        hi: Upper bound.
        p: p-value; with `n_compared` comparisons counted (Holm).
        n: Prompts scored in both.
        n_compared: Cells compared with the baseline on these prompts.
    """

    diff: float
    lo: float
    hi: float
    p: float
    n: int
    n_compared: int

    @property
    def better(self) -> bool:
        """True if it is above 0 beyond chance."""
        return bool(self.p < ALPHA and self.lo > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen, and what is known of it.

    Attributes:
        verdict: How it came about.
        pick: Cell id; None if no cell is known to meet the limits.
        baseline: Cell id.
        top: Cell id of the highest score among those that may be picked; None as above.
        ties: Cells that cannot be told from the best, best first, without pick and baseline, and without `top`
            where the baseline is the pick.
        objective: Name of the scorer.
        held_out: True if the choice was measured on held-out prompts.
        why_not: Why it was not, in words; None if it was.
        n_prompts: Prompts that chose, and prompts held out (0 if not used).
        chosen: `top` against the baseline on the prompts that chose; None if it is the baseline or there is none.
        confirmed: `pick`, or where that is the baseline `top`, against the baseline on the prompts held out.
        picked: `pick` against the baseline on the prompts that chose, where it is another than `top`.
        bag: The bootstrap, where no prompts are held out.
        select: Summary on the prompts that chose.
        confirm: Summary on those held out, or None.
        limits: The limits, and which cells meet them.
        times: Change of latency from the baseline for `top` and `pick`, by cell id: see `workbench.comparing.adaptertimes`.
        n_left_out: Prompts of an unfinished run that not every cell answered; they do not count.
        n_dropped: Cells that were asked clearly fewer prompts than the others; they are no candidates.
        needed: How many more prompts would settle what is not settled, in words; None if there is nothing to settle.
    """

    verdict: Verdict
    pick: str | None
    baseline: str
    top: str | None
    ties: tuple[str, ...]
    objective: str
    held_out: bool
    why_not: str | None
    n_prompts: tuple[int, int]
    chosen: Difference | None
    confirmed: Difference | None
    picked: Difference | None
    bag: OutOfBag | None
    select: pd.DataFrame = field(repr=False)
    confirm: pd.DataFrame | None = field(repr=False)
    limits: tuple[Limited, ...]
    times: dict[str, dict[str, float]] = field(repr=False)
    n_left_out: int
    n_dropped: int
    needed: str | None


@dataclass(frozen=True, slots=True)
class _Sides:
    """The answers by side of the split."""

    select: pd.DataFrame
    confirm: pd.DataFrame | None
    why_not: str | None
    whole: frozenset[str]
    n_dropped: int
    n_left_out: int


class _Judged(NamedTuple):
    """The parts of a `Choice` that the rule decides."""

    verdict: Verdict
    pick: str | None
    top: str | None
    ties: tuple[str, ...]
    chosen: Difference | None
    confirmed: Difference | None
    picked: Difference | None
    needed: str | None


def choose(
    run: RunTables,
    limits: Sequence[Limit] = (),
    *,
    objective: str | None = None,
    baseline: str | None = None,
    n_boot: int = N_BOOT,
    rng: np.random.Generator | int = 0,
) -> Choice:
    """Choose a cell of a run.

    Args:
        run: A run, finished or not.
        limits: What the cell must keep to.
        objective: Name of the scorer that counts; default, and as "quality": the run's primary one.
        baseline: Cell id or label; default: the run's.
        n_boot: Resamples, at least 1, where no prompts are held out.
        rng: Generator or seed of sign flips and bootstrap.

    Raises:
        StoreError: There is no such cell.
        WorkbenchError: No such scorer or metric, or nothing is scored.
    """
    generator = np.random.default_rng(rng)
    base, name = run.cell_id(baseline), run.primary if objective in (None, "quality") else objective
    if name is None:
        raise WorkbenchError(
            "the run has no scores; score it first: workbench score RUN --scorers ..."
        )
    tidy = analysis.frame(run.generations, run.scores, run.cells, name)
    if tidy["score"].isna().all():
        raise WorkbenchError(
            f"no answer of this run is scored by {name!r}: there is nothing to choose by"
        )
    sides = _sides(tidy, base)
    select = _summary(run, sides.select, base, name, generator)
    confirm = None
    if sides.confirm is not None:
        confirm = _summary(run, sides.confirm, base, name, generator)
    checked = limiting.check(limits, run, select)
    allowed = _ordered(select, _allowed(select, sides.whole, checked), base)
    judged = _judge(run, sides, allowed, base, generator)
    bag = None
    if confirm is None and allowed:
        bag = out_of_bag(stats.prompt_means(sides.select), base, allowed, n_boot, generator)
    moved = [c for c in dict.fromkeys((judged.pick, judged.top)) if c not in (None, base)]
    return Choice(
        **judged._asdict(),
        baseline=base,
        objective=name,
        held_out=confirm is not None,
        why_not=sides.why_not,
        n_prompts=(_prompts(sides.select), 0 if sides.confirm is None else _prompts(sides.confirm)),
        bag=bag,
        select=select,
        confirm=confirm,
        limits=checked,
        times=_times(run, [(str(c), base) for c in moved], generator),
        n_left_out=sides.n_left_out,
        n_dropped=sides.n_dropped,
    )


# ------------------------------------------------------------------------------------------------ the prompts


def _sides(tidy: pd.DataFrame, baseline: str) -> _Sides:
    """The answers to choose on and those to measure on."""
    n_cells = tidy["cell_id"].nunique()
    tidy, whole, n_left_out = _comparable(tidy, baseline)
    rest = whole, n_cells - len(whole), n_left_out
    sides = {name: tidy[tidy["split"].eq(name)] for name in (SELECT, CONFIRM)}
    if tidy["split"].nunique() < 2:
        return _Sides(tidy, None, NOT_HELD_OUT, *rest)
    few = {name: _clusters(rows) for name, rows in sides.items()}
    if min(few.values()) < MIN_SIDE:
        why = (
            f"Too few prompts to choose on some and measure on others ({few[SELECT]:,} and {few[CONFIRM]:,}; "
            f"{MIN_SIDE} of each are needed)"
        )
        return _Sides(tidy, None, why, *rest)
    return _Sides(sides[SELECT], sides[CONFIRM], None, *rest)


def _comparable(tidy: pd.DataFrame, baseline: str) -> tuple[pd.DataFrame, frozenset[str], int]:
    """Only what can be compared, so that no cell is better for easier prompts: (answers, cells, prompts left out).

    Cells that were asked clearly fewer prompts than others are no candidates (a tuner has dropped them); of the others, prompts
    that not each was asked are left out (the run is not finished).
    """
    asked = tidy.groupby("cell_id")["prompt_id"].nunique()
    whole = {str(c) for c in asked.index[asked >= WHOLE * asked.max()]} | {baseline}
    rows = tidy[tidy["cell_id"].isin(whole)]
    cells = rows.groupby("prompt_id")["cell_id"].nunique()
    shared = cells.index[cells == rows["cell_id"].nunique()]
    kept = rows[rows["prompt_id"].isin(shared)] if len(shared) > 1 else rows
    return kept, frozenset(whole), len(cells) - kept["prompt_id"].nunique()


def _clusters(rows: pd.DataFrame) -> int:
    """Independent prompts with a score: groups as one."""
    table = stats.prompt_means(rows[rows["score"].notna()])
    return len(table.prompts) if table.codes is None else int(table.codes.max()) + 1


def _prompts(rows: pd.DataFrame) -> int:
    return int(rows.loc[rows["score"].notna(), "prompt_id"].nunique())


def _summary(
    run: RunTables, rows: pd.DataFrame, baseline: str, name: str, rng: np.random.Generator
) -> pd.DataFrame:
    """The summary over some prompts."""
    kept = run.generations[run.generations["prompt_id"].isin(rows["prompt_id"])]
    return analysis.summary(
        kept, run.scores, run.latency, run.cells, baseline, primary=name, rng=rng, n_boot=1
    )


# ------------------------------------------------------------------------------------------------- the choice


def _judge(
    run: RunTables, sides: _Sides, allowed: Sequence[str], base: str, rng: np.random.Generator
) -> _Judged:
    """The rule of the module docstring, for the cells that may be picked, best first."""
    if not allowed:
        return _Judged("none", None, None, (), None, None, None, None)
    top = allowed[0]
    rows = sides.select
    among = rows[rows["cell_id"].isin([*allowed, base])]
    versus = _differences(among, base, rng, sides.n_dropped)
    chosen, confirmed = versus.get(top), _held_out(sides, top, base, rng)
    alike = _alike(rows[rows["cell_id"].isin(allowed)], allowed, rng)
    verdict = _verdict(top, base, allowed, chosen, confirmed)
    pick = base if verdict in ("tie", "top", "unconfirmed") else top
    if verdict in ("better", "only"):
        rivals = [c for c in alike if verdict == "only" or (c in versus and versus[c].better)]
        pick = _faster(run, top, rivals, rng)
    if pick not in (top, base):
        confirmed = _held_out(sides, pick, base, rng)
    hidden = {pick, base, top} if pick == base else {pick, base}
    ties = tuple(c for c in allowed if c in alike and c not in hidden)
    rival = ties[0] if top == base and ties else top
    needed = None
    if rival != base:
        needed = _needed(sides, verdict, (rival, base), chosen, confirmed)
    picked = None if pick == top else versus.get(pick)
    return _Judged(verdict, pick, top, ties, chosen, confirmed, picked, needed)


def _allowed(select: pd.DataFrame, whole: frozenset[str], checked: Sequence[Limited]) -> list[str]:
    """The scored cells that meet all limits."""
    known = select["quality"].notna() & select["cell_id"].isin(whole)
    scored = select.loc[known, "cell_id"]
    return [str(c) for c in scored if all(limited.status[str(c)] == "met" for limited in checked)]


def _ordered(select: pd.DataFrame, cells: Sequence[str], baseline: str) -> list[str]:
    """Cells, best first; of equal ones the baseline, then the faster."""
    mine = select[select["cell_id"].isin(cells)]
    return [str(c) for c in ranked(mine.assign(quality=mine["quality"].round(9)), baseline).index]


def _differences(
    frame: pd.DataFrame, baseline: str, rng: np.random.Generator, n_dropped: int = 0
) -> dict[str, Difference]:
    """Every cell of a frame against the baseline, those dropped before counted; nothing if the baseline has no answer."""
    if not frame["cell_id"].eq(baseline).any():
        return {}
    found = stats.paired_difference(frame, baseline, rng)
    adjusted = stats.adjust([*found["p_value"], *[1.0] * n_dropped])
    n = int(found["p_value"].notna().sum()) + n_dropped
    return {
        str(row["cell_id"]): Difference(
            diff=float(row["diff"]),
            lo=float(row["diff_lo"]),
            hi=float(row["diff_hi"]),
            p=float(p),
            n=int(row["n_pairs"]),
            n_compared=n,
        )
        for row, p in zip(found.to_dict("records"), adjusted, strict=False)
        if row["cell_id"] != baseline
    }


def _held_out(
    sides: _Sides, cell: str | None, baseline: str, rng: np.random.Generator
) -> Difference | None:
    """One cell against the baseline on the prompts held out."""
    if sides.confirm is None or cell in (None, baseline):
        return None
    pair = sides.confirm[sides.confirm["cell_id"].isin([cell, baseline])]
    return _differences(pair, baseline, rng).get(str(cell))


def _verdict(
    top: str,
    baseline: str,
    allowed: Sequence[str],
    chosen: Difference | None,
    confirmed: Difference | None,
) -> Verdict:
    """The rule of the module docstring."""
    if top == baseline:
        return "top"
    if baseline not in allowed:
        return "only"
    if confirmed is not None and confirmed.better:
        return "better" if chosen is not None and chosen.better else "confirmed"
    if chosen is None or not chosen.better:
        return "tie"
    return "unconfirmed" if confirmed is not None and not confirmed.diff > 0 else "better"


def _alike(frame: pd.DataFrame, cells: Sequence[str], rng: np.random.Generator) -> set[str]:
    """The cells that cannot be told from the best (the best included)."""
    if len(cells) < 2:
        return set(cells)
    found = stats.confidence_set(frame, rng=rng)
    return {cells[0], *found.loc[found["in_set"].eq(True), "cell_id"].astype(str)}


def _needed(
    sides: _Sides,
    verdict: Verdict,
    pair: tuple[str, str],
    chosen: Difference | None,
    confirmed: Difference | None,
) -> str | None:
    """How many more prompts would settle the best cell against the baseline, where that is not settled."""
    settled = verdict in ("none", "confirmed") or (chosen is None and verdict != "top")
    if settled or (verdict == "better" and (confirmed is None or confirmed.better)):
        return None
    rows = sides.select if sides.confirm is None else sides.confirm
    scored = rows[rows["score"].notna()]
    if not set(pair) <= set(scored["cell_id"]):
        return None
    if sides.confirm is None:
        return str(stats.needed(scored, *pair, comparisons=chosen.n_compared if chosen else 1).text)
    said = stats.needed(scored, *pair).text
    return f"{said} (Of prompts held out; those to choose on come on top.)"


def _faster(run: RunTables, top: str, rivals: Sequence[str], rng: np.random.Generator) -> str:
    """Of the best cell and others like it the fastest that is faster than the best beyond chance, else the best."""
    times = _times(run, [(c, top) for c in rivals if c != top], rng)
    sure = {
        c: t["e2el_ms_ratio"] for c, t in times.items() if t.get("e2el_ms_ratio_hi", np.nan) < 1
    }
    return min(sure, key=lambda c: sure[c], default=top)


def _times(
    run: RunTables, pairs: Sequence[tuple[str, str]], rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Latency of cells beside others', paired over requests of the same prompt and round; only where both were timed."""
    wanted = [Pair("", cell, other, "") for cell, other in pairs]
    if not wanted or not len(run.latency):
        return {}
    found = paired_times(run, wanted, rng, 0.95)
    rows = found[found["cell_id"].notna() & found["n_timed"].gt(0)]
    numbers = rows.drop(columns=["adapter", "baseline_id", "settings"]).to_dict("records")
    return {
        str(row["cell_id"]): {str(k): float(v) for k, v in row.items() if k != "cell_id"}
        for row in numbers
    }
