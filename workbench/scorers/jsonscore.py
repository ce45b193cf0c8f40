"""The answer is JSON: valid, fitting a schema, equal to the target."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from workbench.errors import ScorerError
from workbench.prompts.checkrows import strict_json
from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, unscored
from workbench.scorers.texts import normal

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_FENCE: Final = re.compile(
    r"```[ \t]*(?:json[c5]?)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE
)
_MOST_STARTS: Final = 1000
_OPENING: Final = re.compile(r"[{\[]")
_BEGUN: Final = re.compile(r"\{\s*(?:[\"']|[\w$]+\s*:)|\[\s*[\"'{\[]")
"""What looks as if it should be JSON, though it is not."""
_PARTS: Final = re.compile(r"\\.|[\"{}\[\]]", re.DOTALL)
Leaf = tuple[str | int, ...]


@family
@dataclass(frozen=True)
class Json(Family):
    """1 if the answer holds JSON that fits the schema and equals the target, as far as these are given.

    Attributes:
        schema: A JSON schema; without it the one in the prompt's ``metadata["schema"]``, if any.
        extract: Take JSON out of code fences and prose; otherwise the whole answer must be JSON.
        compare: Compare with the prompt's target, if it has one.
        partial: The share of fields that are right, of all fields of target and answer, instead of all or nothing.
        extra: Fields that the target lacks count as wrong; false: they are left out of the comparison. Items of a list
            count always.
        ignore_case: For texts in the comparison; keys always count exactly.
        tolerance: Largest allowed difference of numbers, >= 0.
        relative: Largest allowed difference as a share of the target's number, >= 0. The larger of both limits counts.
    """

    name: ClassVar[str] = "json"
    # 2: extra, tolerance; a prompt's schema that is none gives no score
    # 3: nothing out of cut or wrong JSON, no footnotes, no doubled keys
    # 4: with ignore_case, hyphens and apostrophes in one form
    version: ClassVar[str] = "4"
    needs_target: ClassVar[bool] = False

    schema: Mapping[str, Any] | None = None
    extract: bool = True
    compare: bool = True
    partial: bool = False
    extra: bool = True
    ignore_case: bool = False
    tolerance: float = 0.0
    relative: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            "schema", self.schema is None or isinstance(self.schema, Mapping), "a JSON schema"
        )
        assert self._validator is not None or self.schema is None
        for option in ("tolerance", "relative"):
            value = getattr(self, option)
            ok = is_number(value) and 0 <= value < float("inf")
            self.require(option, ok, "a number at least 0")

    @cached_property
    def _validator(self) -> Any:
        return None if self.schema is None else _validator(self.schema)

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target or schema is of no use here, or None if both can be used."""
        own = prompt.metadata.get("schema")
        try:
            self._target(prompt)
            if self.schema is None and isinstance(own, Mapping):
                _validator(own)
        except ValueError as error:
            return f"the target is {error}"
        except ScorerError as error:
            return f"the prompt's schema: {str(error).removeprefix('scorer json: ')}"
        return None

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        target = self._target(prompt)
        read = candidates(text, bare=target is not None) if self.extract else _whole(text)
        found = next(read, None)
        if found is None:
            return Score(0.0, None, "no JSON in the answer")
        (value,) = found
        shown = json.dumps(value, ensure_ascii=False)
        problem = self._misfit(value, prompt)
        if problem:
            return Score(0.0, shown, problem)
        if target is None:
            return Score(1.0, shown, "valid JSON")
        return self._compared(value, target[0], shown)

    def _target(self, prompt: Prompt) -> tuple[Any] | None:
        if not self.compare or prompt.target is None:
            return None
        if not isinstance(prompt.target, str):
            return (prompt.target,)
        return (strict_json(prompt.target),)

    def _misfit(self, value: Any, prompt: Prompt) -> str:
        own = prompt.metadata.get("schema")
        validator = self._validator
        if validator is None and isinstance(own, Mapping):
            validator = _validator(own)
        if validator is None:
            return ""
        errors = sorted(validator.iter_errors(value), key=lambda e: list(map(str, e.absolute_path)))
        if not errors:
            return ""
        where = "".join(f"[{p!r}]" for p in errors[0].absolute_path) or "the whole"
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return f"does not fit the schema: {where}: {errors[0].message[:200]}{more}"

    def _compared(self, value: Any, target: Any, shown: str) -> Score:
        ours, theirs = self._leaves(target), self._leaves(value)
        if not self.extra:
            theirs = {path: leaf for path, leaf in theirs.items() if not _added(path, target)}
        paths = ours.keys() | theirs.keys()
        wrong = sorted(
            (k for k in paths if not self._same(ours.get(k), theirs.get(k))),
            key=lambda k: [str(part) for part in k],
        )
        if not wrong:
            return Score(1.0, shown, "equals the target")
        total = len(paths)
        places = ", ".join(".".join(map(str, k)) or "the whole" for k in wrong[:3])
        share = (total - len(wrong)) / total if self.partial else 0.0
        return Score(share, shown, f"{total - len(wrong)} of {total} fields right; wrong: {places}")

    def _same(self, ours: tuple[str, Any] | None, theirs: tuple[str, Any] | None) -> bool:
        if ours is None or theirs is None or ours[0] != theirs[0]:
            return False
        if ours[0] != "number" or ours[1] == theirs[1]:
            return bool(ours[1] == theirs[1])
        limit = max(_exact(self.tolerance), _exact(self.relative) * abs(_exact(ours[1])))
        return abs(_exact(ours[1]) - _exact(theirs[1])) <= limit

    def _leaves(self, value: Any) -> dict[Leaf, tuple[str, Any]]:
        return {path: self._leaf(item) for path, item in leaves(value)}

    def _leaf(self, value: Any) -> tuple[str, Any]:
        """A value with its JSON type, so that true is not 1, while 1 is 1.0."""
        if isinstance(value, bool):
            return "boolean", value
        if isinstance(value, int | float):
            return "number", value
        if isinstance(value, str) and self.ignore_case:
            return "str", normal(value)
        return type(value).__name__, value


