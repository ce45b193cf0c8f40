"""The settings that a run varies, their levels, and which cell ran each combination of them.

A greedy cell (temperature 0) does the same whatever top_p, top_k and min_p are, so it is run once and stands for every level
of these three. Elsewhere a missing setting means that it is off, which is a level of its own: the neutral value (1 for
top_p and the repetition penalty, 0 for min_p and the other penalties) and "off" are the same level.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError, unknown
from workbench.plan import SHORT
from workbench.records import BASE
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from workbench.plan import Collapsed

Level = float | str | None
"""A value of a setting; None = off."""

FACTORS: Final = (*SETTINGS, "stop", "template", "adapter")
"""What a cell is made of, in the order of its label."""
SAMPLING: Final = ("top_p", "top_k", "min_p")
"""Settings that do nothing at temperature 0."""
NEUTRAL: Final = {
    "top_p": 1.0,
    "top_k": math.inf,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""Values at which a setting does nothing; also its place among the levels when it is off."""


@dataclass(frozen=True, slots=True)
class Design:
    """The combinations of settings that a run covers.

    Attributes:
        levels: Setting to its levels, in order: numbers ascending, "off" where its neutral value would be, texts in order
            of appearance with the base adapter first. Settings that no cell varies have one level.
        table: One row per combination and cell that ran it: a column of level codes (positions in ``levels``) for each
            setting, and ``cell_id``.
        shared: The settings of which a greedy cell stands for more than one level.
    """

    levels: Mapping[str, tuple[Level, ...]]
    table: pd.DataFrame
    shared: tuple[str, ...]

    @property
    def varied(self) -> tuple[str, ...]:
        """Settings with more than one level."""
        return tuple(name for name, levels in self.levels.items() if len(levels) > 1)

    def check(self, setting: str) -> str:
        """The setting, if it is one.

        Raises:
            WorkbenchError: It is not.
        """
        if setting not in self.levels:
            raise WorkbenchError(unknown("setting", setting, self.varied or self.levels))
        return setting

    def code(self, setting: str, value: Any) -> int:
        """Position of a level.

        Raises:
            WorkbenchError: No such setting, or no cell with such a value.
        """
        level = as_level(self.check(setting), value)
        if level not in self.levels[setting]:
            known = ", ".join(level_text(setting, v) for v in self.levels[setting])
            raise WorkbenchError(
                f"no cell with {setting} = {level_text(setting, level)}; it has {known}"
            )
        return self.levels[setting].index(level)

    def only(self, where: Mapping[str, Any]) -> Design:
        """The combinations with these values; the settings named have one level from then on.

        Raises:
            WorkbenchError: No such setting, or no cell with such a value.
        """
        keep = np.ones(len(self.table), bool)
        levels = dict(self.levels)
        for setting, value in where.items():
            code = self.code(setting, value)
            keep &= self.table[setting].to_numpy() == code
            levels[setting] = (self.levels[setting][code],)
        table = self.table[keep].reset_index(drop=True)
        if table.empty:
            said = " and ".join(f"{s} = {level_text(s, v)}" for s, v in where.items())
            raise WorkbenchError(f"no cell with {said}")
        return Design(levels, table.assign(**dict.fromkeys(where, 0)), self.shared)


def design(cells: pd.DataFrame, collapsed: Iterable[Collapsed] = ()) -> Design:
    """The combinations of settings behind a table of cells.

    Args:
        cells: The cells table, or a summary: ``cell_id`` and the settings.
        collapsed: Cells that were written but run as another one (`Plan.collapsed`), for settings that only they
            show, such as top_k 1 (greedy at any temperature).
    """
    records: list[dict[str, Any]] = cells.to_dict("records")  # type: ignore[assignment]  # names are texts
    rows = [(_levels_of(row), row.get("temperature") == 0, str(row["cell_id"])) for row in records]
    known = {cell for _, _, cell in rows}
    rows += [
        (_levels_of(_written(pair)), pair.dropped.params.temperature == 0, pair.kept.cell_id)
        for pair in collapsed
        if pair.kept.cell_id in known
    ]
    names = [f for f in FACTORS if any(f in values for values, _, _ in rows)]
    seen: dict[str, dict[Level, None]] = {name: {} for name in names}
    for values, greedy, _ in rows:
        for name in names:
            if not (greedy and name in SAMPLING):
                seen[name][values.get(name)] = None
    levels = {name: _ordered(name, found) or (None,) for name, found in seen.items()}
    table: dict[tuple[Any, ...], None] = {}
    for values, greedy, cell in rows:
        codes = [
            range(len(levels[name]))
            if greedy and name in SAMPLING
            else (levels[name].index(values.get(name)),)
            for name in names
        ]
        table |= dict.fromkeys((*combination, cell) for combination in itertools.product(*codes))
    shared = any(greedy for _, greedy, _ in rows)
    return Design(
        levels,
        pd.DataFrame(list(table), columns=[*names, "cell_id"]),
        tuple(n for n in names if shared and n in SAMPLING and len(levels[n]) > 1),
    )


