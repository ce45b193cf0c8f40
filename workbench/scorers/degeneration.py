"""Signs that a model has lost its way: loops, repeated passages, few different words, cuts, silence, another language.

Terms:

* **Loop**: an answer that ends in a passage of at least three words (or CJK characters, or punctuation marks), exactly the
  same three or more times in a row. A passage without letters, or of markup tags alone, must stand there four times or more
  and make 30 words and marks at least: nested brackets, rows of zeros and closing tags are no loops; nor is a line of up to
  120 rule characters at the end. Only the last 20,000 characters are looked at.
* **Repeated n-grams**: the share of four-word passages that occurred before in the answer.
* **Distinct-2**: different word pairs over all word pairs (Li et al. 2016, "A diversity-promoting objective function for
  neural conversation models"). It falls with length: compare answers of like length.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from workbench.records import Score
from workbench.scorers.base import Family, family, is_number
from workbench.scorers.languages import language_switch
from workbench.scorers.texts import CJK, asked, normal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.prompts import Prompt
    from workbench.records import Generation

SIGNS: Final = ("loop", "repeated", "distinct", "empty", "truncated", "language")
"""The signs a study can ask for, in the order they are told."""
_UNIT: Final = re.compile(rf"[{CJK}]|[^\W{CJK}]+|[^\w\s]")
_WORD: Final = re.compile(rf"[{CJK}]|[^\W{CJK}]+(?:['\u2019][^\W{CJK}]+)?")
_TAIL: Final = 20_000
_TAG: Final = re.compile(r"</?[A-Za-z][^<>]*>")
_RULE: Final = re.compile(r"\n[^\S\n]*[-=_*~.#+ ]{3,120}\Z")
_FEWEST_ROUNDS: Final = 4
_FEWEST_MARKS: Final = 30


@dataclass(frozen=True, slots=True)
class Signs:
    """What one answer shows; see the module docstring for the terms.

    Attributes:
        loop: It ends in a loop.
        repeated_ngrams: Share of its four-word passages that occurred before, 0..1; 0 below four words.
        distinct_2: Share of its word pairs that are different, 0..1; None below two words.
        empty: It has no visible character.
        truncated: It was cut at max_tokens; None without a finish reason.
        language_switch: It left its prompt's language, or its own midway; None where that cannot be said.
    """

    loop: bool
    repeated_ngrams: float
    distinct_2: float | None
    empty: bool
    truncated: bool | None
    language_switch: bool | None


def signs(text: str, *, finish_reason: str | None = None, prompt_text: str | None = None) -> Signs:
    """Look at one answer.

    Args:
        text: The answer.
        finish_reason: As in the generation; without it nothing is said about truncation.
        prompt_text: What was asked, as `texts.asked` gives it; without it a language switch is seen only midway.

    >>> signs("I think so. I think so. I think so.").loop
    True
    """
    words = _WORD.findall(text.lower())
    pairs = list(pairwise(words))
    fours = list(zip(pairs, pairs[2:], strict=False))
    return Signs(
        loop=has_loop(text),
        repeated_ngrams=1 - len(set(fours)) / len(fours) if fours else 0.0,
        distinct_2=len(set(pairs)) / len(pairs) if pairs else None,
        empty=not text.strip(),
        truncated=None if finish_reason is None else finish_reason == "length",
        language_switch=language_switch(text, prompt_text),
    )


def has_loop(text: str) -> bool:
    """Whether an answer ends in a loop (see the module docstring); a round cut short at the end changes nothing.

    >>> has_loop("I think so. I think so. I think so. I th"), has_loop("very, very good")
    (True, False)
    """
    text = _RULE.sub("", text.rstrip()[-_TAIL:]).rstrip()
    tail = text[-3:]
    if len(tail) < 3 or text.count(tail) < 3:  # three units have at least three characters
        return False
    end, done = len(text), 0
    at = text.rfind(tail, 0, end - 1)
    while at >= 0 and 2 * (period := end - 3 - at) <= end:
        passage = text[-period:]
        if period > done and text.endswith(passage, 0, end - period):
            length = _periodic(text, period)
            done = length // 2  # a longer period within it is a multiple of this one
            units = len(_UNIT.findall(2 * passage)) - len(_UNIT.findall(passage))
            trimmed = period - len(passage.lstrip())  # the space that would follow
            # "no" is no passage, "no no no" is one
            rounds = 3 * -(-3 // units) if units else end + 1
            if rounds * period <= length + trimmed:
                if _has_words(passage):
                    return True
                rounds = max(_FEWEST_ROUNDS, -(-_FEWEST_MARKS // units))
                if rounds * period <= length + trimmed:
                    return True
        at = text.rfind(tail, 0, at + 2)
    return False


def _has_words(passage: str) -> bool:
    """Whether a repeated passage holds letters outside of tags, wherever in a tag it begins."""
    if not any(c.isalpha() for c in passage):
        return False
    if "<" not in passage or ">" not in passage:
        return True
    left = _TAG.sub(" ", 3 * passage)
    return sum(map(str.isalpha, left)) > sum(map(str.isalpha, passage))


def _periodic(text: str, period: int) -> int:
    """Length of the longest end of ``text`` in which every character equals the one ``period`` later."""
    length, passage = 2 * period, text[-period:]
    while text.endswith(passage, 0, len(text) - length):
        length += period
    while length < len(text) and text[-length - 1] == text[-length - 1 + period]:
        length += 1
    return length


def agreement(
    texts: Sequence[str], form: Literal["exact", "similar"] = "exact", *, ignore_case: bool = True
) -> float | None:
    """Mean agreement over all pairs of answers to one prompt, 0..1; None for fewer than two.

    Args:
        texts: The answers, in any order.
        form: "exact": a pair agrees (1) or not (0), after normalising; "similar": share of characters in common, the
            normalised Indel similarity of rapidfuzz, over at most 50 answers evenly picked.
        ignore_case: For comparing.

    Raises:
        ValueError: An unknown form.

    >>> agreement(["Paris", "paris ", "Rome"])
    0.3333333333333333
    """
    if form not in ("exact", "similar"):
        raise ValueError(f"form must be exact or similar, got {form!r}")
    n = len(texts)
    if n < 2:
        return None
    normals = [normal(text, ignore_case=ignore_case) for text in texts]
    if form == "exact":
        return sum(c * (c - 1) for c in Counter(normals).values()) / (n * (n - 1))
    from rapidfuzz.distance import Indel  # noqa: PLC0415 - only this form needs it

    some = normals[:: -(-n // 50)]
    pairs = [(a, b) for i, a in enumerate(some) for b in some[i + 1 :]]
    return sum(Indel.normalized_similarity(a, b) for a, b in pairs) / len(pairs)


@family
@dataclass(frozen=True)
class Degeneration(Family):
    """1 for a healthy answer, 0 for one with any of the signs asked for; the explanation lists them. Needs no target.

    Attributes:
        signs: Which count, of loop, repeated, distinct, empty, truncated, language. A cut answer is no bad one where
            max_tokens is small, so truncated does not count by default; nor does distinct, which falls with length.
        repeated: Share of repeated four-word passages above which "repeated" is a sign, 0..1.
        distinct: Share of different word pairs below which "distinct" is a sign, 0..1.
        fewest: Words below which neither "repeated" nor "distinct" is a sign.
    """

    name: ClassVar[str] = "degeneration"
    # 2: marks, markup and rules loop less soon; system message and earlier turns; lists of titles
    version: ClassVar[str] = "2"
    needs_target: ClassVar[bool] = False

    signs: Sequence[str] = ("loop", "repeated", "empty", "language")
    repeated: float = 0.3
    distinct: float = 0.3
    fewest: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.signs
        ok = isinstance(value, list | tuple) and len(value) > 0 and set(value) <= set(SIGNS)
        self.require("signs", ok, f"a list of {', '.join(SIGNS)}")
        object.__setattr__(self, "signs", tuple(value))
        for option in ("repeated", "distinct"):
            share = getattr(self, option)
            self.require(option, is_number(share) and 0 <= share <= 1, "a number from 0 to 1")
        self.require_count("fewest")

    def judge_generation(self, generation: Generation, prompt: Prompt) -> Score:
        """Judge a generation, its finish reason included."""
        return self._judged(generation.text, prompt, generation.finish_reason)

    def score(self, text: str, prompt: Prompt) -> Score:
        """Judge the answer ``text`` to ``prompt``; without a finish reason nothing counts as truncated."""
        return self._judged(text, prompt, None)

    def _judged(self, text: str, prompt: Prompt, finish_reason: str | None) -> Score:
        seen = signs(text, finish_reason=finish_reason, prompt_text=asked(prompt))
        long_enough = len(_WORD.findall(text)) >= self.fewest
        distinct = 1.0 if seen.distinct_2 is None else seen.distinct_2
        repeated = seen.repeated_ngrams
        found = {
            "loop": (seen.loop, "ends in a loop"),
            "repeated": (
                long_enough and repeated > self.repeated,
                f"{repeated:.0%} of four-word passages repeated",
            ),
            "distinct": (
                long_enough and distinct < self.distinct,
                f"only {distinct:.0%} of word pairs different",
            ),
            "empty": (seen.empty, "empty"),
            "truncated": (bool(seen.truncated), "cut at max_tokens"),
            "language": (bool(seen.language_switch), "changes language"),
        }
        said = [words for sign, (here, words) in found.items() if here and sign in self.signs]
        return Score(float(not said), None, "; ".join(said) or "healthy")
