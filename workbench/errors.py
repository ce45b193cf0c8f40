"""The error tree.

WorkbenchError
 ├─ ParamError             a decoding setting is out of range or unknown
 ├─ PromptSetError         a prompt file cannot be used
 ├─ StudyError             a study file cannot be used (lists every problem at once)
 ├─ ModelError             the base model cannot be loaded
 │   ├─ ModelNotFound
 │   ├─ UnsupportedQuantization
 │   └─ CorruptCheckpoint
 ├─ AdapterError           a LoRA adapter cannot be used
 │   ├─ AdapterMismatch
 │   └─ AdapterInert
 ├─ EngineError            generating failed
 │   ├─ SettingInert
 │   ├─ OutOfMemory
 │   ├─ ContextOverflow
 │   └─ EngineUnavailable
 ├─ StoreError             a run directory cannot be read or written
 └─ ScorerError            a scorer is unknown or wrongly configured

Every message says what was wrong, where, what is allowed, and what to do about it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def unknown(kind: str, got: object, known: Iterable[str]) -> str:
    """One sentence for an unknown name: the nearest known one if there is one, else all of them.

    >>> unknown("setting", "temprature", ["temperature", "top_p"])
    "unknown setting 'temprature', did you mean 'temperature'?"
    >>> unknown("setting", "x", ["temperature", "top_p"])
    "unknown setting 'x'; known: temperature, top_p"
    """
    names = list(known)
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(got).lower().replace("-", "_"), lower, n=1)
    if near:
        return f"unknown {kind} {got!r}, did you mean {lower[near[0]]!r}?"
    return f"unknown {kind} {got!r}; known: {', '.join(names)}"


class WorkbenchError(Exception):
    """Base of every error the workbench raises on purpose."""


class ParamError(WorkbenchError):
    """A decoding setting is unknown or outside its range.

    Attributes:
        field: Name of the setting.
        allowed: The allowed values, in words.
        got: The value that was refused.
    """

    def __init__(self, field: str, allowed: str, got: object) -> None:
        self.field = field
        self.allowed = allowed
        self.got = got
        super().__init__(f"{field} must be {allowed}, got {got!r}")


class _ProblemsError(WorkbenchError):
    """An input file with one or more problems, all of them listed."""

    def __init__(self, where: str, problems: Sequence[str] | str) -> None:
        self.where = where
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        if len(self.problems) == 1:
            message = f"{where}: {self.problems[0]}"
        else:
            lines = "\n".join(f"  - {problem}" for problem in self.problems)
            message = f"{where}: {len(self.problems)} problems\n{lines}"
        super().__init__(message)


class PromptSetError(_ProblemsError):
    """A prompt file cannot be used."""


class StudyError(_ProblemsError):
    """A study cannot be used; every problem is listed."""


class ModelError(WorkbenchError):
    """The base model cannot be loaded."""


class ModelNotFound(ModelError):  # noqa: N818 - public name fixed by the contract
    """There is no such model here, and it cannot be fetched."""


class UnsupportedQuantization(ModelError):  # noqa: N818 - as above
    """The checkpoint is quantized in a way this loader does not read."""


class CorruptCheckpoint(ModelError):  # noqa: N818 - as above
    """A checkpoint file is damaged, truncated or does not fit the configuration."""


class AdapterError(WorkbenchError):
    """A LoRA adapter cannot be used."""


class AdapterMismatch(AdapterError):  # noqa: N818 - as above
    """The adapter does not fit the loaded base model."""


class AdapterInert(AdapterError):  # noqa: N818 - as above
    """The adapter does not change the model's output."""


class EngineError(WorkbenchError):
    """Generating failed."""


class SettingInert(EngineError):  # noqa: N818 - as above
    """A decoding setting that a study varies does nothing with the engine."""


class OutOfMemory(EngineError):  # noqa: N818 - as above
    """Not enough memory, even for the smallest batch."""


class ContextOverflow(EngineError):  # noqa: N818 - as above
    """Prompt and requested tokens do not fit the model's context."""


class EngineUnavailable(EngineError):  # noqa: N818 - as above
    """The engine is closed or cannot be reached."""


class StoreError(WorkbenchError):
    """A run directory cannot be read or written."""


class ScorerError(WorkbenchError):
    """A scorer is unknown or wrongly configured."""
