"""The answer names the right label or letter."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

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
    letters A, B, ...; without both the letters A to ``last_letter``. An answer that names several options and settles on
    none is wrong, and so is one that only denies them ("Not A", "B is wrong").

    Attributes:
        labels: The options, for example [positive, negative].
        last_letter: Last letter of a plain letter question.
        ignore_case: For labels and texts; letters in running text must be capitals.
    """

    name: ClassVar[str] = "choice"
    # 2: denial of letters and of lists; an opening that goes on with other options settles nothing
    version: ClassVar[str] = "2"

    labels: Sequence[str] | None = None
    last_letter: str = "E"
    ignore_case: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        labels = self.labels
        ok = labels is None or (
            not isinstance(labels, str)
            and len(labels) > 1
            and all(isinstance(label, str) and label.strip() for label in labels)
            and len({self._normal(label) for label in labels}) == len(labels)
        )
        self.require("labels", ok, "a list of two or more different texts")
        object.__setattr__(self, "labels", None if labels is None else tuple(labels))
        letters = string.ascii_uppercase[1:]
        self.require("last_letter", self.last_letter in tuple(letters), "a capital letter from B")

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        if not targets(prompt):
            return super().target_problem(prompt) or "the target is an empty list"
        names, letters = self._names(prompt)
        for target in targets(prompt):
            if self._index(target_text(target), names, letters) is None:
                shown = repr(target) if target_text(target) is not None else kind(target)
                return f"the target, {shown[:60]}, is not one of {', '.join(names)[:200]}"
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
        right = index in wanted
        return Score(float(right), names[index], f"{'right' if right else 'wrong'}: {names[index]}")

    def _names(self, prompt: Prompt) -> tuple[list[str], str]:
        if self.labels is not None:
            joined = "".join(self.labels)
            plain = len(joined) == len(self.labels) and set(joined) <= set(string.ascii_uppercase)
            return list(self.labels), joined if plain else ""
        choices = prompt.metadata.get("choices")
        if (
            isinstance(choices, list)
            and len(choices) > 1
            and all(isinstance(c, str) for c in choices)
        ):
            return choices, string.ascii_uppercase[: len(choices)]
        letters = string.ascii_uppercase[: string.ascii_uppercase.index(self.last_letter) + 1]
        return list(letters), letters

    def _index(self, target: str | None, names: list[str], letters: str) -> int | None:
        if target is None:
            return None
        normals = [self._normal(name) for name in names]
        if self._normal(target) in normals:
            return normals.index(self._normal(target))
        letter = target.strip().strip("().").upper()
        return letters.index(letter) if len(letter) == 1 and letter in letters else None

    def _pick(self, text: str, names: list[str], letters: str) -> set[int]:
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


def unquoted(text: str) -> str:
    """The text without Markdown emphasis, which may stand inside an option."""
    return re.sub(r"\*\*|__", "", text)
