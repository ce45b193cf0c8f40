"""How many prompts or repeats would settle a comparison.

The variance of a paired difference has two parts: ``between`` prompts (on some prompts one cell is better, on others the
other) and ``within`` a prompt (the same prompt drawn again comes out differently). With K repeats of n prompts the mean
difference has variance ``(between + within / K) / n``: more prompts shrink both parts, more repeats only the second. Both
are taken from the differences of matching repeats, which share their seed, so that what coupling saves is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import scipy.stats

from workbench.resample import by_cluster, upper
from workbench.stats.intervals import difference_spread
from workbench.stats.paired import index_of
from workbench.stats.table import prompt_means

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


def sample_size(
    difference: ArrayLike,
    between: ArrayLike,
    within: ArrayLike = 0.0,
    repeats: ArrayLike = 1,
    *,
    level: float = 0.95,
    power: float = 0.8,
) -> Floats:
    """Prompts needed so that a paired two-sided test finds a true difference.

    ``n = (z_(alpha/2) + z_beta)^2 (between + within / repeats) / difference^2`` (Miller 2024, section 5, written for the
    variance of the difference; his ``s_A^2/K_A + s_B^2/K_B``, for repeats that share no seeds, is a ``within`` with
    ``repeats=1``).

    Args:
        difference: The true mean difference, any sign.
        between: Variance between prompts of the true per-prompt difference.
        within: Variance of one repeat's difference around its prompt's.
        repeats: Repeats of every prompt, at least 1.
        level: 1 minus the risk of finding a difference that is not there (two-sided).
        power: Chance of finding one that is.

    Returns:
        Whole numbers as floats, in the broadcast shape, at least 2; infinite where the difference is 0.

    Raises:
        ValueError: ``level`` or ``power`` is outside 0..1, a variance is negative, or ``repeats`` below 1.

    >>> sample_size(0.03, 1 / 9)
    np.float64(969.0)
    """
    variance = _variance(between, within, repeats)
    d = np.abs(np.asarray(difference, float))
    effort = _z(level, power) ** 2 * variance
    n = np.divide(effort, d**2, out=np.full(np.broadcast(effort, d).shape, np.inf), where=d > 0)
    whole: Floats = np.maximum(np.ceil(n - 1e-9), 2.0)[()]
    return whole


def power(
    difference: ArrayLike,
    n: ArrayLike,
    between: ArrayLike,
    within: ArrayLike = 0.0,
    repeats: ArrayLike = 1,
    *,
    level: float = 0.95,
) -> Floats:
    """Chance that a paired two-sided test on ``n`` prompts finds a true difference; the inverse of `sample_size`.

    Normal approximation, both tails. Arguments and errors as for `sample_size`; ``n`` is the number of prompts.

    >>> round(float(power(0.03, 969, 1 / 9)), 2)
    0.8
    """
    variance = _variance(between, within, repeats)
    z = scipy.stats.norm.ppf(upper(level))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.abs(np.asarray(difference, float)) * np.sqrt(np.asarray(n, float) / variance)
    shift = np.nan_to_num(
        shift, nan=0.0, posinf=np.inf
    )  # no difference and no variance: nothing to find
    chance: Floats = (scipy.stats.norm.cdf(shift - z) + scipy.stats.norm.cdf(-shift - z))[()]
    return chance


def _variance(between: ArrayLike, within: ArrayLike, repeats: ArrayLike) -> Floats:
    """Variance of one prompt's mean difference."""
    b, w, k = (np.asarray(x, float) for x in (between, within, repeats))
    if (b < 0).any() or (w < 0).any():
        raise ValueError("between and within must be at least 0")
    if (k < 1).any():
        raise ValueError("repeats must be at least 1")
    variance: Floats = b + w / k
    return variance


def _z(level: float, power: float) -> float:
    """z_(alpha/2) + z_beta."""
    if not 0 < power < 1:
        raise ValueError(f"power must be greater than 0 and less than 1, got {power!r}")
    return float(scipy.stats.norm.ppf(upper(level)) + scipy.stats.norm.ppf(power))


