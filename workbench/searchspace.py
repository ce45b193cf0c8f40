"""The search space of a study: the ranges and choices that ``search`` names, checked and in one form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import ParamError
from workbench.params import FIELDS, SamplingParams
from workbench.problems import short

if TYPE_CHECKING:
    from workbench.problems import Check
    from workbench.yamlmarks import Path as Where

SETTINGS: Final = tuple(name for name in FIELDS if name not in ("seed", "stop"))
"""Settings that can be searched."""
NAMES: Final = ("adapter", "template")
"""What else can be, by choices alone."""
INTEGERS: Final = ("max_tokens", "top_k")
_KEYS: Final = ("low", "high", "step", "log")
_FORMS: Final = (
    "[low, high], {low, high}, {low, high, step}, {low, high, log: true} or {choices: [...]}"
)
_DIGITS: Final = 3
"""Significant digits of a value on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One setting that is searched.

    Attributes:
        name: The setting, "adapter" or "template".
        choices: Its values, if they are listed; else there is a range.
        low: Smallest value.
        high: Largest value; a multiple of ``step`` above ``low``.
        step: Between two values; None on a logarithmic scale.
        log: True if the scale is logarithmic.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False

    def __str__(self) -> str:
        """The dimension in words: ``top_p 0.3 to 1``."""
        if self.choices:
            return f"{self.name} {', '.join(map(str, self.choices))}"
        return f"{self.name} {self.low:g} to {self.high:g}{' (logarithmic)' if self.log else ''}"

    @property
    def integer(self) -> bool:
        """True if values are whole numbers."""
        return self.name in INTEGERS

    def value(self, raw: Any) -> Any:
        """A value of the range as it is used: rounded to the step, or to three digits on a logarithmic scale.

        >>> Dimension("temperature", low=0.0, high=1.5, step=0.01).value(0.7000000000001)
        0.7
        """
        if self.choices:
            return raw
        if self.integer:
            return int(raw)
        digits = _decimals(self.step) if self.step else _DIGITS - 1 - math.floor(math.log10(raw))
        return min(max(round(float(raw), digits), self.low), self.high)


