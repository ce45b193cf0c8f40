"""How near the answer is to the target, by edits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, unscored
from workbench.scorers.texts import normal, text_targets

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_MOST: Final = 20_000


@family
@dataclass(frozen=True)
class Edit(Family):
    """1 minus the Levenshtein distance over the longer length (rapidfuzz); the nearest of several targets counts.

    Only the first 20,000 characters (or words) of answer and target are compared.

    Attributes:
        unit: What is inserted, deleted and replaced: "characters" or "words".
        at_least: 1 from this similarity on and 0 below, instead of the similarity itself, 0..1.
        ignore_case: "Paris" equals "paris".
        ignore_space: Runs of white space count as one space.
        ignore_punctuation: Punctuation counts as a space.
    """

    name: ClassVar[str] = "edit"
    # 2: a target of nothing but what is ignored gives no score
    # 3: hyphens and apostrophes in one form
    version: ClassVar[str] = "3"

    unit: Literal["characters", "words"] = "characters"
    at_least: float | None = None
    ignore_case: bool = True
    ignore_space: bool = True
    ignore_punctuation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("unit", self.unit in ("characters", "words"), "characters or words")
        least = self.at_least
        ok = least is None or (is_number(least) and 0 <= least <= 1)
        self.require("at_least", ok, "a number from 0 to 1")

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        wanted, problem = text_targets(prompt)
        if not all(self._parts(w) for w in wanted):
            return "the target is only what the options ignore"
        return problem

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        from rapidfuzz.distance import Levenshtein  # noqa: PLC0415 - only this scorer needs it

        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        wanted, _ = text_targets(prompt)
        answer = self._parts(text)
        near = [(Levenshtein.normalized_similarity(answer, self._parts(w)), w) for w in wanted]
        best, target = max(near, key=lambda pair: pair[0])
        value = best if self.at_least is None else float(best >= self.at_least)
        shown = target if len(target) <= 60 else target[:57] + "..."
        return Score(value, None, f"{best:.0%} like {shown!r}")

    def _parts(self, text: str) -> str | list[str]:
        text = normal(
            text,
            ignore_case=self.ignore_case,
            ignore_space=self.ignore_space,
            ignore_punctuation=self.ignore_punctuation,
        )
        return (text.split() if self.unit == "words" else text)[:_MOST]
