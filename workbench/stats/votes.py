"""Repeats of one prompt taken together: pass@k, all k right, and the majority's answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.stats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Rng = np.random.Generator | int


def pass_at_k(n: ArrayLike, c: ArrayLike, k: ArrayLike) -> Floats:
    """Chance that at least one of ``k`` answers is right, from ``c`` right ones among ``n``: ``1 - C(n-c, k) / C(n, k)``.

    Unbiased for k independent draws (Chen et al. 2021, equation 1); ``1 - (1 - c/n)^k`` is not.

    Args:
        n: Answers per prompt; any shape.
        c: Right ones, 0..n; broadcast.
        k: How many one would draw, at least 1; broadcast. Where it exceeds ``n`` the result is NaN.

    Returns:
        Shares in 0..1, in the broadcast shape. Average them over prompts.

    Raises:
        ValueError: ``c`` is outside 0..n, ``k`` below 1, or one of the three not whole.

    >>> pass_at_k(10, [0, 3, 10], 5).round(3).tolist()
    [0.0, 0.917, 1.0]
    """
    n, c, k = _counts(n, c, k)
    none = scipy.stats.hypergeom.pmf(0, n, c, np.minimum(k, n))
    p: Floats = np.where(k <= n, np.clip(1 - none, 0.0, 1.0), np.nan)[()]
    return p


def pass_hat_k(n: ArrayLike, c: ArrayLike, k: ArrayLike) -> Floats:
    """Chance that all of ``k`` answers are right, from ``c`` right ones among ``n``: ``C(c, k) / C(n, k)``.

    Unbiased for k independent draws. Arguments, result and errors as for `pass_at_k`.

    >>> pass_hat_k(10, [3, 5, 10], 5).round(3).tolist()
    [0.0, 0.004, 1.0]
    """
    n, c, k = _counts(n, c, k)
    draws = np.minimum(k, n)
    every = scipy.stats.hypergeom.pmf(draws, n, c, draws)
    p: Floats = np.where(k <= n, np.clip(every, 0.0, 1.0), np.nan)[()]
    return p


def _counts(*given: ArrayLike) -> tuple[NDArray[np.int64], ...]:
    """The three counts, checked and broadcast."""
    arrays = np.broadcast_arrays(*(np.asarray(x, float) for x in given))
    n, c, k = (np.rint(x).astype(np.int64) for x in arrays)
    if any((x != whole).any() for x, whole in zip(arrays, (n, c, k), strict=True)):
        raise ValueError("n, c and k must be whole numbers")
    if (c < 0).any() or (c > n).any():
        raise ValueError("c must be at least 0 and at most n")
    if (k < 1).any():
        raise ValueError("k must be at least 1")
    return n, c, k


def majority_vote(
    answers: ArrayLike, weights: ArrayLike | None = None, rng: Rng | None = None
) -> NDArray[Any]:
    """The answer most repeats agree on (self-consistency, Wang et al. 2022).

    Args:
        answers: Shape (..., repeats), anything hashable; None and NaN do not vote.
        weights: The weight of each vote, at least 0, broadcast against ``answers``; None = one each.
        rng: Draws among tied answers. Without it the one seen first wins.

    Returns:
        Shape (...): the answers, as objects; None where nobody voted.

    Raises:
        ValueError: ``answers`` has no dimension, or a weight is negative or NaN.

    >>> majority_vote([["7", "8", "8"], ["a", "b", None]]).tolist()
    ['8', 'a']
    """
    import pandas as pd  # noqa: PLC0415 - slow to import

    given = np.asarray(answers, object)
    if not given.ndim:
        raise ValueError("answers must have at least 1 dimension")
    shape, n = given.shape[:-1], given.shape[-1]
    flat, names = pd.factorize(given.ravel())
    rows = math.prod(shape)
    codes = flat.reshape(rows, n)
    weight = np.ones(given.shape) if weights is None else np.asarray(weights, float)
    weight = np.broadcast_to(weight, given.shape).reshape(rows, n)
    if not (weight >= 0).all():
        raise ValueError("weights must be at least 0")
    same = codes[:, :, None] == codes[:, None, :]
    votes = np.round((same * weight[:, None, :]).sum(2), 9)
    votes[codes < 0] = -1.0
    first = ~np.tril(same, -1).any(2)  # no earlier repeat gave the same answer
    tied = (votes == votes.max(1, initial=-1.0, keepdims=True)) & first & (codes >= 0)
    turn = np.ones(tied.shape) if rng is None else np.random.default_rng(rng).random(tied.shape)
    out = np.full(len(codes), None, object)
    some = tied.any(1)
    picked = (tied * (1 + turn)).argmax(1) if n else np.zeros(len(codes), int)
    out[some] = np.asarray(names, object)[codes[some, picked[some]]]
    voted: NDArray[Any] = out.reshape(shape)
    return voted
