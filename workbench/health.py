"""How the answers of each cell hold up apart from being right: cut, empty, looping, repeating, drifting, disagreeing.

Every figure is over the answers that did not break, of the same rows as the summary's; failed rows are left out and counted
there. The terms are those of `workbench.scorers.degeneration`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import pandas as pd

from workbench import analysis, stats
from workbench.measures import RunTables, rows_of
from workbench.scorers.degeneration import agreement, signs
from workbench.scorers.texts import asked

if TYPE_CHECKING:
    from workbench.prompts import Prompt, PromptSet

COLUMNS: Final = (
    "truncated_rate",
    "empty_rate",
    "loop_rate",
    "repeated_ngrams",
    "distinct_2",
    "language_switch_rate",
    "agreement",
)
"""What is told of a cell, each 0..1."""
WORSE: Final = dict.fromkeys(COLUMNS, 1) | {"distinct_2": -1, "agreement": 0}
"""1 where more is worse, -1 where less is, 0 where neither."""
_SIGNS: Final = {
    "empty_rate": "empty",
    "loop_rate": "loop",
    "repeated_ngrams": "repeated_ngrams",
    "distinct_2": "distinct_2",
    "language_switch_rate": "language_switch",
}


class Asked(Protocol):
    """What was asked: the cells of a run and its prompts."""

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell."""

    @property
    def prompts(self) -> PromptSet:
        """The prompts."""


class RunAnswers(Asked, RunTables, Protocol):
    """What is needed of a run: its tables and its prompts."""


def health(run: RunAnswers, *, intervals: bool = False, level: float = 0.95) -> pd.DataFrame:
    """How the answers of each cell hold up.

    Args:
        run: A run.
        intervals: With a lower and an upper bound for each figure.
        level: Confidence level of the bounds, strictly between 0 and 1.

    Returns:
        One row per cell in study order: ``cell_id``, ``label``, ``n`` (answers), then, as fractions: ``truncated_rate`` (cut at
        max_tokens), ``empty_rate``, ``loop_rate`` (end in a loop), ``repeated_ngrams`` (mean share of four-word passages that
        occurred before in the answer), ``distinct_2`` (mean share of different word pairs; falls with length),
        ``language_switch_rate`` (of the answers whose language can be told), ``agreement`` (mean share of equal pairs among
        the answers to one prompt), and ``n_output_tokens_mean``. NaN where there is nothing to judge, as is ``agreement`` with
        one repeat. With ``intervals`` also ``<figure>_lo`` and ``<figure>_hi`` of the fractions: for signs that an answer shows
        or not, Wilson's interval where every prompt has one answer; else clustered by prompt (`stats.PromptMeans.interval`).
    """
    needed = [*analysis.KEY, "group", "finish_reason", "n_output_tokens", "text"]
    rows = rows_of(run, needed)
    rows = rows[rows["finish_reason"].ne("error")].reset_index(drop=True)
    rows["truncated_rate"] = rows["finish_reason"].eq("length").astype(float)
    rows = rows.join(signs_of(run, rows))
    by_cell = rows.groupby("cell_id", sort=False)
    out = run.cells[["cell_id", "label"]].set_index("cell_id")
    out["n"] = by_cell.size().reindex(out.index, fill_value=0).astype("int64")
    out = out.join(by_cell[["truncated_rate", *_SIGNS]].mean())
    agreed = _agreements(rows)
    out["agreement"] = agreed.groupby("cell_id")["agreement"].mean().reindex(out.index)
    tokens = analysis.tokens_of(rows).groupby(rows["cell_id"], sort=False)
    out["n_output_tokens_mean"] = tokens.mean()
    if intervals:
        for column in COLUMNS:
            table = agreed if column == "agreement" else rows
            out = out.join(_bounds(table, column, level))
    return out.reset_index()


def _asked(run: Asked, rows: pd.DataFrame) -> list[str | None]:
    """What the user asked in each row, as its cell worded it."""
    worded = getattr(run, "prompt", None)
    template = run.cells.set_index("cell_id").get("template")
    names = {} if template is None else template.dropna().to_dict()
    keys = list(
        zip(
            rows["cell_id"].map(names) if names else [None] * len(rows),
            rows["prompt_id"],
            strict=True,
        )
    )
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    cells = list(rows["cell_id"])
    texts: dict[tuple[object, str], str | None] = {}
    for key, i in first.items():
        prompt: Prompt = (
            worded(cells[i], key[1]) if worded is not None and names else run.prompts[key[1]]
        )
        texts[key] = asked(prompt) or None
    return [texts[key] for key in keys]


def signs_of(run: Asked, rows: pd.DataFrame) -> pd.DataFrame:
    """The signs of every answer as numbers, NaN where it cannot be said; an answer that occurs again is looked at once.

    Args:
        run: A run.
        rows: Answers of it, with ``cell_id``, ``prompt_id`` and ``text``.

    Returns:
        ``empty_rate``, ``loop_rate``, ``repeated_ngrams``, ``distinct_2`` and ``language_switch_rate``, with the index of the
        rows; see `health`.
    """
    pairs = list(zip(rows["text"], _asked(run, rows), strict=True))
    which, different = pd.factorize(pd.Series(pairs, dtype=object))
    seen = [signs(text, prompt_text=prompt) for text, prompt in different]
    columns = {
        column: np.array([getattr(s, name) for s in seen], dtype=float)[which]
        for column, name in _SIGNS.items()
    }
    return pd.DataFrame(columns, index=rows.index)


def _agreements(rows: pd.DataFrame) -> pd.DataFrame:
    """Agreement among the repeats of each cell and prompt, one row each."""
    again = rows.duplicated(["cell_id", "prompt_id"], keep=False)
    several = rows.loc[again, ["cell_id", "prompt_id", "group", "text"]]
    if several.empty:
        return several.drop(columns="text").assign(agreement=np.empty(0))
    texts = several.groupby(["cell_id", "prompt_id"], sort=False).agg(
        group=("group", "first"), texts=("text", list)
    )
    texts["agreement"] = [agreement(t) for t in texts.pop("texts")]
    return texts.reset_index()


def _bounds(rows: pd.DataFrame, column: str, level: float) -> pd.DataFrame:
    """Lower and upper bounds of a figure, indexed by cell_id."""
    names = [f"{column}_lo", f"{column}_hi"]
    if not rows[column].notna().any():
        return pd.DataFrame(columns=names, dtype=float, index=pd.Index([], name="cell_id"))
    means = stats.prompt_means(rows, column)
    index = pd.Index(means.cells, name="cell_id")
    return pd.DataFrame(dict(zip(names, means.interval(level), strict=True)), index=index)
