"""awq-workbench: which decoding settings and which LoRA adapter to use, with evidence.

Names load when they are first used, so importing this package costs almost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from workbench import plots, stats
    from workbench.api import Run, load_engine, open_run, run, score
    from workbench.comparing import compare
    from workbench.deciding import decide
    from workbench.exploring import explore
    from workbench.params import SamplingParams
    from workbench.prompts import Prompt, PromptSet
    from workbench.quantizing import quantize
    from workbench.reporting import report
    from workbench.reproducing import diff, rerun, verify, verify_report
    from workbench.scorers import scorer
    from workbench.study import Study
    from workbench.training import train
    from workbench.tuning import tune

__version__ = "0.1.0"

_HOMES: Final = {
    "Prompt": "workbench.prompts",
    "PromptSet": "workbench.prompts",
    "Run": "workbench.runs",
    "SamplingParams": "workbench.params",
    "Study": "workbench.study",
    "compare": "workbench.comparing",
    "decide": "workbench.deciding",
    "diff": "workbench.reproducing",
    "explore": "workbench.exploring",
    "load_engine": "workbench.api",
    "open_run": "workbench.runs",
    "quantize": "workbench.quantizing",
    "report": "workbench.reporting",
    "rerun": "workbench.reproducing",
    "run": "workbench.api",
    "score": "workbench.api",
    "scorer": "workbench.scorers",
    "train": "workbench.training",
    "tune": "workbench.tuning",
    "verify": "workbench.reproducing",
    "verify_report": "workbench.reproducing",
}
_MODULES: Final = ("plots", "stats")

__all__ = [
    "Prompt",
    "PromptSet",
    "Run",
    "SamplingParams",
    "Study",
    "compare",
    "decide",
    "diff",
    "explore",
    "load_engine",
    "open_run",
    "plots",
    "quantize",
    "report",
    "rerun",
    "run",
    "score",
    "scorer",
    "stats",
    "train",
    "tune",
    "verify",
    "verify_report",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module it lives in."""
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"workbench.{name}")
    else:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
