"""Racing: all cells answer the same blocks of prompts, and cells that surely lose leave early.

The hypothesis that is tested for each cell is "it is the best one". After every prompt (or group of prompts) one cell is
in the lead. On the next one, every other cell's player bets that the leader beats the cell (`workbench.sequential`). The
leader and the size of the bet come from the past alone, so if the cell is the best one, the bet cannot make money on
average, whoever leads. The best cell is therefore ever dropped with probability at most ``alpha``: over all looks, all
leaders and any number of cells, with no correction for their number, because no other test is made on its behalf.

A cell that is not the best may be dropped by right though the cell leading at that moment is worse than it: it lost to
the leaders before. Scores decide who leads, so a cell that breaks a limit must not lead (``may_lead``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from workbench.sequential import Wealth, stake

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from workbench.plan import Plan
    from workbench.prompts import Prompt

    Floats = NDArray[np.float64]

__all__ = ["Drop", "Race", "Standing", "block_sizes", "blocks", "largest_group"]

FIRST: Final = 10
"""Prompts in the first block."""
GROWTH: Final = 1.25
"""Each block is this much larger than the one before: fewer cells are left, and an engine wants full batches."""
MIN_PROMPTS: Final = 10
"""No cell is dropped for its scores on fewer prompts than these."""


class Drop(NamedTuple):
    """Why a cell left the race.

    Attributes:
        cell: Who.
        n_prompts: Prompts it was scored on.
        leader: Who led then.
        diff: Mean difference to that leader, cell - leader, -1..1, on the prompts both were scored on; NaN without any.
        evidence: Against its being the best, >= 1; at ``1 / alpha`` it is dropped.
        why: In words.
    """

    cell: str
    n_prompts: int
    leader: str
    diff: float
    evidence: float
    why: str


class Standing(NamedTuple):
    """One line of the table of a race; fields as in `Drop`, against the leader of now, and the cell's mean score, 0..1."""

    cell: str
    alive: bool
    n_prompts: int
    mean: float
    diff: float
    evidence: float


# -------------------------------------------------------------------------------------------- blocks


def block_sizes(n: int, first: int = FIRST, growth: float = GROWTH) -> tuple[int, ...]:
    """How many prompts each block has, ``n`` in all; the last one takes what is left.

    >>> block_sizes(60)
    (10, 12, 16, 20, 2)

    Raises:
        ValueError: ``first`` is below 1 or ``growth`` below 1.
    """
    if first < 1 or growth < 1:
        raise ValueError(f"first and growth must be at least 1, got {first} and {growth}")
    sizes: list[int] = []
    while (left := n - sum(sizes)) > 0:
        sizes.append(min(left, round(first * growth ** len(sizes))))
    return tuple(sizes)


def blocks(
    plan: Plan, first: int = FIRST, growth: float = GROWTH
) -> tuple[tuple[Prompt, ...], ...]:
    """The prompts of the select split, in the blocks in which a race asks them.

    The order is a hash of the study seed and the prompt's group, not the order of the file. A group stays together, so a
    block may be longer than `block_sizes` says, and the ones after it start later.

    Args:
        plan: The study's plan.
        first: Prompts in the first block, >= 1.
        growth: Factor from block to block, >= 1.
    """
    groups: dict[str, list[Prompt]] = {}
    for prompt in plan.prompt_set:
        if plan.splits[prompt.id] == "select":
            groups.setdefault(prompt.cluster, []).append(prompt)
    order = sorted(groups, key=lambda name: (_rank(plan.study.seed, name), name))
    ends = np.cumsum(block_sizes(sum(map(len, groups.values())), first, growth)).tolist()
    out: list[tuple[Prompt, ...]] = []
    block: list[Prompt] = []
    done = 0
    for name in order:
        block += groups[name]
        done += len(groups[name])
        if done >= ends[0]:
            out.append(tuple(block))
            block, ends = [], [end for end in ends if end > done]
    return tuple(out)


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(b"race:" + json.dumps([seed, name]).encode()).digest()


def largest_group(rounds: Sequence[Sequence[Prompt]]) -> int:
    """Most prompts in one group, over all blocks: what `Race` wants to know; 1 without groups."""
    return max(Counter(p.cluster for block in rounds for p in block).values(), default=1)


# ---------------------------------------------------------------------------------------------- race


