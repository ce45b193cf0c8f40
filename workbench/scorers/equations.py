"""Where an answer gives the result of an equation, and which of its numbers are only parts of one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_SIGN: Final = re.compile(
    r"(?<![<>!=:/])=(?![=>])|(?<!\bnot\s)(?:\bequals\b(?:\s+to\b)?|\bequal\s+to\b)", re.IGNORECASE
)
_TERMS: Final = re.compile(r"(?:[0-9][0-9.,]*[0-9]|[0-9]|[^\S\n]|[-+*/x\u00f7\u00b7()$_`])*")
"""What the side of an equation consists of if the equation goes on behind it."""
_CLAUSE: Final = re.compile(r"[.!?](?=\s|$)|\n")
_SIGN_OF: Final = r"(?:[-+/x\u00f7\u00b7]|(?<=\s)\*(?=\s)|(?<![\s*])\*(?![\s*])|\bplus\b|\bminus\b|\btimes\b|\bdivided\s+by\b)"
_LINK: Final = re.compile(rf"[^\S\n)]*\)*[^\S\n]*{_SIGN_OF}[^\S\n]*\(*[^\S\n]*", re.IGNORECASE)


def results(text: str) -> Iterator[str]:
    """What stands where each equation of a text has its result, in order, each up to the end of its clause.

    "equals" and "equal to" are signs of equality too. An equation that goes on ("12 = 10 + 2 = 12") has its result at its
    end.

    Args:
        text: As ``numbers.plain`` gives it.

    >>> list(results("7 + 4 = 11 and 2 + 2 = 1 + 3 = 4. So"))
    ['11 and 2 + 2', '4']
    """
    signs = list(_SIGN.finditer(text))
    ends = [*(sign.start() for sign in signs[1:]), None]
    for sign, end in zip(signs, ends, strict=False):
        side = text[sign.end() : end]
        if end is not None and side.strip() and _TERMS.fullmatch(side):
            continue
        yield _CLAUSE.split(side.strip(), maxsplit=1)[0]


def behind_equal(text: str) -> str | None:
    """The text behind its first sign of equality, or None if it has none."""
    sign = _SIGN.search(text)
    return None if sign is None else text[sign.end() :]


def linked(text: str, end: int, start: int) -> bool:
    """Whether two numbers, of which one ends at ``end`` and the next begins at ``start``, are added, multiplied or the like.

    >>> linked("7 + 4", 1, 4), linked("7 -4", 1, 2), linked("**7** 4", 3, 6), linked("7 and 4", 1, 6)
    (True, True, False, False)
    """
    between = text[end:start]
    if _LINK.fullmatch(between):
        return True
    signed = text[start : start + 1] in ("+", "-")
    return signed and not between.strip() and "\n" not in between
