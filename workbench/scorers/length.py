"""The answer is as long as it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from workbench.errors import ScorerError
from workbench.records import Score
from workbench.scorers.base import Family, family, is_whole, unscored
from workbench.scorers.counts import COUNTS

if TYPE_CHECKING:
    from workbench.prompts import Prompt
    from workbench.records import Generation

_UNITS = ("words", "characters", "sentences", "lines", "paragraphs", "tokens")


@family
@dataclass(frozen=True)
class Length(Family):
    """1 if the answer's length is within ``min`` and ``max``; needs no target.

    Without both limits the prompt's target gives the limits: ``{"min": 3, "max": 5}`` or one exact number.

    Attributes:
        min: Fewest.
        max: Most.
        unit: words, characters (white space around the answer left out), sentences, lines, paragraphs or tokens. Tokens
            are the model's own, the end token left out where the answer ended by itself; an answer judged outside a run
            has none.
        slack: Outside the limits the score falls from 1 to 0 over this share of the limit, 0..1; 0: at once.
    """

    name: ClassVar[str] = "length"
    # 2: words and sentences are counted otherwise
    version: ClassVar[str] = "2"
    needs_target: ClassVar[bool] = False

    min: int | None = None
    max: int | None = None
    unit: Literal["words", "characters", "sentences", "lines", "paragraphs", "tokens"] = "words"
    slack: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_count("min")
        self.require_count("max")
        self.require("unit", self.unit in _UNITS, ", ".join(_UNITS))
        ok = isinstance(self.slack, int | float) and not isinstance(self.slack, bool)
        self.require("slack", ok and 0 <= self.slack <= 1, "a number from 0 to 1")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ScorerError(
                f"scorer length: min must be at most max, got {self.min} and {self.max}"
            )

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        return (
            None if self._limits(prompt) else "neither min nor max is set, and the target is none"
        )

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        if self.unit == "tokens":
            return unscored("the number of tokens is known only for an answer of a run")
        return self._judged(COUNTS[self.unit](text), prompt)

    def judge_generation(self, generation: Generation, prompt: Prompt) -> Score:
        """Judge a generation, which knows its tokens."""
        if self.unit != "tokens":
            return self.score(generation.text, prompt)
        ended = generation.finish_reason == "stop" and generation.n_output_tokens > 0
        return self._judged(generation.n_output_tokens - ended, prompt)

    def _limits(self, prompt: Prompt) -> tuple[int, int | None] | None:
        if self.min is not None or self.max is not None:
            return self.min or 0, self.max
        target = prompt.target
        if is_whole(target) and target >= 0:
            return target, target
        if not isinstance(target, dict) or not target or not set(target) <= {"min", "max"}:
            return None
        if not all(is_whole(value) and value >= 0 for value in target.values()):
            return None
        least, most = target.get("min", 0), target.get("max")
        return None if most is not None and least > most else (least, most)

    def _judged(self, n: int, prompt: Prompt) -> Score:
        limits = self._limits(prompt)
        if limits is None:
            return unscored(self.target_problem(prompt) or "")
        least, most = limits
        over = 0 if most is None else n - most
        wrong, limit = (least - n, least) if n < least else (over, most or 0)
        said = f"{n} {self.unit}; allowed: {_range(least, most)}"
        if wrong <= 0:
            return Score(1.0, str(n), said)
        room = self.slack * limit
        return Score(max(0.0, 1 - wrong / room) if room else 0.0, str(n), said)


def _range(least: int, most: int | None) -> str:
    if least == most:
        return f"exactly {least}"
    if most is None:
        return f"at least {least}"
    return f"{least} to {most}" if least else f"at most {most}"
