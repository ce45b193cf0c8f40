"""What settings do to a measure: averages over the other settings, with intervals that pair the cells.

An average over cells is balanced: it is over those prompts and those combinations of the other settings that everything
compared has an answer to, so that no level is better for easier prompts or for better company. Greedy cells say nothing about
top_k, top_p and min_p, and stand for all of their levels only where temperature tells them apart. Intervals: see
`workbench.effects.values`.
"""

from __future__ import annotations

from workbench.effects.levels import design_of, interaction, main_effects
from workbench.effects.maps import Squares, squares
from workbench.effects.values import CellValues, cell_values

__all__ = [
    "CellValues",
    "Squares",
    "cell_values",
    "design_of",
    "interaction",
    "main_effects",
    "squares",
]
