"""How much of reference texts the answer has, by words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

from workbench.records import Score
from workbench.scorers.base import Family, family, unscored
from workbench.scorers.texts import CJK, one_form, text_targets

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_WORD: Final = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
_MOST: Final = 2_000
Kind = Literal["1", "2", "L", "Lsum"]
Part = Literal["fmeasure", "precision", "recall"]


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer  # noqa: PLC0415 - only this scorer needs it

    return PorterStemmer()


@dataclass(frozen=True)
class _Words:
    """Splits text into lower-case words of any script, where rouge-score itself knows a-z and 0-9 only."""

    stem: bool

    def tokenize(self, text: str) -> list[str]:
        """The words; Chinese, Japanese and Korean characters count as a word each."""
        words = _WORD.findall(one_form(text).lower())[:_MOST]
        if not self.stem:
            return words
        return [_stemmer().stem(w) if w.isascii() and len(w) > 3 else w for w in words]


@family
@dataclass(frozen=True)
class Rouge(Family):
    """ROUGE of rouge-score (Lin 2004) on lower-case words; the best reference counts.

    Only the first 2,000 words of answer and reference are compared.

    Attributes:
        kind: "1" (words), "2" (pairs of words), "L" (longest common subsequence) or "Lsum" (the same line by line).
        part: "fmeasure" (both), "precision" (how much of the answer is in the reference) or "recall" (the reverse).
        stem: English words by their stem (Porter): "cats" equals "cat".
    """

    name: ClassVar[str] = "rouge"

    kind: Kind = "L"
    part: Part = "fmeasure"
    stem: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.kind, int):  # `kind: 1` in a study file
            object.__setattr__(self, "kind", str(self.kind))
        self.require("kind", self.kind in get_args(Kind), ", ".join(get_args(Kind)))
        self.require("part", self.part in get_args(Part), ", ".join(get_args(Part)))

    @cached_property
    def _words(self) -> _Words:
        return _Words(self.stem)

    @cached_property
    def _scorer(self) -> Any:
        from rouge_score.rouge_scorer import (  # noqa: PLC0415 - only this scorer needs it
            RougeScorer,
        )

        return RougeScorer([f"rouge{self.kind}"], tokenizer=self._words)

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        wanted, problem = text_targets(prompt)
        if not problem and not all(self._words.tokenize(w) for w in wanted):
            return "the target has no words"
        return problem

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        wanted, _ = text_targets(prompt)
        found = [self._scorer.score(w, text)[f"rouge{self.kind}"] for w in wanted]
        best = max(found, key=lambda score: getattr(score, self.part))
        said = f"ROUGE-{self.kind} recall {best.recall:.2f}, precision {best.precision:.2f}"
        return Score(float(getattr(best, self.part)), None, said)
