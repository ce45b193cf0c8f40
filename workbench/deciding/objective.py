"""What to tune for, and the limits it must keep: parsing the words, and knowing when a limit is surely broken.

Whether a limit is broken is asked again and again while numbers come in, for many cells. So a cell counts as surely
breaking one only on evidence that is always valid (`workbench.sequential.rate_evidence`) and assumes no distribution. A
limit on a percentile is one on a rate: p90 is above 900 ms if more than a tenth of the requests take longer than that.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from workbench.errors import ParamError, ScorerError, StudyError, unknown
from workbench.plan import number
from workbench.sequential import rate_evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

__all__ = ["METRICS", "Limit", "Objective", "parse_limits", "parse_objectives", "surely_broken"]

QUALITY: Final = "quality"
TOKENS: Final = "n_output_tokens"
TIMES: Final = ("ttft_ms", "tpot_ms", "e2el_ms")
RATES: Final = ("truncated_rate", "loop_rate")
TOKENS_MEAN: Final = f"{TOKENS}_mean"
PERCENTILES: Final = tuple(f"{t}_p{q}" for t in TIMES for q in (50, 90, 95))
METRICS: Final = (*PERCENTILES, *RATES, TOKENS_MEAN)
"""Everything a limit can be on."""

OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
}
ALPHA: Final = 0.01
"""Probability at most, per cell and limit, with which a kept limit is ever called surely broken."""
_LIMIT: Final = re.compile(r"\s*([^<>=\s]+)\s*(<=|>=|<|>)\s*([^<>=]+?)\s*")


@dataclass(frozen=True, slots=True)
class Objective:
    """What is made as good as it can be.

    Attributes:
        metric: A scorer's name, "n_output_tokens", or a percentile of a time.
        minimise: True if less is better: all but scorers.
    """

    metric: str
    minimise: bool = False

    def __str__(self) -> str:
        return f"-{self.metric}" if self.minimise else self.metric

    @property
    def timed(self) -> bool:
        """True if requests must be timed to know it."""
        return self.metric in PERCENTILES


def parse_objectives(
    given: str | Sequence[str] | None, scorers: Sequence[str]
) -> tuple[Objective, ...]:
    """Read what every ``--objective`` was given.

    ``quality`` is the first scorer of the study; a scorer's name is that scorer; ``-n_output_tokens`` asks for short answers,
    ``-e2el_ms_p50`` for fast ones. Scores are shares of what is right, so they are made large, and the first objective is one:
    the shortest answers alone are no good.

    Args:
        given: As typed, several with commas or as several texts; None: quality.
        scorers: The study's scorers, the primary one first.

    Raises:
        ScorerError: The study has no scorer.
        ParamError: One is none of those or there twice, or the first is no scorer; lists what is allowed.

    >>> [str(o) for o in parse_objectives("quality, -n_output_tokens", ["numeric"])]
    ['numeric', '-n_output_tokens']
    """
    if not scorers:
        raise ScorerError("a study without scorers cannot be tuned: name one in `scorers`")
    texts = [QUALITY] if given is None else [given] if isinstance(given, str) else list(given)
    names = [name.strip() for text in texts for name in text.split(",")]
    costs = {f"-{name}": Objective(name, minimise=True) for name in (TOKENS, *PERCENTILES)}
    known = {QUALITY: Objective(scorers[0]), **{name: Objective(name) for name in scorers}, **costs}
    found = [known.get(name) for name in names]
    if None in found or len(set(found)) < len(found) or (found[0] and found[0].minimise):
        good = ", ".join(dict.fromkeys([QUALITY, *scorers]))
        allowed = f"one of {good}, and beside it others of them or of {', '.join(costs)}"
        raise ParamError("--objective", allowed, ", ".join(texts))
    return tuple(objective for objective in found if objective is not None)


@dataclass(frozen=True, slots=True)
class Limit:
    """One condition that the chosen cell must keep.

    Attributes:
        metric: One of `METRICS`.
        op: "<=", "<", ">=" or ">".
        value: In the metric's unit: ms, a share 0..1, or tokens.
    """

    metric: str
    op: Literal["<=", "<", ">=", ">"]
    value: float

    def __str__(self) -> str:
        return f"{self.metric}{self.op}{number(self.value)}"

    @property
    def quantile(self) -> float | None:
        """The quantile that a percentile metric is, 0..1; None for rates and means."""
        found = re.search(r"_p(\d+)$", self.metric)
        return int(found[1]) / 100 if found else None

    @property
    def column(self) -> str:
        """What one request or answer contributes: ``e2el_ms`` for ``e2el_ms_p90``, ``truncated_rate``, tokens."""
        return re.sub(r"_p\d+$|_mean$", "", self.metric)

    def estimate(self, values: ArrayLike) -> float:
        """The metric of these values (linear interpolation for percentiles); NaN without any."""
        x = np.asarray(values, float)
        x = x[~np.isnan(x)]
        if not x.size:
            return float("nan")
        return float(x.mean() if self.quantile is None else np.quantile(x, self.quantile))

    def holds(self, values: ArrayLike) -> bool | None:
        """Whether the limit holds in these values, by chance or not; None without any."""
        found = self.estimate(values)
        return None if np.isnan(found) else bool(OPERATORS[self.op](found, self.value))


def parse_limits(texts: Iterable[str]) -> tuple[Limit, ...]:
    """Read what every ``--subject-to`` was given.

    Raises:
        StudyError: Lists everything that is wrong with any of them, and what is allowed.

    >>> [str(limit) for limit in parse_limits(["e2el_ms_p90 <= 900", "truncated_rate<0.05"])]
    ['e2el_ms_p90<=900', 'truncated_rate<0.05']
    """
    read = [_parse(text) for text in texts]
    if problems := [found for found in read if isinstance(found, str)]:
        raise StudyError("--subject-to", problems)
    return tuple(found for found in read if isinstance(found, Limit))


def _parse(text: str) -> Limit | str:
    """A limit, or what is wrong with it."""
    found = _LIMIT.fullmatch(text)
    if not found:
        return f"{text!r} must be a metric, one of {', '.join(OPERATORS)}, and a number, such as 'e2el_ms_p90<=900'"
    metric, op, right = found.groups()
    if metric not in METRICS:
        return f"{text!r}: {unknown('metric', metric, METRICS)}"
    try:
        value = float(right)
    except ValueError:
        value = float("nan")
    most = 1.0 if metric in RATES else float("inf")
    if not 0 <= value <= most or value == float("inf"):
        kind = "a share from 0 to 1" if metric in RATES else "a number that is at least 0"
        return f"{text!r}: the limit must be {kind}, got {right!r}"
    return Limit(metric, op, value)  # type: ignore[arg-type] # the pattern lets only these through


def surely_broken(
    values: ArrayLike,
    limit: Limit,
    clusters: Sequence[str] | None = None,
    *,
    alpha: float = ALPHA,
    most: float | None = None,
) -> bool:
    """Whether these values prove that a limit is broken, however often one looks.

    Values of one prompt belong together: each prompt (or group) counts once, with the share of its values on the wrong side
    of the limit. Its values must come together: at a later look earlier prompts have the same values. What is tested is the
    limit at its value: ``<`` and ``<=`` differ only by requests exactly on it.

    Args:
        values: Shape (n,): one cell's requests or answers, in the order they came; times in ms, 0/1 for rates, tokens. NaN =
            not measured, left out.
        limit: The limit.
        clusters: Shape (n,): the prompt or group of each value; None = all independent.
        alpha: Probability at most with which a limit that is kept is ever called broken.
        most: The largest value there can be (``max_tokens``); needed for a limit on a mean of tokens.

    Returns:
        True if it is surely broken. False says nothing.

    Raises:
        ValueError: ``most`` is needed and missing or too small, or the shapes do not fit.
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or (clusters is not None and len(clusters) != len(x)):
        raise ValueError("values must have one dimension, and clusters one name for each")
    shares, allowed = _wrong(x, limit, most)
    if clusters is not None:
        shares = _means(shares, clusters)
    if allowed <= 0:
        return bool(np.any(shares > 0))
    return allowed < 1 and rate_evidence(shares, allowed) >= 1 / alpha


