"""The report of a run: one HTML file that opens anywhere, its notebook, and a short Markdown text for a pull request.

``report(run)`` executes ``notebooks/report.ipynb`` on the run and renders it. The functions the notebook calls are the names
below; each takes what `read` gives and returns a piece of the page.
"""

from __future__ import annotations

from workbench.reporting.changed import examples, latency, prompts, settings, trouble
from workbench.reporting.facts import Facts, read
from workbench.reporting.limitations import limits
from workbench.reporting.make import report
from workbench.reporting.methods import method
from workbench.reporting.origin import again, made_on, record
from workbench.reporting.short import markdown
from workbench.reporting.top import answer, cells, decision, picture, title

__all__ = [
    "Facts",
    "again",
    "answer",
    "cells",
    "decision",
    "examples",
    "latency",
    "limits",
    "made_on",
    "markdown",
    "method",
    "picture",
    "prompts",
    "read",
    "record",
    "report",
    "settings",
    "title",
    "trouble",
]
