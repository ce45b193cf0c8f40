"""Counting words, sentences, lines, paragraphs and characters, the same way for every scorer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import regex

from workbench.scorers.texts import CJK

if TYPE_CHECKING:
    from collections.abc import Callable

_LETTER: Final = rf"[^\W_{CJK}]\p{{M}}*"
WORD: Final = regex.compile(
    rf"(?V1)[{CJK}]|(?:[^\W\d_{CJK}]\.)+[^\W\d_{CJK}](?!\w)"
    rf"|{_LETTER}(?:{_LETTER}|['\u2019_-](?={_LETTER})|(?<=\d)[.,](?=\d)|[\u200c\u200d](?={_LETTER}))*"
)
_BREAK: Final = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]*_]*(?=\s|$)|[\u3002\uff01\uff1f]+|\n+")
_SHORT: Final = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "mt", "rev", "gen", "capt", "col", "sgt"),
        *("vs", "e.g", "i.e", "cf", "ca", "approx", "fig", "dept", "est"),
    )
)
"""Abbreviations that end no sentence."""
_MAY_END: Final = frozenset(("etc", "jr", "sr", "inc", "ltd", "co", "corp"))
"""Abbreviations that end one only before a capital letter, as a.m. and U.S. do."""
_STARTERS: Final = frozenset(
    (
        *(
            "a",
            "an",
            "the",
            "this",
            "that",
            "these",
            "those",
            "it",
            "its",
            "he",
            "she",
            "we",
            "they",
        ),
        *(
            "you",
            "i",
            "his",
            "her",
            "my",
            "our",
            "their",
            "there",
            "then",
            "here",
            "in",
            "on",
            "at",
        ),
        *(
            "and",
            "but",
            "so",
            "or",
            "if",
            "as",
            "when",
            "however",
            "for",
            "to",
            "what",
            "why",
            "how",
        ),
        *(
            "who",
            "no",
            "yes",
            "not",
            "now",
            "is",
            "are",
            "do",
            "does",
            "also",
            "both",
            "next",
            "first",
        ),
    )
)
"""Words that stand at the beginning of a sentence rather than behind an initial."""
_INITIALS: Final = re.compile(r"(?:^|[\s(])((?:[^\W\d_]\.)*[^\W\d_]|[^\W\d_]+)\Z")


def words(text: str) -> list[str]:
    """The words of a text.

    These are runs of letters, marks and digits, with apostrophes and hyphens inside, and points or commas between digits; an
    abbreviation such as U.S. or e.g. is one; CJK characters singly.

    >>> words("It's a well-known 3.5 fact - 北京!")
    ["It's", 'a', 'well-known', '3.5', 'fact', '北', '京']
    """
    found: list[str] = WORD.findall(text)
    return found


def sentences(text: str) -> list[str]:
    """The sentences of a text: pieces up to ``.``, ``!``, ``?`` or a line break, each with a word in it.

    A point behind a usual abbreviation (Mr., e.g.), an initial (George W. Bush), or a list number ends none; behind
    "etc.", "p.m.", "U.S." and the like it ends one only before a capital letter.

    >>> sentences("Mr. Smith paid 3.50. Why? 1. Because.")
    ['Mr. Smith paid 3.50.', 'Why?', '1. Because.']
    """
    found, start = [], 0
    for match in _BREAK.finditer(text):
        if match[0] == "." and _no_end(text, start, match.start()):
            continue
        found.append(text[start : match.end()].strip())
        start = match.end()
    found.append(text[start:].strip())
    return [piece for piece in found if WORD.search(piece)]


def _no_end(text: str, start: int, end: int) -> bool:
    """Whether the point at ``end`` belongs to an abbreviation or a list number; the sentence began at ``start``."""
    if re.fullmatch(r"\s*[\W_]*\d{1,3}", text[max(start, end - 12) : end]) and end - start < 12:
        return True
    match = _INITIALS.search(text[max(0, end - 12) : end])
    if match is None:
        return False
    word, after = match[1], text[end + 1 : end + 40].lstrip(" *_\"'\u201c(")
    if word.lower() in _SHORT:
        return True
    if word.lower() in _MAY_END or "." in word:
        return not after[:1].isupper()
    return _is_initial(text[max(0, start, end - 40) : end - 1], word, after)


def _is_initial(before: str, word: str, after: str) -> bool:
    """Whether a single letter with a point is part of a name."""
    if len(word) != 1 or not word.isupper() or word == "I":
        return False
    first = re.match(r"[^\W\d_]+", after)
    if first is not None and first[0].lower() in _STARTERS:
        return False
    last = before.split()[-1:]
    return not last or last[0].lstrip("(\"'*_")[:1].isupper()


def lines(text: str) -> list[str]:
    """The lines of a text that are not blank."""
    return [line for line in text.splitlines() if line.strip()]


def paragraphs(text: str) -> list[str]:
    """The parts of a text between blank lines; a rule (``***`` or ``---``) alone is no paragraph."""
    parts = re.split(r"\n[^\S\n]*\n\s*", text.strip())
    return [part for part in parts if part.strip() and not re.fullmatch(r"\s*[*_-]{3,}\s*", part)]


COUNTS: Final[dict[str, Callable[[str], int]]] = {
    "words": lambda text: len(words(text)),
    "sentences": lambda text: len(sentences(text)),
    "lines": lambda text: len(lines(text)),
    "paragraphs": lambda text: len(paragraphs(text)),
    "characters": lambda text: len(text.strip()),
}
