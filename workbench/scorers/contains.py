"""The target occurs in the answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from workbench.records import Score
from workbench.scorers.base import Family, family, listed, unscored
from workbench.scorers.settling import copies, settles, words_of
from workbench.scorers.texts import normal, one_form, question, text_targets, whole_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.prompts import Prompt

_MOST_PLACES: Final = 200
"""Places of one target in an answer that are looked at."""


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
        compounds: A word is found in one with hyphens: "known" in "well-known"; false: it is not.
        settled: The answer must settle on a target: one that it denies ("not Paris") or names beside others ("Paris or
            Rome", a list of three) does not count. Only English is known.
        echo: Most words in a row that the answer may copy from the user's last message; if it copies more, it is wrong.
            By default any number.
    """

    name: ClassVar[str] = "contains"
    # 2: forbid, share; 3: a number is not found in a longer one, a word is found beside Chinese
    # 4: hyphens and apostrophes in one form
    version: ClassVar[str] = "4"

    mode: Literal["any", "all", "share"] = "any"
    forbid: Sequence[str] = ()
    ignore_case: bool = True
    words: bool = True
    compounds: bool = True
    settled: bool = False
    echo: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("mode", self.mode in ("any", "all", "share"), "any, all or share")
        self.require_texts("forbid")
        self.require_count("echo", 1)

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
        asked = question(prompt) or ""
        if self.echo is not None and copies(text, asked, self.echo):
            return Score(0.0, None, f"copies more than {self.echo} words of the prompt in a row")
        wanted, _ = text_targets(prompt)
        if not wanted:
            return Score(1.0, None, f"has none of {listed(self.forbid)}")
        named = [w for w in wanted if self._has(answer, w)]
        found = [w for w in named if self._settles(text, w, asked)] if self.settled else named
        missing = [w for w in wanted if w not in found]
        if named and not found:
            return Score(0.0, None, f"does not settle on {listed(named)}")
        share = len(found) / len(wanted)
        value = {"any": float(bool(found)), "all": float(not missing), "share": share}[self.mode]
        said = f"has {listed(found)}" if found else f"has none of {listed(wanted)}"
        if found and missing and self.mode != "any":
            said = f"lacks {listed(missing)}"
        return Score(value, found[0] if found else None, said)

    def _has(self, answer: str, wanted: str) -> bool:
        wanted = normal(wanted, ignore_case=self.ignore_case)
        return re.search(self._pattern(wanted), answer) is not None

    def _pattern(self, wanted: str) -> str:
        if not self.words:
            return r"\s+".join(map(re.escape, wanted.split()))
        return whole_word(wanted, compounds=self.compounds)

    def _settles(self, text: str, wanted: str, asked: str) -> bool:
        """Whether the answer settles on what is wanted in one of the places where it stands."""
        text, told = one_form(text), words_of(asked)
        folded = text.casefold() if self.ignore_case else text
        if len(folded) != len(text):  # a letter that folds into two: keep the places alike
            text = "".join(c * len(c.casefold()) for c in text)
        pattern = self._pattern(normal(wanted, ignore_case=self.ignore_case))
        places = islice(re.finditer(pattern, folded), _MOST_PLACES)
        return any(settles(text, *match.span(), told) for match in places)
