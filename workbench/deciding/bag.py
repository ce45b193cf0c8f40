"""What picking the best gains on prompts that had no part in the pick, where none were held out: a bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench import stats
from workbench.resample import by_cluster, chunks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MIN_BAG: Final = 5
"""Fewest prompts (groups as one) for the bootstrap."""
N_BOOT: Final = 2_000


@dataclass(frozen=True, slots=True)
class OutOfBag:
    """What picking the highest score gains on prompts that did not pick.

    Attributes:
        seen: Difference of the picked cell from the baseline on the prompts that picked it, a share.
        gain: The same on the prompts left out.
        lo: Lower bound of the 95 % interval of ``gain``; NaN where there is too little to tell.
        hi: Upper bound.
        n_boot: Resamples.
    """

    seen: float
    gain: float
    lo: float
    hi: float
    n_boot: int

    @property
    def optimism(self) -> float:
        """How much of the difference was luck of the pick."""
        return self.seen - self.gain


def out_of_bag(
    table: stats.PromptMeans,
    baseline: str,
    candidates: Sequence[str],
    n_boot: int = N_BOOT,
    rng: np.random.Generator | int = 0,
) -> OutOfBag | None:
    """What picking the highest score gains over the baseline, measured on prompts that did not pick.

    ``gain = mean over i of mean over {b: i not in b} of d(picked(b), i)``, the leave-one-out bootstrap of Efron and Tibshirani
    (1997): b is a resample of the prompts (groups as a whole), picked(b) the candidate with the highest mean on b, d(c, i) the
    difference of c from the baseline on prompt i. A resample holds about 63 % of the prompts, so its pick is a little worse than
    one on all of them and the gain a little too small. The interval is that of the difference seen, its lower
    bound moved down by the optimism.

    Args:
        table: Scores by cell and prompt.
        baseline: Cell id.
        candidates: Cells that may be picked; the baseline can be among them and wins ties.
        n_boot: Resamples, at least 1.
        rng: Generator or seed.

    Returns:
        None with fewer than `MIN_BAG` prompts (groups as one), or where no prompt is scored in both.
    """
    generator = np.random.default_rng(rng)
    names = list(table.cells)
    codes = np.arange(len(table.prompts)) if table.codes is None else table.codes
    n_clusters = int(codes.max(initial=-1)) + 1
    if baseline not in names or n_clusters < MIN_BAG:
        return None
    base = names.index(baseline)
    order = sorted(map(names.index, candidates), key=lambda i: i != base)
    diffs = table.means[order] - table.means[base]
    sums, sizes = _sums(table.means[order], table.codes)
    best = int(_best(_divided(sums.sum(1), sizes.sum(1))))
    top = diffs[best]
    total, times = np.zeros(len(codes)), np.zeros(len(codes))
    for start, stop in chunks(n_boot, max(len(codes), len(order))):
        drawn = generator.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), stop - start)
        picks = _best(_divided(drawn @ sums.T, drawn @ sizes.T))
        gains = np.where(drawn[:, codes] == 0, diffs[picks], np.nan)
        total += np.nansum(gains, axis=0)
        times += (~np.isnan(gains)).sum(0)
    each = _divided(total, times)
    if np.isnan(each).all():
        return None
    seen, gain = float(np.nanmean(top)), float(np.nanmean(each))
    versus = stats.paired_difference(table, baseline, generator, n_flips=1).set_index("cell_id")
    lo, hi = (float(versus[c][names[order[best]]]) for c in ("diff_lo", "diff_hi"))
    return OutOfBag(seen, gain, lo + min(gain - seen, 0.0), hi, n_boot)


def _sums(x: Floats, codes: NDArray[np.intp] | None) -> tuple[Floats, Floats]:
    """Sums and counts of what is known, by cluster."""
    known = (~np.isnan(x)).astype(float)
    return by_cluster(np.nan_to_num(x), codes), by_cluster(known, codes)


def _divided(a: Floats, b: Floats) -> Floats:
    out: Floats = np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)
    return out


def _best(means: Floats) -> Any:
    """Position of the highest mean over the last axis, the first of equal ones."""
    return np.argmax(np.round(np.nan_to_num(means, nan=-1.0), 9), axis=-1)
