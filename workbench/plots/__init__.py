"""Pictures: frame in, Axes out.

Each function takes a run (or the frame it draws) and an optional ``ax``, draws in the house style, and returns the axes; units
are on the axes, intervals are drawn, and a line under the title says what they are. The numbers come from
`workbench.effects`, `workbench.breakdown`, `workbench.health` and `workbench.comparing`, which give them as tables.
"""

from __future__ import annotations

from workbench.measures import RunTables
from workbench.plots.answers import health, lengths
from workbench.plots.flips import changes
from workbench.plots.forest import forest
from workbench.plots.losses import losses
from workbench.plots.quality import quality_latency
from workbench.plots.settings import interaction, main_effects
from workbench.plots.squares import heatmap
from workbench.plots.style import INK, MARKERS, PALETTE, STYLE
from workbench.plots.times import latency_parts

__all__ = [
    "INK",
    "MARKERS",
    "PALETTE",
    "STYLE",
    "RunTables",
    "changes",
    "forest",
    "health",
    "heatmap",
    "interaction",
    "latency_parts",
    "lengths",
    "losses",
    "main_effects",
    "quality_latency",
]
