"""Limits that a cell must keep to, and which cells are known to do so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

import pandas as pd

from workbench import analysis
from workbench.deciding.objective import OPERATORS, parse_limits
from workbench.errors import WorkbenchError
from workbench.latency import MIN_N, percentile
from workbench.resample import MIN_FOR_MEDIAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.comparing.pairs import RunTables

Status = Literal["met", "not met", "not known"]
OF_ANSWERS: Final = ("n_output_tokens_mean", "truncated_rate", "loop_rate")
"""Columns of the summary that can be limited, as tokens or shares."""
_TIME: Final = re.compile(r"(ttft|tpot|e2el)_ms_p(50|[5-9]\d)")
_KNOWN: Final = f"ttft_ms, tpot_ms or e2el_ms with _p50 to _p99, {', '.join(OF_ANSWERS)}"


class Limit(Protocol):
    """What a cell must keep to, as ``e2el_ms_p90 <= 900``."""

    @property
    def metric(self) -> str:
        """What is limited: a percentile of a latency, in milliseconds, or one of `OF_ANSWERS`."""

    @property
    def op(self) -> str:
        """One of <=, <, >= and >."""

    @property
    def value(self) -> float:
        """The limit."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A limit and how the cells stand to it.

    Attributes:
        text: The limit.
        metric: What is limited.
        status: Cell id to whether it is met; "not known" where too little was measured to say.
        figures: Cell id to the figure; None where it is not known.
        n: Cell id to the number of requests or prompts behind it.
        needed: Fewest of them from which the figure is given.
    """

    text: str
    metric: str
    status: dict[str, Status]
    figures: dict[str, float | None]
    n: dict[str, int]
    needed: int


def read(subject_to: str | Sequence[str | Limit]) -> list[Limit]:
    """Limits; texts are read by `workbench.deciding.objective.parse_limits`.

    Raises:
        StudyError: Lists every text that is none.
    """
    given = [subject_to] if isinstance(subject_to, str) else subject_to
    texts = iter(parse_limits([x for x in given if isinstance(x, str)]))
    return [next(texts) if isinstance(x, str) else x for x in given]


def check(limits: Sequence[Limit], run: RunTables, summary: pd.DataFrame) -> tuple[Limited, ...]:
    """Which cells meet which limits.

    A figure that too few requests support is not known, and a limit on it not met.

    Args:
        limits: The limits.
        run: The run, for its timed requests.
        summary: Of the prompts that the choice is made on.

    Raises:
        WorkbenchError: No such metric.
    """
    return tuple(_limited(limit, run, summary) for limit in limits)


def _limited(limit: Limit, run: RunTables, summary: pd.DataFrame) -> Limited:
    time = _TIME.fullmatch(limit.metric)
    if time is None and limit.metric not in OF_ANSWERS:
        raise WorkbenchError(f"no metric {limit.metric!r} to limit; there are {_KNOWN}")
    cells = [str(c) for c in summary["cell_id"]]
    needed = 1
    if time is not None:
        q = float(time[2])
        figures, n, needed = _of_times(run, cells, f"{time[1]}_ms", q)
    else:
        values = summary.set_index("cell_id")
        figures = {c: None if pd.isna(v := values[limit.metric][c]) else float(v) for c in cells}
        n = {c: int(values["n_prompts"][c]) for c in cells}
    keeps = OPERATORS[limit.op]
    status: dict[str, Status] = {
        c: "not known"
        if (f := figures[c]) is None
        else "met"
        if keeps(f, limit.value)
        else "not met"
        for c in cells
    }
    text = f"{limit.metric} {limit.op} {limit.value:g}"
    return Limited(text, limit.metric, status, figures, n, needed)


def _of_times(
    run: RunTables, cells: Sequence[str], name: str, q: float
) -> tuple[dict[str, float | None], dict[str, int], int]:
    """A percentile of a latency by cell, of how many requests, and how many it takes."""
    needed = max(MIN_FOR_MEDIAN, next(n for most, n in MIN_N if q <= most))
    timed = analysis.measured(run.latency) if len(run.latency) else run.latency
    groups = {str(c): g[name].dropna().astype(float) for c, g in timed.groupby("cell_id")}
    n = {c: len(groups.get(c, ())) for c in cells}
    figures = {c: percentile(groups[c], q) if n[c] >= needed else None for c in cells}
    return figures, n, needed