class Race:
    """Which cells are still in, given the blocks so far; the same blocks give the same decisions.

    Args:
        cells: Names, at least one.
        baseline: Its name; never dropped.
        alpha: Probability at most, 0..1, with which the best cell is dropped for its scores.
        keep: More cells that are never dropped.
        min_prompts: No cell is dropped for its scores before it was scored on so many.
        largest_group: Most prompts in one group of related prompts, 1 if each is on its own. Differences are summed over
            a group and divided by it, so that every prompt weighs the same.

    Raises:
        ValueError: A name is unknown or there twice, or a number is outside its range.
    """

    def __init__(
        self,
        cells: Sequence[str],
        baseline: str,
        *,
        alpha: float = 0.05,
        keep: Collection[str] = (),
        min_prompts: int = MIN_PROMPTS,
        largest_group: int = 1,
    ) -> None:
        self.cells = tuple(cells)
        self.baseline, self.alpha, self.min_prompts = baseline, alpha, min_prompts
        self.largest_group = largest_group
        self.keep = frozenset({baseline, *keep})
        if len(set(self.cells)) < len(self.cells):
            raise ValueError("cells must have different names")
        if strange := sorted(self.keep - set(self.cells)):
            raise ValueError(f"{strange[0]!r} is not one of the {len(self.cells)} cells")
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be greater than 0 and less than 1, got {alpha!r}")
        if min_prompts < 1 or largest_group < 1:
            raise ValueError("min_prompts and largest_group must be at least 1")
        n = len(self.cells)
        self._place = {cell: i for i, cell in enumerate(self.cells)}
        self._wealth = Wealth(n)
        self._total = np.zeros((n, n))
        self._squares = np.zeros((n, n))
        self._shared = np.zeros((n, n))
        self._sums = np.zeros(n)
        self._may_lead = np.ones(n, bool)
        self._drops: dict[str, Drop] = {}
        self._prompts: set[str] = set()
        self._clusters: set[str] = set()
        self._history: list[dict[str, Any]] = []

    @property
    def alive(self) -> tuple[str, ...]:
        """Cells still in, in the order given; the baseline and ``keep`` are always among them."""
        return tuple(cell for cell in self.cells if cell not in self._drops)

    @property
    def dropped(self) -> Mapping[str, Drop]:
        """Cells that left, in the order in which they did."""
        return dict(self._drops)

    @property
    def n_prompts(self) -> int:
        """Prompts asked so far."""
        return len(self._prompts)

    @property
    def decided(self) -> bool:
        """True if only the leader is left, but for cells that are kept though they lost."""
        leader = self.leader()
        lost = self._wealth.rejects(self.alpha)
        return all(cell == leader or lost[self._place[cell]] for cell in self.alive)

    def leader(self) -> str:
        """The cell with the best scores among those alive that may lead; before any scores the first of them."""
        return self.cells[self._lead()]

    def update(
        self,
        prompts: Sequence[str],
        clusters: Sequence[str],
        scores: ArrayLike,
        *,
        may_lead: Collection[str] | None = None,
    ) -> tuple[Drop, ...]:
        """Take in a block and drop the cells that surely lose.

        Args:
            prompts: Ids of the block's prompts, none of them seen before.
            clusters: The group of each, a whole group in one block; a prompt on its own is its own group.
            scores: Shape (alive cells, prompts), the mean over repeats, 0..1, higher is better; NaN = not scored.
            may_lead: Cells that others may lose to from here on: those whose limits hold as far as is known before this
                block. None = all.

        Returns:
            The cells dropped by this block.

        Raises:
            ValueError: Shapes do not fit, a score is outside 0..1, a prompt or group was seen before, a group is larger
                than was said, or a name is unknown. The race is then unchanged.
        """
        block = np.asarray(scores, float)
        self._check(prompts, clusters, block)
        leading = self._allowed(may_lead)
        names = None if may_lead is None else [cell for cell in self.cells if cell in may_lead]
        self._may_lead = leading
        alive = np.array([self._place[cell] for cell in self.alive])
        columns: dict[str, list[int]] = {}
        for i, cluster in enumerate(clusters):
            columns.setdefault(cluster, []).append(i)
        for members in columns.values():
            self._advance(alive, block[:, members])
        self._prompts.update(prompts)
        self._clusters.update(clusters)
        rows = [[None if math.isnan(v) else v for v in row] for row in block.tolist()]
        event = {"prompts": list(prompts), "clusters": list(clusters), "scores": rows}
        self._history.append(event | {"may_lead": names})
        return self._losers()

    def drop(self, cell: str, why: str) -> Drop:
        """Take a cell out for another reason than its scores, such as a limit that it surely breaks.

        Raises:
            ValueError: The cell is not alive, or is always kept.
        """
        if cell not in self.alive:
            raise ValueError(f"{cell!r} is not one of the {len(self.alive)} cells still in")
        if cell in self.keep:
            raise ValueError(f"{cell!r} is always kept")
        self._history.append({"cell": cell, "why": why})
        self._drops[cell] = self._drop(self._place[cell], self._lead(), why)
        return self._drops[cell]

    def standing(self) -> tuple[Standing, ...]:
        """All cells, the best first, those that left after those still in."""
        lead = self._lead()
        lines = [
            Standing(
                cell,
                cell not in self._drops,
                n := int(self._shared[i, i]),
                float(self._sums[i] / n) if n else math.nan,
                self._diff(i, lead),
                float(self._wealth.evidence[i]),
            )
            for i, cell in enumerate(self.cells)
        ]
        # NaN (never scored) sorts last
        return tuple(sorted(lines, key=lambda s: (not s.alive, math.isnan(s.diff), -s.diff)))

    def to_dict(self) -> dict[str, Any]:
        """Everything that happened, for JSON; `from_dict` goes on from it."""
        return {
            "cells": list(self.cells),
            "baseline": self.baseline,
            "alpha": self.alpha,
            "keep": sorted(self.keep),
            "min_prompts": self.min_prompts,
            "largest_group": self.largest_group,
            "history": list(self._history),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Race:
        """Run the same race again: the same blocks in the same order give the same decisions."""
        settings = {key: value for key, value in data.items() if key != "history"}
        race = cls(settings.pop("cells"), settings.pop("baseline"), **settings)
        for event in data["history"]:
            if "cell" in event:
                race.drop(event["cell"], event["why"])
            else:
                scores = np.array(event["scores"], float)
                lead = event["may_lead"]
                race.update(event["prompts"], event["clusters"], scores, may_lead=lead)
        return race

    def _check(self, prompts: Sequence[str], clusters: Sequence[str], block: Floats) -> None:
        expected = (len(self.alive), len(prompts))
        if block.shape != expected or len(clusters) != len(prompts):
            raise ValueError(
                f"scores must have shape {expected} and clusters {len(prompts)} names, "
                f"got {block.shape} and {len(clusters)}"
            )
        known = block[~np.isnan(block)]
        if not np.all((known >= 0) & (known <= 1)):
            raise ValueError("scores must be at least 0 and at most 1")
        if len(set(prompts)) < len(prompts) or self._prompts & set(prompts):
            again = next(p for i, p in enumerate(prompts) if p in self._prompts or p in prompts[:i])
            raise ValueError(f"prompt {again!r} was in the race before")
        for cluster, size in Counter(clusters).items():
            if cluster in self._clusters:
                raise ValueError(f"group {cluster!r} was in an earlier block; keep groups together")
            if size > self.largest_group:
                raise ValueError(
                    f"group {cluster!r} has {size} prompts, more than largest_group={self.largest_group}"
                )

    def _allowed(self, may_lead: Collection[str] | None) -> NDArray[np.bool_]:
        if strange := sorted(set(may_lead or ()) - set(self.cells)):
            raise ValueError(f"{strange[0]!r} is not one of the {len(self.cells)} cells")
        return np.array([may_lead is None or cell in may_lead for cell in self.cells])

    def _advance(self, alive: NDArray[np.intp], scores: Floats) -> None:
        """One group of prompts: bet on the leader so far, then learn from it."""
        d = scores[:, None, :] - scores[None, :, :]
        x = np.nan_to_num(d).sum(-1) / self.largest_group
        lead = self._lead()
        if self._may_lead[lead]:
            outcome = np.zeros(len(self.cells))
            outcome[alive] = x[np.flatnonzero(alive == lead)[0]]
            self._wealth.bet(outcome, stake(self._total[lead], self._squares[lead]))
        pairs = np.ix_(alive, alive)
        self._total[pairs] += x
        self._squares[pairs] += x**2
        self._shared[pairs] += (~np.isnan(d)).sum(-1)
        self._sums[alive] += np.nansum(scores, axis=1)

    def _lead(self) -> int:
        """Best mean paired difference to the cells alive: the same as the best mean where no score is missing."""
        alive = np.array([cell not in self._drops for cell in self.cells])
        may = alive & self._may_lead
        shared = self._shared[:, alive]
        mean = (self._total[:, alive] / np.maximum(shared, 1)).sum(1) / alive.sum()
        mean[shared.sum(1) == 0] = -2.0  # never scored: behind everyone
        return int(np.argmax(np.where(may if may.any() else alive, mean, -np.inf)))

    def _diff(self, i: int, lead: int) -> float:
        shared = self._shared[i, lead]
        return float(self._total[i, lead] * self.largest_group / shared) if shared else math.nan

    def _drop(self, i: int, lead: int, why: str) -> Drop:
        n, evidence = int(self._shared[i, i]), float(self._wealth.evidence[i])
        return Drop(self.cells[i], n, self.cells[lead], self._diff(i, lead), evidence, why)

    def _losers(self) -> tuple[Drop, ...]:
        lead, lost = self._lead(), self._wealth.rejects(self.alpha)
        gone = []
        for cell in (cell for cell in self.alive if cell not in self.keep):
            i = self._place[cell]
            points = 100 * self._diff(i, lead)
            if lost[i] and points < 0 and self._shared[i, i] >= self.min_prompts:
                why = f"loses to {self.cells[lead]}: {points:+.1f} points on {self._shared[i, lead]:.0f} prompts"
                gone.append(self._drop(i, lead, why))
        self._drops.update({drop.cell: drop for drop in gone})
        return tuple(gone)
