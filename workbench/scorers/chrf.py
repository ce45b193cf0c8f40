"""How near the answer is to reference texts, by character n-grams."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from workbench.records import Score
from workbench.scorers.base import Family, family, unscored
from workbench.scorers.texts import text_targets

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_MOST: Final = 100_000


@family
@dataclass(frozen=True)
class Chrf(Family):
    """Sentence chrF of sacrebleu over 100 (Popović 2015, "chrF: character n-gram F-score"); the best reference counts.

    With the defaults this is chrF2: character n-grams up to 6, recall counting twice. ``word_order: 2`` makes it chrF2++.
    Only the first 100,000 characters of an answer are compared.

    Attributes:
        char_order: Longest character n-gram, 1..10.
        word_order: Longest word n-gram, 0..5.
        beta: How many times recall counts as much as precision, 1..5.
        ignore_case: "Paris" equals "paris".
    """

    name: ClassVar[str] = "chrf"

    char_order: int = 6
    word_order: int = 0
    beta: int = 2
    ignore_case: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, least, most in (("char_order", 1, 10), ("word_order", 0, 5), ("beta", 1, 5)):
            value = getattr(self, option)
            ok = type(value) is int and least <= value <= most
            self.require(option, ok, f"a whole number from {least} to {most}")

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.chrf import CHRF  # noqa: PLC0415 - only this scorer needs it

        return CHRF(
            char_order=self.char_order,
            word_order=self.word_order,
            beta=self.beta,
            lowercase=self.ignore_case,
            eps_smoothing=False,
        )

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        return text_targets(prompt)[1]

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted, problem = text_targets(prompt)
        if problem:
            return unscored(problem)
        value = self._metric.sentence_score(text[:_MOST], wanted).score / 100
        value = min(1.0, max(0.0, value))
        return Score(value, None, f"chrF {100 * value:.1f} against {len(wanted)} reference(s)")