def check(value: Any, check: Check) -> dict[str, dict[str, Any]]:
    """Check and normalise the field: setting to ``{low, high}`` and what else it has, or ``{choices}``."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        check.add(("search",), f"must be setting: range, got {short(value)}")
        return {}
    out: dict[str, dict[str, Any]] = {}
    for name, given in value.items():
        where: Where = ("search", str(name))
        if name not in (*SETTINGS, *NAMES):
            check.unknown(where, "setting", (*SETTINGS, *NAMES))
        elif (found := _dimension(name, given, where, check)) is not None:
            out[name] = found
    return out


def fits(clean: Mapping[str, Any], check: Check) -> None:
    """Check a search against the other fields of its study, all in normal form."""
    search = clean["search"]
    if not search:
        return
    if clean["grid"]:
        check.add(
            ("grid",),
            "cannot stand beside search: give settings to compare with as baseline, values as choices of the search",
        )
    for name in search.keys() & clean["fixed"].keys():
        check.add(("fixed", name), "is in the search too; keep one of the two")
    if isinstance(clean["baseline"], str):
        check.add(
            ("baseline",), "with a search, give the baseline's settings: {temperature: 0.7, ...}"
        )
    for name, known in (("adapter", clean["adapters"]), ("template", clean["templates"])):
        for n, choice in enumerate(search.get(name, {}).get("choices", ())):
            if choice not in known:
                listed = ", ".join(known) or "none"
                check.add(
                    ("search", name, "choices", n),
                    f"no {name} {choice!r} in {name}s; there are {listed}",
                )


def dimensions(
    search: Mapping[str, Mapping[str, Any]], adapters: Sequence[str], templates: Sequence[str]
) -> tuple[Dimension, ...]:
    """What is searched: the ranges and choices, and the adapters and templates of a study that has several.

    Args:
        search: The field in normal form.
        adapters: Names of all adapters of the study.
        templates: Names of all its templates.
    """
    whole = dict(search)
    for name, names in (("adapter", adapters), ("template", templates)):
        if name not in whole and len(names) > 1:
            whole[name] = {"choices": list(names)}
    return tuple(_as_dimension(name, given) for name, given in whole.items())


def _as_dimension(name: str, given: Mapping[str, Any]) -> Dimension:
    if "choices" in given:
        return Dimension(name, tuple(given["choices"]))
    low, high, step = given["low"], given["high"], given.get("step")
    if given.get("log"):
        return Dimension(name, low=low, high=high, log=True)
    if name in INTEGERS:
        step = step or 1
    elif step is None:
        digits = max(_decimals(low), _decimals(high), -math.floor(math.log10((high - low) / 50)))
        step = 10.0**-digits
    count = math.floor(round((high - low) / step, 9))
    top = low + count * step
    return Dimension(name, low=low, high=min(round(top, 9), high), step=step)


def _decimals(number: float) -> int:
    """Digits after the point.

    >>> [_decimals(x) for x in (2, 0.25, 1e-07)]
    [0, 2, 7]
    """
    return next((n for n in range(12) if round(number, n) == number), 12)


def _dimension(name: str, given: Any, where: Where, check: Check) -> dict[str, Any] | None:
    """One entry in normal form, or None and a problem."""
    if isinstance(given, Mapping) and "choices" in given:
        for key in given.keys() - {"choices"}:
            check.add((*where, str(key)), "cannot stand beside choices")
        return _choices(name, given["choices"], (*where, "choices"), check)
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    if name in NAMES:
        if listed:
            return _choices(name, given, where, check)
        check.add(where, f"must be a list of {name}s, got {short(given)}")
        return None
    if listed and len(given) == 2:
        given = {"low": given[0], "high": given[1]}
    if not isinstance(given, Mapping) or not {"low", "high"} <= given.keys():
        check.add(where, f"must be {_FORMS}, got {short(given)}")
        return None
    return _range(name, given, where, check)


def _choices(name: str, values: Any, where: Where, check: Check) -> dict[str, Any] | None:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        check.add(where, f"must be a list of values, got {short(values)}")
        return None
    before = len(check.problems)
    for n, value in enumerate(values):
        if value in list(values)[:n]:
            check.add((*where, n), f"{value!r} is listed twice")
        elif name not in NAMES:
            _admitted(name, value, (*where, n), check)
    return {"choices": list(values)} if len(check.problems) == before else None


def _admitted(name: str, value: Any, where: Where, check: Check) -> None:
    try:
        SamplingParams(**{name: value})
    except ParamError as error:
        check.add(where, f"must be {error.allowed}, got {short(value)}")


def _range(
    name: str, given: Mapping[str, Any], where: Where, check: Check
) -> dict[str, Any] | None:
    before = len(check.problems)
    for key in given:
        if key not in _KEYS:
            check.unknown((*where, str(key)), "key", (*_KEYS, "choices"))
    for key in ("low", "high"):
        if given[key] is None:
            check.add((*where, key), "must be a number")
        else:
            _admitted(name, given[key], (*where, key), check)
    if len(check.problems) > before:
        return None
    step, log = given.get("step"), given.get("log", False)
    _scale(name, given, where, check)
    if len(check.problems) > before:
        return None
    found = {key: given[key] for key in ("low", "high")}
    return found | ({} if step is None else {"step": step}) | ({"log": True} if log else {})


def _scale(name: str, given: Mapping[str, Any], where: Where, check: Check) -> None:
    """Whether ends, step and scale of a range go together."""
    step, log = given.get("step"), given.get("log", False)
    if not given["low"] < given["high"]:
        check.add(where, f"low must be below high, got {given['low']} and {given['high']}")
    if not isinstance(log, bool):
        check.add((*where, "log"), f"must be true or false, got {short(log)}")
    elif log and (given["low"] <= 0 or step is not None):
        check.add((*where, "log"), "takes a low above 0, and no step")
    if step is not None and not _is_step(step, name, given["high"] - given["low"]):
        kind = "a whole number" if name in INTEGERS else "a number"
        text = f"must be {kind} above 0 and at most high - low, got {short(step)}"
        check.add((*where, "step"), text)


def _is_step(step: Any, name: str, width: float) -> bool:
    number = isinstance(step, int if name in INTEGERS else int | float)
    return number and not isinstance(step, bool) and 0 < step <= width
