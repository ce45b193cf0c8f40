"""Runs of a race as plain tables: the race is run for real, on made-up scores, without an engine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from pairedruns import paired_run

from workbench.tuning.race import Race, block_sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINALISTS = 5
"""Cells beside the baseline that answer the prompts held out."""


class Raced(NamedTuple):
    """A run of a race, and the race."""

    run: Any
    race: Race


def raced_run(scores: NDArray[np.float64], n_held_out: int, *, asked: int | None = None) -> Raced:
    """A race over prompts that every cell would score on as given.

    Args:
        scores: Shape (cells, prompts); the first cell is the baseline, the last prompts are held out. NaN: not scored.
        n_held_out: How many of them.
        asked: Prompts that the budget allows to be asked before the others are held out; all by default.
    """
    names = [f"c{i}" for i in range(len(scores))]
    n = scores.shape[1] - n_held_out
    race, start = Race(names, "c0"), 0
    rows: list[tuple[str, int]] = []
    for size in block_sizes(n):
        if race.decided or start >= (asked or n):
            break
        alive, block = list(race.alive), range(start, start + size)
        rows += [(c, i) for c in alive for i in block]
        ids = [f"p{i}" for i in block]
        race.update(ids, ids, scores[[names.index(c) for c in alive]][:, block])
        start += size
    best = [s.cell for s in race.standing() if s.alive and s.cell != "c0"]
    finalists = ["c0", *best[:FINALISTS]]
    rows += [(c, i) for c in finalists for i in range(n, scores.shape[1])]
    cell, prompt = zip(*rows, strict=True)
    at = [int(c[1:]) for c in cell]
    split = ["select" if i < n else "confirm" for i in prompt]
    key = {"cell_id": cell, "prompt_id": [f"p{i}" for i in prompt], "repeat": 0}
    about = {"group": None, "split": split, "text": "x", "n_output_tokens": 10, "seed": 1}
    table = pd.DataFrame({**key, **about, "finish_reason": "stop"})
    judged = pd.DataFrame({**key, "scorer": "numeric", "scorer_version": "1"})
    judged = judged.assign(value=scores[at, list(prompt)], reason=None)
    frame = paired_run({c: {"p0": [1]} for c in names})
    gone = {c: drop.why for c, drop in race.dropped.items()}
    note = {"stopped": "budget", "dropped": gone, "finalists": finalists}
    manifest = {**frame.manifest, "race": note, "tuning": {"objective": "numeric"}}
    return Raced(replace(frame, generations=table, scores=judged, manifest=manifest), race)


def chances(
    rng: np.random.Generator, means: NDArray[np.float64], n_prompts: int
) -> NDArray[np.float64]:
    """Right or wrong, cells of such means, on prompts of very different difficulty; shape (cells, prompts)."""
    hard = rng.beta(0.6, 0.6, n_prompts) - 0.5
    spread = 2 * np.minimum(means, 1 - means)
    p = means[:, None] + spread[:, None] * hard
    drawn: NDArray[np.float64] = (rng.random(p.shape) < p).astype(float)
    return drawn
