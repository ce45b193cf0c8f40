"""The whole answer equals the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.records import Score
from workbench.scorers.base import Family, family, listed, targets, unscored
from workbench.scorers.texts import normal, target_text

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

    ignore_case: bool = True
    ignore_space: bool = True
    ignore_punctuation: bool = False

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted = [target_text(target) for target in targets(prompt)]
        if not wanted or None in wanted:
            return unscored("the prompt has no text as its target")
        normals = [self._normal(w) for w in wanted if w is not None]
        if any(n == "" and w != "" for n, w in zip(normals, wanted, strict=True)):
            return unscored("the target is only what the options ignore")
        answer = self._normal(text)
        right = answer in normals
        return Score(float(right), answer, f"{'is' if right else 'is not'} {listed(wanted)}")

    def _normal(self, text: str) -> str:
        return normal(
            text,
            ignore_case=self.ignore_case,
            ignore_space=self.ignore_space,
            ignore_punctuation=self.ignore_punctuation,
        )
