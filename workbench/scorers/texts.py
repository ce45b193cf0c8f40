"""Text forms that several scorers share: normalising, targets as text, whole-word search, answer markers."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from workbench.plan import number
from workbench.scorers.base import kind

if TYPE_CHECKING:
    from workbench.prompts import Prompt

_MARKER: Final = re.compile(
    r"(?:\b(?:final\s+)?answer(?:\s*\([^)\n]*\))?(?:\s+is\b|\s*:|\s*=|\s+would\s+be\b)|####)"
    r"(?:\s*:)?[\s*_`]*",
    re.IGNORECASE,
)
CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
"""Characters that count as a word each, as ranges of a pattern's character class."""
TURN: Final = "\x1e"
"""What stands between the turns in ``asked``."""
_UNSPACED: Final = 0x2E80
LETTER: Final = r"[^\W\u2e80-\U0010ffff]"
"""Pattern of a letter, digit or underscore of the scripts that put spaces between words."""
_SIGNS: Final = "-+\u2212\u2013\u2010\u2011"
_BOXED: Final = re.compile(r"\\boxed\s*\{")
_ALIKE: Final = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-") | dict.fromkeys("\u2018\u2019\u02bc", "'")
)
"""Hyphens, the en dash and the minus sign, and apostrophes: each kind in its ASCII form."""


def one_form(text: str) -> str:
    r"""The text in Unicode form NFKC, with hyphens, short dashes and apostrophes as ASCII has them.

    >>> one_form("grand\u2011m\u00e8re, l\u2019eau")
    "grand-m\xe8re, l'eau"
    """
    return unicodedata.normalize("NFKC", text).translate(_ALIKE)


def normal(
    text: str,
    *,
    ignore_case: bool = True,
    ignore_space: bool = True,
    ignore_punctuation: bool = False,
) -> str:
    """One form for texts that count as equal: always that of ``one_form``, and trimmed."""
    text = one_form(text)
    if ignore_case:
        text = unicodedata.normalize("NFKC", text.casefold())
    if ignore_punctuation:
        text = "".join(" " if unicodedata.category(c)[0] == "P" else c for c in text)
    return " ".join(text.split()) if ignore_space or ignore_punctuation else text.strip()


def target_text(target: Any) -> str | None:
    """A target as text; None for lists, objects and nothing."""
    if isinstance(target, str):
        return target
    if isinstance(target, bool):
        return "true" if target else "false"
    return number(target) if isinstance(target, int | float) else None


def text_targets(prompt: Prompt, *, empty: bool = False) -> tuple[list[str], str | None]:
    """The targets of a prompt as texts, and what is wrong with them.

    Args:
        prompt: Whose target, or list of alternative targets, is taken.
        empty: An empty text is a target too.

    Returns:
        The texts (a list of targets holds alternatives) and None, or an empty list and the problem.
    """
    if prompt.target is None:
        return [], "the prompt has no target"
    values = prompt.target if isinstance(prompt.target, list | tuple) else [prompt.target]
    if not values:
        return [], "the target is an empty list"
    texts = [target_text(value) for value in values]
    if None in texts:
        return [], f"the target is {kind(prompt.target)}, not text"
    if not empty and not all(text.strip() for text in texts if text is not None):
        return [], "the target is an empty text"
    return [text for text in texts if text is not None], None


def whole_word(text: str, *, compounds: bool = True) -> str:
    """A pattern for ``text`` where it is no part of a longer word or number.

    Scripts without spaces between words (Chinese, Japanese, ...) have no such borders and match anywhere. A number is not
    found in a longer one ("5" in 5.5, 0.5 and 1,500) or in the same one with another sign ("5" in -5).

    Args:
        text: What is looked for, in ``one_form``.
        compounds: A word is also found as a part of a hyphenated one: "known" in "well-known".

    >>> bool(re.search(whole_word("5"), "It is 5.5")), bool(re.search(whole_word("5"), "It is 5."))
    (False, True)
    """
    first, last = text.lstrip(_SIGNS)[:1], text[-1:]
    before = rf"(?<!{LETTER})" if _spaced(first) else ""
    after = rf"(?!{LETTER})" if _spaced(last) else ""
    if not compounds:
        before += rf"(?<!{LETTER}-)" if _spaced(first) else ""
        after += rf"(?!-{LETTER})" if _spaced(last) else ""
    if first.isdecimal():
        before += r"(?<![0-9][.,])(?<![^\w)\]][.,])(?<!\A[.,])"
        before += "" if first != text[:1] else rf"(?<![^\w)\]][{_SIGNS}])(?<!\A[{_SIGNS}])"
    if last.isdecimal():
        after += r"(?![.,][0-9])"
    return before + r"\s+".join(re.escape(part) for part in text.split()) + after


def _spaced(character: str) -> bool:
    return character.isalnum() and ord(character) < _UNSPACED


def after_markers(text: str) -> list[str]:
    r"""What follows each sign of a final answer: ``\boxed{...}``, "the answer is", "Answer:", "####".

    A box comes first, then the signs from the last to the first, each up to the next one.

    >>> after_markers("The answer is 7. I hope the answer is clear.")
    ['clear.', '7. I hope the ']
    """
    boxes = list(_BOXED.finditer(text))
    found = [_braced(text, boxes[-1].end())] if boxes else []
    end = len(text.rstrip())
    signs = [match for match in _MARKER.finditer(text) if match.end() < end]
    ends = [*(match.start() for match in signs[1:]), len(text)]
    found += [text[m.end() : stop] for m, stop in zip(signs, ends, strict=False)][::-1]
    return found


def _braced(text: str, start: int) -> str:
    depth = 1
    for n in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[n], 0)
        if depth == 0:
            return text[start:n]
    return text[start:]


def content_text(content: object) -> str | None:
    r"""The text of a message's content: as it is, or the texts of its parts on lines of their own; None if it has none.

    >>> content_text([{"type": "text", "text": "What is"}, {"type": "image_url"}, {"type": "text", "text": "this?"}])
    'What is\nthis?'
    """
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else p for p in content]
        content = "\n".join(part for part in parts if part and isinstance(part, str)) or None
    return content if isinstance(content, str) else None


def question(prompt: Prompt) -> str | None:
    """The text of the user's last message that has one."""
    contents = [content_text(m.get("content")) for m in prompt.messages if m.get("role") == "user"]
    return next((content for content in reversed(contents) if content is not None), None)


def asked(prompt: Prompt) -> str:
    """The text from which the language of the answer is told: system message and user turns, the last one last.

    >>> from workbench.prompts import Prompt
    >>> system = {"role": "system", "content": "Answer in French."}
    >>> asked(Prompt("p", (system, {"role": "user", "content": "Who?"}))).split(TURN)
    ['Answer in French.', 'Who?']
    """
    turns = [m for m in prompt.messages if m.get("role") in ("system", "developer", "user")]
    contents = [content_text(m.get("content")) for m in turns]
    return TURN.join(content for content in contents if content is not None)
