"""How near the answer is to reference texts, by word n-grams and with a penalty for being short."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

from workbench.records import Score
from workbench.scorers.base import Family, family, unscored
from workbench.scorers.texts import text_targets

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_MOST: Final = 100_000
Tokens = Literal["13a", "intl", "zh", "char"]


@family
@dataclass(frozen=True)
class Bleu(Family):
    """Sentence BLEU of sacrebleu over 100 (Papineni 2002), against all references together.

    N-gram orders for which the answer is too short are left out and the others smoothed (``effective_order``, "exp"), as
    sacrebleu does for single sentences. The mean over prompts is a mean of sentences, not the corpus BLEU of papers.
    Only the first 100,000 characters of an answer are compared.

    Attributes:
        tokens: How text is split: "13a" (the usual one), "intl" (any script with spaces), "zh" (Chinese), "char".
        most: Longest word n-gram, 1..10.
        ignore_case: "Paris" equals "paris".
    """

    name: ClassVar[str] = "bleu"

    tokens: Tokens = "13a"
    most: int = 4
    ignore_case: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("tokens", self.tokens in get_args(Tokens), ", ".join(get_args(Tokens)))
        ok = type(self.most) is int and 1 <= self.most <= 10
        self.require("most", ok, "a whole number from 1 to 10")

    @cached_property
    def _metric(self) -> Any:
        from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - only this scorer needs it

        return BLEU(
            lowercase=self.ignore_case,
            tokenize=self.tokens,
            max_ngram_order=self.most,
            effective_order=True,
        )

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        return text_targets(prompt)[1]

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted, problem = text_targets(prompt)
        if problem:
            return unscored(problem)
        found = self._metric.sentence_score(text[:_MOST], wanted)
        value = min(1.0, max(0.0, found.score / 100))
        short = f", brevity penalty {found.bp:.2f}" if found.bp < 1 else ""
        return Score(
            value, None, f"BLEU {100 * value:.1f} against {len(wanted)} reference(s){short}"
        )
