"""Prompt by prompt: the answers of two cells side by side, one row per prompt."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pandas as pd

from workbench import analysis
from workbench.measures import Tables
from workbench.scorers import texts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.prompts import Prompt, PromptSet

CHANGES: Final = ("better", "worse", "same", "unscored")
"""What can have happened to the score of a prompt."""
_ROWS: Final = [*analysis.KEY, "group", "split", "finish_reason", "n_output_tokens", "text"]


class RunTables(Tables, Protocol):
    """What a comparison needs of a run."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Where its numbers come from."""

    @property
    def prompts(self) -> PromptSet:
        """The prompts."""

    def cell_id(self, name: str | None = None) -> str:
        """The id of a cell, given as an id or a label; of the baseline by default."""


def changes(
    run: RunTables,
    cell: str,
    baseline: str | None = None,
    *,
    split: str | None = None,
    repeat: int | None = None,
) -> pd.DataFrame:
    """What happened to each prompt that both cells answered.

    Args:
        run: A run.
        cell: Id or label.
        baseline: Id or label; by default the run's baseline.
        split: "select" or "confirm" takes only those prompts.
        repeat: Only this draw, from 0; a cell that cannot vary has but one, which is taken. None takes the mean over all.

    Returns:
        One row per prompt, in the order of the prompt set: ``prompt_id``, ``group``, ``baseline_score``, ``score`` and
        ``diff`` (means over repeats, 0..1; NaN where nothing was scored), ``change`` (one of `CHANGES`), ``baseline_text`` and
        ``text`` (the answer of the repeat whose score is nearest the mean; of two as near, the one that shows the
        change), ``question`` (last user message, as the cell words it), ``baseline_question`` (as the baseline
        words it; None where both are the same), ``target`` (text; a list or an object as JSON; None if there is none), ``baseline_tokens`` and ``tokens`` (means
        over repeats), ``baseline_finish`` and ``finish`` (of the answers shown), ``split``, ``baseline_repeat`` and ``repeat``,
        ``baseline_shown_score`` and ``shown_score`` (of the answers shown).

    Raises:
        StoreError: There is no such cell.
        WorkbenchError: The primary scorer cannot be told.
    """
    names = run.cell_id(baseline), run.cell_id(cell)
    before, after = (answers_of(run, name, split, repeat) for name in names)
    return table_of(before, after, run.prompts, (wording(run, names[0]), wording(run, names[1])))


def wording(run: RunTables, cell: str) -> Callable[[str], Prompt]:
    """Prompt id to the prompt as a cell words it; as it is in the set if the run cannot tell."""
    worded = getattr(run, "prompt", None)
    return run.prompts.__getitem__ if worded is None else partial(worded, cell)


def answers_of(
    run: RunTables, cell: str, split: str | None, repeat: int | None = None
) -> pd.DataFrame:
    """The answers of one cell that did not break, one row each, with their score; arguments as for `changes`."""
    rows, scores = run.generations, run.scores
    keep = rows["cell_id"].eq(cell)
    if repeat is not None and rows.loc[keep, "repeat"].max() > 0:
        keep &= rows["repeat"].eq(repeat)
    if split is not None:
        keep &= rows["split"].eq(split)
    keep &= rows["finish_reason"].ne("error")
    mine = scores[scores["cell_id"].eq(cell)]
    if run.primary is not None:
        mine = mine[mine["scorer"].eq(run.primary)]
    return analysis.frame(rows.loc[keep, _ROWS], mine, run.cells, run.primary)


def table_of(
    before: pd.DataFrame,
    after: pd.DataFrame,
    prompts: PromptSet,
    asked: tuple[Callable[[str], Prompt], Callable[[str], Prompt]],
) -> pd.DataFrame:
    """The table of `changes`, from the answers of the two cells and the prompts as each words them (see `wording`)."""
    old, new = _means(before), _means(after)
    order = [p.id for p in prompts if p.id in old.index and p.id in new.index]
    old, new = old.loc[order], new.loc[order]
    diff = new["score"] - old["score"]
    diff = diff.where(diff.abs() > 1e-12, diff * 0)  # (1/3 + 1/3 + 1/3) is not always 1
    kind = np.select([diff > 0, diff < 0, diff == 0], CHANGES[:3], CHANGES[3])
    old_shown, new_shown = _shown(before, old, -diff), _shown(after, new, diff)
    old_asked, new_asked = ([question(words(i)) for i in order] for words in asked)
    other = [a if a != b else None for a, b in zip(old_asked, new_asked, strict=True)]
    return pd.DataFrame(
        {
            "prompt_id": order,
            "group": new_shown["group"].to_numpy(),
            "baseline_score": old["score"].to_numpy(),
            "score": new["score"].to_numpy(),
            "diff": diff.to_numpy(),
            "change": pd.Series(kind, dtype="str"),
            "baseline_text": old_shown["text"].to_numpy(),
            "text": new_shown["text"].to_numpy(),
            "question": pd.Series(new_asked, dtype="str"),
            "baseline_question": pd.Series(other, dtype="str"),
            "target": pd.Series([target_text(prompts[i]) for i in order], dtype="str"),
            "baseline_tokens": old["n_output_tokens"].to_numpy(),
            "tokens": new["n_output_tokens"].to_numpy(),
            "baseline_finish": old_shown["finish_reason"].to_numpy(),
            "finish": new_shown["finish_reason"].to_numpy(),
            "split": new_shown["split"].to_numpy(),
            "baseline_repeat": old_shown["repeat"].to_numpy(),
            "repeat": new_shown["repeat"].to_numpy(),
            "baseline_shown_score": old_shown["score"].to_numpy(),
            "shown_score": new_shown["score"].to_numpy(),
        }
    )


def _means(side: pd.DataFrame) -> pd.DataFrame:
    """Score and output tokens of each prompt, means over its repeats."""
    counted = side.assign(n_output_tokens=analysis.tokens_of(side))
    return counted.groupby("prompt_id", sort=False)[["score", "n_output_tokens"]].mean()


def _shown(side: pd.DataFrame, means: pd.DataFrame, direction: pd.Series) -> pd.DataFrame:
    """The answer to show of each prompt, in the order of ``means``.

    Of two as near the mean, the one that shows the change: the better one where ``direction`` is above 0, the worse one
    where it is below.
    """
    middle, way = (side["prompt_id"].map(v).astype(float) for v in (means["score"], direction))
    off = (side["score"] - middle).abs().round(9)
    against = -side["score"] * np.sign(way)
    ranked = side.assign(_off=off, _against=against)
    ranked = ranked.sort_values(["_off", "_against", "repeat"], kind="stable")
    return ranked.drop_duplicates("prompt_id").set_index("prompt_id").loc[means.index]


def question(prompt: Prompt) -> str:
    """The text of the last user message; of the last message if no user wrote one; without messages, the variables."""
    asked = texts.question(prompt)
    if asked is not None:
        return asked
    content = prompt.messages[-1].get("content") if prompt.messages else prompt.vars or ""
    plain = texts.content_text(content)
    return json.dumps(content, ensure_ascii=False) if plain is None else plain


def target_text(prompt: Prompt) -> str | None:
    """The target as text: a list or an object as JSON; None if there is none."""
    if prompt.target is None:
        return None
    plain = texts.target_text(prompt.target)
    return json.dumps(prompt.target, ensure_ascii=False) if plain is None else plain
