"""What a report is about: a run read once, and the few choices that all sections share."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import yaml

from workbench import analysis, comparing, effects, factors, settling, words
from workbench.comparing.words import ALPHA
from workbench.plots.style import shorten
from workbench.reporting.amounts import signs
from workbench.runs import Run, open_run

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.deciding import Section

__all__ = ["ALPHA", "Facts", "read"]

MOST_NAME: Final = 80
"""Characters of a cell's name inside a sentence."""


class Facts:
    """A run, its summary, and which two cells are looked at closely.

    Args:
        run: The run.
        baseline: Cell id or label all are compared with; None: the study's.
        seed: Of resampling.

    Raises:
        StoreError: There is no such cell.
    """

    def __init__(self, run: Run, baseline: str | None = None, seed: int = 0) -> None:
        self.run = run
        self.seed = seed
        self.baseline = run.cell_id(baseline)

    def __repr__(self) -> str:
        return f"Facts({self.run!r}, baseline {self.name(self.baseline)!r})"

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per cell; over the prompts that are not held out."""
        return self.run.summary(self.baseline, seed=self.seed)

    @cached_property
    def confirm(self) -> pd.DataFrame | None:
        """The same over the prompts held out, or None."""
        return self.run.confirmation(self.baseline, seed=self.seed)

    @cached_property
    def answer(self) -> list[str]:
        """What the run found, a line a subject."""
        cells = self.run.cells.assign(label=self.run.cells["cell_id"].map(self.short))
        text = analysis.answer_in_words(
            self.summary,
            cells,
            baseline=self.baseline,
            confirm=self.confirm,
            needed=settling.of_summary(self.run, self.summary, self.confirm),
        )
        return signs(text).splitlines()

    @cached_property
    def names(self) -> dict[str, str]:
        """Cell id to the name people know it by."""
        return analysis.labels_of(self.summary, self.run.cells)

    def name(self, cell: str) -> str:
        """The name of a cell."""
        return self.names[cell]

    @cached_property
    def _shorts(self) -> dict[str, str]:
        cut = {cell: shorten(name, MOST_NAME) for cell, name in self.names.items()}
        seen = pd.Series(cut).value_counts()
        return {c: f"{n} ({c[:6]})" if seen[n] > 1 else n for c, n in cut.items()}

    def short(self, cell: str) -> str:
        """The name of a cell for a sentence: what is too long is left out of its middle, other cells' names stay other."""
        return self._shorts[cell]

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """The summary in the order of `workbench.words.ranked`, cells without a score last."""
        order = list(words.ranked(self.summary, self.baseline).index)
        rows = self.summary.set_index("cell_id", drop=False).rename_axis(None)
        unscored = [cell for cell in rows.index if cell not in set(order)]
        return rows.loc[[*order, *unscored]].reset_index(drop=True)

    @cached_property
    def scored(self) -> bool:
        """True if anything has a score."""
        return bool(self.summary["quality"].notna().any())

    def quality_of(self, cell: str, *, held_out: bool = False) -> float:
        """Quality of a cell, 0..1, on the prompts of the summary or on those held out; NaN if unknown."""
        table = self.confirm if held_out and self.confirm is not None else self.summary
        return float(table.loc[table["cell_id"].eq(cell), "quality"].iloc[0])

    @cached_property
    def timed(self) -> bool:
        """True if anything was timed."""
        return bool(self.summary["e2el_ms_p50"].notna().any())

    @cached_property
    def best(self) -> str | None:
        """The cell with the highest score."""
        return str(self.ranked["cell_id"].iloc[0]) if self.scored else None

    @cached_property
    def other(self) -> str | None:
        """The cell that is put beside the baseline: the best one, or the runner-up if the baseline is best.

        Without scores, the first cell that is not the baseline. None if there is no other cell with an answer.
        """
        answered = set(self.answers["cell_id"])
        if self.baseline not in answered:
            return None
        others = [c for c in self.ranked["cell_id"] if c != self.baseline and c in answered]
        return str(others[0]) if others else None

    @cached_property
    def comparison(self) -> comparing.Comparison | None:
        """The other cell against the baseline; None if they share no answered prompt.

        Where prompts are held out it is over those, since the others chose the cell.
        """
        if self.other is None:
            return None
        split = "confirm" if self.run.holds_out else None
        mine = self.answers[self.answers["split"].eq(split)] if split else self.answers
        both = [
            set(mine.loc[mine["cell_id"].eq(c), "prompt_id"]) for c in (self.baseline, self.other)
        ]
        if not both[0] & both[1]:
            return None
        found = comparing.compare(self.run, self.other, self.baseline, split=split, rng=self.seed)
        return replace(found, labels=(self.short(found.baseline), self.short(found.cell)))

    @cached_property
    def decision(self) -> Section | None:
        """What to use, in plain texts; None where nothing can be decided."""
        from workbench.deciding import section  # noqa: PLC0415 - it imports the amounts of this package

        return section(self.run, baseline=self.baseline, rng=self.seed)

    @cached_property
    def left(self) -> dict[str, int]:
        """Cells that left a race, and after how many prompts."""
        return dict(self.summary.attrs["left"])

    @cached_property
    def front_unknown(self) -> str | None:
        """Why it cannot be told which cells are on the front; None if it can."""
        return words.front_unknown(self.summary.attrs.get("timing"))

    @cached_property
    def scored_prompts(self) -> dict[str, int]:
        """Cell id to the number of prompts its quality is of."""
        return dict(zip(self.summary["cell_id"], words.scored_prompts(self.summary), strict=True))

    @property
    def split(self) -> str | None:
        """The prompts that choices are made on, if some are held out."""
        return "select" if self.run.holds_out else None

    @cached_property
    def answers(self) -> pd.DataFrame:
        """The answers that did not break."""
        rows = self.run.generations
        return rows[rows["finish_reason"].ne("error")]

    @property
    def measured_all(self) -> pd.DataFrame:
        """The timed requests, warm-up left out."""
        timed = self.run.latency
        return timed[timed["warm"].eq(1)]

    @cached_property
    def measured(self) -> pd.DataFrame:
        """The timed requests that count: warm-up left out, noisy ones by the rule of `workbench.analysis`."""
        return analysis.measured(self.run.latency)

    @cached_property
    def tidy(self) -> pd.DataFrame:
        """One row per generation with its score."""
        return analysis.frame(
            self.run.generations, self.run.scores, self.run.cells, self.run.primary
        )

    @cached_property
    def unjudged(self) -> pd.Series:
        """Which rows of `tidy` have an answer that the scorer could not judge."""
        return self.tidy["failed"] & self.tidy["finish_reason"].ne("error")

    @cached_property
    def lost(self) -> pd.DataFrame:
        """Rows without a score, by cell, of the prompts of the summary: ``failed`` (no answer) and ``unjudged``."""
        rows = self.tidy.assign(unjudged=self.unjudged)
        rows["failed"] = rows["finish_reason"].eq("error")
        rows = rows[rows["split"].eq(self.split)] if self.split else rows
        return rows.groupby("cell_id")[["failed", "unjudged"]].sum().astype(int)

    @cached_property
    def design(self) -> factors.Design:
        """The combinations of settings that the cells cover, those merged into another cell included."""
        return effects.design_of(self.run)

    @cached_property
    def fixed(self) -> dict[str, str]:
        """Settings that all cells have in common, with their value in words."""
        levels = self.design.levels
        return {
            name: factors.level_text(name, values[0])
            for name, values in levels.items()
            if len(values) == 1
        }

    @property
    def manifest(self) -> dict[str, Any]:
        """Where the run's numbers come from."""
        return self.run.manifest

    @cached_property
    def repeats(self) -> int:
        """Draws per prompt and cell, as the study declares them."""
        return int(yaml.safe_load(self.manifest["study"]["text"]).get("repeats") or 1)

    @cached_property
    def n_missing(self) -> int:
        """Rows of the plan that were never run."""
        return self.run.n_missing


def read(run: str | Path | Run, baseline: str | None = None, seed: int = 0) -> Facts:
    """Read a run for a report.

    Args:
        run: A run, or what `workbench.open_run` takes.
        baseline: Cell id or label all are compared with; None: the study's.
        seed: Of resampling.

    Raises:
        StoreError: There is no such run or cell.
    """
    return Facts(run if isinstance(run, Run) else open_run(run), baseline, seed)
