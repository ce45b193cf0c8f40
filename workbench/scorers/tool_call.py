"""The answer calls the right tool with the right arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, unscored
from workbench.scorers.texts import normal
from workbench.scorers.toolcalls import Call, as_calls, parse_calls

if TYPE_CHECKING:
    from workbench.prompts import Prompt


@family
@dataclass(frozen=True)
class ToolCall(Family):
    """1 if the answer's tool calls are those of the target.

    The target is ``{"name": ..., "arguments": {...}}``, a list of these (all must be called), or ``"none"`` or an empty
    list: the right answer calls no tool. The forms that are read are in ``workbench.scorers.toolcalls``.

    Attributes:
        arguments: "exact": names and arguments must be right; "partial": per call, the share of right fields, the name
            being one and each argument of target or answer another, and nothing for a wrong name; "ignore": names alone.
        ordered: Calls must come in the target's order.
        extra: An argument that the target lacks counts as wrong.
        ignore_case: For texts in arguments; names always count exactly.
        ignore_punctuation: For texts in arguments: "It is ready." is "It is ready"; punctuation counts as a space.
    """

    name: ClassVar[str] = "tool_call"
    # 2: calls without arguments, the mark of Llama 3, empty tool_calls, code where there are no tools
    # 3: hyphens and apostrophes in one form
    version: ClassVar[str] = "3"

    arguments: Literal["exact", "partial", "ignore"] = "exact"
    ordered: bool = False
    extra: bool = True
    ignore_case: bool = True
    ignore_punctuation: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("exact", "partial", "ignore")
        self.require("arguments", self.arguments in known, "exact, partial or ignore")

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        if prompt.target is None:
            return "the prompt has no target"
        if _wanted(prompt.target) is None:
            return 'the target is no call {"name", "arguments"}, no list of calls, and not "none"'
        return None

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted = _wanted(prompt.target)
        if wanted is None:
            return unscored(self.target_problem(prompt) or "")
        found = parse_calls(text, prompt.tools, {call.name for call in wanted})
        shown = "; ".join(_shown(call) for call in found.calls) or None
        if not wanted:
            if found.calls or found.problems:
                return Score(0.0, shown, "calls a tool where none is wanted")
            said = "calls no tool, as wanted" if text.strip() else "the answer is empty"
            return Score(float(bool(text.strip())), None, said)
        if not found.calls:
            return Score(0.0, None, "; ".join(found.problems[:3]) or "no tool call in the answer")
        return self._matched(wanted, found.calls, shown)

    def _matched(self, wanted: list[Call], calls: list[Call], shown: str | None) -> Score:
        left = list(enumerate(calls))
        credit, said, last = 0.0, [], -1
        for goal in wanted:
            able = [
                (n, c) for n, c in left if c.name == goal.name and (n > last or not self.ordered)
            ]
            if not able:
                said.append(f"{goal.name} is not called")
                continue
            pick = max(able, key=lambda item: (self._credit(goal, item[1])[0], -item[0]))
            left.remove(pick)
            last = pick[0]
            value, wrong = self._credit(goal, pick[1])
            credit += value
            said += [f"{goal.name}: wrong {', '.join(wrong[:3])}"] if wrong else []
        said += [f"{call.name} is called without need" for _, call in left]
        share = credit / max(len(wanted), len(calls))
        value = share if self.arguments == "partial" else float(share == 1)
        return Score(value, shown, "; ".join(said[:4]) or "as wanted")

    def _credit(self, goal: Call, call: Call) -> tuple[float, list[str]]:
        if self.arguments == "ignore":
            return 1.0, []
        keys = set(goal.arguments) | (set(call.arguments) if self.extra else set())
        wrong = sorted(
            key
            for key in keys
            if key not in goal.arguments
            or key not in call.arguments
            or not self._same(goal.arguments[key], call.arguments[key])
        )
        return (1 + len(keys) - len(wrong)) / (1 + len(keys)), wrong

    def _same(self, ours: Any, theirs: Any) -> bool:
        if isinstance(ours, str) and isinstance(theirs, str):
            return self._normal(ours) == self._normal(theirs)
        if is_number(ours) and is_number(theirs):
            return bool(ours == theirs)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            return ours.keys() == theirs.keys() and all(
                self._same(value, theirs[key]) for key, value in ours.items()
            )
        if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
            return len(ours) == len(theirs) and all(map(self._same, ours, theirs))
        return type(ours) is type(theirs) and bool(ours == theirs)

    def _normal(self, text: str) -> str:
        return normal(
            text, ignore_case=self.ignore_case, ignore_punctuation=self.ignore_punctuation
        )


def _wanted(target: Any) -> list[Call] | None:
    """The calls of a target; empty if none is wanted, None if it is no target for this scorer."""
    if target == "none" or target == [] or target == ():  # noqa: PLR1714 - a target may be unhashable
        return []
    return as_calls(list(target) if isinstance(target, tuple) else target, None) or None


def _shown(call: Call) -> str:
    arguments = json.dumps(call.arguments, ensure_ascii=False, default=str)
    return f"{call.name}({arguments})"
