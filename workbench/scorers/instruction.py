"""The answer follows instructions that a program can check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from workbench.records import Score
from workbench.scorers import checks
from workbench.scorers.base import Family, family, kind, unscored
from workbench.scorers.texts import question

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_MOST: Final = 100_000


@family
@dataclass(frozen=True)
class Instruction(Family):
    """The share of a prompt's instructions that the answer follows.

    The target is ``{"instructions": [{"check": "max_words", "n": 50}, ...]}`` or the list alone; the checks are in
    ``workbench.scorers.checks``. An empty answer follows none. Only the first 100,000 characters are looked at.

    Attributes:
        score_by: "fraction": the share followed; "all": 1 if every one is.
        loose: Also try the answer without its first line, without its last, without both, and each of these without
            Markdown asterisks; an instruction is followed if it is in any form (the loose rule of IFEval).
    """

    name: ClassVar[str] = "instruction"
    # 2: words, sentences, highlights and bullets are counted otherwise
    # 3: hyphens and apostrophes in one form
    version: ClassVar[str] = "3"

    score_by: Literal["fraction", "all"] = "fraction"
    loose: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("score_by", self.score_by in ("fraction", "all"), "fraction or all")

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        if prompt.target is None:
            return "the prompt has no target"
        instructions = _instructions(prompt.target)
        if instructions is None:
            return f"the target is {kind(prompt.target)}, not a list of instructions"
        if not instructions:
            return "the target has no instructions"
        return next((said for item in instructions if (said := checks.problem(item))), None)

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        instructions = _instructions(prompt.target) or []
        if not text.strip():
            return Score(0.0, None, f"0 of {len(instructions)} followed: the answer is empty")
        forms = loosened(text[:_MOST]) if self.loose else [text[:_MOST]]
        asked = question(prompt)
        broken = []
        for item in instructions:
            verdicts = [checks.run(item, form, asked) for form in forms]
            if not any(ok for ok, _ in verdicts):
                broken.append(f"{item['check']} ({verdicts[0][1]})")
        done, total = len(instructions) - len(broken), len(instructions)
        value = done / total if self.score_by == "fraction" else float(not broken)
        said = f"{done} of {total} followed" + (f"; not: {', '.join(broken)}" if broken else "")
        return Score(value, None, said)


def loosened(text: str) -> list[str]:
    r"""The forms in which the loose rule looks at an answer, the answer itself first, none empty.

    >>> loosened("Sure:\n*A*")
    ['Sure:\n*A*', '*A*', 'Sure:', 'Sure:\nA', 'A']
    """
    lines = text.split("\n")
    forms = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    forms += [form.replace("*", "") for form in forms]
    return list(dict.fromkeys(form for form in forms if form.strip()))


def _instructions(target: Any) -> list[Any] | None:
    if isinstance(target, Mapping) and set(target) == {"instructions"}:
        target = target["instructions"]
    return list(target) if isinstance(target, list | tuple) else None
