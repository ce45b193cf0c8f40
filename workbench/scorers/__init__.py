"""Scorers: one file per family.

``get_scorer`` makes one by name, ``@scorer`` turns a function into one, and installed packages add theirs through the
entry point group ``workbench.scorers``.
"""

from workbench.scorers import choice, contains, exact, jsonscore, numeric, regex
from workbench.scorers.base import (
    FAMILIES,
    FunctionScorer,
    Scorer,
    get_scorer,
    known_scorers,
    score_generation,
    scorer,
)
from workbench.scorers.choice import Choice
from workbench.scorers.contains import Contains
from workbench.scorers.exact import Exact
from workbench.scorers.jsonscore import Json
from workbench.scorers.numeric import Numeric
from workbench.scorers.regex import Regex

__all__ = [
    "FAMILIES",
    "Choice",
    "Contains",
    "Exact",
    "FunctionScorer",
    "Json",
    "Numeric",
    "Regex",
    "Scorer",
    "choice",
    "contains",
    "exact",
    "get_scorer",
    "jsonscore",
    "known_scorers",
    "numeric",
    "regex",
    "score_generation",
    "scorer",
]
