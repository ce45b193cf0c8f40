"""The answer's number equals the target."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple

from workbench.records import Score
from workbench.scorers.base import Family, family, is_number, kind, listed, targets, unscored
from workbench.scorers.equations import behind_equal, linked, results
from workbench.scorers.numbers import Found, numbers, plain
from workbench.scorers.texts import after_markers
from workbench.scorers.units import UNITS, known_unit, unit_patterns

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_BINARY: Final = Fraction(1, 10**9)
_SPACED: Final = re.compile(r"(?<![\w.,])[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9])")
_LONGEST_UNIT: Final = 40
_DENIED: Final = re.compile(
    r"(?:\bnot|n['\u2019]t|\bnever)\s+(?:(?:be|exactly|equal(?:\s+to)?)\s+)*[*_$€£]*\Z",
    re.IGNORECASE,
)
_DENIAL: Final = 40
_JOINS: Final = re.compile(r"[\s,*_`]*(?:(?:and|und|et|y|e)\s+)?[*_`]*", re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"[.!?](?=\s|$)|\n")


class Amount(NamedTuple):
    """A number of an answer or target, in the unit whose factor is 1.

    Attributes:
        value: The number times the factor of its unit.
        percent: It has a percent sign.
        shown: As it is written.
        unit: Its unit, if it has a known one.
        rest: What makes another unit of it: "/h" of "km/h".
        start: Where it begins in the text that was read.
        end: Where it ends, unit included.
    """

    value: Fraction
    percent: bool
    shown: str
    unit: str | None
    rest: str = ""
    start: int = 0
    end: int = 0


@family
@dataclass(frozen=True)
class Numeric(Family):
    """1 if the number the answer gives equals the target, or one of the targets.

    The number: behind the last sign of a final answer ("the answer is", "Answer:", "####", a LaTeX box) that has one
    before the next sign, else the last number of the answer. Number words count where there are no digits. Behind a sign
    the first number counts, or the one after the last "=" of that sentence. A denied number ("not 5") never counts.

    Attributes:
        pick: "auto" as above; "equation", for sums of one step: the result of the answer's first equation (11 in "7 + 4 = 11,
            and 7 + 7 = 14"), and where it has none as "auto", but numbers that are added, multiplied and so on ("7 + 4")
            do not count; "first" or "last" number of the answer.
        tolerance: Largest allowed difference, >= 0.
        relative: Largest allowed difference as a share of the target, >= 0. The larger of both limits counts. A target
            that is not whole is never compared beyond 9 digits: it may be a rounded binary number.
        decimal: "." reads 1,234.5; "," reads 1.234,5. A number that only one of them explains is read so under both.
        spaces: Read "1 234" as one number. No-break and narrow spaces always join groups of three digits.
        percent: Where only one of answer and target has a percent sign, "50%" may stand for 0.5 as well as for 50.
        units: Unit to factor, for example {km: 1000, m: 1}: a number followed by one of these (or, as in "EUR 5", right
            behind one) is multiplied, in answer and target. Or the name of a table: length, mass, time. "5 feet 3 inches"
            is one number; "5 km/h" and "5 m²" are wrong for a target in km or m. Capitals count only in short units.
        need_unit: An answer without one of the units is wrong. A target given as a number is in the unit whose factor
            is 1.
    """

    name: ClassVar[str] = "numeric"
    # 2: numbers of the other convention, spaces, unit tables, need_unit
    # 3: units in bold, LaTeX or capitals, sums of units, km/h is not km; denied numbers; powers, $1.5M, en dash
    version: ClassVar[str] = "3"

    pick: Literal["auto", "equation", "first", "last"] = "auto"
    tolerance: float = 0.0
    relative: float = 0.0
    decimal: Literal[".", ","] = "."
    spaces: bool = False
    percent: bool = True
    units: Mapping[str, float] | str = field(default_factory=dict)
    need_unit: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        ways = ("auto", "equation", "first", "last")
        self.require("pick", self.pick in ways, "auto, equation, first or last")
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
        return unit_patterns(self._factors)

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
        if self.pick == "equation":
            written = plain(text)
            found = self._result(written)
            if found is not None:
                return found
            behind = behind_equal(written)
            text = text if behind is None else behind
        if self.pick in ("auto", "equation"):
            for tail in after_markers(text):
                found = self._after_marker(tail)
                if found is not None:
                    return found
        everything = self._counted(text)
        if not everything:
            return None
        return everything[0 if self.pick == "first" else -1]

    def _result(self, written: str) -> Amount | None:
        """The result of the first equation that has one."""
        for side in results(written):
            first = self._read(side)[:1]
            if first and first[0] in self._counted(side):
                return first[0]
        return None

    def _after_marker(self, tail: str) -> Amount | None:
        sentence = _SENTENCE_END.split(tail.strip(), maxsplit=1)[0]
        for part in (sentence.rpartition("=")[2], sentence, tail):
            found = self._counted(part)
            if found:
                return found[0]
        return None

    def _counted(self, text: str) -> list[Amount]:
        """The numbers of an answer that it does not deny, nor, where equations count, adds up."""
        written, found = plain(text), self._read(text)
        parts: set[int] = set()
        if self.pick == "equation":
            for n, (a, b) in enumerate(pairwise(found)):
                parts |= {n, n + 1} if linked(written, a.end, b.start) else set()
        return [
            amount
            for n, amount in enumerate(found)
            if n not in parts
            and not _DENIED.search(written, max(0, amount.start - _DENIAL), amount.start)
        ]

    def _read(self, text: str) -> list[Amount]:
        written = plain(text)
        if self.spaces:
            written = _SPACED.sub(lambda m: m[0].replace(" ", "\u202f"), written)
        found = [self._scaled(number, written) for number in numbers(written, self.decimal)]
        return _joined(found, self._factors, written) if self._factors else found

    def _scaled(self, number: Found, written: str) -> Amount:
        shown = written[number.start : number.end].strip()
        value, percent, start, end = number.value, number.percent, number.start, number.end
        if not self._factors:
            return Amount(value, percent, shown, None, "", start, end)
        behind, before = self._unit
        match = behind.match(written, end)
        unit = known_unit(match[1], self._factors) if match else None
        rest = ""
        if match and unit:
            rest, end = "".join((match["rest"] or "").split()), match.end()
        else:
            match = before.search(written[max(0, start - _LONGEST_UNIT) : start].rstrip("+-"))
            unit = known_unit(match[1], self._factors) if match else None
        if unit is None:
            return Amount(value, percent, shown, None, "", start, end)
        shown = f"{shown} {unit}{rest}"
        return Amount(value * self._factors[unit], percent, shown, unit, rest, start, end)

    def _same(self, found: Amount, goal: Amount) -> bool:
        if found.rest != goal.rest:
            return False
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


def _joined(found: list[Amount], factors: Mapping[str, Fraction], written: str) -> list[Amount]:
    """The same numbers, those that make one in several units ("5 feet 3 inches") put together."""
    out: list[Amount] = []
    for amount in found:
        last = out[-1] if out else None
        if (
            last is not None
            and last.unit is not None
            and amount.unit is not None
            and not last.rest + amount.rest
            and 0 <= amount.value < factors[last.unit]
            and _JOINS.fullmatch(written, last.end, amount.start)
        ):
            value = last.value - amount.value if last.value < 0 else last.value + amount.value
            shown = f"{last.shown} {amount.shown}"
            out[-1] = amount._replace(value=value, shown=shown, start=last.start)
        else:
            out.append(amount)
    return out
