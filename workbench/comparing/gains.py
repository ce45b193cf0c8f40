"""What an adapter changes, as arrays: the answers of all cells by prompt, and paired differences between cells.

The unit of evidence is the prompt (or the group of related ones): repeats are averaged first, then the cells where a mean
over settings is asked for, then the prompts. Intervals and p-values are those of `workbench.stats`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd

from workbench import analysis, stats
from workbench.health import signs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from workbench.comparing.pairs import RunTables

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

SIGNS: Final = ("truncated_rate", "loop_rate", "empty_rate", "language_switch_rate")
"""Signs of trouble, each the share of the answers that show it; of a language switch, of those whose language can be told."""
_FEW: Final = 10
"""A share is told of so many answers, or of all."""
TINY: Final = 1e-12
"""Differences below this are rounding: (1/3 + 1/3 + 1/3) is not always 1."""


class Pair(NamedTuple):
    """A cell of an adapter and the cell of the baseline adapter with the same settings and template."""

    adapter: str
    cell: str
    baseline: str
    settings: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of all cells, by cell and prompt.

    Attributes:
        scores: Mean scores, the axes of all that follows: its cells, and its prompts in alphabetical order.
        splits: Shape (prompts,), "select" or "confirm".
        counts: Shape (cells, prompts), answers that did not break.
        tokens: Shape (cells, prompts), their mean output tokens; NaN without an answer.
        signs: Sign to (how many answers show it, of how many it can be said), each of shape (cells, prompts).
        texts: Shape (cells, prompts, repeats): equal numbers are equal answers; -1 where there is none.
    """

    scores: stats.PromptMeans
    splits: NDArray[Any]
    counts: Floats
    tokens: Floats
    signs: dict[str, tuple[Floats, Floats]]
    texts: NDArray[np.int64]

    def rows(self, pairs: Sequence[Pair]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Positions of both sides of pairs: (cells, baselines)."""
        index = pd.Index(self.scores.cells)
        cells, bases = ([p[side] for p in pairs] for side in (1, 2))
        return index.get_indexer(pd.Index(cells)), index.get_indexer(pd.Index(bases))

    def table(self, where: Mask) -> stats.PromptMeans:
        """The scores of some prompts."""
        return replace(
            self.scores,
            prompts=self.scores.prompts[where],
            codes=self.clusters(where),
            means=self.scores.means[:, where],
            rows=self.scores.rows[:, where],
        )

    def clusters(self, where: Mask) -> NDArray[np.intp] | None:
        """What each of some prompts belongs to, from 0; None if each is its own."""
        if self.scores.codes is None:
            return None
        found = np.unique(self.scores.codes[where], return_inverse=True)[1]
        return found if len(found) and found.max() + 1 < len(found) else None


def answers_in(run: RunTables) -> Answers:
    """The answers of a run as arrays; their order in the run does not matter.

    Raises:
        WorkbenchError: The primary scorer cannot be told.
    """
    needed = [*analysis.KEY, "group", "split", "finish_reason", "n_output_tokens", "text"]
    tidy = analysis.frame(run.generations[needed], run.scores, run.cells, run.primary)
    tidy = tidy.sort_values(["prompt_id", "cell_id", "repeat"], kind="stable", ignore_index=True)
    scores = stats.prompt_means(tidy)
    cell = pd.Index(scores.cells).get_indexer(pd.Index(tidy["cell_id"]))
    prompt = pd.Index(scores.prompts).get_indexer(pd.Index(tidy["prompt_id"]))
    shape = len(scores.cells), len(scores.prompts)
    done = tidy["finish_reason"].ne("error").to_numpy(bool)
    key = (cell * shape[1] + prompt)[done]

    def summed(values: Floats) -> Floats:
        total = np.bincount(key, weights=values, minlength=shape[0] * shape[1])
        return total.astype(float).reshape(shape)

    counts = summed(np.ones(len(key)))
    kept = tidy[done]
    tokens = summed(analysis.tokens_of(kept).to_numpy(float))
    seen = _signs(run, kept)
    known = {name: ~np.isnan(values) for name, values in seen.items()}
    repeat = pd.factorize(tidy["repeat"], sort=True)[0]
    texts = np.full((*shape, int(repeat.max(initial=-1)) + 1), -1, np.int64)
    texts[cell[done], prompt[done], repeat[done]] = pd.factorize(kept["text"])[0]
    first = np.unique(prompt, return_index=True)[1]
    return Answers(
        scores,
        tidy["split"].to_numpy(object)[first],
        counts,
        np.divide(tokens, counts, out=np.full(shape, np.nan), where=counts > 0),
        {
            name: (summed(np.nan_to_num(values)), summed(known[name].astype(float)))
            for name, values in seen.items()
        },
        texts,
    )


def _signs(run: RunTables, rows: pd.DataFrame) -> dict[str, Floats]:
    """Signs of trouble of every answer, NaN where it cannot be said."""
    told = signs_of(run, rows)
    cut = {"truncated_rate": rows["finish_reason"].eq("length").to_numpy(float)}
    return cut | {name: told[name].to_numpy(float) for name in SIGNS if name in told}


# ---------------------------------------------------------------------------------------- paired differences


def differences(answers: Answers, pairs: Sequence[Pair], where: Mask) -> Floats:
    """Score minus baseline's for each pair and each of some prompts, shape (pairs, prompts); NaN where one has no score."""
    cells, bases = answers.rows(pairs)
    means = answers.scores.means[:, where]
    return clean(means[cells] - means[bases])


def clean(d: Floats) -> Floats:
    """Differences with what is only rounding set to 0."""
    return np.where(np.abs(d) < TINY, 0.0, d)


def compared(
    answers: Answers,
    pairs: Sequence[Pair],
    where: Mask,
    rng: np.random.Generator,
    level: float,
) -> pd.DataFrame:
    """Every pair on some prompts, one row each: what `workbench.comparing.compare` says of two cells.

    Returns:
        ``baseline_quality`` and ``quality`` (over the prompts scored in both), ``diff``, ``diff_lo``, ``diff_hi``, ``p_value``,
        ``n_prompts`` (scored in both), ``wins``, ``ties``, ``losses`` (of those), ``n_unscored`` (answered in both, but not
        scored), and the columns of `_behaviour`.
    """
    cells, bases = answers.rows(pairs)
    d = differences(answers, pairs, where)
    binary = answers.scores.binary[cells] & answers.scores.binary[bases]
    rows = answers.scores.rows[:, where]
    once = (np.maximum(rows[cells], rows[bases]).max(1, initial=0) <= 1) & binary
    codes = answers.clusters(where)
    found = estimates(d, codes, binary=binary, once=once & (codes is None), rng=rng, level=level)
    means, known = answers.scores.means[:, where], ~np.isnan(d)
    qualities = {
        "baseline_quality": _mean(np.where(known, means[bases], np.nan)),
        "quality": _mean(np.where(known, means[cells], np.nan)),
    }
    groups = [np.array([i]) for i in range(len(pairs))]
    behaviour = _behaviour(answers, pairs, groups, where, level)
    out = pd.DataFrame(qualities | found | behaviour)
    out["n_unscored"] = out.pop("n_answered") - out["n_prompts"]
    return out


def averaged(
    answers: Answers,
    pairs: Sequence[Pair],
    where: Mask,
    rng: np.random.Generator,
    level: float,
) -> pd.DataFrame:
    """Every adapter on some prompts, one row each, averaged over its pairs: per prompt over pairs, then over prompts.

    Returns:
        ``adapter``, ``n_cells`` (pairs with a prompt scored in both), and the columns of `compared`; ``wins``, ``ties`` and
        ``losses`` are of the prompts' averages.
    """
    names = list(dict.fromkeys(p.adapter for p in pairs))
    groups = [np.flatnonzero([p.adapter == name for p in pairs]) for name in names]
    d = differences(answers, pairs, where)
    cells, bases = answers.rows(pairs)
    known, means = ~np.isnan(d), answers.scores.means[:, where]
    shape = len(names), d.shape[1]
    mean, old, new = (np.array([_mean(x[g], 0) for g in groups]).reshape(shape) for x in (
        d,
        np.where(known, means[bases], np.nan),
        np.where(known, means[cells], np.nan),
    ))  # fmt: skip
    rows = answers.scores.rows[:, where].max(1, initial=0)
    both = answers.scores.binary[cells] & answers.scores.binary[bases]
    binary = np.array([len(g) == 1 and bool(both[g].all()) for g in groups], bool)
    most = np.array([max(rows[cells[g]].max(), rows[bases[g]].max()) for g in groups], int)
    codes = answers.clusters(where)
    once = binary & (most <= 1) & (codes is None)
    found = estimates(clean(mean), codes, binary=binary, once=once, rng=rng, level=level)
    behaviour = _behaviour(answers, pairs, groups, where, level)
    out = pd.DataFrame(
        {
            "adapter": names,
            "n_cells": [int(known[g].any(1).sum()) for g in groups],
            "baseline_quality": _mean(old),
            "quality": _mean(new),
        }
        | found
        | behaviour
    )
    out["n_unscored"] = out.pop("n_answered") - out["n_prompts"]
    return out


def estimates(
    d: Floats,
    codes: NDArray[np.intp] | None,
    *,
    binary: Mask,
    once: Mask,
    rng: np.random.Generator,
    level: float,
) -> dict[str, NDArray[Any]]:
    """Mean differences with interval and p-value, as `stats.paired_difference` makes them, a row at a time.

    Args:
        d: Shape (rows, prompts), differences -1..1; NaN = not known.
        codes: Shape (prompts,), clusters; None = each its own.
        binary: Shape (rows,), True where the scores are 0 or 1: then the ends of the scale are -1 and 1, else the largest
            difference seen.
        once: Shape (rows,), True where every difference is of one 0/1 answer each: the exact McNemar test applies.
        rng: Generator of the sign flips.
        level: Confidence level.

    Returns:
        diff, diff_lo, diff_hi, p_value, n_prompts, wins, ties and losses, each of shape (rows,).
    """
    n = (~np.isnan(d)).sum(1)
    wins, losses = (d > 0).sum(1), (d < 0).sum(1)
    bounds = np.full((2, len(d)), np.nan)
    for i, row in enumerate(d):
        largest = float(np.nanmax(np.abs(row), initial=0.0))
        end = 1.0 if binary[i] or largest == 0 else largest
        if n[i]:
            bounds[:, i] = np.ravel(stats.difference_interval(row[None], codes, level, end))
    p = np.where(n > 1, stats.mcnemar(wins, losses), np.nan)
    other = ~once & (n > 0)
    if other.any():
        p[other] = _flipped(d[other], codes, rng)
    return {
        "diff": _mean(d),
        "diff_lo": bounds[0],
        "diff_hi": bounds[1],
        "p_value": p,
        "n_prompts": n,
        "wins": wins,
        "ties": n - wins - losses,
        "losses": losses,
    }


def _flipped(d: Floats, codes: NDArray[np.intp] | None, rng: np.random.Generator) -> Floats:
    """p-values by sign flips of whole clusters: the differences are put beside a baseline of zeros."""
    table = stats.PromptMeans(
        cells=np.arange(-1, len(d)),
        prompts=np.arange(d.shape[1]),
        codes=codes,
        means=np.vstack([np.zeros(d.shape[1]), d]),
        rows=np.full((len(d) + 1, d.shape[1]), 2),
        binary=np.zeros(len(d) + 1, bool),
    )
    p: Floats = stats.paired_difference(table, -1, rng)["p_value"].to_numpy(float)[1:]  # type: ignore[arg-type]
    return p


def _mean(x: Floats, axis: int = -1) -> Floats:
    """Mean of what is known; NaN where nothing is."""
    n = (~np.isnan(x)).sum(axis)
    total = np.nansum(x, axis=axis)
    mean: Floats = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
    return mean


def _behaviour(
    answers: Answers,
    pairs: Sequence[Pair],
    groups: Sequence[NDArray[np.intp]],
    where: Mask,
    level: float,
) -> dict[str, Any]:
    """Length and signs of trouble of groups of pairs, over the prompts that both cells of a pair answered.

    Returns:
        ``baseline_tokens``, ``tokens`` (means, output tokens an answer), ``tokens_diff`` with ``tokens_lo`` and ``tokens_hi``
        (clustered), each of `SIGNS` and its ``baseline_`` twin (NaN where it can be said of fewer than ten answers and not of all), ``n_answers`` (pairs of answers), ``n_identical`` (of those,
        equal word for word) and ``n_answered`` (prompts), each of shape (groups,).
    """
    cells, bases = answers.rows(pairs)
    counts = answers.counts[:, where]
    both = (counts[cells] > 0) & (counts[bases] > 0)
    tokens, codes = answers.tokens[:, where], answers.clusters(where)
    old, new = (np.where(both, tokens[side], np.nan) for side in (bases, cells))
    old, new, change = (np.array([_mean(x[g], 0) for g in groups]) for x in (old, new, new - old))
    lo, hi = stats.mean_interval(change, codes, level) if change.size else (np.nan, np.nan)
    out: dict[str, Any] = {
        "baseline_tokens": _mean(old),
        "tokens": _mean(new),
        "tokens_diff": _mean(change),
        "tokens_lo": lo,
        "tokens_hi": hi,
    }
    for name in SIGNS:
        for prefix, side in (("baseline_", bases), ("", cells)):
            n_all = np.array([np.where(both, counts[side], 0)[g].sum() for g in groups])
            shown, of = (np.where(both, x[:, where][side], 0).sum(1) for x in answers.signs[name])
            total = np.array([of[g].sum() for g in groups])
            rate = np.divide(
                np.array([shown[g].sum() for g in groups], float),
                total,
                out=np.full(len(groups), np.nan),
                where=(total > 0) & (total >= np.minimum(_FEW, n_all)),
            )
            out[prefix + name] = rate
    texts = answers.texts[:, where]
    there = (texts[cells] >= 0) & (texts[bases] >= 0)
    equal = there & (texts[cells] == texts[bases])
    out["n_answers"] = [int(there[g].sum()) for g in groups]
    out["n_identical"] = [int(equal[g].sum()) for g in groups]
    out["n_answered"] = [int(both[g].any(0).sum()) for g in groups]
    return out
