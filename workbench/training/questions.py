"""What a chat asks, told by its words and its arithmetic, not by how it is written.

Case, spaces, marks of layout such as ``**``, characters that are not seen and the punctuation of sentences do not count.
What changes a sum does: signs, decimal points, percent signs, factorials, powers, and brackets that are not around the whole
of it. Dashes, signs of multiplication and division, and thousands with or without separators count alike.

>>> fingerprint([{"role": "user", "content": "What is 3 + 4?"}]) == fingerprint(
...     [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what is  3+4"}]
... )
True
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from workbench.prompts.checkrows import canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from workbench.records import Message

_OPERATORS: Final = frozenset("-*/")
"""Punctuation that changes what a sum asks, if it stands between numbers or variables."""
_SIGNS: Final = frozenset("%\u2030&")
"""Punctuation that always counts."""
_MINUS: Final = "\u2212"
"""Stands for the sign of a negative number."""
_ALIKE: Final = str.maketrans(
    dict.fromkeys("\u00d7\u2217\u22c5\u00b7\u2219\u2715\u2716", "*")
    | dict.fromkeys("\u00f7\u2044\u2215\u2797", "/")
    | dict.fromkeys("[{", "(")
    | dict.fromkeys("]}", ")")
    | {_MINUS: "-", "`": " ", "_": " "}
)
_NARROW: Final = str.maketrans(dict.fromkeys("\u2009\u202f", ","))
"""Narrow spaces, which set thousands apart in some languages."""
_RAISED: Final = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207a\u207b\u207f]+")
_FRACTION: Final = re.compile("(?<=\\d)(?=[\u00bc-\u00be\u2150-\u215e])")
_THOUSANDS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:[,'\u2019]\d{3})+(?!\d)")
_BOLD: Final = re.compile(r"(?<![\w)*])\*\*(?=[^\s*])(.{1,200}?)(?<=[^\s*])\*\*(?![\w(*])")
_COMPARED: Final = (("!=", "\u2260"), ("<=", "\u2264"), (">=", "\u2265"))
_POINT: Final = re.compile(r"(?<![\w.])\.(?=\d)")
_COLON: Final = re.compile(r"(?<=\d):(?=\d)")
_TIMES: Final = re.compile(r"(?<=[\d)])(\s*)x(?=\s*[\d(])")
_NEGATIVE: Final = re.compile(r"(?<![\w)])-(?=[\d(]|[^\W\d]\b)")
_LONGEST: Final = 200
"""Brackets around more words and signs than this are no part of a sum."""
_PART: Final = re.compile(r"\w*\d(?:\.\d+)+|\w+|[^\w\s]")


class _Part(NamedTuple):
    """A word, a number or a sign, and the space between it and the one before."""

    text: str
    gap: str


def normalized(text: str) -> str:
    """The words, numbers and signs of arithmetic of a text, in lower case, a space between them.

    The signs ``- * /`` are operators between numbers, variables of one letter and brackets, a minus also right before one of
    these, ``*`` and ``/`` also next to one with spaces around them; anywhere else they are punctuation. ``!`` is a factorial
    right after a number, a variable or a bracket that counts. Brackets count where they hold a part of a sum.

    >>> normalized("  What is 12+3.5 -4, please?")
    'what is 12 + 3.5 - 4 please'
    >>> normalized("- **What** is 1,000 \u00f7 \u20134?"), normalized("A well-known city")
    ('what is 1000 / - 4', 'a well known city')
    >>> normalized("What is (3 + 4) * 2 (in words)?"), normalized("(What is (3 + 4)?)")
    ('what is ( 3 + 4 ) * 2 in words', 'what is 3 + 4')
    """
    parts = _parts(_plain(text))
    brackets = _brackets(parts)
    kept: list[str] = []
    last = -1  # number of the last part that was kept
    waiting: list[_Part] = []  # operators, until it is known what they stand before
    for i, part in enumerate(parts):
        if part.text in _OPERATORS:
            waiting.append(part)
            continue
        if part.text in "()":
            counts = i in brackets
        elif part.text == "!":
            counts = last == i - 1 and not part.gap and bool(kept) and _takes_factorial(kept[-1])
        else:
            counts = part.text in _SIGNS or not _category(part.text).startswith("P")
        if counts:
            if kept and _are_operators(waiting, kept[-1], part):
                kept += [w.text for w in waiting]
            kept.append(part.text)
            last, waiting = i, []
    return " ".join(kept).replace(_MINUS, "-") or text.strip()


def _plain(text: str) -> str:
    """The text in one case, each sign in one form, without what is not seen."""
    spelled = _FRACTION.sub(" ", _RAISED.sub(r"^\g<0>", text.translate(_NARROW)))
    plain = unicodedata.normalize("NFKC", spelled).casefold().translate(_ALIKE)
    kinds = [(c, unicodedata.category(c)) for c in plain]
    plain = "".join("-" if kind == "Pd" else c for c, kind in kinds if kind != "Cf")
    plain = _THOUSANDS.sub(lambda number: re.sub(r"\D", "", number[0]), plain)
    for written, sign in _COMPARED:
        plain = plain.replace(written, sign)
    plain = _COLON.sub("\u2236", _POINT.sub("0.", _BOLD.sub(r"\1", plain)))
    return _NEGATIVE.sub(_MINUS, _TIMES.sub(r"\1*", plain))


def _parts(plain: str) -> list[_Part]:
    end, made = 0, []
    for found in _PART.finditer(plain):
        made.append(_Part(found[0], plain[end : found.start()]))
        end = found.end()
    return made


def _category(part: str) -> str:
    return unicodedata.category(part[0])


def _is_term(part: str) -> bool:
    """A number, a negative number's sign, or a variable of one letter."""
    return part[0].isdigit() or part == _MINUS or (len(part) == 1 and part.isalpha())