def _exact(value: float) -> Fraction:
    """A number of a JSON text as it was written; one too large for a float counts as the largest."""
    if isinstance(value, float) and math.isinf(value):
        return Fraction(math.copysign(sys.float_info.max, value))
    return Fraction(str(value)) if isinstance(value, float) else Fraction(value)


def _added(path: Leaf, target: Any) -> bool:
    """Whether a path goes through a key that an object of the target lacks."""
    for part in path:
        if isinstance(target, dict):
            if part not in target:
                return True
            target = target[part]
        elif isinstance(target, list) and isinstance(part, int) and part < len(target):
            target = target[part]
        else:
            return False
    return False


def leaves(value: Any, path: Leaf = ()) -> Iterator[tuple[Leaf, Any]]:
    """Every scalar of a decoded JSON value with its path; empty objects and lists count as scalars.

    >>> list(leaves({"a": [1, {}]}))
    [(('a', 0), 1), (('a', 1), {})]
    """
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for n, item in enumerate(value):
            yield from leaves(item, (*path, n))
    else:
        yield path, value


def candidates(text: str, *, bare: bool = False) -> Iterator[tuple[Any]]:
    """JSON values in a text, best first: the whole text, code fences, then objects and lists in prose by length.

    Nothing is taken from inside an object or list that is wrong or never ends. In prose, an empty object or list and a
    list of a single number may be no JSON at all ("sets {}", "see [1]").

    Args:
        text: An answer.
        bare: Take these too, if nothing else is there and they are all equal.
    """
    yield from _whole(text)
    for fence in _FENCE.finditer(text):
        yield from _whole(fence[1])
    found = sorted(_in_prose(text), key=lambda f: (f[0] - f[1], f[0]))
    full = [value for _, _, value in found if not _bare(value)]
    yield from ((value,) for value in full)
    if bare and not full and len({json.dumps(value) for _, _, value in found}) == 1:
        yield (found[0][2],)


def _bare(value: Any) -> bool:
    return not value or (isinstance(value, list) and len(value) == 1 and is_number(value[0]))


def _in_prose(text: str) -> Iterator[tuple[int, int, Any]]:
    """Objects and lists among other text: start, end, value."""
    end = 0
    for match in list(_OPENING.finditer(text))[:_MOST_STARTS]:
        start = match.start()
        if start < end:
            continue
        try:
            _, end = _DECODER.raw_decode(text, start)
            yield start, end, strict_json(text[start:end])
        except json.JSONDecodeError as error:
            begun = _BEGUN.match(text, start) is not None
            if not begun and not _OPENING.search(text, start + 1, error.pos):
                continue  # a bracket of the prose
            closed = _closing(text, start)
            if closed is None:
                return
            end = closed
        except (ValueError, RecursionError):
            end = max(end, _closing(text, start) or len(text))


def _closing(text: str, start: int) -> int | None:
    """Where the bracket at ``start`` is closed; None if it never is."""
    depth, quoted = 0, False
    for part in _PARTS.finditer(text, start):
        if part[0] == '"':
            quoted = not quoted
        elif not quoted and len(part[0]) == 1:
            depth += 1 if part[0] in "{[" else -1
            if depth == 0:
                return part.end()
    return None


def _whole(text: str) -> Iterator[tuple[Any]]:
    try:
        yield (strict_json(text.strip()),)
    except ValueError:
        return


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)


def _validator(schema: Mapping[str, Any]) -> Any:
    return _made(json.dumps(schema))


@lru_cache(maxsize=256)
def _made(text: str) -> Any:
    import jsonschema  # noqa: PLC0415 - only this scorer needs it, and only with a schema
    from referencing import Registry  # noqa: PLC0415

    schema = json.loads(text)
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        where = ".".join(map(str, error.absolute_path)) or "the whole"
        raise ScorerError(f"scorer json: not a JSON schema: {where}: {error.message}") from error
    return kind(schema, registry=Registry())  # an empty registry: references are never fetched