def _written(pair: Collapsed) -> dict[str, Any]:
    cell = pair.dropped
    return {**cell.params.to_dict(), "template": cell.template, "adapter": cell.adapter}


def _levels_of(row: Mapping[str, Any]) -> dict[str, Level]:
    return {name: as_level(name, row[name]) for name in FACTORS if name in row}


def as_level(setting: str, value: Any) -> Level:
    """A value as a level: None where it is missing or does nothing.

    >>> as_level("top_p", 1.0), as_level("top_k", 50.0), as_level("temperature", 0)
    (None, 50.0, 0.0)
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | np.ndarray):
        return json.dumps([str(v) for v in value], ensure_ascii=False) if len(value) else None
    if value is None or pd.isna(value) or value == NEUTRAL.get(setting):
        return None
    return None if setting == "top_p" and value > 1 else float(value)


def _ordered(setting: str, found: Iterable[Level]) -> tuple[Level, ...]:
    def place(level: Level) -> tuple[int, float]:
        if isinstance(level, str):
            return (0 if level == BASE else 2, 0.0)
        if level is None:
            return (1, NEUTRAL.get(setting, -math.inf))
        return (1, level)

    return tuple(sorted(found, key=place))


def level_text(setting: str, level: Level, *, name: bool = False) -> str:
    """A level for people.

    Args:
        setting: The setting.
        level: Its level.
        name: With the setting's short name in front.

    >>> level_text("top_k", 50.0, name=True), level_text("top_p", None), level_text("temperature", 0)
    ('k = 50', 'off', '0 (greedy)')
    """
    if level is None:
        text = "none" if setting in ("stop", "template", "adapter") else "off"
    elif isinstance(level, str):
        text = level
    else:
        text = f"{level:g}" + " (greedy)" * (setting == "temperature" and level == 0)
    if not name or setting in ("template", "adapter"):
        return text
    short = SHORT.get(setting, setting)
    return f"{short} {text}" if text in ("off", "none") else f"{short} = {text}"


@dataclass(frozen=True, slots=True)
class Average:
    """Groups of combinations, and how each averages over the cells in it.

    Attributes:
        codes: One row per group, columns of level codes.
        weights: Shape (groups, cells), rows that sum to 1, or to 0 for a group without cells.
        n_cells: Shape (groups,), cells that count.
        n_used: Combinations of the other settings that every group averages over.
        n_others: Combinations of the other settings there are.
        balanced: True if all groups average over the same combinations of the other settings.
    """

    codes: pd.DataFrame
    weights: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    n_used: int
    n_others: int
    balanced: bool


def average(
    design: Design,
    by: Sequence[str],
    cells: Sequence[str],
    known: NDArray[np.bool_],
    *,
    strict: bool = True,
) -> Average:
    """Average the other settings out.

    Only those combinations of the other settings count that were run, and have a value, in every group that has any
    value at all: what is left is a balanced grid, in which no group is better for having run in better company.

    Args:
        design: The combinations.
        by: The settings whose levels make the groups.
        cells: Cell ids, the columns of the weights.
        known: Shape (cells,), which of them have a value.
        strict: If no combination of the others is complete: True gives all groups weight 0, False lets each average over what
            it has (``balanced`` is False then).
    """
    table = design.table
    others = [name for name in design.varied if name not in by]
    group = table.groupby(list(by), sort=True).ngroup().to_numpy()
    rest = table.groupby(others).ngroup().to_numpy() if others else np.zeros(len(table), np.int64)
    column = pd.Index(cells).get_indexer(pd.Index(table["cell_id"]))
    usable = (column >= 0) & known[column]
    n_groups, n_others = int(group.max()) + 1, int(rest.max()) + 1
    shape = n_others, n_groups
    count = np.bincount((rest * n_groups + group)[usable], minlength=shape[0] * shape[1])
    count = count.reshape(shape)
    alive = np.asarray(count.any(0))
    full = np.asarray((count[:, alive] > 0).all(1)) & alive.any()
    balanced = bool(full.any())
    kept = full[:, None] & alive if balanced or strict else count > 0
    share = kept / np.maximum(kept.sum(0), 1) / np.maximum(count, 1)
    weights = np.zeros((n_groups, len(cells)))
    rows = np.flatnonzero(usable)
    np.add.at(weights, (group[rows], column[rows]), share[rest[rows], group[rows]])
    codes = table[list(by)].assign(_group=group).drop_duplicates("_group").sort_values("_group")
    return Average(
        codes.drop(columns="_group").reset_index(drop=True),
        weights,
        (weights > 0).sum(1),
        int(full.sum()),
        n_others,
        balanced,
    )
