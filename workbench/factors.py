"""The settings that a run varies, their levels, and which cell ran each combination of them.

A greedy cell (temperature 0) does the same whatever top_p, top_k and min_p are, so it is run once and stands for those
combinations of these three that sampled cells ran, and for no other: a pair of levels that nobody ran stays one that
nobody ran. Elsewhere a missing setting means that it is off, which is a level of its own: the neutral value (1 for top_p
and the repetition penalty, 0 for min_p and the other penalties) and "off" are the same level.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError, unknown
from workbench.plan import SHORT
from workbench.records import BASE
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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

    def moot(self, by: Sequence[str]) -> tuple[str, ...]:
        """Those of some settings that do nothing in a greedy cell, unless temperature tells it from the others."""
        return () if "temperature" in by else tuple(name for name in by if name in self.shared)

    def acting(self, by: Sequence[str]) -> Design:
        """The combinations in which all of some settings do something: if one is `moot`, without the greedy cells.

        Raises:
            WorkbenchError: There are no others.
        """
        moot = self.moot(by)
        if not moot:
            return self
        levels = self.levels["temperature"]
        gone = sum(level == 0 for level in levels)  # in front, since levels ascend
        table = self.table[self.table["temperature"] >= gone].reset_index(drop=True)
        if table.empty:
            raise WorkbenchError(f"at temperature 0 (greedy), {' and '.join(moot)} changes nothing")
        table["temperature"] -= gone
        return replace(self, levels={**self.levels, "temperature": levels[gone:]}, table=table)


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
    stands = _stands(rows, levels)
    for values, greedy, cell in rows:
        own = {name: values.get(name) for name in names}
        for inner in stands(values) if greedy else ({},):
            combination = (own | inner).items()
            table[*(levels[name].index(level) for name, level in combination), cell] = None
    shared = any(greedy for _, greedy, _ in rows)
    return Design(
        levels,
        pd.DataFrame(list(table), columns=[*names, "cell_id"]),
        tuple(n for n in names if shared and n in SAMPLING and len(levels[n]) > 1),
    )


def _stands(
    rows: Iterable[tuple[dict[str, Level], bool, str]], levels: Mapping[str, tuple[Level, ...]]
) -> Callable[[dict[str, Level]], Iterable[dict[str, Level]]]:
    """What a greedy cell stands for: the top_p, top_k and min_p of the sampled cells that are like it in all else.

    If no sampled cell is, those of all sampled cells; if there is none at all, one combination.
    """
    inner = [name for name in levels if name in SAMPLING]
    outer = [name for name in levels if name not in (*SAMPLING, "temperature")]
    ran: dict[tuple[Level, ...], dict[tuple[Level, ...], None]] = {}
    for values, greedy, _ in rows:
        if not greedy:
            place = tuple(values.get(name) for name in outer)
            ran.setdefault(place, {})[tuple(values.get(name) for name in inner)] = None
    every = {combination: None for found in ran.values() for combination in found}

    def stands(values: dict[str, Level]) -> Iterable[dict[str, Level]]:
        place = tuple(values.get(name) for name in outer)
        found = ran.get(place) or every or {tuple(levels[name][0] for name in inner): None}
        return [dict(zip(inner, combination, strict=True)) for combination in found]

    return stands


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
class Crossing:
    """Groups of combinations, and for each cell in one which company it was run in.

    Attributes:
        codes: One row per group, columns of level codes.
        group: Shape (rows,), position of a group; a row is a cell that ran a combination.
        rest: Shape (rows,), number of the combination of the other settings.
        cell: Shape (rows,), position of the cell.
    """

    codes: pd.DataFrame
    group: NDArray[np.intp]
    rest: NDArray[np.intp]
    cell: NDArray[np.intp]


def cross(design: Design, by: Sequence[str], cells: Sequence[str]) -> Crossing:
    """The levels of some settings against the combinations of all others.

    Args:
        design: The combinations.
        by: The settings whose levels make the groups.
        cells: Cell ids; others are left out.
    """
    table = design.table[design.table["cell_id"].isin(cells)]
    others = [name for name in design.varied if name not in by]
    group = table.groupby(list(by), sort=True).ngroup().to_numpy()
    rest = table.groupby(others).ngroup().to_numpy() if others else np.zeros(len(table), int)
    codes = table[list(by)].assign(_group=group).drop_duplicates("_group").sort_values("_group")
    return Crossing(
        codes.drop(columns="_group").reset_index(drop=True),
        group.astype(np.intp),
        rest.astype(np.intp),
        pd.Index(cells).get_indexer(pd.Index(table["cell_id"])).astype(np.intp),
    )
