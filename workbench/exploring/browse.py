"""Looking through a run: which cells, which prompts, which page. What `workbench.exploring` shows, without widgets.

Nothing here is more than a table at a time: a page of answers is cut out of the table of two cells, never out of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from workbench import analysis, answers
from workbench.comparing import Comparison, RunTables, compare
from workbench.comparing.pairs import CHANGES, changes
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from workbench.prompts import Prompt, PromptSet

PAGE: Final = 20
"""Prompts on a page."""
ALL: Final = "all"
SORTS: Final = {
    "quality": ("quality", False),
    "difference": ("diff_vs_baseline", False),
    "latency": ("e2el_ms_p50", True),
    "tokens": ("n_output_tokens_mean", True),
    "study order": ("order", True),
}
"""What cells are sorted by: column of the overview, and whether the smallest comes first."""
ORDERS: Final = ("prompt set", "largest change", "longest answer")
"""What prompts are sorted by."""
_KEPT: Final = 16
_SEARCHED: Final = (
    "prompt_id",
    "question",
    "baseline_question",
    "target",
    "baseline_text",
    "text",
    "group",
)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a run, read with the columns that are needed here and no others.

    Attributes:
        manifest: Of the run.
        generations: Without tokens and rendered prompts.
        scores: Of all scorers.
        latency: The latency table.
        cells: The cells table.
        prompts: The prompts.
        primary: Name of the primary scorer.
        worded: The prompt of an id as a cell (id) words it; None: all cells ask the prompts as they are.
    """

    manifest: Mapping[str, Any]
    generations: pd.DataFrame
    scores: pd.DataFrame
    latency: pd.DataFrame
    cells: pd.DataFrame
    prompts: PromptSet
    primary: str | None
    worded: Callable[[str, str], Prompt] | None = field(default=None, repr=False, compare=False)

    def prompt(self, cell_id: str, prompt_id: str) -> Prompt:
        """A prompt as a cell worded it."""
        return self.prompts[prompt_id] if self.worded is None else self.worded(cell_id, prompt_id)

    def cell_id(self, name: str | None = None) -> str:
        """The id of a cell, given as an id; of the baseline by default."""
        return str(self.manifest["baseline"]) if name is None else name


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked at.

    Attributes:
        cell: Id of the cell whose answers are read.
        baseline: Id of the one they are read beside; the same id shows the cell alone.
        split: "select", "confirm", or None for all prompts.
        repeat: Show this repeat; None for the one nearest the mean score.
        change: One of `CHANGES`, or "all".
        search: Only prompts with this in id, question, target, group or either answer; case does not matter.
        group: Only prompts of this group; None for all.
        order: One of `ORDERS`.
        page: From 0.
    """

    cell: str
    baseline: str
    split: str | None = None
    repeat: int | None = None
    change: str = ALL
    search: str = ""
    group: str | None = None
    order: str = ORDERS[0]
    page: int = 0


class Browser:
    """A run that is looked through.

    Args:
        run: Its tables.
    """

    def __init__(self, run: RunTables) -> None:
        self.run = run
        self._summaries: dict[Any, pd.DataFrame] = {}
        self._pairs: dict[Any, pd.DataFrame] = {}
        self._compared: dict[Any, Comparison] = {}
        label = run.cells.set_index("cell_id")["label"]
        self.labels: dict[str, str] = {str(i): str(name) for i, name in label.items()}

    @property
    def splits(self) -> list[str]:
        """The sides of the split; empty if nothing is held out."""
        found = set(self.run.generations["split"].unique())
        return ["select", "confirm"] if len(found) > 1 else []

    @property
    def repeats(self) -> int:
        """Draws per prompt, at most."""
        return int(self.run.generations["repeat"].max()) + 1 if len(self.run.generations) else 0

    @property
    def groups(self) -> list[str]:
        """Names of the groups, in the order of the prompts."""
        return list(dict.fromkeys(p.group for p in self.run.prompts if p.group is not None))

    def varied(self) -> dict[str, list[Any]]:
        """The settings that differ between cells, with their values in order; None = off."""
        cells = self.run.cells
        names = [c for c in ("adapter", "template", *SETTINGS) if c in cells]
        out = {}
        for name in names:
            values = {None if pd.isna(v) else v for v in cells[name]}
            if len(values) > 1:
                out[name] = sorted(values, key=lambda v: (v is not None, v))
        return out

    # Cells

    def overview(self, baseline: str, split: str | None = None) -> pd.DataFrame:
        """One row per cell in study order: the columns of a summary, with label and order."""
        key = baseline, split
        if key not in self._summaries:
            run = self.run
            light = run.generations.drop(columns="text")
            table = analysis.summary(
                light,
                run.scores,
                run.latency,
                run.cells,
                baseline,
                primary=run.primary,
                split=split,
            )
            table["label"] = table["cell_id"].map(self.labels)
            table["order"] = range(len(table))
            if "template" in run.cells and "template" not in table:
                table["template"] = run.cells["template"].to_numpy()
            self._summaries[key] = table
        return self._summaries[key]

    def listed(
        self, table: pd.DataFrame, where: Mapping[str, Any], sort: str = "quality"
    ) -> pd.DataFrame:
        """The cells whose settings are those asked for, sorted; of equal ones the faster comes first.

        Args:
            table: As from `overview`.
            where: Setting to value; None = off. Settings that are not named may be anything.
            sort: A key of `SORTS`.
        """
        for name, value in where.items():
            table = table[table[name].isna() if value is None else table[name].eq(value)]
        column, ascending = SORTS[sort]
        by = {"e2el_ms_p50": True} | {column: ascending}
        names = sorted(by, key=lambda name: name != column)
        return table.sort_values(
            names, ascending=[by[name] for name in names], kind="stable", na_position="last"
        )

    def first(self, baseline: str) -> str:
        """The cell to begin with: the best other than the baseline."""
        table = self.listed(self.overview(baseline, self.splits[0] if self.splits else None), {})
        others = table.loc[table["cell_id"] != baseline, "cell_id"]
        return str(others.iloc[0]) if len(others) else baseline

    # Prompts

    def all_rows(self, query: Query) -> pd.DataFrame:
        """Every prompt that both cells of a query answered; see `workbench.comparing.pairs.changes`.

        Where they have no answered prompt in common, those of the cell alone.
        """
        key = query.cell, query.baseline, query.split, query.repeat
        if key not in self._pairs:
            _forget(self._pairs)
            rows = self._changes(query)
            if rows.empty:
                rows = self._changes(replace(query, baseline=query.cell))
                rows.attrs["alone"] = True
            self._pairs[key] = rows
        return self._pairs[key]

    def _changes(self, query: Query) -> pd.DataFrame:
        return changes(self.run, query.cell, query.baseline, split=query.split, repeat=query.repeat)

    def alone(self, query: Query) -> bool:
        """True if the cell of a query is shown without the baseline: it is the baseline, or they share no answer."""
        return query.cell == query.baseline or "alone" in self.all_rows(query).attrs

    def found(self, query: Query) -> pd.DataFrame:
        """The prompts of a query before ``change``, ``order`` and ``page`` count."""
        rows = self.all_rows(query)
        if query.group is not None:
            rows = rows[rows["group"].eq(query.group)]
        if query.search.strip():
            rows = rows[_contains(rows, query.search.strip(), _SEARCHED)]
        return rows

    def counts(self, query: Query) -> dict[str, int]:
        """How many prompts each kind of change has, and "all"."""
        rows = self.found(query)
        counted = rows["change"].value_counts()
        return {ALL: len(rows)} | {kind: int(counted.get(kind, 0)) for kind in CHANGES}

    def rows(self, query: Query) -> pd.DataFrame:
        """The prompts of a query, sorted, of all pages."""
        rows = self.found(query)
        if query.change != ALL:
            rows = rows[rows["change"].eq(query.change)]
        if query.order == ORDERS[1]:
            order = rows["diff"].abs().sort_values(ascending=False, kind="stable")
            return rows.loc[order.index]
        if query.order == ORDERS[2]:
            order = rows["text"].str.len().sort_values(ascending=False, kind="stable")
            return rows.loc[order.index]
        return rows

    def page(self, query: Query) -> tuple[str, Query, int]:
        """One page of answers.

        Returns:
            HTML, the query with a page that there is, and the number of pages (at least 1).
        """
        rows = self.rows(query)
        n_pages = max(1, -(-len(rows) // PAGE))
        query = replace(query, page=min(max(query.page, 0), n_pages - 1))
        shown = rows.iloc[query.page * PAGE : (query.page + 1) * PAGE]
        names = (
            None if self.alone(query) else self.labels[query.baseline],
            self.labels[query.cell],
        )
        return answers.html(shown, labels=names), query, n_pages

    def comparison(self, query: Query) -> Comparison | None:
        """The two cells of a query compared over all prompts of its split; None if they are one."""
        key = query.cell, query.baseline, query.split
        if query.cell == query.baseline:
            return None
        if key not in self._compared:
            _forget(self._compared)
            found = compare(self.run, query.cell, query.baseline, split=query.split)
            self._compared[key] = found
            self._pairs.setdefault((*key, None), found.changes)
        return self._compared[key]


def _forget(kept: dict[Any, Any]) -> None:
    """Drop the oldest of too many kept results."""
    while len(kept) >= _KEPT:
        del kept[next(iter(kept))]


def _contains(rows: pd.DataFrame, wanted: str, columns: Collection[str]) -> pd.Series:
    """Which rows have a text in one of the columns."""
    hit = pd.Series(data=False, index=rows.index)
    for name in columns:
        texts = rows[name].astype("str")
        hit |= texts.str.lower().str.contains(wanted.lower(), regex=False).eq(True)
    return hit
