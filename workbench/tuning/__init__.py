"""Tuning: find the best cell of a study with fewer rows than the whole grid takes."""

from __future__ import annotations

from workbench.tuning.race import Race
from workbench.tuning.racing import Tuned, tune

__all__ = ["Race", "Tuned", "tune"]
