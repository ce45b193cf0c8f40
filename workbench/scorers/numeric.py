"""The answer's number equals the target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from workbench.records import Score
from workbench.scorers.base import Family, family, listed, targets, unscored
from workbench.scorers.numbers import Found, numbers, plain
from workbench.scorers.texts import after_marker

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_BINARY: Final = Fraction(1, 10**9)
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s|$)|\n")


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
        decimal: "." reads 1,234.5; "," reads 1.234,5.
        percent: Whether "50%" may stand for 0.5 as well as for 50. A target with a percent sign, or an answer without
            one, is always compared as it stands.
        units: Unit to factor, for example {km: 1000, m: 1}: a number followed by one of these is multiplied, in answer
            and target.
    """

    name: ClassVar[str] = "numeric"

    pick: Literal["auto", "first", "last"] = "auto"
    tolerance: float = 0.0
    relative: float = 0.0
    decimal: Literal[".", ","] = "."
    percent: bool = True
    units: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("pick", self.pick in ("auto", "first", "last"), "auto, first or last")
        self.require("decimal", self.decimal in (".", ","), "'.' or ','")
        for option in ("tolerance", "relative"):
            value = getattr(self, option)
            self.require(
                option, _is_number(value) and 0 <= value < float("inf"), "a number at least 0"
            )
        ok = isinstance(self.units, Mapping) and all(
            isinstance(u, str) and u.strip() and _is_number(f) and 0 < f < float("inf")
            for u, f in self.units.items()
        )
        self.require("units", ok, "units with their factors, each above 0")

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from their default."""
        units = {"units": dict(self.units)} if self.units else {}
        return {k: v for k, v in super().options.items() if k != "units"} | units

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``."""
        wanted = targets(prompt)
        values = [self._target(target) for target in wanted]
        if not values or None in values:
            return unscored("the prompt has no number as its target")
        found = self._answer(text)
        if found is None:
            return Score(0.0, None, "no number in the answer")
        value, percent, shown = found
        right = any(v is not None and self._same(value, percent, *v) for v in values)
        return Score(float(right), shown, f"{shown} {'is' if right else 'is not'} {listed(wanted)}")

    def _target(self, target: Any) -> tuple[Fraction, bool] | None:
        if _is_number(target):
            return (Fraction(str(target)), False) if abs(target) < float("inf") else None
        found = self._read(target) if isinstance(target, str) else []
        return found[-1][:2] if found else None

    def _answer(self, text: str) -> tuple[Fraction, bool, str] | None:
        if self.pick == "auto":
            tail = after_marker(text)
            found = self._after_marker(tail) if tail is not None else None
            if found is not None:
                return found
        everything = self._read(text)
        if not everything:
            return None
        return everything[0 if self.pick == "first" else -1]

    def _after_marker(self, tail: str) -> tuple[Fraction, bool, str] | None:
        sentence = _SENTENCE_END.split(tail.strip(), maxsplit=1)[0]
        for part in (sentence.rpartition("=")[2], sentence, tail):
            found = self._read(part)
            if found:
                return found[0]
        return None

    def _read(self, text: str) -> list[tuple[Fraction, bool, str]]:
        written = plain(text)
        return [self._scaled(number, written) for number in numbers(text, self.decimal)]

    def _scaled(self, number: Found, written: str) -> tuple[Fraction, bool, str]:
        shown = written[number.start : number.end].strip()
        rest = written[number.end :].lstrip()
        for unit in sorted(self.units, key=len, reverse=True):
            if re.match(rf"{re.escape(unit)}(?!\w)", rest):
                factor = Fraction(str(self.units[unit]))
                return number.value * factor, number.percent, f"{shown} {unit}"
        return number.value, number.percent, shown

    def _same(self, value: Fraction, percent: bool, target: Fraction, target_percent: bool) -> bool:
        readings = [value]
        if percent and self.percent and not target_percent:
            readings.append(value / 100)
        if target_percent and not percent and self.percent:
            target_share = target / 100
            if self._near(value, target_share):
                return True
        return any(self._near(reading, target) for reading in readings)

    def _near(self, value: Fraction, target: Fraction) -> bool:
        relative = Fraction(str(self.relative))
        if target.denominator != 1:
            relative = max(relative, _BINARY)
        limit = max(Fraction(str(self.tolerance)), relative * abs(target))
        return abs(value - target) <= limit


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
