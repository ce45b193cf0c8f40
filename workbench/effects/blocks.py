"""Which answers may be averaged, so that groups of cells differ in nothing but what is compared.

A block is one prompt in one combination of the other settings. What groups (the levels of a setting, the squares of a map)
have in common are the blocks that every one of them has an answer to: an average over these is like with like, whichever
cells are missing and whichever rows have failed. If a group shares so little with the rest that all others could
be compared on more than twice as many blocks without it, it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from workbench.effects.values import CellValues
    from workbench.factors import Crossing

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]
    Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Blocks:
    """What groups are averaged over.

    Attributes:
        mask: Shape (rows of the crossing, prompts), what counts.
        kept: Shape (groups,), those that have something that counts.
        left_out: Shape (groups,), those with values that are not compared.
        n_used: Combinations of the other settings that count.
        n_others: Those that the groups shown were run with; if none is shown, those in the run.
        balanced: True if all groups shown are averaged over the same blocks.
        n_fewest: Fewest prompts that a combination which counts is averaged over; 0 if none does.
        n_most: Most.
    """

    mask: Flags
    kept: Flags
    left_out: Flags
    n_used: int
    n_others: int
    balanced: bool
    n_fewest: int
    n_most: int


def in_common(crossing: Crossing, known: Flags, *, every: bool = False) -> Blocks:
    """The blocks that groups have in common.

    Args:
        crossing: Groups, and the combinations they were run with.
        known: Shape (cells, prompts), where there is a value.
        every: No group is left out. Where they share less than half of what one of them has, each keeps all of its own,
            which is not balanced then.
    """
    scored = known[crossing.cell]
    usable = scored.any(1)
    n_groups = len(crossing.codes)
    places, slot = np.unique(
        (crossing.rest * n_groups + crossing.group)[usable], return_inverse=True
    )
    rest, group = np.divmod(places, n_groups)
    present = np.ones((len(places), known.shape[1]), bool)
    np.logical_and.at(present, slot, scored[usable])
    alive = np.bincount(group, minlength=n_groups) > 0
    kept, useful = alive, np.ones(len(places), bool)
    if not every:
        if alive.sum() > 1:  # what a single group was run with compares nothing
            useful = np.bincount(rest)[rest] > 1
        kept = _most_in_common(rest[useful], group[useful], present[useful], n_groups)
        useful &= kept[group]
    complete = np.zeros((int(crossing.rest.max(initial=-1)) + 1, known.shape[1]), np.int64)
    np.add.at(complete, rest[useful], present[useful])
    shared = (complete == kept.sum()) & (complete > 0)
    own = np.zeros(n_groups, np.int64)
    np.add.at(own, group, present.sum(1))
    balanced = bool(shared.any() and (not every or 2 * shared.sum() >= own.max()))
    mask = scored & (kept[crossing.group][:, None] & shared[crossing.rest] if balanced else every)
    kept = kept & (balanced or every)
    asked = crossing.rest[kept[crossing.group]] if kept.any() else crossing.rest
    counts = mask.sum(1)[mask.any(1)]
    return Blocks(
        mask,
        kept,
        alive & ~kept,
        int(shared.any(1).sum()) if balanced else 0,
        len(np.unique(asked)),
        balanced,
        int(counts.min(initial=known.shape[1])) if len(counts) else 0,
        int(counts.max(initial=0)),
    )


def _most_in_common(rest: Places, group: Places, present: Flags, n_groups: int) -> Flags:
    """Which groups to compare: all of them, unless leaving some out more than doubles what the others share.

    One group after the other is left out, each time the one without which the others share most.
    """
    kept = np.bincount(group, minlength=n_groups) > 0
    path: list[tuple[Flags, int]] = []
    rows = np.ones(len(rest), bool)
    while kept.any():
        count = np.zeros((int(rest.max()) + 1, present.shape[1]), np.int64)
        np.add.at(count, rest[rows], present[rows])
        path.append((kept.copy(), int((count == kept.sum()).sum())))
        if kept.sum() <= 2:
            break
        lone = count == kept.sum() - 1  # one group short of being shared
        held, size = np.zeros(n_groups, np.int64), np.zeros(n_groups, np.int64)
        np.add.at(held, group[rows], (lone[rest[rows]] & present[rows]).sum(1))
        np.add.at(size, group[rows], present[rows].sum(1))
        worst = min(np.flatnonzero(kept), key=lambda g: (held[g], size[g]))
        kept[worst] = False
        rows &= group != worst
    most = max((n for _, n in path), default=0)
    return next((groups for groups, n in path if n and 2 * n >= most), np.zeros(n_groups, bool))


@dataclass(frozen=True, slots=True)
class Averages:
    """The averages of groups.

    Attributes:
        point: Shape (groups,), NaN for a group without anything that counts.
        draws: Shape (draws, groups), resamples of the prompts.
        units: Prompts, or groups of related ones, that were resampled.
        cells: Shape (groups, cells), which cells count in each.
    """

    point: Floats
    draws: Floats
    units: int
    cells: Flags


def averages(values: CellValues, crossing: Crossing, blocks: Blocks) -> Averages:
    """Average each group over its blocks; several cells of one combination count as one between them."""
    n_groups, n_prompts = len(crossing.codes), values.x.shape[1]
    share = blocks.mask.astype(float)
    slot = np.unique(crossing.rest * n_groups + crossing.group, return_inverse=True)[1]
    if len(slot) and slot.max() + 1 < len(slot):
        times = np.zeros((int(slot.max()) + 1, n_prompts))
        np.add.at(times, slot, share)
        share /= np.maximum(times[slot], 1)
    sums, sizes = np.zeros((n_groups, n_prompts)), np.zeros((n_groups, n_prompts))
    np.add.at(sums, crossing.group, share * np.nan_to_num(values.x[crossing.cell]))
    np.add.at(sizes, crossing.group, share)
    n = sizes.sum(1)
    point = np.divide(sums.sum(1), n, out=np.full(n_groups, np.nan), where=n > 0)
    weights = np.zeros((n_groups, len(values.cells)))
    np.add.at(weights, (crossing.group, crossing.cell), share.sum(1))
    if len(values.given):
        weights /= np.maximum(n, 1)[:, None]
        draws = np.nan_to_num(values.given) @ weights.T
        lost = np.isnan(values.given).astype(float) @ (weights > 0).T.astype(float) > 0
        draws[lost | (n == 0)] = np.nan
        return Averages(point, draws, values.n_prompts or 0, weights > 0)
    draws, units = values.resampled(sums, sizes)
    return Averages(point, draws, units, weights > 0)
