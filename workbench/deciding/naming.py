"""Cells named by their settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from workbench.params import CARD_DEFAULTS
from workbench.plan import number
from workbench.records import BASE
from workbench.reporting.amounts import count
from workbench.tables import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from workbench.deciding.choose import Choice

    Row = Mapping[str, Any]


def rows_of(cells: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows of the cells table by cell id."""
    rows = ({str(k): v for k, v in row.items()} for row in cells.to_dict("records"))
    return {str(row["cell_id"]): row for row in rows}


def varied(cells: pd.DataFrame) -> list[str]:
    """Settings, and adapter and template, that are not the same in all cells."""
    names = [*SETTINGS, "stop", "template", "adapter"]
    return [n for n in names if n in cells and len(set(map(_level, cells[n]))) > 1]


def _level(value: object) -> str:
    return "" if is_off(value) else str(value)


def is_off(value: object) -> bool:
    """True for a setting that is not set."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def settings(row: Row, names: Sequence[str]) -> str:
    """The settings of a cell in a sentence: those named (temperature if none is), after the name that the study gives it.

    >>> settings({"temperature": 0.3, "top_k": 20, "adapter": "terse"}, ["temperature", "top_k", "adapter"])
    'temperature 0.3, top_k 20, adapter terse'
    """
    parts = []
    greedy = row["temperature"] == 0
    for name in names or ["temperature"]:
        value = row[name]
        if name == "adapter":
            parts.append("no adapter" if value == BASE else f"adapter {value}")
        elif greedy and name in ("top_p", "top_k", "min_p"):
            continue
        elif is_off(value):
            parts.append(f"no {name}")
        elif name == "stop":
            parts.append(f"stop {', '.join(map(repr, value))}")
        else:
            parts.append(f"{name} {number(value) if not isinstance(value, str) else value}")
    text = ", ".join(parts)
    own = row.get("name")
    return f"{own} ({text})" if isinstance(own, str) and own not in text else text


def is_card_default(row: Row) -> bool:
    """True if a cell has the model card's settings (but for max_tokens, which every study sets) and no adapter."""
    off = [s for s in SETTINGS if s not in CARD_DEFAULTS]
    return (
        row["temperature"] == CARD_DEFAULTS["temperature"]
        and all(is_off(row[s]) for s in off)
        and row["adapter"] == BASE
    )


class Named:
    """A choice with the words for its cells."""

    def __init__(self, choice: Choice, cells: pd.DataFrame) -> None:
        self.choice = choice
        self.rows = rows_of(cells)
        self.varied = varied(cells)
        self.n_cells = len(cells)
        self.field = count(len(choice.candidates), "finalist" if choice.raced else "cell")

    def cell(self, cell: str | None) -> str:
        """A cell by its settings."""
        return settings(self.rows[str(cell)], self.varied)

    @property
    def baseline(self) -> str:
        """The baseline, short."""
        row = self.rows[self.choice.baseline]
        if is_card_default(row):
            return "the card's defaults"
        return f"the baseline ({settings(row, self.varied)})"
