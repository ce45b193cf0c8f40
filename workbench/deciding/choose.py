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

After a race only the prompts held out count, however few: the others decided, look by look, who is left, so neither a p-value
nor a bootstrap on them says what it says of a fixed sample. What cannot be told from the best is sought among all cells that the
race did not drop, not among its finalists alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from workbench import adapternotes, analysis, stats
from workbench.comparing.adaptertimes import latency as paired_times
from workbench.comparing.gains import Pair
from workbench.comparing.words import ALPHA
from workbench.deciding import limits as limiting
from workbench.deciding.bag import N_BOOT, out_of_bag
from workbench.deciding.sides import MIN_SIDE, Sides, n_prompts, sides
from workbench.errors import WorkbenchError
from workbench.settling import TOO_FEW, settling
from workbench.words import ranked

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd

    from workbench.comparing.pairs import RunTables
    from workbench.deciding.bag import OutOfBag
    from workbench.deciding.limits import Limit, Limited

__all__ = ["MIN_SIDE", "Choice", "Difference", "choose"]

_SHARED: Final = (
    "why_not",
    "raced",
    "candidates",
    "n_dropped",
    "unscored",
    "n_left_out",
    "n_unscored",
    "n_trained",
    "refused",
)
"""What a `Choice` has of `Sides`."""
Verdict = Literal["better", "confirmed", "tie", "top", "unconfirmed", "only", "none"]
"""How the choice came about.

``better``: the pick beats the baseline on the prompts that picked it. ``confirmed``: it does on those held out. ``tie``: the best
cannot be told from the baseline, which stays. ``top``: no cell scores above the baseline. ``unconfirmed``: the best beat the
baseline on the prompts that picked it and did not on those held out; the baseline stays. ``only``: the baseline is out, by
its limits, for want of scores or because its adapter was trained on the prompts. ``none``: no cell is known to meet the limits,
or none can be judged.
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference in quality from the baseline.

    Attributes:
        diff: Share, -1..1; NaN if no prompt is scored in both.
        lo: Lower bound of the 95 % interval, taken alone; NaN where there is too little to tell, or a race chose on these prompts.
        hi: Upper bound.
        p: p-value; with `n_compared` comparisons counted (Holm); NaN as above.
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
        raced: True if a tuner asked for the answers; then `n_dropped` cells are those it dropped.
        candidates: Cells that could be picked, limits aside; after a race its finalists.
        n_dropped: Cells that were asked clearly fewer prompts than the others; they are no candidates.
        unscored: Cells left out because clearly fewer of their answers have a score than of others'.
        n_left_out: Prompts of an unfinished run that not every candidate answered; they do not count.
        n_unscored: Prompts that could not be scored in every candidate; they do not count.
        n_trained: Prompts that an adapter of the run was trained on; they do not count.
        refused: Adapters trained on most of the prompts; their cells are no candidates.
        notes: What to know of the adapters of pick, best and baseline, and of what a race was for, a sentence each.
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
    raced: bool
    candidates: frozenset[str]
    n_dropped: int
    unscored: tuple[str, ...]
    n_left_out: int
    n_unscored: int
    n_trained: int
    refused: tuple[str, ...]
    notes: tuple[str, ...]
    needed: str | None


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
    found = sides(tidy, run, base)
    select = _summary(run, found.select, base, name, generator)
    confirm = None
    if found.confirm is not None:
        confirm = _summary(run, found.confirm, base, name, generator)
    checked = limiting.check(limits, run, select)
    rivals = _ordered(select, _allowed(select, found.rivals, checked), base)
    judged = _judge(run, found, rivals, base, generator)
    allowed = [cell for cell in rivals if cell in found.candidates]
    bag = None
    if confirm is None and allowed and not found.raced:
        bag = out_of_bag(stats.prompt_means(found.select), base, allowed, n_boot, generator)
    named = [c for c in dict.fromkeys((judged.pick, judged.top, base)) if c is not None]
    shared = {key: getattr(found, key) for key in _SHARED}
    return Choice(
        **judged._asdict(),
        **shared,
        baseline=base,
        objective=name,
        held_out=confirm is not None,
        n_prompts=(
            n_prompts(found.select),
            0 if found.confirm is None else n_prompts(found.confirm),
        ),
        bag=bag,
        select=select,
        confirm=confirm,
        limits=checked,
        times=_times(run, [(c, base) for c in named if c != base], generator),
        notes=_notes(run, found, named, name),
    )


def _notes(run: RunTables, found: Sides, cells: Sequence[str], objective: str) -> tuple[str, ...]:
    """What to know of the adapters of some cells and of those that were refused, and of a race for something else."""
    adapters = run.cells.set_index("cell_id")["adapter"]
    wanted = dict.fromkeys([*found.refused, *(str(adapters[cell]) for cell in cells)])
    parts = [found.select] if found.confirm is None else [found.select, found.confirm]
    prompts = {str(p) for part in parts for p in part["prompt_id"].unique()}
    said = adapternotes.notes(run.manifest, wanted, prompts)
    sought = str((run.manifest.get("tuning") or {}).get("objective", objective)).split(",")[0]
    if sought != objective:
        said.append(f"The run was tuned for {sought}: what it dropped may be good by {objective}.")
    return tuple(said)


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
    run: RunTables, sides: Sides, rivals: Sequence[str], base: str, rng: np.random.Generator
) -> _Judged:
    """The rule of the module docstring, for the cells that meet the limits, best first."""
    allowed = [cell for cell in rivals if cell in sides.candidates]
    if not allowed:
        return _Judged("none", None, None, (), None, None, None, None)
    top = allowed[0]
    among = sides.select[sides.select["cell_id"].isin([*allowed, base])]
    versus = _differences(among, base, rng, sides.n_dropped)
    if sides.raced:  # what a fixed sample would say
        versus = {c: replace(d, lo=np.nan, hi=np.nan, p=np.nan) for c, d in versus.items()}
    chosen, confirmed = versus.get(top), _held_out(sides, top, base, rng)
    alike = _alike(sides.select, rivals, top, rng)
    verdict = _verdict(top, base, allowed, chosen, confirmed)
    pick = base if verdict in ("tie", "top", "unconfirmed") else top
    if pick != base:
        others = [c for c in allowed if c in alike and c not in (top, base)]
        if verdict == "better":
            others = [c for c in others if c in versus and versus[c].better]
        elif verdict == "confirmed":
            others = [c for c in others if sides.raced and _better(sides, c, base, rng)]
        pick = _faster(run, top, others, rng)
    if pick not in (top, base):
        confirmed = _held_out(sides, pick, base, rng)
    hidden = {pick, base, top} if pick == base else {pick, base}
    ties = tuple(c for c in rivals if c in alike and c not in hidden)
    rival = ties[0] if top == base and ties else top
    needed = None
    if rival != base:
        needed = _needed(sides, verdict, (rival, base), chosen, confirmed)
    picked = None if pick == top else versus.get(pick)
    return _Judged(verdict, pick, top, ties, chosen, confirmed, picked, needed)


def _better(sides: Sides, cell: str, baseline: str, rng: np.random.Generator) -> bool:
    """Whether a cell beats the baseline on the prompts held out."""
    found = _held_out(sides, cell, baseline, rng)
    return found is not None and found.better


def _allowed(select: pd.DataFrame, cells: Collection[str], checked: Sequence[Limited]) -> list[str]:
    """Those of some cells that are scored and meet all limits."""
    known = select["quality"].notna() & select["cell_id"].isin(cells)
    scored = select.loc[known, "cell_id"]
    return [str(c) for c in scored if all(limited.status[str(c)] == "met" for limited in checked)]


def _ordered(select: pd.DataFrame, cells: Sequence[str], baseline: str) -> list[str]:
    """Cells, best first; of equal ones the baseline, then the faster.

    They are ordered by their difference from the baseline on the prompts scored in both, where there is one: the same order as
    that of their scores if all are scored on the same prompts.
    """
    mine = select[select["cell_id"].isin(cells)]
    diffs = mine["diff_vs_baseline"]
    worth = mine["quality"] if diffs.isna().any() else diffs
    return [str(c) for c in ranked(mine.assign(quality=worth.round(9)), baseline).index]


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
    sides: Sides, cell: str | None, baseline: str, rng: np.random.Generator
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


def _alike(
    frame: pd.DataFrame, cells: Sequence[str], top: str, rng: np.random.Generator
) -> set[str]:
    """The cells that cannot be told from the best (the best included).

    A search asks some cells fewer prompts than others: each is judged on those it was asked, among all that were asked them.
    """
    rows = frame[frame["cell_id"].isin(cells)]
    asked = {str(c): frozenset(p) for c, p in rows.groupby("cell_id")["prompt_id"]}
    alike = {top}
    for prompts in dict.fromkeys(asked.values()):
        field = [cell for cell in asked if asked[cell] >= prompts]
        if len(field) < 2:
            alike.update(field)
            continue
        mine = rows[rows["cell_id"].isin(field) & rows["prompt_id"].isin(prompts)]
        found = stats.confidence_set(mine, rng=rng)
        inside = found.loc[found["in_set"].eq(True), "cell_id"].astype(str)
        alike.update(cell for cell in inside if asked[cell] == prompts)
    return alike


def _needed(
    sides: Sides,
    verdict: Verdict,
    pair: tuple[str, str],
    chosen: Difference | None,
    confirmed: Difference | None,
) -> str | None:
    """How many more prompts would settle the best cell against the baseline, where that is not settled."""
    settled = verdict in ("none", "confirmed") or (chosen is None and verdict != "top")
    if settled or (verdict == "better" and (confirmed is None or confirmed.better)):
        return None
    if sides.confirm is None:
        n = 1 if chosen is None else max(chosen.n_compared, 1)
        return settling(sides.select, *pair, comparisons=n)
    said = settling(sides.confirm, *pair)
    more = " (Of prompts held out; those to choose on come on top.)"
    return f"{said}{more}" if said not in (None, TOO_FEW) else said


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
