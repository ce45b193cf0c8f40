"""The target occurs in the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from workbench.records import Score
from workbench.scorers.base import Family, family, listed, unscored
from workbench.scorers.texts import normal, text_targets, whole_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.prompts import Prompt


@family
@dataclass(frozen=True)
class Contains(Family):
    """1 if the targets occur in the answer, and nothing forbidden does.

    Attributes:
        mode: "any": one of the targets is enough; "all": every one must occur; "share": the share of them that occur.
        forbid: Texts that must not occur: any of them makes the score 0. A prompt without a target is then judged by
            these alone.
        ignore_case: "paris" is found for "Paris".
        words: Only whole words count: "cat" is not found in "concatenate", nor "5" in "5.5", "1,500" or "-5".
    """

    name: ClassVar[str] = "contains"
    # 2: forbid, share; 3: a number is not found in a longer one, a word is found beside Chinese
    version: ClassVar[str] = "3"

    mode: Literal["any", "all", "share"] = "any"
    forbid: Sequence[str] = ()
    ignore_case: bool = True
    words: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("mode", self.mode in ("any", "all", "share"), "any, all or share")
        self.require_texts("forbid")

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        if prompt.target is None and self.forbid:
            return None
        return text_targets(prompt)[1]

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        answer = normal(text, ignore_case=self.ignore_case)
        bad = [w for w in self.forbid if self._has(answer, w)]
        if bad:
            return Score(0.0, bad[0], f"has the forbidden {listed(bad)}")
        wanted, _ = text_targets(prompt)
        if not wanted:
            return Score(1.0, None, f"has none of {listed(self.forbid)}")
        found = [w for w in wanted if self._has(answer, w)]
        missing = [w for w in wanted if w not in found]
        share = len(found) / len(wanted)
        value = {"any": float(bool(found)), "all": float(not missing), "share": share}[self.mode]
        said = f"has {listed(found)}" if found else f"has none of {listed(wanted)}"
        if found and missing and self.mode != "any":
            said = f"lacks {listed(missing)}"
        return Score(value, found[0] if found else None, said)

    def _has(self, answer: str, wanted: str) -> bool:
        wanted = normal(wanted, ignore_case=self.ignore_case)
        if not self.words:
            return wanted in answer
        return re.search(whole_word(wanted), answer) is not None
