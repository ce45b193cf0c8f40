"""A pattern matches the answer, or captures the target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from workbench.errors import ScorerError
from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, listed, unscored
from workbench.scorers.texts import normal, text_targets

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_MOST_SECONDS: Final = 3600


@family
@dataclass(frozen=True)
class Regex(Family):
    r"""1 if the pattern matches and, for a prompt with a target, what it captures is the target.

    Attributes:
        pattern: A regular expression as Python's ``re`` reads it, Unicode classes such as ``\p{L}`` too; searched
            anywhere in the answer.
        group: What is compared with the target: a group's number or name; 0 is the whole match. By default the first
            group if the pattern has one.
        pick: "first" or "last" match.
        full: The pattern must match the whole answer, white space around it left out.
        ignore_case: For matching and comparing.
        timeout_s: An answer on which matching takes longer, seconds, gets no score: some patterns take exponential time.
    """

    name: ClassVar[str] = "regex"
    # 2: the regex package, time limit, full; an unusable target is no score
    # 3: hyphens and apostrophes of what is compared in one form
    version: ClassVar[str] = "3"
    needs_target: ClassVar[bool] = False

    pattern: str
    group: int | str | None = None
    pick: Literal["first", "last"] = "first"
    full: bool = False
    ignore_case: bool = True
    timeout_s: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("pattern", isinstance(self.pattern, str) and self.pattern != "", "a text")
        self.require("pick", self.pick in ("first", "last"), "first or last")
        timeout = self.timeout_s
        ok = is_number(timeout) and 0 < timeout <= _MOST_SECONDS
        self.require("timeout_s", ok, f"a number above 0, at most {_MOST_SECONDS}")
        compiled = self._compiled
        groups = [*range(compiled.groups + 1), *compiled.groupindex]
        ok = self.group is None or (self.group in groups and not isinstance(self.group, bool))
        self.require("group", ok, f"one of {', '.join(map(str, groups))}")

    @cached_property
    def _compiled(self) -> Any:
        import regex  # noqa: PLC0415 - only this scorer needs it

        try:
            return regex.compile(self.pattern, regex.IGNORECASE if self.ignore_case else 0)
        except regex.error as error:
            where = f" at position {error.pos}" if error.pos is not None else ""
            raise ScorerError(
                f"scorer regex: pattern {self.pattern!r}: {error.msg}{where}"
            ) from error

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        return None if prompt.target is None else text_targets(prompt)[1]

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        try:
            match = self._match(text)
        except TimeoutError:
            return unscored(
                f"the pattern took longer than {self.timeout_s:g} s on this answer; simplify it"
            )
        if match is None:
            return Score(0.0, None, "the pattern does not match")
        group = self.group if self.group is not None else min(1, self._compiled.groups)
        answer = match.group(group)
        wanted, _ = text_targets(prompt)
        if not wanted:
            return Score(1.0, answer, "the pattern matches")
        if answer is None:
            return Score(0.0, None, f"group {group} is not in the match")
        same = [normal(w, ignore_case=self.ignore_case) for w in wanted]
        right = normal(answer, ignore_case=self.ignore_case) in same
        return Score(float(right), answer, f"{'is' if right else 'is not'} {listed(wanted)}")

    def _match(self, text: str) -> Any:
        if self.full:
            return self._compiled.fullmatch(text.strip(), timeout=self.timeout_s)
        if self.pick == "first":
            return self._compiled.search(text, timeout=self.timeout_s)
        last = None
        for match in self._compiled.finditer(text, timeout=self.timeout_s):
            last = match
        return last
