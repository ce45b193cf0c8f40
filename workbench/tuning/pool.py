"""A race that cells may join late: each answers the same prompts in the same order, and is tested on those it answered.

As in `workbench.tuning.race`, the hypothesis of each cell is "it is the best one", and its player bets prompt by prompt that
another beats it. Here the opponent on a prompt is the cell that leads by the prompts *before* it, among all that have
answered it by then. So neither the opponent nor the stake knows the prompt, though the opponent may have answered it long
ago. Which cells there are does depend on it, since a search proposes cells near good ones; so the promise of a race,
to drop the best cell with probability ``alpha`` at most, is not proven here, but measured (docs/tuning.md).

What a cell is worth is its mean paired difference to the baseline, on the prompts that it answered, drawn towards the mean of
all cells as far as the noise calls for: few prompts prove little, and of many cells the luckiest looks best.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.sequential import Wealth, stake
from workbench.tuning.race import MIN_PROMPTS, Drop, Standing

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["Pool", "shrunk"]

LEAST_SD: Final = 0.02
"""Cells are taken to differ by at least so much, as a standard deviation of shares: or a few equal ones would stop a search."""


def shrunk(means: ArrayLike, variances: ArrayLike, n: ArrayLike) -> Floats:
    """Means drawn towards their middle as far as the noise calls for.

    ``m + t^2 / (t^2 + s^2 / n_i) (x_i - m)``, the posterior mean of a normal model, with s^2 the pooled variance of one unit, m
    the mean of all units and t^2 the variance of the x_i beyond what s^2 explains, at least `LEAST_SD` squared.

    Args:
        means: Shape (cells,).
        variances: Of the units of each cell, same shape.
        n: Units of each cell, at least 1.
    """
    x, v, size = (np.asarray(a, float) for a in (means, variances, n))
    if not x.size:
        return x
    noise = float((v * size).sum() / size.sum()) / size
    middle = float((x * size).sum() / size.sum())
    beyond = float(x.var(ddof=1) - noise.mean()) if x.size > 1 else 0.0
    spread = max(beyond, LEAST_SD**2)
    out: Floats = middle + spread / (spread + noise) * (x - middle)
    return out


class Pool:
    """Cells and what is known of them.

    Args:
        prompts: Ids in the order in which every cell is asked them.
        clusters: The group of each; the prompts of a group stand together.
        baseline: Its name; it is in from the start and never dropped.
        alpha: Evidence of ``1 / alpha`` drops a cell, 0..1; None: no cell is dropped for its scores.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        clusters: Sequence[str],
        baseline: str,
        alpha: float | None = 0.05,
    ) -> None:
        self.prompts, self.clusters = tuple(prompts), tuple(clusters)
        self.baseline, self.alpha = baseline, alpha
        self.cells: list[str] = []
        self._scores: list[Floats] = []
        self._asked: dict[str, int] = {}
        self._wealth: dict[str, Wealth] = {}
        self._drops: dict[str, Drop] = {}
        self._barred: frozenset[str] = frozenset()
        changes = [i for i in range(1, len(clusters)) if clusters[i] != clusters[i - 1]]
        self._units = list(zip([0, *changes], [*changes, len(clusters)], strict=True))
        self._largest = max(b - a for a, b in self._units)
        self.add(baseline)

    def add(self, cell: str) -> None:
        """Let a cell join."""
        self.cells.append(cell)
        self._scores.append(np.full(len(self.prompts), np.nan))
        self._asked[cell] = 0
        self._wealth[cell] = Wealth()

    @property
    def alive(self) -> tuple[str, ...]:
        """Cells still in, in the order in which they joined."""
        return tuple(cell for cell in self.cells if cell not in self._drops)

    @property
    def dropped(self) -> Mapping[str, Drop]:
        """Cells that left, in the order in which they did."""
        return dict(self._drops)

    @property
    def n_prompts(self) -> int:
        """Prompts asked so far."""
        return max(self._asked.values())

    def asked(self, cell: str) -> int:
        """How many of the prompts a cell was asked."""
        return self._asked[cell]

    def update(
        self, scores: Mapping[str, Sequence[float]], may_lead: Collection[str] | None = None
    ) -> tuple[Drop, ...]:
        """Take in what came back, and drop the cells that surely lose.

        Args:
            scores: Cell to its scores on its next prompts, whole groups, 0..1, higher is better; NaN = not scored.
            may_lead: Cells that others may lose to, by what was known before these scores; None = as before, at first all.

        Returns:
            The cells dropped.

        Raises:
            ValueError: A score is outside 0..1, or there are more than prompts left.
        """
        starts = {}
        for cell, values in scores.items():
            row, start = np.asarray(values, float), self._asked[cell]
            if np.any((row < 0) | (row > 1)) or start + len(row) > len(self.prompts):
                raise ValueError(f"cell {cell}: scores must be 0..1, one for each prompt left")
            self._scores[self.cells.index(cell)][start : start + len(row)] = row
            starts[cell] = start
            self._asked[cell] = start + len(row)
        if may_lead is not None:
            self._barred = frozenset(self.cells) - set(may_lead)
        if self.alpha is None:
            return ()
        lead = [c for c in self.alive if c not in self._barred] or [self.baseline]
        for start, stop in self._units:
            self._bet(
                [c for c, s in starts.items() if s <= start < self._asked[c]], lead, start, stop
            )
        return self._losers(starts)

    def drop(self, cell: str, why: str) -> Drop:
        """Take a cell out for another reason than its scores.

        Raises:
            ValueError: It is not in, or is the baseline.
        """
        if cell not in self.alive or cell == self.baseline:
            raise ValueError(f"{cell!r} cannot be dropped")
        self._drops[cell] = self._drop(cell, self.leader(), why)
        return self._drops[cell]

    def lost(self, cell: str) -> bool:
        """Whether a cell surely loses, though it may have been kept."""
        return self.alpha is not None and bool(self._wealth[cell].rejects(self.alpha))

    def worth(self) -> dict[str, float]:
        """Cell to what it is worth, -1..1: see the module; the baseline 0, a cell without a score is left out."""
        base = self._scores[0]
        diffs = {}
        for cell, row in zip(self.cells[1:], self._scores[1:], strict=True):
            d = row - base
            if (known := d[~np.isnan(d)]).size:
                diffs[cell] = known
        found = shrunk(
            [d.mean() for d in diffs.values()],
            [d.var() for d in diffs.values()],
            [d.size for d in diffs.values()],
        )
        return {self.baseline: 0.0, **dict(zip(diffs, found.tolist(), strict=True))}

    def leader(self) -> str:
        """The cell alive that is worth most, of those that may lead if there are any."""
        worth = self.worth()
        may = [c for c in self.alive if c not in self._barred] or self.alive
        return max(may, key=lambda cell: worth.get(cell, -math.inf))

    def standing(self) -> tuple[Standing, ...]:
        """All cells, the best first, those that left after those still in; differences are to the leader."""
        worth, leader = self.worth(), self.leader()
        lines = [
            Standing(
                cell,
                cell not in self._drops,
                self._asked[cell],
                float(np.nanmean(row)) if not np.isnan(row).all() else math.nan,
                self._diff(cell, leader)[0],
                float(self._wealth[cell].evidence),
            )
            for cell, row in zip(self.cells, self._scores, strict=True)
        ]
        return tuple(sorted(lines, key=lambda s: (not s.alive, -worth.get(s.cell, -2.0))))

    def to_dict(self) -> dict[str, Any]:
        """What is known, for JSON; `from_dict` makes the same pool."""
        rows = zip(self.cells, self._scores, strict=True)
        return {
            "prompts": list(self.prompts),
            "clusters": list(self.clusters),
            "baseline": self.baseline,
            "alpha": self.alpha,
            "cells": {
                c: [None if math.isnan(v) else v for v in row[: self._asked[c]].tolist()]
                for c, row in rows
            },
            "log_evidence": {cell: float(w.peak) for cell, w in self._wealth.items()},
            "dropped": {cell: list(drop) for cell, drop in self._drops.items()},
            "barred": sorted(self._barred),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Pool:
        """A pool as it was."""
        pool = cls(data["prompts"], data["clusters"], data["baseline"], data["alpha"])
        for cell, values in data["cells"].items():
            if cell != pool.baseline:
                pool.add(cell)
            pool._scores[-1][: len(values)] = np.array(values, float)
            pool._asked[cell] = len(values)
            pool._wealth[cell].peak = np.array(data["log_evidence"][cell])
        pool._drops = {cell: Drop(*drop) for cell, drop in data["dropped"].items()}
        pool._barred = frozenset(data["barred"])
        return pool

    def _bet(self, cells: Sequence[str], lead: Sequence[str], start: int, stop: int) -> None:
        """One group of prompts: each cell's player bets on the leader by the prompts before."""
        there = [c for c in lead if self._asked[c] >= stop]
        if not cells or not there:
            return
        table = dict(zip(self.cells, self._scores, strict=True))
        before = np.array([table[c][:start] for c in there])
        known = ~np.isnan(before)
        middle = np.nan_to_num(before).sum(0) / np.maximum(known.sum(0), 1)
        gaps = np.where(known, before - middle, 0.0).sum(1) / np.maximum(known.sum(1), 1)
        opponent = there[int(np.argmax(gaps))]
        for cell in cells:
            ahead = np.nan_to_num(table[opponent][:stop] - table[cell][:stop])
            x = [float(ahead[a:b].sum()) / self._largest for a, b in self._units if b <= stop]
            past = np.array(x[:-1])
            self._wealth[cell].bet(x[-1], stake(past.sum(), (past**2).sum()))

    def _losers(self, cells: Collection[str]) -> tuple[Drop, ...]:
        assert self.alpha is not None
        leader, gone = self.leader(), []
        for cell in cells:
            lost = cell in self.alive and bool(self._wealth[cell].rejects(self.alpha))
            diff, n = self._diff(cell, leader)
            if lost and cell != self.baseline and diff < 0 and n >= MIN_PROMPTS:
                why = f"loses to {leader}: {100 * diff:+.1f} points on {n} prompts"
                gone.append(self._drop(cell, leader, why))
        self._drops.update({drop.cell: drop for drop in gone})
        return tuple(gone)

    def _drop(self, cell: str, leader: str, why: str) -> Drop:
        evidence = float(self._wealth[cell].evidence)
        return Drop(cell, self._asked[cell], leader, self._diff(cell, leader)[0], evidence, why)

    def _diff(self, cell: str, other: str) -> tuple[float, int]:
        """Mean difference on the prompts both were scored on, and how many those are."""
        d = self._scores[self.cells.index(cell)] - self._scores[self.cells.index(other)]
        known = d[~np.isnan(d)]
        return (float(known.mean()) if known.size else math.nan), int(known.size)
