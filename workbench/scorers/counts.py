"""Counting words, sentences, lines, paragraphs and characters, the same way for every scorer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
WORD: Final = re.compile(
    rf"[{_CJK}]|[^\W_{_CJK}](?:[^\W_{_CJK}]|['\u2019.,_-](?=[^\W_{_CJK}]))*", re.IGNORECASE
)
_BREAK: Final = re.compile(r"[.!?\u2026]+[\"'\u201d\u2019)\]*_]*(?=\s|$)|[\u3002\uff01\uff1f]+|\n+")
_SHORT: Final = frozenset(("mr", "mrs", "ms", "dr", "prof", "vs", "e.g", "i.e"))
_INITIALS: Final = re.compile(r"(?:^|[\s(])((?:[^\W\d_]\.)*[^\W\d_]|[^\W\d_]+)\Z")


def words(text: str) -> list[str]:
    """The words of a text: runs of letters and digits, with apostrophes, hyphens and points inside; CJK characters singly.

    >>> words("It's a well-known 3.5 fact - 北京!")
    ["It's", 'a', 'well-known', '3.5', 'fact', '北', '京']
    """
    return WORD.findall(text)


def sentences(text: str) -> list[str]:
    """The sentences of a text: pieces up to ``.``, ``!``, ``?`` or a line break, each with a word in it.

    A point behind a usual abbreviation (Mr., e.g.), a single capital letter, or a list number ends none.

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
    word = match[1]
    return word.lower() in _SHORT or (len(word) == 1 and word.isupper() and word != "I")


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
