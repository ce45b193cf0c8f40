"""Units of measurement: tables of factors, and how units are written behind a number."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

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

_LATEX: Final = r"(?:\\[ ~;:!]|~|\\(?:text|textrm|textbf|mathrm|mathbf|operatorname)\s*\{)"
_REST: Final = (
    r"\}?\s*/\s*[^\W\d_]+|\}?\s*\^\s*[-+]?[0-9]+|\}?\s*\u00b7\s*[^\W\d_]+|\s+per\s+[^\W\d_]+"
    r"|\s+(?:squared|cubed)\b"
)


def unit_patterns(units: Iterable[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns for a unit behind a number and before one, whatever the case; group 1 is the unit.

    Behind a number there may be marks or LaTeX commands between both, and a ``rest`` that makes another unit of it.
    """
    names = sorted(units, key=len, reverse=True)
    either = "|".join(r"\s+".join(map(re.escape, name.split())) for name in names)
    behind = rf"(?:[\s*_`$]|{_LATEX})*-?({either})(?!\w)(?P<rest>{_REST})?"
    return (
        re.compile(behind, re.IGNORECASE),
        re.compile(rf"(?<!\w)({either})\s*$", re.IGNORECASE),
    )


def known_unit(written: str, factors: dict[str, Fraction]) -> str | None:
    """The unit that is meant, or None: case does not count in three letters or more, nor in KM, Km and the like.

    >>> from fractions import Fraction
    >>> factors = {"km": Fraction(1000), "m": Fraction(1), "metres": Fraction(1)}
    >>> [known_unit(text, factors) for text in ("Km", "Metres", "M")]
    ['km', 'metres', None]
    """
    unit = " ".join(written.split())
    if unit in factors:
        return unit
    alike = {name for name in factors if name.lower() == unit.lower()}
    if len({factors[name] for name in alike}) != 1:
        return None
    # "M" and "Mg" are mega, "S" is another unit
    short = len(unit) == 1 or (len(unit) == 2 and not unit.isupper() and unit[0] == "M")
    return None if short else min(alike)
