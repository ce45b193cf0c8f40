"""Where a text names the options of a question, which of them it denies, and on which it settles.

An option is a text (a label) or a letter. It is denied if "not", "neither" or the like stands before it, or "is wrong"
behind it; denial goes over to options joined by "or", "nor" or "and". Only English words of denial are known.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from workbench.scorers.texts import LETTER, normal, one_form, whole_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MARKS: Final = r"\s*_`(\[\"'\u201c\u2018"
_CLOSING: Final = r"[)\].:,;!*\"`\u201d]|['\u2019](?!\w)"
_NOUN: Final = r"option|choice|answer|letter|alternative"
_DENIED: Final = re.compile(
    r"(?:\bnot|n['\u2019]t|\bcannot|\bneither|\bnor|\bnever|\bno|\bnothing|\bwithout"
    r"|\brul(?:e|es|ed|ing)\s+out|\b(?:exclud|eliminat|reject)(?:e|es|ed|ing|s)?)"
    rf"(?:\s+(?:be|been|a|an|the|very|really|at|all|necessarily|likely|{_NOUN}))*[{_MARKS}]*$",
    re.IGNORECASE,
)
_DENIAL: Final = 60
"""Most characters before an option in which it can be denied."""
_WRONG: Final = re.compile(
    rf"(?:{_CLOSING}|\s)*(?:(?:options?|choices?|answers?)\s+)?"
    r"(?:(?P<many>are|were)|is|was|seems|looks|would\s+be|can|could|must|will)(?:"
    r"n['\u2019]t\b|not\b|\s+(?:(?:all|both|also|clearly|thus|therefore|obviously|simply|just|be)\s+)*"
    r"(?:not|wrong|incorrect|false|out|excluded|eliminated|impossible|ruled\s+out|invalid|in\s?valid)\b)",
    re.IGNORECASE,
)
_REFUSED: Final = re.compile(
    rf"(?:{_CLOSING}|[\s\u2013\u2014-])*(?:this\s+is\s+|it\s+is\s+)?(?:wrong|incorrect|false|not?\b)",
    re.IGNORECASE,
)
_JOINED: Final = re.compile(
    rf"[{_MARKS})\]]*(?:(?P<comma>,)|,?\s*(?:and|or|nor|&|/))[{_MARKS}]*"
    rf"(?:(?:also|the|both|even|{_NOUN})\s+)*[{_MARKS}]*",
    re.IGNORECASE,
)
_SAME: Final = re.compile(r"[)\].:,*\"'`\s(=\u2013\u2014-]*")
_EXPLAINS: Final = re.compile(
    r"\b(?:because|since|rather\s+than|instead\s+of|whereas|while|although|though|despite)\b|,\s+as\b",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"[.!?;][\"'\u201d\u2019)*_`]*(?=\s|$)|[\u3002\uff01\uff1f]|\n")
_CHANGED: Final = re.compile(
    rf"[{_MARKS}]*(?:wait|actually|no,|no\b.{{0,3}}it|sorry|correction|hmm|on\s+second\s+thought)\b",
    re.IGNORECASE,
)
_BEFORE_A: Final = re.compile(
    rf"(?:(?:^|[\s(\"])[a-z]+[,;:]?|\b(?i:{_NOUN}|not|neither|nor|both|either|only|and|or)"
    rf"|\b[A-Z][,/&])[{_MARKS}]+$"
)
_AFTER_A: Final = re.compile(
    rf"(?:{_CLOSING})|\s*$|\s*[/&=]|\s+(?:and|or|nor)\s+[A-Z]\b"
    r"|\s+(?:is|isn['\u2019]t|are|was|were|because|since|seems|would|must|cannot|can)\b"
)
_NAMED_I: Final = re.compile(rf"\b(?:{_NOUN})[{_MARKS}]+(?:is[{_MARKS}]+)?$", re.IGNORECASE)
_OPENS: Final = re.compile(rf"[{_MARKS}#>\-]*(?:(?:{_NOUN})(?:\s+is)?[{_MARKS}:]*)?", re.IGNORECASE)


class Mention(NamedTuple):
    """One place where a text names an option.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        option: Which option, from 0.
        denied: The text says that it is not this one.
        firm: It cannot be anything but the option; a capital letter among words may be.
    """

    start: int
    end: int
    option: int
    denied: bool
    firm: bool


class Options:
    """The options of a question.

    Args:
        names: The texts of each option, all its spellings.
        letters: Their letters, as many as there are options, or "".
        ignore_case: For names; letters among words must be capitals.
    """

    def __init__(
        self, names: Sequence[Sequence[str]], letters: str, *, ignore_case: bool = True
    ) -> None:
        self.letters = letters
        spelled = [(name, i) for i, spellings in enumerate(names) for name in spellings]
        spelled.sort(key=lambda pair: -len(pair[0]))
        self._option = [i for _, i in spelled]
        groups = [
            f"(?P<n{n}>{whole_word(normal(name, ignore_case=ignore_case))})"
            for n, (name, _) in enumerate(spelled)
        ]
        plain = [list(spellings) for spellings in names] == [[letter] for letter in letters]
        self._names = None if plain else re.compile("|".join(groups))
        self._ignore_case = ignore_case
        either = (letters + letters.lower()) or "\0"
        self._letter = re.compile(
            rf"(?<!{LETTER})(?<!['\u2019.+-])(?:[(\[](?P<boxed>[{either}])[)\]]|(?P<plain>[{letters or either}]))"
            rf"(?!{LETTER})(?!['\u2019+#]|\.\w\b)"
        )
        self._opening = re.compile(rf"([{either}])(?!\.[^\W\d_]\b)(?:{_CLOSING}|\s*$)")
        self._bracketed = re.compile(rf"(?<=\s)([{either.lower()}])\)")

    def settled(self, text: str, *, concluding: bool = False) -> set[int]:
        """The options on which a text settles: one, none, or several if it leaves that open.

        Args:
            text: An answer, or what follows the sign of a final answer.
            concluding: It follows such a sign: where its first sentence names an option, the rest does not count.
        """
        text = one_form(text)
        found = self._mentions(text)
        if not found:
            return set()
        first = found[0]
        if _OPENS.fullmatch(text, 0, first.start) and not first.denied:
            stop = self._clause(text, first)
            if "?" not in text[stop : stop + 1]:
                others = {m.option for m in found[1:] if m.start < stop and not m.denied}
                return {first.option} | others | set(self._taken_back(text, found, stop))
        live = [m for m in found if not m.denied and not _asked(text, m)]
        if concluding:
            stop = self._clause(text, None)
            near = {m.option for m in live if m.start < stop}
            if near:
                return near
        firm = {m.option for m in live if m.firm}
        return firm or {m.option for m in live}

    def _mentions(self, text: str) -> list[Mention]:
        """All places in order, a name before a letter within it, adjoining ones of one option as one."""
        folded = text.casefold() if self._ignore_case else text
        if len(folded) != len(text):  # a letter that folds into two: keep the places alike
            text = "".join(c * len(c.casefold()) for c in text)
        spans = [
            (m.start(), m.end(), self._option[int((m.lastgroup or "n0")[1:])], True)
            for m in self._named(folded)
        ]
        taken = [range(start, end) for start, end, _, _ in spans]
        for start, end, index, firm in self._lettered(text) if self.letters else ():
            if not any(start in span for span in taken):
                spans.append((start, end, index, firm or self._names is None))
        merged: list[tuple[int, int, int, bool]] = []
        for span in sorted(spans):
            if (
                merged
                and merged[-1][2] == span[2]
                and _SAME.fullmatch(text, merged[-1][1], span[0])
            ):
                merged[-1] = (merged[-1][0], span[1], span[2], merged[-1][3] or span[3])
            else:
                merged.append(span)
        denied = _denials(text, [(start, end) for start, end, _, _ in merged])
        return [Mention(s, e, i, d, f) for (s, e, i, f), d in zip(merged, denied, strict=True)]

    def _named(self, folded: str) -> Iterator[re.Match[str]]:
        return iter(()) if self._names is None else self._names.finditer(folded)

    def _lettered(self, text: str) -> Iterator[tuple[int, int, int, bool]]:
        lead = _OPENS.match(text)
        at = lead.end() if lead else 0
        opening = self._opening.match(text, at)
        if opening:
            yield opening.start(), opening.start() + 1, self._index(opening[1]), True
            if opening[1].islower():
                yield from self._small(text, opening.start() + 1)
        for match in self._letter.finditer(text):
            start = match.start()
            if opening and start <= opening.start() < match.end():
                continue
            letter = match["boxed"] or match["plain"]
            named = _NAMED_I.search(text, max(0, start - 20), start) is not None
            firm = bool(match["boxed"]) or named
            if firm or letter not in "AI" or _is_letter(letter, text, start, match.end()):
                yield start, match.end(), self._index(letter), firm or match.end() == at + 1

    def _small(self, text: str, start: int) -> Iterator[tuple[int, int, int, bool]]:
        """Small letters that go on a list which one began."""
        while (joined := _JOINED.match(text, start)) is not None:
            letter = text[joined.end() : joined.end() + 1]
            after = _CLOSING + r"|\s*$|\s+(?:and|or|nor)\b"
            if not letter or letter not in self.letters.lower():
                break
            if not re.match(after, text[joined.end() + 1 : joined.end() + 8]):
                break
            start = joined.end() + 1
            yield start - 1, start, self._index(letter), True
        for match in self._bracketed.finditer(text, start):
            yield match.start(), match.end() - 1, self._index(match[1]), True

    def _index(self, letter: str) -> int:
        return self.letters.index(letter.upper())

    def _clause(self, text: str, first: Mention | None) -> int:
        """Where the clause ends in which a text settles: at the end of the sentence, or where it gives reasons."""
        start = 0
        if first is not None:
            start = first.end
            lone = text[start - 1] in self.letters + self.letters.lower()
            closing = re.compile(r"[*_`\"'\u201d)\]]*[.:]?(?=\s*\S)").match(text, start)
            if lone and closing and "\n" not in text[closing.end() :][:1]:
                start = closing.end()
        ends = (pattern.search(text, start) for pattern in (_SENTENCE, _EXPLAINS))
        return min((end.start() for end in ends if end), default=len(text))

    def _taken_back(self, text: str, found: Sequence[Mention], stop: int) -> Iterator[int]:
        """Options that later sentences consist of or begin with as a list does, or to which they change over."""
        for mention in found[1:]:
            if mention.start < stop or mention.denied:
                continue
            start = _sentence_start(text, mention.start)
            alone = re.match(rf"(?:{_CLOSING}|\s*$|\s*\n)", text[mention.end :][:40])
            listed = alone and _OPENS.fullmatch(text, start, mention.start)
            refused = _REFUSED.match(text, mention.end)
            if (listed and not refused) or _CHANGED.match(text, start):
                yield mention.option


def denied(text: str, start: int) -> bool:
    """Whether words of denial stand right before a place of a text.

    >>> denied("It is not the Rhine", 14), denied("Not far, the Rhine", 13)
    (True, False)
    """
    return _DENIED.search(text, max(0, start - _DENIAL), start) is not None


def _denials(text: str, spans: Sequence[tuple[int, int]]) -> list[bool]:
    before = [denied(text, start) for start, _ in spans]
    wrong = [_WRONG.match(text, end) for _, end in spans]
    behind = [match is not None for match in wrong]
    joined = [_JOINED.fullmatch(text, a[1], b[0]) for a, b in pairwise(spans)]
    for n, join in enumerate(joined):
        if join is not None and not join["comma"]:
            before[n + 1] = before[n + 1] or before[n]
    many = False
    for n in range(len(joined) - 1, -1, -1):
        match, join = wrong[n + 1], joined[n]
        many = match["many"] is not None if match is not None else many and behind[n + 1]
        if join is not None and behind[n + 1] and (many or not join["comma"]):
            behind[n] = True
    return [a or b for a, b in zip(before, behind, strict=True)]


def _is_letter(letter: str, text: str, start: int, end: int) -> bool:
    """Whether a capital "A" or "I" is no word."""
    if letter == "I":
        return re.match(r"[).:]|\s*$", text[end : end + 40]) is not None
    if _AFTER_A.match(text, end):
        return True
    return _BEFORE_A.search(text, max(0, start - 40), start) is not None


def _asked(text: str, mention: Mention) -> bool:
    end = _SENTENCE.search(text, mention.end)
    return end is not None and end[0].startswith("?")


def _sentence_start(text: str, at: int) -> int:
    start = max(0, at - 200)
    for match in _SENTENCE.finditer(text, start, at):
        start = match.end()
    return start
