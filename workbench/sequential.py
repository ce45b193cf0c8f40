"""Always-valid tests: looked at after every prompt, still right, and exact for any sample size.

A test that may be looked at again and again needs a bound that holds at all looks together. Here evidence is the wealth
of a player who starts with 1 and bets, prompt by prompt, against the hypothesis. If the hypothesis is true no way of
betting makes money on average, so wealth ever reaches ``1 / alpha`` with probability at most ``alpha`` (Ville 1939;
Waudby-Smith and Ramdas 2023, "Estimating means of bounded random variables by betting"). Nothing is assumed about the
distribution but its range: small samples, differences that are mostly 0 (as coupled draws give) and skewed ones are all
covered, where bounds from an estimated variance are only right in the limit.

The unit is the prompt, or the group of related prompts. Prompts must come in an order that has nothing to do with the
scores, as `workbench.tuning.race.blocks` gives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["PairedTest", "Wealth", "rate_evidence", "stake"]

MAX_STAKE: Final = 0.9
"""Largest share of the wealth in one bet: one lost bet must not end the game."""
PRIOR_SQUARES: Final = 1.0
"""Sum of squared differences assumed before any are seen: keeps the first bets small."""
PRIOR_UNITS: Final = 5.0
"""Invented units at the allowed rate, before any are seen."""


def stake(total: ArrayLike, squares: ArrayLike) -> Floats:
    """Share of the wealth to bet on the next difference being positive.

    ``total / (squares + 1)``, cut to 0..0.9: the bet that would have made wealth grow fastest so far, to second order
    (aGRAPA in Waudby-Smith and Ramdas 2023, section B.3, with a prior). Any rule is valid that uses only the past.

    Args:
        total: Sum of the differences so far; any shape.
        squares: Sum of their squares, same shape.
    """
    total, squares = np.asarray(total, float), np.asarray(squares, float)
    return np.clip(total / (squares + PRIOR_SQUARES), 0.0, MAX_STAKE)


class Wealth:
    """Wealth of many games at once, each starting with 1.

    Attributes:
        log: Logarithm of the wealth now, shape ``shape``.
        peak: Its largest value so far: what the evidence is, since a level once reached stays reached.
    """

    def __init__(self, shape: int | tuple[int, ...] = ()) -> None:
        self.log: Floats = np.zeros(shape)
        self.peak: Floats = np.zeros(shape)

    def bet(self, x: ArrayLike, stakes: ArrayLike) -> None:
        """Multiply the wealth by ``1 + stakes * x``.

        Args:
            x: Outcomes in -1..1, one per game; expected to be at most 0 under the hypothesis. NaN = no outcome.
            stakes: 0..0.9, chosen without looking at ``x``.
        """
        self.log = self.log + np.log1p(np.asarray(stakes) * np.nan_to_num(np.asarray(x, float)))
        self.peak = np.maximum(self.peak, self.log)

    @property
    def evidence(self) -> Floats:
        """Largest wealth so far, >= 1, shape ``shape``; 20 rejects at the 5 % level, whenever one looked."""
        return np.exp(np.minimum(self.peak, 700.0))

    def rejects(self, alpha: float) -> NDArray[np.bool_]:
        """Where the hypothesis is rejected; true ones ever are with probability at most ``alpha`` (0..1)."""
        return np.asarray(self.peak >= -np.log(alpha))


class PairedTest(Wealth):
    """Always-valid one-sided test of "the mean difference is at most 0", for many pairs at once.

    >>> test = PairedTest()
    >>> test.update([1, 0, 1, 1, 0, 1, 1, 1, 1])
    >>> bool(test.rejects(0.05))
    True

    Args:
        shape: Of the pairs, for example ``(cells,)``.
    """

    def __init__(self, shape: int | tuple[int, ...] = ()) -> None:
        super().__init__(shape)
        self._total: Floats = np.zeros(shape)
        self._squares: Floats = np.zeros(shape)

    def update(self, x: ArrayLike) -> None:
        """Take in the next units.

        Args:
            x: Shape (units, *shape): differences in -1..1, one per prompt, or per group of prompts the sum divided by
                the size of the largest group. NaN = not observed, which changes nothing.

        Raises:
            ValueError: A difference is outside -1..1, or the shape does not fit.
        """
        values = np.asarray(x, float)
        if values.shape[1:] != self.log.shape or not values.ndim:
            raise ValueError(f"x must have shape (units, *{self.log.shape}), got {values.shape}")
        if np.nanmax(np.abs(values), initial=0.0) > 1:
            raise ValueError("differences must be at least -1 and at most 1")
        for unit in values:
            self.bet(unit, stake(self._total, self._squares))
            known = np.nan_to_num(unit)
            self._total = self._total + known
            self._squares = self._squares + known**2


def rate_evidence(shares: ArrayLike, allowed: float) -> float:
    """Evidence that a rate is above what is allowed, at every look.

    Wealth is multiplied by ``x r / p + (1 - x) (1 - r) / (1 - p)``, with x the unit's share, p the allowed rate and r the
    rate estimated from the units before it, but at least p. For 0/1 units this is the likelihood ratio of r to p.

    Args:
        shares: Shape (units,), each 0..1: 0 or 1 for one request, or the share of a prompt's requests. In the order they
            came, with the earlier ones unchanged from look to look. NaN is left out.
        allowed: The rate p, 0 < p < 1.

    Returns:
        Largest wealth so far, >= 1. Where the rate is at most ``allowed`` it ever reaches ``1 / alpha`` with probability at
        most ``alpha``.

    Raises:
        ValueError: A share is outside 0..1, or ``allowed`` is not between 0 and 1.

    >>> rate_evidence([0, 1, 0, 0], 0.5)
    1.0
    >>> rate_evidence([1, 1, 1, 1], 0.1) > 20
    True
    """
    x = np.asarray(shares, float)
    x = x[~np.isnan(x)]
    if not np.all((x >= 0) & (x <= 1)):
        raise ValueError("shares must be at least 0 and at most 1")
    if not 0 < allowed < 1:
        raise ValueError(f"allowed must be greater than 0 and less than 1, got {allowed!r}")
    before = np.concatenate([[0.0], np.cumsum(x)[:-1]])[: len(x)] + PRIOR_UNITS * allowed
    rate = np.maximum(before / (np.arange(len(x)) + PRIOR_UNITS), allowed)
    wealth = np.cumsum(np.log(x * rate / allowed + (1 - x) * (1 - rate) / (1 - allowed)))
    return float(np.exp(np.clip(wealth.max(initial=0.0), 0.0, 700.0)))
