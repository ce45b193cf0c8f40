"""The target occurs in the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from workbench.records import Score
from workbench.scorers.base import Family, family, listed, targets, unscored
from workbench.scorers.texts import normal, target_text, whole_word

if TYPE_CHECKING:
    from workbench.prompts import Prompt


@family
@dataclass(frozen=True)
class Contains(Family):
    """1 if the targets occur in the answer.

    Attributes:
        mode: "any": one of the targets is enough; "all": every one must occur.
        ignore_case: "paris" is found for "Paris".
        words: Only whole words count: "cat" is not found in "concatenate".
    """

    name: ClassVar[str] = "contains"

    mode: Literal["any", "all"] = "any"
    ignore_case: bool = True
    words: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("mode", self.mode in ("any", "all"), "any or all")

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted = [target_text(target) for target in targets(prompt)]
        if not wanted or None in wanted or any(not w.strip() for w in wanted if w is not None):
            return unscored("the prompt has no text as its target")
        answer = normal(text, ignore_case=self.ignore_case)
        found = [w for w in wanted if w and self._has(answer, w)]
        right = len(found) == len(wanted) if self.mode == "all" else bool(found)
        said = f"has {listed(found)}" if found else f"has none of {listed(wanted)}"
        if found and not right:
            said = f"lacks {listed(w for w in wanted if w not in found)}"
        return Score(float(right), found[0] if found else None, said)

    def _has(self, answer: str, wanted: str) -> bool:
        wanted = normal(wanted, ignore_case=self.ignore_case)
        if not self.words:
            return wanted in answer
        return re.search(whole_word(wanted), answer) is not None
