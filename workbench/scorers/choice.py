"""The answer names the right label or letter."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from workbench.records import Score
from workbench.scorers.base import Family, family, kind, targets, unscored
from workbench.scorers.mentions import Options
from workbench.scorers.texts import after_markers, normal, target_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.prompts import Prompt

_CHOSEN: Final = re.compile(
    r"\b(?:option|choice|letter|alternative)\s*(?:\bis\b|\bwould\s+be\b|:|=)[\s:*_`]*",
    re.IGNORECASE,
)


@family
@dataclass(frozen=True)
class Choice(Family):
    """1 if the answer settles on the right one of several options.

    The options are ``labels``; without them the texts in the prompt's ``metadata["choices"]``, also known by the
    letters A, B, ...; without both the letters A to ``last_letter``. An option may be a list of spellings: ["15", fifteen].
    An answer that names several options and settles on none is wrong, and so is one that only denies them ("Not A", "B is
    wrong").

    Attributes:
        labels: The options, for example [positive, negative], or [[sports, sport], music].
        last_letter: Last letter of a plain letter question.
        letters: The texts of ``metadata["choices"]`` are also known by letters; false, where a question shows none.
        ignore_case: For labels and texts; letters in running text must be capitals.
    """

    name: ClassVar[str] = "choice"
    # 2: denial of letters and of lists; an opening that goes on with other options settles nothing
    # 3: hyphens and apostrophes in one form
    version: ClassVar[str] = "3"

    labels: Sequence[str | Sequence[str]] | None = None
    last_letter: str = "E"
    letters: bool = True
    ignore_case: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = self.labels
        if labels is not None:
            names = spelled(labels)
            every = [self._normal(name) for spellings in names or () for name in spellings]
            ok = names is not None and len(set(every)) == len(every)
            self.require("labels", ok, "a list of two or more different texts")
            kept = tuple(x if isinstance(x, str) else tuple(x) for x in labels)
            object.__setattr__(self, "labels", kept)
        letters = string.ascii_uppercase[1:]
        self.require("last_letter", self.last_letter in tuple(letters), "a capital letter from B")

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from their default."""
        found = super().options
        if self.labels is not None:
            found["labels"] = [x if isinstance(x, str) else list(x) for x in self.labels]
        return found

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        if not targets(prompt):
            return super().target_problem(prompt) or "the target is an empty list"
        names, letters = self._names(prompt)
        for target in targets(prompt):
            if self._index(target_text(target), names, letters) is None:
                shown = repr(target) if target_text(target) is not None else kind(target)
                known = ", ".join(spellings[0] for spellings in names)
                return f"the target, {shown[:60]}, is not one of {known[:200]}"
        return None

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        names, letters = self._names(prompt)
        wanted = {self._index(target_text(t), names, letters) for t in targets(prompt)}
        picked = self._pick(unquoted(text), names, letters)
        if len(picked) != 1:
            said = "names no option" if not picked else "names several options"
            return Score(0.0, None, said)
        (index,) = picked
        name = names[index][0]
        right = index in wanted
        return Score(float(right), name, f"{'right' if right else 'wrong'}: {name}")

    def _names(self, prompt: Prompt) -> tuple[list[list[str]], str]:
        """The options with all their spellings, and their letters."""
        if self.labels is not None:
            names = spelled(self.labels) or []
            singles = "".join(s[0] for s in names if len(s) == 1 and len(s[0]) == 1)
            plain = len(singles) == len(names) and set(singles) <= set(string.ascii_uppercase)
            return names, singles if plain else ""
        choices = spelled(prompt.metadata.get("choices"))
        if choices is not None:
            return choices, string.ascii_uppercase[: len(choices)] if self.letters else ""
        letters = string.ascii_uppercase[: string.ascii_uppercase.index(self.last_letter) + 1]
        return [[letter] for letter in letters], letters

    def _index(self, target: str | None, names: list[list[str]], letters: str) -> int | None:
        if target is None:
            return None
        wanted = self._normal(target)
        for n, spellings in enumerate(names):
            if wanted in map(self._normal, spellings):
                return n
        letter = target.strip().strip("().").upper()
        return letters.index(letter) if len(letter) == 1 and letter in letters else None

    def _pick(self, text: str, names: list[list[str]], letters: str) -> set[int]:
        options = Options(names, letters, ignore_case=self.ignore_case)
        chosen = list(_CHOSEN.finditer(text))
        tails = after_markers(text)[:1] + [text[m.end() :] for m in chosen[-1:]]
        for tail in sorted(tails, key=len):  # the later sign first
            picked = options.settled(tail, concluding=True)
            if picked:
                return picked
        return options.settled(text)

    def _normal(self, text: str) -> str:
        return normal(text, ignore_case=self.ignore_case)


def spelled(options: Any) -> list[list[str]] | None:
    """Two or more options with all their spellings; None if it is anything else.

    >>> spelled([["15", "fifteen"], "none"]), spelled(["one"])
    ([['15', 'fifteen'], ['none']], None)
    """
    if not isinstance(options, list | tuple) or len(options) < 2:
        return None
    found = [[option] if isinstance(option, str) else option for option in options]
    for spellings in found:
        if not isinstance(spellings, list | tuple) or not spellings:
            return None
        if not all(isinstance(text, str) and text.strip() for text in spellings):
            return None
    return [list(spellings) for spellings in found]


def unquoted(text: str) -> str:
    """The text without Markdown emphasis, which may stand inside an option."""
    return re.sub(r"\*\*|__", "", text)
