"""The answer's number equals the target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, kind, listed, targets, unscored
from workbench.scorers.numbers import Found, numbers, plain
from workbench.scorers.texts import after_marker

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_BINARY: Final = Fraction(1, 10**9)
_SPACED: Final = re.compile(r"(?<![\w.,])[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9])")
_LONGEST_UNIT: Final = 40
UNITS: Final[dict[str, dict[str, float]]] = {
    "length": {
        **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1),
        **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1000),
        **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 0.01),
        **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 0.001),
        **dict.fromkeys(("inch", "inches"), 0.0254),
        **dict.fromkeys(("ft", "foot", "feet"), 0.3048),
        **dict.fromkeys(("yd", "yard", "yards"), 0.9144),
        **dict.fromkeys(("mi", "mile", "miles"), 1609.344),
    },
    "mass": {
        **dict.fromkeys(("g", "gram", "grams"), 1),
        **dict.fromkeys(("kg", "kilogram", "kilograms"), 1000),
        **dict.fromkeys(("mg", "milligram", "milligrams"), 0.001),
        **dict.fromkeys(("t", "tonne", "tonnes"), 1_000_000),
        **dict.fromkeys(("oz", "ounce", "ounces"), 28.349523125),
        **dict.fromkeys(("lb", "lbs", "pound", "pounds"), 453.59237),
    },
    "time": {
        **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
        **dict.fromkeys(("ms", "millisecond", "milliseconds"), 0.001),
        **dict.fromkeys(("min", "minute", "minutes"), 60),
        **dict.fromkeys(("h", "hr", "hour", "hours"), 3600),
        **dict.fromkeys(("d", "day", "days"), 86_400),
        **dict.fromkeys(("week", "weeks"), 604_800),
    },
}
"""Unit tables: factors to metres, grams and seconds (the inch, foot, yard, mile, ounce and pound of 1959, exactly)."""
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s|$)|\n")


class Amount(NamedTuple):
    """A number of an answer or target, in the unit whose factor is 1."""

    value: Fraction
    percent: bool
    shown: str
    unit: str | None


@family
@dataclass(frozen=True)
class Numeric(Family):
    """1 if the number the answer gives equals the target, or one of the targets.

    The number: behind the last sign of a final answer ("the answer is", "Answer:", "####", a LaTeX box) if there is
    one, else the last number of the answer. Number words count where there are no digits. Behind a sign the first number
    counts, or the one after the last "=" of that sentence.

    Attributes:
        pick: "auto" as above, or "first" or "last" number of the answer.
        tolerance: Largest allowed difference, >= 0.
        relative: Largest allowed difference as a share of the target, >= 0. The larger of both limits counts. A target
            that is not whole is never compared beyond 9 digits: it may be a rounded binary number.
        decimal: "." reads 1,234.5; "," reads 1.234,5. A number that only one of them explains is read so under both.
        spaces: Read "1 234" as one number. No-break and narrow spaces always join groups of three digits.
        percent: Whether "50%" may stand for 0.5 as well as for 50. A target with a percent sign, or an answer without
            one, is always compared as it stands.
        units: Unit to factor, for example {km: 1000, m: 1}: a number followed by one of these (or, as in "EUR 5", right
            behind one) is multiplied, in answer and target. Or the name of a table: length, mass, time.
        need_unit: An answer without one of the units is wrong. A target given as a number is in the unit whose factor
            is 1.
    """

    name: ClassVar[str] = "numeric"
    # 2: numbers of the other convention, spaces, unit tables, need_unit
    version: ClassVar[str] = "2"

    pick: Literal["auto", "first", "last"] = "auto"
    tolerance: float = 0.0
    relative: float = 0.0
    decimal: Literal[".", ","] = "."
    spaces: bool = False
    percent: bool = True
    units: Mapping[str, float] | str = field(default_factory=dict)
    need_unit: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("pick", self.pick in ("auto", "first", "last"), "auto, first or last")
        self.require("decimal", self.decimal in (".", ","), "'.' or ','")
        for option in ("tolerance", "relative"):
            value = getattr(self, option)
            self.require(
                option, is_number(value) and 0 <= value < float("inf"), "a number at least 0"
            )
        if isinstance(self.units, str):
            known = f"units with their factors, or one of {', '.join(UNITS)}"
            self.require("units", self.units in UNITS, known)
        else:
            ok = isinstance(self.units, Mapping) and all(
                isinstance(u, str) and u.strip() and is_number(f) and 0 < f < float("inf")
                for u, f in self.units.items()
            )
            self.require("units", ok, "units with their factors, each above 0")
        self.require("need_unit", bool(self.units) or not self.need_unit, "false without units")

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from their default."""
        units = self.units if isinstance(self.units, str) else dict(self.units)
        rest = {k: v for k, v in super().options.items() if k != "units"}
        return rest | ({"units": units} if units else {})

    @cached_property
    def _factors(self) -> dict[str, Fraction]:
        units = UNITS[self.units] if isinstance(self.units, str) else self.units
        return {" ".join(unit.split()): Fraction(str(factor)) for unit, factor in units.items()}

    @cached_property
    def _unit(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Patterns for a unit behind a number and before one."""
        names = sorted(self._factors, key=len, reverse=True)
        either = "|".join(r"\s+".join(map(re.escape, name.split())) for name in names)
        return re.compile(rf"\s*-?({either})(?!\w)"), re.compile(rf"(?<!\w)({either})\s*$")

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use here, or None if it can be used."""
        wanted = targets(prompt)
        if not wanted:
            return super().target_problem(prompt) or "the target is an empty list"
        for target in wanted:
            if self._target(target) is None:
                what = repr(target)[:60] if isinstance(target, str) else kind(prompt.target)
                return f"the target is {what}, not a number"
        return None

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        problem = self.target_problem(prompt)
        if problem:
            return unscored(problem)
        wanted = targets(prompt)
        found = self._answer(text)
        if found is None:
            return Score(0.0, None, "no number in the answer")
        if self.need_unit and found.unit is None:
            known = ", ".join(list(self._factors)[:5])
            return Score(0.0, found.shown, f"{found.shown} has no unit (known: {known})")
        goals = [goal for target in wanted if (goal := self._target(target)) is not None]
        right = any(self._same(found, goal) for goal in goals)
        said = f"{found.shown} {'is' if right else 'is not'} {listed(wanted)}"
        return Score(float(right), found.shown, said)

    def _target(self, target: Any) -> Amount | None:
        if is_number(target):
            finite = abs(target) < float("inf")
            return Amount(Fraction(str(target)), False, str(target), None) if finite else None
        found = self._read(target) if isinstance(target, str) else []
        return found[-1] if found else None

    def _answer(self, text: str) -> Amount | None:
        if self.pick == "auto":
            tail = after_marker(text)
            found = self._after_marker(tail) if tail is not None else None
            if found is not None:
                return found
        everything = self._read(text)
        if not everything:
            return None
        return everything[0 if self.pick == "first" else -1]

    def _after_marker(self, tail: str) -> Amount | None:
        sentence = _SENTENCE_END.split(tail.strip(), maxsplit=1)[0]
        for part in (sentence.rpartition("=")[2], sentence, tail):
            found = self._read(part)
            if found:
                return found[0]
        return None

    def _read(self, text: str) -> list[Amount]:
        written = plain(text)
        if self.spaces:
            written = _SPACED.sub(lambda m: m[0].replace(" ", "\u202f"), written)
        return [self._scaled(number, written) for number in numbers(written, self.decimal)]

    def _scaled(self, number: Found, written: str) -> Amount:
        shown = written[number.start : number.end].strip()
        if not self._factors:
            return Amount(number.value, number.percent, shown, None)
        behind, before = self._unit
        start = max(0, number.start - _LONGEST_UNIT)
        match = behind.match(written, number.end)
        match = match or before.search(written[start : number.start].rstrip("+-"))
        if match is None:
            return Amount(number.value, number.percent, shown, None)
        unit = " ".join(match[1].split())
        factor = self._factors[unit]
        return Amount(number.value * factor, number.percent, f"{shown} {unit}", unit)

    def _same(self, found: Amount, goal: Amount) -> bool:
        readings = [found.value]
        if found.percent and self.percent and not goal.percent:
            readings.append(found.value / 100)
        if goal.percent and not found.percent and self.percent:
            share = goal.value / 100
            if self._near(found.value, share):
                return True
        return any(self._near(reading, goal.value) for reading in readings)

    def _near(self, value: Fraction, target: Fraction) -> bool:
        relative = Fraction(str(self.relative))
        if target.denominator != 1:
            relative = max(relative, _BINARY)
        limit = max(Fraction(str(self.tolerance)), relative * abs(target))
        return abs(value - target) <= limit