# --------------------------------------------------------------------------- from the repeats of a run


def paired_variance(
    frame: pd.DataFrame, baseline: str, *, value: str = "score", cluster: str = "group"
) -> pd.DataFrame:
    """Between- and within-prompt variance of every cell's difference to the baseline.

    One-way analysis of variance of ``d_pk``, prompt p and repeat k, by moments: ``within`` is the pooled variance inside
    prompts, ``between = V - within * mean_p(1 / K_p)`` cut at 0, with V the variance of the per-prompt means (n times the
    squared clustered standard error, so related prompts count as they do in the test; with
    pseudo-prompts as in `paired_difference`, so that no difference seen is not taken for no variance). Repeats are matched by number; where one cell has a single answer
    (greedy, or all other repeats failed) it is compared with every repeat of the other.

    Args:
        frame: As for `prompt_means`, with a column ``repeat``; without it rows are matched in the order given.
        baseline: Cell id all others are compared with.
        value: The score column.
        cluster: The column of related prompts.

    Returns:
        One row per cell: cell_id, diff, n_prompts (scored in both), n_clusters (of them), repeats (harmonic mean), variance (V), between, within.
        NaN: all of them below two clusters; ``between`` and ``within`` when no prompt has two repeats. The baseline's own
        row is NaN.

    Raises:
        ValueError: The baseline is not in the frame, or a score is outside 0..1.
    """
    import pandas as pd  # noqa: PLC0415 - only the functions that take a frame need it

    table = prompt_means(frame, value, cluster)
    base = index_of(table, baseline)
    x = _repeats(frame, table.cells, table.prompts, value)
    single = np.where((table.rows == 1)[..., None], table.means[..., None], np.nan)
    x, y = np.where(np.isnan(x), single, x), np.where(np.isnan(x[base]), single[base], x[base])
    # A single answer stands for every repeat of the other cell; two single ones are one pair.
    alone = (table.rows <= 1) & (table.rows[base] <= 1)
    x[..., 1:] = np.where(alone[..., None], np.nan, x[..., 1:])
    x[..., 0] = np.where(alone, single[..., 0], x[..., 0])
    d = x - y
    many = (~np.isnan(d)).sum(2)
    means = np.divide(np.nansum(d, axis=2), many, out=np.full(many.shape, np.nan), where=many > 0)
    means[np.abs(means) < 1e-12] = 0.0
    n, free = (many > 0).sum(1), np.maximum(many - 1, 0).sum(1)
    squares = np.nansum((d - means[..., None]) ** 2, axis=(1, 2))
    within = np.divide(squares, free, out=np.full(len(n), np.nan), where=free > 0)
    share = np.divide(1.0, many, out=np.zeros(many.shape), where=many > 0).sum(1) / np.maximum(n, 1)
    largest = float(np.nanmax(np.abs(means), initial=0.0))
    end = 1.0 if table.binary.all() or largest == 0 else largest
    variance = n * difference_spread(means, table.codes, end).se ** 2
    variance[base] = within[base] = np.nan
    return pd.DataFrame(
        {
            "cell_id": table.cells,
            "diff": np.divide(
                np.nansum(means, axis=1), n, out=np.full(len(n), np.nan), where=n > 0
            ),
            "n_prompts": n,
            "n_clusters": (by_cluster((many > 0).astype(float), table.codes) > 0).sum(1),
            "repeats": np.divide(1.0, share, out=np.full(len(n), np.nan), where=share > 0),
            "variance": variance,
            "between": np.maximum(variance - within * share, 0.0),
            "within": np.where(np.isnan(variance), np.nan, within),
        }
    )


