"""A pattern matches the answer, or captures the target."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from workbench.errors import ScorerError
from workbench.records import Score
from workbench.scorers.base import Family, family, listed, targets, unscored
from workbench.scorers.texts import normal, target_text

if TYPE_CHECKING:
    from workbench.prompts import Prompt


@family
@dataclass(frozen=True)
class Regex(Family):
    """1 if the pattern matches and, for a prompt with a target, what it captures is the target.

    Attributes:
        pattern: A Python regular expression, searched anywhere in the answer.
        group: What is compared with the target: a group's number or name; 0 is the whole match. By default the first
            group if the pattern has one.
        pick: "first" or "last" match.
        ignore_case: For matching and comparing.
    """

    name: ClassVar[str] = "regex"

    pattern: str
    group: int | str | None = None
    pick: Literal["first", "last"] = "first"
    ignore_case: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("pattern", isinstance(self.pattern, str) and self.pattern != "", "a text")
        self.require("pick", self.pick in ("first", "last"), "first or last")
        try:
            compiled = self._compiled
        except re.error as error:
            where = f" at position {error.pos}" if error.pos is not None else ""
            raise ScorerError(
                f"scorer regex: pattern {self.pattern!r}: {error.msg}{where}"
            ) from error
        groups = [*range(compiled.groups + 1), *compiled.groupindex]
        ok = self.group is None or (self.group in groups and not isinstance(self.group, bool))
        self.require("group", ok, f"one of {', '.join(map(str, groups))}")

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, re.IGNORECASE if self.ignore_case else 0)

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted = [target_text(target) for target in targets(prompt)]
        if None in wanted:
            return unscored("the prompt has no text as its target")
        match = self._match(text)
        if match is None:
            return Score(0.0, None, "the pattern does not match")
        group = self.group if self.group is not None else min(1, self._compiled.groups)
        answer = match.group(group)
        if not wanted:
            return Score(1.0, answer, "the pattern matches")
        if answer is None:
            return Score(0.0, None, f"group {group} is not in the match")
        same = [normal(w, ignore_case=self.ignore_case) for w in wanted if w is not None]
        right = normal(answer, ignore_case=self.ignore_case) in same
        return Score(float(right), answer, f"{'is' if right else 'is not'} {listed(wanted)}")

    def _match(self, text: str) -> re.Match[str] | None:
        if self.pick == "first":
            return self._compiled.search(text)
        matches = list(self._compiled.finditer(text))
        return matches[-1] if matches else None
