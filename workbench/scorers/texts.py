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
_CJK: Final = 0x2E80
_BOXED: Final = re.compile(r"\\boxed\s*\{")


def normal(
    text: str,
    *,
    ignore_case: bool = True,
    ignore_space: bool = True,
    ignore_punctuation: bool = False,
) -> str:
    """One form for texts that count as equal; Unicode is always in form NFKC and trimmed."""
    text = unicodedata.normalize("NFKC", text)
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


def whole_word(text: str) -> str:
    """A pattern for ``text`` where it is not part of a longer word.

    Scripts without spaces between words (Chinese, Japanese, ...) have no such borders and match anywhere.
    """
    before = r"(?<!\w)" if _spaced(text[:1]) else ""
    after = r"(?!\w)" if _spaced(text[-1:]) else ""
    return before + r"\s+".join(re.escape(part) for part in text.split()) + after


def _spaced(character: str) -> bool:
    return character.isalnum() and ord(character) < _CJK


def after_marker(text: str) -> str | None:
    r"""What follows the last sign of a final answer: ``\boxed{...}``, "the answer is", "Answer:", "####".

    >>> after_marker("3 + 4 is 7. The answer is 7 apples.")
    '7 apples.'
    """
    boxes = list(_BOXED.finditer(text))
    if boxes:
        return _braced(text, boxes[-1].end())
    end = len(text.rstrip())
    ends = [match.end() for match in _MARKER.finditer(text) if match.end() < end]
    return text[ends[-1] :] if ends else None


def _braced(text: str, start: int) -> str:
    depth = 1
    for n in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[n], 0)
        if depth == 0:
            return text[start:n]
    return text[start:]


def question(prompt: Prompt) -> str | None:
    """The text of the user's last message."""
    contents = [m.get("content") for m in prompt.messages if m.get("role") == "user"]
    texts = [content for content in contents if isinstance(content, str)]
    return texts[-1] if texts else None
