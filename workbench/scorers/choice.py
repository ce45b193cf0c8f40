"""The answer names the right label or letter."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from workbench.records import Score
from workbench.scorers.base import Family, family, kind, targets, unscored
from workbench.scorers.texts import after_marker, normal, target_text, whole_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.prompts import Prompt

_DENIED: Final = re.compile(
    r"(?:\bnot|n't|\bneither|\bnor)(?:\s+(?:a|an|the|very|really))?\s*$", re.IGNORECASE
)
_DENIAL: Final = 40
"""Most characters before a label in which it can be denied."""
_LEADING: Final = r"[\s*_`(\[\"']*"
_CLOSING: Final = r"[)\].:,*\"'`]"


@family
@dataclass(frozen=True)
class Choice(Family):
    """1 if the answer settles on the right one of several options.

    The options are ``labels``; without them the texts in the prompt's ``metadata["choices"]``, also known by the
    letters A, B, ...; without both the letters A to ``last_letter``. An answer that names several options and settles on
    none is wrong.

    Attributes:
        labels: The options, for example [positive, negative].
        last_letter: Last letter of a plain letter question.
        ignore_case: For labels and texts; letters in running text must be capitals.
    """

    name: ClassVar[str] = "choice"

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
            return list(self.labels), ""
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
        tail = after_marker(text)
        for part in (tail, text):
            if part is None:
                continue
            first = self._first(part, names, letters)
            if first is not None:
                return {first}
        mentioned = self._mentioned(text, names)
        return mentioned or {letters.index(found) for found in _capitals(text, letters)}

    def _first(self, text: str, names: list[str], letters: str) -> int | None:
        """The option the text begins with, if it begins with one and goes on with no other."""
        if letters:
            bare = _bare(text)
            said = re.match(r"(?:option|choice)", bare, re.IGNORECASE)
            named = _bare(bare[said.end() :]) if said else bare
            either = re.match(rf"([{letters}])(?:{_CLOSING}|\s*$)", named, re.IGNORECASE)
            if either:
                return letters.index(either[1].upper())
            if re.match(rf"[{letters[1:]}]\s", bare):  # "A dog" begins with an article
                return letters.index(bare[0])
        folded = self._normal(text)
        order = sorted(range(len(names)), key=lambda i: -len(names[i]))
        for i in order if names != list(letters) else ():
            word = whole_word(self._normal(names[i]))
            match = re.match(_LEADING + word, folded)
            if match:
                other = re.match(r"\s*(?:or|/)\s*", folded[match.end() :])
                return None if other else i
        return None

    def _mentioned(self, text: str, names: list[str]) -> set[int]:
        if all(len(name) == 1 for name in names):
            return set()
        folded = self._normal(text)
        order = sorted(range(len(names)), key=lambda i: -len(names[i]))
        pattern = "|".join(f"(?P<n{i}>{whole_word(self._normal(names[i]))})" for i in order)
        found = set()
        for match in re.finditer(pattern, folded):
            if (
                not _DENIED.search(folded, max(0, match.start() - _DENIAL), match.start())
                and match.lastgroup
            ):
                found.add(int(match.lastgroup[1:]))
        return found

    def _normal(self, text: str) -> str:
        return normal(text, ignore_case=self.ignore_case)


def _bare(text: str) -> str:
    """The text without the white space, marks, quotes and brackets it begins with."""
    return re.sub(rf"\A{_LEADING}", "", text)


def unquoted(text: str) -> str:
    """The text without Markdown emphasis, which may stand inside an option."""
    return re.sub(r"\*\*|__", "", text)


def _capitals(text: str, letters: str) -> set[str]:
    """Letters that stand alone; "A" and "I" only in brackets or before a closing sign."""
    if not letters:
        return set()
    found = set(re.findall(rf"(?<![\w'])([{letters}])(?![\w'])", text))
    for word in {"A", "I"} & found:
        if not re.search(rf"\({word}\)|(?<![\w']){word}(?:[).:]|\s*$)", text):
            found.discard(word)
    return found