def _repeats(
    frame: pd.DataFrame, cells: NDArray[np.object_], prompts: NDArray[np.object_], value: str
) -> Floats:
    """Scores, shape (cells, prompts, repeats); NaN where there is none."""
    import pandas as pd  # noqa: PLC0415 - as above

    rows = frame[frame[value].notna()]
    cell = pd.Index(cells).get_indexer(pd.Index(rows["cell_id"]))
    prompt = pd.Index(prompts).get_indexer(pd.Index(rows["prompt_id"]))
    by_order = rows.groupby(["cell_id", "prompt_id"], sort=False).cumcount().to_numpy()
    turn = pd.factorize(rows["repeat"], sort=True)[0] if "repeat" in rows else by_order
    x = np.full((len(cells), len(prompts), int(turn.max(initial=0)) + 1), np.nan)
    x[cell, prompt, turn] = rows[value].to_numpy(float)
    return x


_POINT: Final = 0.01
"""Below a difference of a point, what it would take to find that very one tells nobody anything."""


class Way(NamedTuple):
    """What would settle one difference."""

    difference: float
    """On the scale of the score, positive."""
    prompts_more: int
    """Prompts to add at the present number of repeats; 0 = those there suffice."""
    repeats: int | None
    """Repeats of the present prompts that would do instead; None = none, however many, or unknown."""


@dataclass(frozen=True, slots=True)
class Needed:
    """What it would take to tell a cell from the baseline.

    Attributes:
        cell: Cell id.
        baseline: Cell id it is compared with.
        diff: The mean difference seen; NaN if there is none.
        n_prompts: Prompts scored in both.
        repeats: Repeats of each (harmonic mean).
        between: Variance between prompts; NaN if unknown (one repeat).
        within: Variance within a prompt; NaN if unknown.
        power: Chance of finding the difference that the numbers are for.
        least: For the smallest difference worth having; None where nothing can be said.
        seen: For the difference seen; None where nothing can be said, and for less than 0.05 points.
    """

    cell: str
    baseline: str
    diff: float
    n_prompts: int
    repeats: float
    between: float
    within: float
    power: float
    least: Way | None
    seen: Way | None

    @property
    def text(self) -> str:
        """One or two sentences for people."""
        if self.least is None:
            plural = "" if self.n_prompts == 1 else "s"
            return (
                f"How many prompts would settle it cannot be said from {self.n_prompts} "
                f"prompt{plural} scored in both."
            )
        chance = f"({100 * self.power:.3g} % power)"
        goal = f"a difference of {_points(self.least.difference)} {chance}"
        first = f"To settle {goal} {self._way(self.least)}."
        if self.least.prompts_more == 0:
            first = f"{self.n_prompts} prompts at {_count(self.repeats, 'repeat')} are enough for {goal}."
        if self.seen is None:
            return first
        if self.seen.prompts_more == 0:
            return f"{first} They are enough for the {_points(self.seen.difference)} seen, too."
        return (
            f"{first} If the true difference is the {_points(self.seen.difference)} seen, "
            f"{self._way(self.seen)}."
        )

    @property
    def short(self) -> str:
        """One sentence: for the difference seen, or where that is below a point, for the smallest worth having."""
        if self.least is None:
            return self.text
        way = self.seen if self.seen is not None and self.seen.difference >= _POINT else self.least
        what = "the" if way is self.seen else "a difference of"
        goal = f"{what} {_points(way.difference)}{' seen' if way is self.seen else ''}"
        chance = f"({100 * self.power:.3g} % power)"
        if way.prompts_more == 0:
            enough = f"{self.n_prompts:,} prompts at {_count(self.repeats, 'repeat')}"
            return f"{enough} are enough for {goal} {chance}: a true difference is likely smaller."
        more = f"About {_round_up(way.prompts_more):,} more prompt{'s' * (way.prompts_more != 1)}"
        if way.repeats is None:
            return f"{more} would settle {goal} {chance}."
        return f"{more}, or {way.repeats:,} repeats of the same {self.n_prompts:,}, would settle {goal} {chance}."

    def _way(self, way: Way) -> str:
        """What would do, as a clause."""
        prompts = "prompt" if way.prompts_more == 1 else "prompts"
        more = f"about {_round_up(way.prompts_more):,} {prompts} more would do at "
        more += _count(self.repeats, "repeat")
        if math.isnan(self.within):
            return f"{more}; what more repeats would do cannot be told from one"
        if way.repeats is None:
            return f"{more}; more repeats alone cannot"
        return f"{more}, or {way.repeats:,} repeats of the same {self.n_prompts:,} prompts"


