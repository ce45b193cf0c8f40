"""Runs as plain tables for the tests of comparing and exploring: scores by cell and prompt, no files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench import tables
from workbench.exploring.browse import Tables
from workbench.prompts import PromptSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Scores = dict[str, dict[str, list[Any]]]
"""Cell to prompt to the score of each repeat: a number, None (not scored) or "error" (no answer)."""


def paired_run(
    scores: Scores,
    *,
    texts: Mapping[tuple[str, str, int], str] | None = None,
    tokens: Mapping[str, int] | None = None,
    groups: Mapping[str, str] | None = None,
    splits: Mapping[str, str] | None = None,
    targets: Mapping[str, Any] | None = None,
    latency: pd.DataFrame | None = None,
    order: Sequence[str] | None = None,
    scorer: str = "numeric",
    run_id: str = "run",
    seed: int = 1,
) -> Tables:
    """A run of which the first cell is the baseline.

    Args:
        scores: What every answer scored.
        texts: (cell, prompt, repeat) to answer; "p0 in a, 0" by default.
        tokens: Cell to output tokens of each of its answers; 10 by default.
        groups: Prompt to group.
        splits: Prompt to split; "select" by default.
        targets: Prompt to target.
        latency: The latency table.
        order: Ids of the prompts; those of the first cell by default.
        scorer: Name of the primary scorer.
        run_id: Of the run.
        seed: Of every answer.
    """
    rows, judged = [], []
    for cell, prompts in scores.items():
        for prompt, values in prompts.items():
            for k, value in enumerate(values):
                broken = value == "error"
                text = (texts or {}).get((cell, prompt, k), f"{prompt} in {cell}, {k}")
                finish = "error" if broken else "stop"
                about = (groups or {}).get(prompt), (splits or {}).get(prompt, "select")
                n = (tokens or {}).get(cell, 10)
                rows.append((cell, prompt, k, *about, text, n, finish, seed + k))
                score = None if broken or value is None else float(value)
                judged.append(
                    (cell, prompt, k, scorer, "1", score, "why" if score is None else None)
                )
    key = ["cell_id", "prompt_id", "repeat"]
    names = [*key, "group", "split", "text", "n_output_tokens", "finish_reason", "seed"]
    ids = list(order or next(iter(scores.values())))
    asked = [
        {"id": i, "prompt": f"Question {i}?", "group": (groups or {}).get(i)}
        | ({"target": targets[i]} if targets and i in targets else {})
        for i in ids
    ]
    records = [{k: v for k, v in row.items() if v is not None} for row in asked]
    table = pd.DataFrame(judged, columns=[*key, "scorer", "scorer_version", "value", "reason"])
    return Tables(
        manifest={
            "baseline": next(iter(scores)),
            "run_id": run_id,
            "study": {"name": "paired"},
            "engine": {"model": "scripted"},
            "scorers": [{"name": scorer, "version": "1"}],
        },
        generations=pd.DataFrame(rows, columns=names).astype({"split": "str", "text": "str"}),
        scores=table.astype({"value": float}),
        latency=timed({}) if latency is None else latency,
        cells=_cells(list(scores)),
        prompts=PromptSet.from_records(records, "paired"),
        primary=scorer,
    )


def _cells(names: list[str]) -> pd.DataFrame:
    n = len(names)
    settings: dict[str, Any] = dict.fromkeys(tables.SETTINGS, np.nan)
    settings |= {"temperature": np.arange(n) / 2, "max_tokens": [48] * n}
    about = {"cell_id": names, "label": names, "adapter": "base"}
    return pd.DataFrame(about | settings | {"is_baseline": [i == 0 for i in range(n)]})


def timed(times: Mapping[str, Mapping[tuple[str, int], float]]) -> pd.DataFrame:
    """A latency table: cell to (prompt, round) to milliseconds; a tenth of it until the first token."""
    rows = [
        (cell, prompt, 0, round_, round_, 1, 0, ms / 10, ms / 100, ms)
        for cell, requests in times.items()
        for (prompt, round_), ms in requests.items()
    ]
    names = ["cell_id", "prompt_id", "repeat", "round", "block", "warm", "noisy"]
    return pd.DataFrame(rows, columns=[*names, "ttft_ms", "tpot_ms", "e2el_ms"])
