"""Numbers as a report writes them: plain text, with real minus signs, and a dash for what is unknown."""

from __future__ import annotations

import re
from typing import Final

import pandas as pd

DASH: Final = "\N{EN DASH}"
MINUS: Final = "\N{MINUS SIGN}"
_ZERO: Final = re.compile(r"[-+](0(?:\.0+)?)(?![\d.])")


def minus(text: str) -> str:
    """Real minus signs, and no sign before a zero.

    >>> minus("-0.0 to +2.5")
    '0.0 to +2.5'
    """
    return _ZERO.sub(r"\1", text).replace("-", MINUS)


def percent(value: float, digits: int = 1) -> str:
    """A share in percent, without the sign.

    >>> percent(0.256)
    '25.6'
    """
    return DASH if pd.isna(value) else f"{100 * value:.{digits}f}"


def share(value: float) -> str:
    """A share in a sentence.

    >>> share(0.256), share(0.002), share(0.0)
    ('26 %', '0.2 %', '0 %')
    """
    return f"{100 * value:.0f} %" if value >= 0.01 or value == 0 else f"{100 * value:.1f} %"


def signs(text: str) -> str:
    """A sentence with real minus signs before its numbers.

    >>> signs("interval -9.2 to +3, k-9")
    'interval \u22129.2 to +3, k-9'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text)


def points(value: float) -> str:
    """A difference of two shares in points, with its sign.

    >>> points(0.15)
    '+15.0'
    """
    return DASH if pd.isna(value) else minus(f"{100 * value:+.1f}")


def bounds(low: float, high: float, *, signed: bool = False) -> str:
    """An interval of shares, in percent or points; empty if there is none.

    >>> bounds(0.2, 0.356)
    '20.0 to 35.6'
    """
    if pd.isna(low) or pd.isna(high):
        return ""
    form = "+.1f" if signed else ".1f"
    return minus(f"{100 * low:{form}} to {100 * high:{form}}")


def ms(value: float) -> str:
    """Milliseconds; with a decimal below 100.

    >>> ms(1234.5), ms(12.345)
    ('1,234', '12.3')
    """
    return DASH if pd.isna(value) else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def number(value: float, digits: int = 1) -> str:
    """A number with so many decimals.

    >>> number(1234.5)
    '1,234.5'
    """
    return DASH if pd.isna(value) else f"{value:,.{digits}f}"


def p_value(p: float) -> str:
    """A p-value.

    >>> p_value(0.0001), p_value(0.0312)
    ('<0.001', '0.031')
    """
    return DASH if pd.isna(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def count(n: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(items: list[str], most: int = 6) -> str:
    """Some items in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(items) > most:
        return f"{', '.join(items[:most])} and {len(items) - most:,} more"
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
