"""Checks that come with the prompt: its target is ``{"assert": [{"type", "value", "weight"}, ...], "threshold"}``.

This is what promptfoo files become. Every check is judged by the scorer of its family.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from workbench.errors import ScorerError
from workbench.prompts.checkrows import canonical_json
from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, unscored
from workbench.scorers.contains import Contains
from workbench.scorers.exact import Exact
from workbench.scorers.jsonscore import Json
from workbench.scorers.regex import Regex
from workbench.scorers.texts import target_text

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_CONTAINS: Final[dict[str, Contains]] = {
    f"{i}contains{how}": Contains(
        mode="all" if how == "-all" else "any", ignore_case=i == "i", words=False
    )
    for i in ("", "i")
    for how in ("", "-any", "-all")
}
_EXACT: Final = Exact(ignore_case=False, ignore_space=False)
_JSON_EQUAL: Final = Json(extract=False)
TYPES: Final = (*_CONTAINS, "equals", "starts-with", "regex", "is-json", "contains-json", "python")
"""Checks there are; each but ``python`` also with ``not-`` before it."""
_CODE: Final = "<assert>"


@family
@dataclass(frozen=True)
class Asserts(Family):
    """The share of a prompt's checks that hold, by their weights.

    ``equals`` compares the trimmed texts (JSON, if the value is a list or an object), ``contains``... find a part of a word
    too, ``is-json`` wants nothing around the JSON, ``regex`` searches. Only types that begin with ``i`` ignore case.

    Attributes:
        mode: "share": the share that holds; "all": 1 if the share reaches the prompt's threshold, or is 1 where it has none.
        allow_python: Run ``python`` checks: any code, with all rights of this program. Without it such a prompt is not
            scored.
    """

    name: ClassVar[str] = "asserts"
    # 2: JSON as version 3 of the scorer json reads it
    # 3: hyphens and apostrophes in one form
    version: ClassVar[str] = "3"

    mode: Literal["share", "all"] = "share"
    allow_python: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("mode", self.mode in ("share", "all"), "share or all")

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's checks cannot be judged, or None if they can."""
        problem = super().target_problem(prompt)
        if problem is not None:
            return problem
        checks = prompt.target.get("assert") if isinstance(prompt.target, Mapping) else None
        if not isinstance(checks, list) or not checks:
            return 'the target must be {"assert": [checks]}'
        threshold = prompt.target.get("threshold", 1)
        if not is_number(threshold) or not 0 <= threshold <= 1:
            return f"threshold must be from 0 to 1, got {threshold!r}"
        for n, check in enumerate(checks, 1):
            found = self._check_problem(check)
            if found is not None:
                return f"check {n}: {found}"
        return None if sum(_weight(check) for check in checks) > 0 else "all weights are 0"

    def _check_problem(self, check: Any) -> str | None:
        if not isinstance(check, Mapping):
            return f"must be an object with type and value, got {check!r}"
        kind = str(check.get("type"))
        plain = kind.removeprefix("not-")
        if plain not in TYPES or kind == "not-python":
            return f"type must be one of {', '.join(TYPES)}, or not-..., got {kind!r}"
        if not is_number(_weight(check)) or _weight(check) < 0:
            return f"weight must be a number at least 0, got {check['weight']!r}"
        if plain == "python" and not self.allow_python:
            return "Python is not run unless the scorer is given allow_python: true"
        try:
            _judge(plain, canonical_json(check.get("value")))
        except (ScorerError, ValueError, TypeError, SyntaxError) as error:
            return f"{kind}: {error}"
        return None

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        checks = prompt.target["assert"]
        reached, total, failed = 0.0, 0.0, []
        for check in checks:
            kind, value = str(check["type"]), check.get("value")
            judged = _judge(kind.removeprefix("not-"), canonical_json(value))(text, prompt)
            if judged.value is None:
                return unscored(f"{kind}: {judged.reason}")
            share = 1 - judged.value if kind.startswith("not-") else judged.value
            if share < 1:
                failed.append(f"{kind} {value!r}" if value is not None else kind)
            reached += _weight(check) * share
            total += _weight(check)
        share = reached / total
        said = f"{len(checks) - len(failed)} of {len(checks)} checks hold"
        if failed:
            said += f"; not: {', '.join(failed)}"
        if self.mode == "all":
            # A share of thirds may miss 1 by rounding.
            share = float(share >= prompt.target.get("threshold", 1) - 1e-9)
        return Score(min(share, 1.0), None, said)


def _weight(check: Mapping[str, Any]) -> Any:
    return check.get("weight", 1)


@lru_cache(maxsize=4096)
def _judge(kind: str, encoded: str) -> Callable[[str, Prompt], Score]:
    """What judges one check.

    Raises:
        ScorerError, ValueError: Its value is of no use.
    """
    value = json.loads(encoded)
    if kind == "python":
        return _python(value)
    if kind in ("is-json", "contains-json"):
        return _with_target(Json(schema=value, extract=kind == "contains-json"), None)
    if kind == "equals":
        inner: Family = _JSON_EQUAL if isinstance(value, list | dict) else _EXACT
    elif kind in _CONTAINS:
        if isinstance(value, list) != kind.endswith(("-any", "-all")):
            raise ValueError(f"value must be {'a text' if isinstance(value, list) else 'a list'}")
        inner = _CONTAINS[kind]
    else:
        wanted = target_text(value)
        if not wanted:
            raise ValueError("value must be a text")
        if kind == "regex":
            return _with_target(Regex(wanted, ignore_case=False), None)
        return lambda text, _: Score(float(text.lstrip().startswith(wanted)))
    if value is None:
        raise ValueError("value is missing")
    return _with_target(inner, value)


def _with_target(inner: Family, value: Any) -> Callable[[str, Prompt], Score]:
    def judge(text: str, prompt: Prompt) -> Score:
        return inner.score(text, dataclasses.replace(prompt, target=value, metadata={}))

    return judge


def _python(source: Any) -> Callable[[str, Prompt], Score]:
    """A Python expression, or the body of a function, of ``output`` and ``context``."""
    if not isinstance(source, str):
        raise TypeError("value must be Python source")
    whole = True
    try:
        code = compile(source.strip(), _CODE, "eval")
    except SyntaxError:
        whole = False
        body = "\n".join(f"    {line}" for line in source.splitlines())
        code = compile(f"def check(output, context):\n{body}\n", _CODE, "exec")

    def judge(text: str, prompt: Prompt) -> Score:
        names: dict[str, Any] = {"output": text, "context": {"vars": dict(prompt.vars)}}
        result = eval(code, names)  # noqa: S307 - only with allow_python
        if not whole:
            result = names["check"](text, names["context"])
        if isinstance(result, Mapping):
            result = result.get("score", result.get("pass"))
        value = float(result)
        if not 0 <= value <= 1:
            raise ValueError(f"python gave {value:g}; a score is between 0 and 1")
        return Score(value)

    return judge