def needed(
    frame: pd.DataFrame,
    cell: str,
    baseline: str,
    *,
    worth: float = 0.05,
    level: float = 0.95,
    power: float = 0.8,
    comparisons: int = 1,
    value: str = "score",
    cluster: str = "group",
) -> Needed:
    """How many more prompts, or repeats, would settle a cell against the baseline.

    For two true differences: the smallest worth having, and the one seen (which, if it was picked for being large, is
    likely smaller in truth, and then takes more). From `paired_variance` and the formula of `sample_size`, with Student's
    quantiles for z, since the variance is itself an estimate, and with 1 / (repeats * difference) prompts more for the steps
    in which an exact test moves.

    Args:
        frame: As for `prompt_means`, with a column ``repeat`` if there are repeats.
        cell: Cell id.
        baseline: Cell id it is compared with.
        worth: The smallest difference worth having, more than 0, on the scale of the score.
        level: 1 minus the risk of a false claim, two-sided.
        power: Chance of finding the difference if it is there.
        comparisons: Cells that are compared with the baseline, at least 1: the risk is shared between them, as Holm's
            method does for the first.
        value: The score column.
        cluster: The column of related prompts; more prompts are taken to come in groups of the same sizes.

    Raises:
        ValueError: A cell is not in the frame or is the baseline, ``worth`` is not positive, ``comparisons`` is below
            1, ``level`` or ``power`` is outside 0..1, or a score is outside 0..1.
    """
    if not worth > 0:
        raise ValueError(f"worth must be greater than 0, got {worth!r}")
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons!r}")
    if cell == baseline:
        raise ValueError(f"cell {cell!r} is the baseline itself")
    upper(level)
    shared = 1 - (1 - level) / comparisons
    _z(shared, power)  # refuses what is out of range
    pair = frame[frame["cell_id"].isin([cell, baseline])]
    if cell not in set(pair["cell_id"]):
        raise ValueError(f"cell {cell!r} is not in the frame")
    table = paired_variance(pair, baseline, value=value, cluster=cluster)
    row = table[table["cell_id"] == cell].drop(columns="cell_id").to_numpy(float)[0]
    diff, prompts, clusters, repeats, variance, between, within = map(float, row)
    n = int(prompts)
    # Student's quantiles: the variance is an estimate, from so many clusters.
    t = float(scipy.stats.t.ppf([upper(shared), power], max(clusters - 1, 1)).sum())

    def way(difference: float) -> Way:
        step = 1 / (repeats * difference)  # an exact test moves in steps of one answer
        more = max(math.ceil(t**2 * variance / difference**2 + step - 1e-9) - n, 0)
        room = n * (difference / t) ** 2 - between
        again = max(math.ceil(within / room), math.floor(repeats) + 1) if room > 0 else None
        return Way(difference, more, again)

    known, seen = not math.isnan(variance), abs(diff)
    return Needed(
        cell=cell,
        baseline=baseline,
        diff=diff,
        n_prompts=n,
        repeats=repeats,
        between=between,
        within=within,
        power=power,
        least=way(worth) if known else None,
        seen=way(seen) if known and seen >= 5e-4 else None,
    )


def _points(difference: float) -> str:
    """A difference of scores in points of a hundred."""
    return "1 point" if f"{100 * difference:.2g}" == "1" else f"{100 * difference:.2g} points"


def _count(number: float, noun: str) -> str:
    """``1 repeat``, ``2 repeats``, ``1.5 repeats``."""
    text = f"{number:.2g}"
    return f"{text} {noun}" if text == "1" else f"{text} {noun}s"


def _round_up(number: int) -> int:
    """To two significant digits, upward."""
    step: int = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // step) * step