def _ends(part: str) -> bool:
    """Whether an operator can stand after it."""
    return _is_term(part) or part in ")!%\u2030" or _category(part) in ("Sc", "So")


def _starts(part: str) -> bool:
    """Whether an operator can stand before it."""
    return _is_term(part) or part in "(\u221a" or _category(part) == "Sc"


def _takes_factorial(part: str) -> bool:
    return part in ")!" or (_is_term(part) and part != _MINUS)


def _are_operators(signs: Sequence[_Part], before: str, after: _Part) -> bool:
    """Whether ``- * /`` between two parts are arithmetic; with a word on one side, only one that stands alone is."""
    if _ends(before) and _starts(after.text):
        return True
    alone = len(signs) == 1 and signs[0].text != "-"
    apart = alone and all(gap and "\n" not in gap for gap in (signs[0].gap, after.gap))
    return apart and (_ends(before) or _starts(after.text))


def _brackets(parts: Sequence[_Part]) -> set[int]:
    """Numbers of the parts that are brackets around a part of a sum."""
    found: set[int] = set()
    opened: list[int] = []
    for i, part in enumerate(parts):
        if part.text == "(":
            opened.append(i)
        elif part.text == ")" and opened:
            start = opened.pop()
            if _hold_a_part(parts, start, i):
                found |= {start, i}
    return found


