"""Scorers: one file per family.

``get_scorer`` makes one by name, ``@scorer`` turns a function into one, and installed packages add theirs through the
entry point group ``workbench.scorers``.
"""

from workbench.scorers.asserts import Asserts
from workbench.scorers.base import (
    FAMILIES,
    FunctionScorer,
    Scorer,
    get_scorer,
    known_scorers,
    score_generation,
    scorer,
    target_problems,
)
from workbench.scorers.bleu import Bleu
from workbench.scorers.choice import Choice
from workbench.scorers.chrf import Chrf
from workbench.scorers.contains import Contains
from workbench.scorers.degeneration import Degeneration
from workbench.scorers.edit import Edit
from workbench.scorers.exact import Exact
from workbench.scorers.instruction import Instruction
from workbench.scorers.jsonscore import Json
from workbench.scorers.judge import LlmJudge
from workbench.scorers.length import Length
from workbench.scorers.logprob import Perplexity, TargetLogprob
from workbench.scorers.numeric import Numeric
from workbench.scorers.regex import Regex
from workbench.scorers.repeats import MajorityVote, PassAtK, PassHatK
from workbench.scorers.rouge import Rouge
from workbench.scorers.similarity import Similarity
from workbench.scorers.tool_call import ToolCall

__all__ = [
    "FAMILIES",
    "Asserts",
    "Bleu",
    "Choice",
    "Chrf",
    "Contains",
    "Degeneration",
    "Edit",
    "Exact",
    "FunctionScorer",
    "Instruction",
    "Json",
    "Length",
    "LlmJudge",
    "MajorityVote",
    "Numeric",
    "PassAtK",
    "PassHatK",
    "Perplexity",
    "Regex",
    "Rouge",
    "Scorer",
    "Similarity",
    "TargetLogprob",
    "ToolCall",
    "get_scorer",
    "known_scorers",
    "score_generation",
    "scorer",
    "target_problems",
]
