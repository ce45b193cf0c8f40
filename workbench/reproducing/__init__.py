"""Whether what a run found can be had again: its report from its record, its rows from the model, all of it anew."""

from __future__ import annotations

from workbench.reproducing.differing import Change, Rows, RunDiff, diff
from workbench.reproducing.pagetext import Difference
from workbench.reproducing.reports import ReportCheck, verify_report
from workbench.reproducing.rerunning import rerun
from workbench.reproducing.rows import Divergence, Verification, verify

__all__ = [
    "Change",
    "Difference",
    "Divergence",
    "ReportCheck",
    "Rows",
    "RunDiff",
    "Verification",
    "diff",
    "rerun",
    "verify",
    "verify_report",
]