def _hold_a_part(parts: Sequence[_Part], start: int, end: int) -> bool:
    """Whether brackets hold terms, and more of the sum is beside them: an operator, or a term or name to multiply or apply."""
    if end - start > _LONGEST:
        return False
    inside = [part.text for part in parts[start + 1 : end]]
    words = any(part[0].isalpha() and not _is_term(part) for part in inside)
    signs = any(part in _OPERATORS or _category(part) in ("Sm", "Sk") for part in inside)
    if not any(map(_is_term, inside)) or (words and not signs):
        return False
    further, before = (parts[i].text if i >= 0 else "" for i in (start - 2, start - 1))
    after, beyond = (parts[i].text if i < len(parts) else "" for i in (end + 1, end + 2))
    if _is_sign(before, further, _ends) or _is_sign(after, beyond, _starts):
        return True
    if words:
        return False
    applied = not parts[start].gap and before[:1].isalnum()
    factorial = after == "!" and not parts[end + 1].gap
    first = further if before == ")" else before  # of a bracket beside, what is in it
    second = beyond if after == "(" else after
    multiplied = any(_is_term(t) for t in (first, second) if t)
    return applied or factorial or multiplied


def _is_sign(sign: str, operand: str, fits: Callable[[str], bool]) -> bool:
    """Whether a part beside a bracket is arithmetic; ``- * /`` only with an operand on their other side."""
    if sign in _OPERATORS:
        return bool(operand) and fits(operand)
    return bool(sign) and (sign in _SIGNS or _category(sign) in ("Sm", "Sk"))


def fingerprint(messages: Sequence[Message]) -> str | None:
    """Hash of what a chat's last user message asks, 32 hex digits; None if no user says anything in it."""
    said = [m.get("content") for m in messages if m.get("role") == "user"]
    if not said or not isinstance(said[-1], str) or not said[-1].strip():
        return None
    return _hash(normalized(said[-1]))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Turn(NamedTuple):
    """A place in a chat where a user asks.

    Attributes:
        question: Hash of the user's message.
        context: Hash of the messages before it, "" if there are none.
        answer: What is said next, normalized; "" if nothing is.
    """

    question: str
    context: str
    answer: str

    @property
    def whole(self) -> str:
        """Hash of the message and all before it."""
        return _hash(f"{self.context} {self.question}") if self.context else self.question

    def asks(self, open_: Collection[str]) -> str:
        """What tells it from other questions: the whole of it, if its question is an open one."""
        return self.whole if self.question in open_ else self.question


def turns(messages: Sequence[Message], answer: str = "") -> list[Turn]:
    """The places in a chat where a user asks something.

    Args:
        messages: The chat.
        answer: What is said after its last message.
    """
    said = [_said(m) for m in messages]
    answers = [*said[1:], ["assistant", normalized(answer)]]
    found = []
    for i, message in enumerate(messages):
        question = fingerprint([message])
        if question is not None:
            context = _hash(canonical_json(said[:i])) if i else ""
            found.append(Turn(question, context, str(answers[i][1])))
    return found


def _said(message: Message) -> list[Any]:
    content, calls = message.get("content"), message.get("tool_calls")
    text = normalized(content) if isinstance(content, str) else ""
    return [message.get("role"), text, *([calls] if calls else [])]


def open_questions(asked: Iterable[Turn]) -> frozenset[str]:
    """Questions about what stands before them, such as "Summarize the document.": they alone do not tell what is asked.

    A question is open if it is answered otherwise after other contexts. Contexts that stand before at least as many questions
    as the question has contexts do not count: they are instructions ("Be brief."), not what is asked about.
    """
    answers: dict[str, dict[str, set[str]]] = {}
    questions: dict[str, set[str]] = {}
    for turn in asked:
        answers.setdefault(turn.question, {}).setdefault(turn.context, set()).add(turn.answer)
        questions.setdefault(turn.context, set()).add(turn.question)
    found = []
    for question, by_context in answers.items():
        own = [a for c, a in by_context.items() if len(questions[c]) < len(by_context)]
        if any(answered != own[0] for answered in own):
            found.append(question)
    return frozenset(found)


def asked_in(messages: Sequence[Message]) -> frozenset[str]:
    """Hashes by which a prompt is found among those of training rows: of its last question alone, and with its context."""
    if fingerprint(messages) is None:
        return frozenset()
    last = turns(messages)[-1]
    return frozenset((last.question, last.whole))
