"""Tuning: find the best settings of a study, of its grid or of ranges, with fewer rows than all of them take."""

from __future__ import annotations

from workbench.tuning.race import Race
from workbench.tuning.tuned import Tuned, tune

__all__ = ["Race", "Tuned", "tune"]
