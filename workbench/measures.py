"""What can be shown of the cells of a run: the columns of the summary with their units, and the tables they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence


class Tables(Protocol):
    """The tables of a run, which everything that looks at one needs."""

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell."""

    @property
    def generations(self) -> pd.DataFrame:
        """One row per answer."""

    @property
    def scores(self) -> pd.DataFrame:
        """One row per answer and scorer."""

    @property
    def latency(self) -> pd.DataFrame:
        """One row per timed request."""

    @property
    def primary(self) -> str | None:
        """Name of the primary scorer."""


class RunTables(Tables, Protocol):
    """What is needed of a run."""

    def summary(self) -> pd.DataFrame:
        """One row per cell."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the summary, as people read it.

    Attributes:
        column: Its name.
        name: In words.
        unit: "%", "points", "ms", "tokens" or "".
        scale: What a value is multiplied by to be in that unit.
        better: 1 if more is better, -1 if less is, 0 if neither.
        signed: True if 0 is the middle of the scale.
    """

    column: str
    name: str
    unit: str
    scale: float = 1.0
    better: int = 0
    signed: bool = False

    @property
    def axis(self) -> str:
        """Name and unit, for an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def ends(self) -> tuple[float, float]:
        """Least and largest value there can be, in that unit."""
        if self.signed:
            return (-100.0, 100.0) if self.scale == 100 else (-np.inf, np.inf)
        return 0.0, 100.0 if self.unit == "%" else np.inf

    def text(self, value: float) -> str:
        """A value in its unit, without the unit.

        >>> MEASURES["quality"].text(0.316), MEASURES["diff_vs_baseline"].text(-0.02)
        ('31.6', '-2.0')
        """
        number = value * self.scale
        if self.unit == "ms" or abs(number) >= 1000:
            return f"{number:{'+' if self.signed else ''},.{1 if abs(number) < 10 else 0}f}"
        return f"{number:+.1f}" if self.signed else f"{number:.1f}"

    def apart(self, value: float) -> str:
        """How far one value is from another, with its sign, without the unit.

        >>> MEASURES["quality"].apart(-0.0207), MEASURES["quality"].apart(0.0)
        ('\u22122.1', '0')
        """
        text = replace(self, signed=True).text(value).replace("-", "\u2212")
        return text if text.strip("+\u22120.,") else "0"


MEASURES: Final = {
    m.column: m
    for m in (
        Measure("quality", "quality", "%", 100, 1),
        Measure("diff_vs_baseline", "difference in quality", "points", 100, 1, signed=True),
        Measure("truncated_rate", "answers cut at max_tokens", "%", 100, -1),
        Measure("loop_rate", "answers that end in a loop", "%", 100, -1),
        Measure("n_output_tokens_mean", "output length, mean", "tokens"),
        Measure("ttft_ms_p50", "time to first token, median", "ms", 1, -1),
        Measure("tpot_ms_p50", "time per further token, median", "ms", 1, -1),
        Measure("e2el_ms_p50", "end-to-end latency, median", "ms", 1, -1),
        Measure("e2el_ms_p90", "end-to-end latency, p90", "ms", 1, -1),
    )
}


def measure(value: str, columns: Sequence[str] = ()) -> Measure:
    """The measure of a column; other columns are shown as they are.

    Raises:
        WorkbenchError: There is neither such a measure nor such a column.
    """
    if value in MEASURES:
        return MEASURES[value]
    if value not in columns:
        raise WorkbenchError(unknown("value", value, MEASURES))
    return Measure(value, value.replace("_", " "), "")


# ------------------------------------------------------------------------------------------------- rows


def rows_of(run: RunTables, columns: Sequence[str]) -> pd.DataFrame:
    """The answers that the summary is about: where the study holds prompts out, those of the others."""
    rows = run.generations
    used = [c for c in columns if c in rows]
    return (
        rows.loc[rows["split"].eq("select"), used] if rows["split"].nunique() == 2 else rows[used]
    )


def baseline_cell(cells: pd.DataFrame, baseline: str | None = None) -> str:
    """The id of the cell that others are compared with, given by id or label; default: the one marked.

    Raises:
        WorkbenchError: There is no such cell, or not one is marked.
    """
    if baseline is None:
        marked = cells.loc[cells["is_baseline"].astype(bool), "cell_id"]
        if len(marked) != 1:
            raise WorkbenchError(f"one cell must be marked as the baseline, got {len(marked)}")
        return str(marked.iloc[0])
    found = cells.loc[cells["cell_id"].eq(baseline) | cells["label"].eq(baseline), "cell_id"]
    if found.empty:
        raise WorkbenchError(f"no cell {baseline!r}; cells: {', '.join(cells['label'])}")
    return str(found.iloc[0])


def failed_rows(run: RunTables | pd.DataFrame) -> bool:
    """Whether it is a summary with failed rows: it does not tell which prompts they are of."""
    return isinstance(run, pd.DataFrame) and "n_failed" in run and bool(run["n_failed"].gt(0).any())


def check_level(summary: pd.DataFrame, level: float) -> None:
    """See that a summary's intervals are of a level.

    Raises:
        WorkbenchError: They are of another.
    """
    own = summary.attrs.get("level", 0.95)
    if level != own:
        raise WorkbenchError(
            f"level must be {own:g}, that of the summary's intervals, got {level:g}; give the run for any other"
        )
