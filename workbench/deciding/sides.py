"""Whose answers count, and on which prompts, so that no cell is better for easier ones, whatever is missing.

After a race the prompts that chose are no evidence: a cell is left because it did well on them, and looks still better than
it is. Only the prompts held out, which the finalists answered after it, measure what they gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench import stats

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pandas as pd

    from workbench.comparing.pairs import RunTables

MIN_SIDE: Final = 10
"""Fewest prompts (groups as one) to choose on, and to measure on; with fewer the split is not used, but after a race."""
WHOLE: Final = 0.9
"""Share of the most prompts that any cell was asked, from which a cell is a candidate."""
SCORED: Final = 0.75
"""A cell is left out if it has a score on less than this times the share of its prompts that the best scored cell has."""
SHARED: Final = 0.5
"""Prompts that are not scored in every candidate are left out if no more than this share of them is lost."""
MOST_TRAINED: Final = 0.5
"""An adapter trained on more than this share of the prompts is refused; of fewer, the prompts are left out."""
SELECT, CONFIRM = "select", "confirm"
NOT_HELD_OUT: Final = "No prompts were held out (`split: {confirm: 0.3}` in the study does that)"
NOT_ANSWERED: Final = "No finalist of the race answered prompts held out"


@dataclass(frozen=True, slots=True)
class Sides:
    """The answers by side of the split, and who may be picked.

    Attributes:
        select: Answers to choose on.
        confirm: Answers to measure on; None if there are none, or too few.
        why_not: Why there are none, in words; None if there are.
        raced: True if a tuner asked for the answers.
        candidates: Cells that may be picked.
        rivals: Those, and cells that were still in the race at its end.
        n_dropped: Cells that a tuner dropped, or that were asked clearly fewer prompts than others.
        unscored: Cells left out because clearly fewer of their answers have a score than of others'.
        refused: Adapters trained on most of the prompts, whose cells are no candidates.
        n_trained: Prompts left out because an adapter of the run was trained on them.
        n_left_out: Prompts that not every candidate was asked.
        n_unscored: Prompts that are not scored in every candidate.
    """

    select: pd.DataFrame
    confirm: pd.DataFrame | None
    why_not: str | None
    raced: bool
    candidates: frozenset[str]
    rivals: frozenset[str]
    n_dropped: int
    unscored: tuple[str, ...]
    refused: tuple[str, ...]
    n_trained: int
    n_left_out: int
    n_unscored: int


def sides(tidy: pd.DataFrame, run: RunTables, baseline: str) -> Sides:
    """The answers to choose on and those to measure on.

    Args:
        tidy: All answers with their scores, see `workbench.analysis.frame`.
        run: The run, for its cells and what its manifest says of race and adapters.
        baseline: Cell id; its answers are there though it be no candidate.
    """
    race = run.manifest.get("race") or {}
    raced = bool(race) or "tuning" in run.manifest
    out, refused = _trained(tidy, run)
    kept = tidy[~tidy["prompt_id"].isin(out)]
    select, confirm, why_not = _split(kept, raced=raced)
    barred = set(run.cells.loc[run.cells["adapter"].isin(refused), "cell_id"])
    candidates, rivals = _cells(kept, select, race, baseline)
    n_dropped = len(set(tidy["cell_id"]) - rivals - barred)
    candidates, rivals = candidates - barred, rivals - barred
    few = _unscored(select, rivals) | (set() if confirm is None else _unscored(confirm, candidates))
    candidates, rivals = candidates - few, rivals - few
    select, n_left_out, n_unscored = _shared(select, candidates)
    select = select[select["cell_id"].isin([*rivals, baseline])]
    if confirm is not None:
        there = set(_whole(confirm[confirm["cell_id"].isin(candidates)]))
        confirm, left_out, unscored = _shared(confirm, there)
        n_left_out, n_unscored = n_left_out + left_out, n_unscored + unscored
    return Sides(
        select=select,
        confirm=confirm,
        why_not=why_not,
        raced=raced,
        candidates=frozenset(candidates),
        rivals=frozenset(rivals),
        n_dropped=n_dropped,
        unscored=tuple(sorted(few)),
        refused=refused,
        n_trained=len(out),
        n_left_out=n_left_out,
        n_unscored=n_unscored,
    )


def clusters(rows: pd.DataFrame) -> int:
    """Independent prompts with a score: groups as one."""
    table = stats.prompt_means(rows[rows["score"].notna()])
    return len(table.prompts) if table.codes is None else int(table.codes.max(initial=-1)) + 1


def n_prompts(rows: pd.DataFrame) -> int:
    """Prompts with a score."""
    return int(rows.loc[rows["score"].notna(), "prompt_id"].nunique())


def _trained(tidy: pd.DataFrame, run: RunTables) -> tuple[set[str], tuple[str, ...]]:
    """Prompts to leave out because an adapter was trained on them, and adapters to refuse because too few would be left."""
    asked = set(tidy["prompt_id"])
    known = run.manifest.get("trained_on") or {}
    names = dict.fromkeys(run.cells["adapter"])
    seen = {str(name): set(known.get(name) or ()) & asked for name in names}
    out: set[str] = set()
    refused = []
    for name, ids in sorted(seen.items(), key=lambda item: (len(item[1]), item[0])):
        if len(out | ids) <= MOST_TRAINED * len(asked):
            out |= ids
        else:
            refused.append(name)
    return out, tuple(refused)


def _split(
    tidy: pd.DataFrame, *, raced: bool
) -> tuple[pd.DataFrame, pd.DataFrame | None, str | None]:
    """Answers to choose on, answers to measure on, and why there are none of these."""
    select, confirm = (tidy[tidy["split"].eq(name)] for name in (SELECT, CONFIRM))
    n = clusters(select), clusters(confirm)
    if raced:
        return (select, confirm, None) if n[1] else (select, None, NOT_ANSWERED)
    if tidy["split"].nunique() < 2:
        return tidy, None, NOT_HELD_OUT
    if min(n) < MIN_SIDE:
        why = (
            f"Too few prompts to choose on some and measure on others ({n[0]:,} and {n[1]:,}; "
            f"{MIN_SIDE} of each are needed)"
        )
        return tidy, None, why
    return select, confirm, None


def _cells(
    tidy: pd.DataFrame, select: pd.DataFrame, race: Mapping[str, Any], baseline: str
) -> tuple[set[str], set[str]]:
    """Who may be picked, and who can tie with the best."""
    finalists = set(race.get("finalists") or ())
    if not finalists:
        whole = {*_whole(select), baseline}
        return whole, whole
    left = set(tidy["cell_id"]) - set(race.get("dropped") or ())
    return finalists, left | finalists


def _whole(rows: pd.DataFrame) -> list[str]:
    """Cells that were asked about as many prompts as any."""
    asked = rows.groupby("cell_id")["prompt_id"].nunique()
    return [str(cell) for cell in asked.index[asked >= WHOLE * asked.max()]]


def _unscored(rows: pd.DataFrame, cells: Collection[str]) -> set[str]:
    """Cells of which a clearly smaller share of the prompts they were asked has a score than of another."""
    mine = rows[rows["cell_id"].isin(cells)]
    asked = mine.groupby("cell_id")["prompt_id"].nunique()
    scored = mine[mine["score"].notna()].groupby("cell_id")["prompt_id"].nunique()
    share = scored.reindex(asked.index, fill_value=0) / asked
    return {str(cell) for cell in share.index[share < SCORED * share.max()]}


def _shared(rows: pd.DataFrame, cells: Collection[str]) -> tuple[pd.DataFrame, int, int]:
    """Answers on the prompts that some cells all answered: (answers, prompts not asked in all, prompts not scored in all)."""
    mine = rows[rows["cell_id"].isin(cells)]
    n = mine["cell_id"].nunique()
    asked = mine.groupby("prompt_id")["cell_id"].nunique()
    kept = asked.index[asked == n]
    kept = kept if len(kept) > 1 else asked.index
    known = mine[mine["score"].notna() & mine["prompt_id"].isin(kept)]
    scored = known.groupby("prompt_id")["cell_id"].nunique()
    whole = scored.index[scored == n]
    left_out, unscored = len(asked) - len(kept), len(scored) - len(whole)
    if unscored and len(whole) >= SHARED * len(scored):
        return rows[rows["prompt_id"].isin(whole)], left_out, unscored
    return rows[rows["prompt_id"].isin(kept)], left_out, 0
