"""The whole answer equals the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.records import Score
from workbench.scorers.base import Family, family, listed, unscored
from workbench.scorers.texts import normal, text_targets

if TYPE_CHECKING:
    from workbench.prompts import Prompt


@family
@dataclass(frozen=True)
class Exact(Family):
    """1 if the answer is the target, or one of the targets.

    Attributes:
        ignore_case: "Paris" equals "paris".
        ignore_space: Runs of white space count as one space.
        ignore_punctuation: "Paris." equals "Paris"; punctuation counts as a space.
    """

    name: ClassVar[str] = "exact"
    # 2: hyphens and apostrophes in one form
    version: ClassVar[str] = "2"

    ignore_case: bool = True
    ignore_space: bool = True
    ignore_punctuation: bool = False

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        wanted, problem = text_targets(prompt, empty=True)
        if any(w and not self._normal(w) for w in wanted):
            return "the target is only what the options ignore"
        return problem

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        wanted, _ = text_targets(prompt, empty=True)
        answer = self._normal(text)
        right = answer in [self._normal(w) for w in wanted]
        return Score(float(right), answer, f"{'is' if right else 'is not'} {listed(wanted)}")

    def _normal(self, text: str) -> str:
        return normal(
            text,
            ignore_case=self.ignore_case,
            ignore_space=self.ignore_space,
            ignore_punctuation=self.ignore_punctuation,
        )
