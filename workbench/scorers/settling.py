"""Whether an answer settles on a text that it holds, and whether it copies its prompt.

An answer does not settle on what it denies ("not Paris"), nor on one of several names ("Paris or Rome", a list of three).
Only English words of denial and joining are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import regex

from workbench.scorers.counts import words
from workbench.scorers.mentions import denied
from workbench.scorers.texts import one_form

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PART: Final = r"[\w'.-]*[\w']"
_NAME: Final = (
    rf"\p{{Lu}}(?:{_PART})?(?:[ ](?:(?!(?:and|or|nor)\b)\p{{Ll}}{{1,3}}[ ])?\p{{Lu}}(?:{_PART})?)*"
)
"""A name: capitalised words, with at most one short small word between two of them ("Port of Spain")."""
_JOIN: Final = (
    r"[*_\"')\]]*(?:\s*(?P<one>/)\s*|\s*,?\s+(?P<one>and|or|nor|&)\s+(?:also\s+|the\s+)?"
    r"|\s*[,;]\s*|[^\S\n]*\n[\s*\u2022-]*(?:\d{1,2}[.)]\s*)?)[*_\"'(\[]*"
)
_NEXT: Final = regex.compile(rf"{_JOIN}(?P<name>{_NAME})")
_BEFORE: Final = regex.compile(rf"(?<![\w'])(?P<name>{_NAME}){_JOIN}\Z")
_WORDS: Final = (
    regex.compile(r"\s*(?:/|,?\s+(?:or|nor)\s)\s*\w"),
    regex.compile(r"\w\s*(?:/|,?\s+(?:or|nor)\s)\s*\Z"),
)
"""Another word joined to a small one by "or", behind it and before it."""
_NOT: Final = regex.compile(
    r"[*_\"')\]]*,?\s+(?:is|was|would\s+be)(?:n't|\s+(?:also\s+)?(?P<not>not))?\b"
    r"(?:\s+(?:the|a|an))?(?:\s+(?P<word>\w+))?(?P<end>\s*[.,;!]|\s*\Z)?",
    regex.IGNORECASE,
)
_WRONG: Final = frozenset(("wrong", "incorrect", "false"))
_RIGHT: Final = frozenset(("right", "correct", "true", "it", "one", "answer"))
_REACH: Final = 200
_MOST_NAMES: Final = 20


def settles(text: str, start: int, end: int, asked: Collection[str]) -> bool:
    """Whether an answer settles on what stands from ``start`` to ``end``.

    Args:
        text: The answer in ``one_form``.
        start: Where the text looked for begins.
        end: Where it ends.
        asked: The words of the question, see ``words_of``; a name of these is no other answer.

    >>> text = "It is Canberra, Australia, and not Sydney."
    >>> asked = words_of("What is the capital of Australia?")
    >>> settles(text, 6, 14, asked), settles(text, 35, 41, asked)
    (True, False)
    """
    if denied(text, start) or _refused(text, end, asked):
        return False
    behind, before = text[end : end + _REACH], text[max(0, start - _REACH) : start]
    if not text[start].isupper():
        return not (_WORDS[0].match(behind) or _WORDS[1].search(before))
    same = {*asked, *words_of(text[start:end])}
    others = [
        (join, name)
        for join, name in (*_behind(text, end), *_before(text, start))
        if not set(words_of(name)) <= same
    ]
    return len(others) < 2 and not any(join for join, _ in others)


def _refused(text: str, end: int, asked: Collection[str]) -> bool:
    """Whether it goes on with "is not", "is wrong" or "is not the capital", asked for a capital."""
    match: Any = _NOT.match(text, end, end + _REACH)
    if match is None:
        return False
    word = match["word"]
    if match["not"] is None and "n't" not in match[0].lower():
        return word is not None and word.lower() in _WRONG
    if word is None:
        return match["end"] is not None
    return word.lower() in _RIGHT or (word.islower() and word in asked)


def _behind(text: str, end: int) -> Iterator[tuple[str | None, str]]:
    """The names of the list that goes on at ``end``, each with the word that joins it."""
    for _ in range(_MOST_NAMES):
        match: Any = _NEXT.match(text, end, end + _REACH)
        if match is None:
            return
        yield match["one"], match["name"]
        end = match.end()


def _before(text: str, start: int) -> Iterator[tuple[str | None, str]]:
    """The names of the list that ends before ``start``, the last first."""
    for _ in range(_MOST_NAMES):
        match: Any = _BEFORE.search(text, max(0, start - _REACH), start)
        if match is None:
            return
        yield match["one"], match["name"]
        start = match.start()


def words_of(text: str) -> list[str]:
    """The words of a text in one form, whatever their case; without the 's of a name."""
    return [word.removesuffix("'s") for word in words(one_form(text).casefold())]


def copies(text: str, source: str, most: int) -> bool:
    """Whether a text repeats more than ``most`` words of another in a row.

    >>> copies("He said: the cat sat on the mat.", "The cat sat on the mat today.", 5)
    True
    """
    parts = [words_of(source), words_of(text)]
    runs = [{tuple(found[n : n + most + 1]) for n in range(len(found) - most)} for found in parts]
    return not runs[0].isdisjoint(runs[1])