def _wrong(x: Floats, limit: Limit, most: float | None) -> tuple[Floats, float]:
    """Each value as a share of wrong, 0..1, and the mean share that the limit allows."""
    at_most = limit.op.startswith("<")
    if limit.quantile is not None:
        wrong = np.where(np.isnan(x), np.nan, ~OPERATORS[limit.op](x, limit.value))
        return wrong, 1 - limit.quantile if at_most else limit.quantile
    scale = 1.0
    if limit.metric == TOKENS_MEAN:
        if most is None or not most >= np.nanmax(x, initial=0.0):
            raise ValueError(f"{limit} needs the largest number of tokens there can be, got {most}")
        scale = most
    share, allowed = x / scale, limit.value / scale
    return (share, allowed) if at_most else (1 - share, 1 - allowed)


def _means(x: Floats, clusters: Sequence[str]) -> Floats:
    """Mean of each cluster, in order of appearance; NaN where nothing is known."""
    places: dict[str, int] = {}
    codes = np.array([places.setdefault(name, len(places)) for name in clusters], np.intp)
    known = ~np.isnan(x)
    n = np.bincount(codes[known], minlength=len(places))
    sums = np.bincount(codes[known], weights=x[known], minlength=len(places))
    means: Floats = np.divide(sums, n, out=np.full(len(places), np.nan), where=n > 0)
    return means
