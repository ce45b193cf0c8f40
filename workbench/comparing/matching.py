"""Which cells of two adapters belong together: those with the same settings and the same template."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from workbench.comparing.gains import Pair
from workbench.factors import FACTORS, as_level
from workbench.records import BASE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

Missing = dict[str, Any]
"""A cell without a counterpart: adapter, cell_id, settings, why."""


def settings_names(cells: pd.DataFrame) -> dict[str, str]:
    """Cell id to the name of its settings: its label without the adapter's name.

    >>> settings_names(pd.DataFrame({"cell_id": ["x"], "label": ["T=0.7 terse"], "adapter": ["terse"]}))
    {'x': 'T=0.7'}
    """
    names = {}
    for cell, label, adapter in cells[["cell_id", "label", "adapter"]].itertuples(index=False):
        text = str(label)
        names[str(cell)] = text if adapter == BASE else text.removesuffix(f" {adapter}")
    return names


def matched(
    cells: pd.DataFrame, baseline: str, others: Sequence[str]
) -> tuple[list[Pair], list[Missing]]:
    """Cells of adapters with their counterparts of the baseline adapter, and cells that have none.

    Settings that do nothing make no difference; cells of one adapter that differ in nothing but what is not recorded as a
    column (a seed of their own) are told apart by their labels.

    Args:
        cells: The cells table.
        baseline: Name of an adapter.
        others: Names of those to compare with it.

    Returns:
        The pairs, adapter by adapter in the table's order, and both adapters' cells without a counterpart.
    """
    names = settings_names(cells)
    records = cells.to_dict("records")
    plain = [_key(row) for row in records]
    again = Counter(zip((row["adapter"] for row in records), plain, strict=True))
    several = {key for (_, key), n in again.items() if n > 1}
    rows: dict[str, dict[Any, str]] = {}
    for row, key in zip(records, plain, strict=True):
        cell = str(row["cell_id"])
        full = (key, names[cell]) if key in several else (key, "")
        rows.setdefault(str(row["adapter"]), {})[full] = cell
    base = rows[baseline]
    pairs, missing = [], []
    for adapter in others:
        for key, cell in rows[adapter].items():
            if key in base:
                pairs.append(Pair(adapter, cell, base[key], names[base[key]]))
            else:
                missing.append(
                    lost(adapter, cell, names, f"{baseline} has no cell with these settings")
                )
        missing += [
            lost(baseline, cell, names, f"{adapter} has no cell with these settings")
            for key, cell in base.items()
            if key not in rows[adapter]
        ]
    return pairs, missing


def lost(adapter: str, cell: str, names: Mapping[str, str], why: str) -> Missing:
    """A cell without a counterpart."""
    return {"adapter": adapter, "cell_id": cell, "settings": names[cell], "why": why}


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """The settings of a cell, the adapter left out."""
    return tuple(as_level(name, row.get(name)) for name in FACTORS if name != "adapter")
