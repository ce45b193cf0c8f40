r"""Finding numbers in prose, exactly.

Values are fractions, so "0.1" is one tenth and a 30-digit integer keeps all its digits. Read are: signs (the Unicode
minus and the en dash too), thousands separators, decimals, exponents (``1e3``, ``3 x 10^4``), powers (``10^3``), ratios
and mixed numbers (``3/4``, ``1 1/2``, ``\frac{3}{4}``), percent signs, scale words (``2 million``; ``$1.5M`` behind a sign
of money), English number words, digits of any script.
A number that only the other convention explains (``1.234,5`` where the point is decimal) is read in that one.
Not read: digits inside words of scripts with spaces (``GPT4``, ``H2O``), Chinese numerals.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

Decimal = Literal[".", ","]

_MOST_DIGITS: Final = 300
_MOST_EXPONENT: Final = 400

_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_MINUS: Final = (
    "\u2212\uff0d\ufe63\u2010\u2011\u2013"  # minus, full-width, small, two hyphens, en dash
)
_QUOTE: Final = "\u2019\uff07"
_SIGNS: Final = str.maketrans(dict.fromkeys(_MINUS, "-") | dict.fromkeys(_QUOTE, "'"))
_PLAIN: Final = {"\uff05": "%", "\uff0e": ".", "\uff0c": ",", "\u00d7": " x "}

_DIGIT_WORDS: Final = (
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
)
_TEENS: Final = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS: Final[dict[str, int]] = {
    **{word: n for n, word in enumerate((*_DIGIT_WORDS, *_TEENS))},
    **{word: 20 + 10 * n for n, word in enumerate(_TENS)},
}
_SCALES: Final = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE: Final = "|".join(_SCALES)
_SUFFIXES: Final = {"k": 10**3, "m": 10**6, "mn": 10**6, "b": 10**9, "bn": 10**9, "tn": 10**12}
_MOST_POWER: Final = 1000
"""Most digits of a power."""


def _word_pattern() -> re.Pattern[str]:
    digit, tens = "|".join(_DIGIT_WORDS), "|".join(_TENS)
    small = rf"(?:{'|'.join(_TEENS)}|{digit})\b"
    below_100 = rf"(?:(?:{tens})\b(?:[\s-]+(?:{digit})\b)?|{small})"
    counted = rf"(?:(?:an?|{small})\s+)?(?:hundred|dozen)\b"
    below_1000 = rf"(?:{counted}(?:\s+(?:and\s+)?{below_100})?|{below_100})"
    scaled = rf"(?:(?:an?|{below_1000})\s+)?(?:{_SCALE})\b"
    number = rf"(?:{scaled}(?:,?\s+{scaled})*(?:,?\s+(?:and\s+)?{below_1000})?|{below_1000})"
    return re.compile(
        rf"(?<![\w-])(?:(?P<sign>minus|negative)\s+)?(?P<words>{number})"
        rf"(?:\s+point(?P<point>(?:\s+(?:{digit})\b)+))?(?P<percent>\s+percent\b|\s*%)?",
        re.IGNORECASE,
    )


_WORDS: Final = _word_pattern()


@dataclass(frozen=True, slots=True)
class Found:
    """A number in a text.

    Attributes:
        value: Exact; for "50%" this is 50.
        percent: It is followed by a percent sign or "percent".
        start: Where it begins in the plain text (see ``plain``).
        end: Where it ends.
    """

    value: Fraction
    percent: bool
    start: int
    end: int


def plain(text: str) -> str:
    """The text with digits, minus signs, fractions and exponents written in ASCII."""
    text = re.sub(r"\\[dt]?frac\s*\{\s*(-?[\d.]+)\s*\}\s*\{\s*([\d.]+)\s*\}", r" \1/\2", text)
    text = re.sub(
        r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+", lambda m: "^" + m[0].translate(_SUPERSCRIPTS), text.translate(_SIGNS)
    )
    text = "".join(_ascii(c) for c in text)
    text = (
        text.replace("\\times", " x ")
        .replace("\\cdot", " x ")
        .replace("^{", "^")
        .replace("\\%", "%")
    )
    return text.replace("\\$", "$").replace("{,}", ",").replace("\\,", "\u2009")


def _ascii(character: str) -> str:
    if character < "\x80":
        return character
    if unicodedata.decomposition(character).startswith("<fraction>"):  # such as one half
        return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    if character in "\u2044\u2215":
        return "/"
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return _PLAIN.get(character, character)


def _other(decimal: Decimal) -> str:
    """A pattern for numbers that can only be read in the other convention: 1.234,5 or 1.234.567 where "." is the point."""
    point, comma = (r"\.", ",") if decimal == "." else (",", r"\.")
    end = r"(?![0-9]|[.,][0-9])"
    groups = rf"[1-9][0-9]{{0,2}}(?:{point}[0-9]{{3}})"
    return rf"(?:{groups}+{comma}[0-9]+{end}|{groups}{{2,}}{end})"


def _pattern(decimal: Decimal) -> re.Pattern[str]:
    point, comma = (r"\.", ",") if decimal == "." else (",", r"\.")
    separator = rf"(?:{comma}|['_\u00a0\u2009\u202f])"
    whole = rf"(?:[0-9]{{1,3}}(?:{separator}[0-9]{{3}})+(?![0-9])|[0-9]+)"
    plain_number = rf"(?:{_other(decimal)}|{whole}(?:{point}[0-9]+)?|{point}[0-9]+)"
    return re.compile(
        rf"(?<![^\W\u2e80-\uffff]|\^)(?<![0-9]{point})"
        rf"(?P<sign>(?<![\w)\]}}%])[-+])?(?P<money>[$€£¥₹]\s?)?(?P<inner>(?<=[$€£¥₹])-)?"
        rf"(?:(?P<mixed>[0-9]+)\s+(?=[0-9]+/[0-9]+(?![/0-9])))?(?P<number>{plain_number})"
        r"(?:\^(?P<power>[-+]?[0-9]+))?"
        rf"(?:[eE](?P<e>[-+]?[0-9]+)(?!\w)|\s*(?:x|\*)\s*10\s*(?:\^|\*\*)\s*(?P<ten>[-+]?[0-9]+))?"
        rf"(?:/(?P<below>{plain_number})(?![/0-9]))?"
        rf"(?:\s+(?P<scale>{_SCALE})\b)?(?(money)(?P<suffix>(?:{'|'.join(_SUFFIXES)})(?!\w))?|)"
        r"(?P<percent>\s*%|\s+percent\b)?",
        re.IGNORECASE,
    )


_OTHERS: Final = {d: re.compile(_other(d)) for d in (".", ",")}
_PATTERNS: Final[dict[Decimal, re.Pattern[str]]] = {d: _pattern(d) for d in (".", ",")}


def digits(text: str, decimal: Decimal = ".") -> Iterator[Found]:
    """Numbers written in digits, in order; ``text`` as ``plain`` gives it."""
    for match in _PATTERNS[decimal].finditer(text):
        value = _value(match, decimal)
        if value is not None:
            yield Found(value, match["percent"] is not None, match.start(), match.end())


def _value(match: re.Match[str], decimal: Decimal) -> Fraction | None:
    value = _simple(match["number"], decimal)
    exponent = match["e"] or match["ten"] or "0"
    below = _simple(match["below"], decimal) if match["below"] else Fraction(1)
    if value is None or not below or len(exponent) > 4:
        return None
    if abs(int(exponent)) > _MOST_EXPONENT:
        return None
    if match["power"]:
        power = int(match["power"][:6])
        if abs(power) * len(match["number"]) > _MOST_POWER or (power < 0 and not value):
            return None
        value **= power
    value = value * Fraction(10) ** int(exponent) / below
    if match["mixed"]:
        value += int(match["mixed"][:_MOST_DIGITS])
    if match["scale"]:
        value *= _SCALES[match["scale"].lower()]
    if match["suffix"]:
        value *= _SUFFIXES[match["suffix"].lower()]
    return -value if "-" in (match["sign"], match["inner"]) else value


def _simple(number: str, decimal: Decimal) -> Fraction | None:
    if len(number) > _MOST_DIGITS:
        return None
    if _OTHERS[decimal].fullmatch(number):
        decimal = "," if decimal == "." else "."
    kept = re.sub(rf"[^0-9{decimal}]", "", number).replace(",", ".")
    return Fraction(kept if not kept.startswith(".") else "0" + kept)


def words(text: str) -> Iterator[Found]:
    """Numbers written in English words, in order: "twelve", "minus one hundred and five", "two point five"."""
    for match in _WORDS.finditer(text):
        value = Fraction(_spelled(re.findall(r"[a-z]+", match["words"].lower())))
        if match["point"]:
            decimals = "".join(str(_UNITS[w.lower()]) for w in match["point"].split())
            value += Fraction(f"0.{decimals}")
        value = -value if match["sign"] else value
        yield Found(value, match["percent"] is not None, match.start(), match.end())


def _spelled(parts: list[str]) -> int:
    total = current = 0
    for part in parts:
        if part in _SCALES:
            total += max(current, 1) * _SCALES[part]
            current = 0
        elif part in ("hundred", "dozen"):
            current = max(current, 1) * (100 if part == "hundred" else 12)
        else:
            current += _UNITS.get(part, 0)
    return total + current


def numbers(text: str, decimal: Decimal = ".") -> list[Found]:
    """All numbers of a text: those in digits, or, only if there are none, those in words.

    >>> [float(n.value) for n in numbers("-1,234.5 and 3/4")]
    [-1234.5, 0.75]
    >>> [int(n.value) for n in numbers("the first one has twenty-one")]
    [1, 21]
    """
    text = plain(text)
    return list(digits(text, decimal)) or list(words(text))
