"""Answers of two cells side by side, for notebooks, reports, pull requests and terminals.

What a model wrote is never trusted: markup is escaped, and characters that hide, move or colour text (control codes,
terminal escapes, direction overrides, zero-width characters) are replaced by visible signs. Words that only one of the
two answers has are marked by colour and by underlining (dashed for the baseline, solid for the cell), so that
the marks survive a grey print; where the target occurs it is boxed.
"""

from __future__ import annotations

import contextlib
import html as markup
import json
import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd
import regex
from rapidfuzz.distance import LCSseq

from workbench.scorers.texts import whole_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["escape", "html", "text", "visible"]

Labels = tuple[str | None, str]
"""Names of (baseline, cell); without the first only the cell's answers are shown."""
Span = tuple[int, int]

CLIP: Final = 600
"""Characters of an answer shown at once; the rest can be opened."""
SIGNS: Final = {"better": "▲", "worse": "▼", "same": "=", "unscored": "?"}
_DIFF_LIMIT: Final = 40_000
"""Characters of the longer answer above which words are not compared."""
_COMMON: Final = 0.2
"""Two longer answers with a smaller share of common words are not marked: everything would be."""
_WORD: Final = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}]\p{M}*|[\w\p{M}--[\p{Han}\p{Hiragana}\p{Katakana}]]"
    r"(?:[\w\p{M}--[\p{Han}\p{Hiragana}\p{Katakana}]]|[\u200c\u200d](?=\w))*|(?![\w\s])\X",
    regex.V1,
)
"""Words with their accents; where words are written without spaces, single characters; signs and emoji as a whole."""
_JOINED: Final = r"[\p{L}\p{M}&&[\p{Arab}\p{Syrc}\p{Mong}\p{Nkoo}\p{Deva}\p{Beng}\p{Guru}\p{Gujr}\p{Orya}\p{Taml}\p{Telu}\p{Knda}\p{Mlym}\p{Sinh}\p{Tibt}\p{Mymr}\p{Khmr}]]"
_JOINER: Final = regex.compile(
    rf"(?<={_JOINED})[\u200c\u200d](?={_JOINED})"
    r"|(?<=\p{So}|[\p{So}\U0001f3fb-\U0001f3ff]|\p{So}\ufe0f)\u200d(?=\p{So})",
    regex.V1,
)
"""Joiners that do what they are for: letters of scripts that join them, and emoji made of several."""
_BEFORE_NUMBER: Final = r"(?<![^\W\u2e80-\U0010ffff])(?<!\.)(?<!\d,)(?<!(?<![\w)])[-\u2212\u2013])"  # not the end of a number, nor without its sign
_AFTER_NUMBER: Final = r"(?![^\W\u2e80-\U0010ffff]|\.\d|,\d{3}(?!\d))"
_MATCHES: Final = 50
_KEPT: Final = frozenset("\n\t")
_HIDDEN_LETTERS: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
"""Letters and marks that show nothing, next to the format characters."""
_SHOWN_FORMATS: Final = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
"""Format characters that have a shape of their own."""

STYLE: Final = """<style>
.wb-answers { color: inherit; font-size: 13px; line-height: 1.45; overflow-x: auto; }
.wb-answers table { border-collapse: collapse; width: 100%; table-layout: fixed; color: inherit; background: transparent; }
.wb-answers th, .wb-answers td { text-align: left !important; vertical-align: top; padding: 6px 10px; border: 0;
  border-bottom: 1px solid rgba(128,128,128,.4); background: transparent; color: inherit; overflow: hidden; overflow-wrap: anywhere; }
.wb-answers th { border-bottom: 2px solid rgba(128,128,128,.7); font-weight: 600; }
.wb-answers col.wb-about { width: 27%; }
.wb-answers .wb-text { white-space: pre-wrap; unicode-bidi: isolate; }
.wb-answers .wb-small { font-size: 11.5px; opacity: .8; }
.wb-answers .wb-id { font-weight: 600; }
.wb-answers .wb-odd { border: 1px dotted currentColor; border-radius: 2px; font-size: 85%; opacity: .85; padding: 0 1px; }
.wb-answers mark { background: rgba(240,228,66,.35); color: inherit; outline: 1.5px solid currentColor; outline-offset: 0;
  border-radius: 2px; font-weight: 600; }
.wb-answers del { background: rgba(213,94,0,.2); color: inherit; text-decoration: underline dashed 1.5px; text-underline-offset: 3px; }
.wb-answers ins { background: rgba(0,114,178,.22); color: inherit; text-decoration: underline solid 1.5px; text-underline-offset: 3px; }
.wb-answers summary { cursor: pointer; opacity: .8; }
.wb-answers .wb-better { color: inherit; border-left: 4px solid #0072B2; padding-left: 6px; }
.wb-answers .wb-worse { color: inherit; border-left: 4px solid #D55E00; padding-left: 6px; }
.wb-answers .wb-same, .wb-answers .wb-unscored { border-left: 4px solid rgba(128,128,128,.4); padding-left: 6px; }
@media print { .wb-answers tr { break-inside: avoid; } .wb-answers { overflow: visible; } }
</style>"""


# ------------------------------------------------------------------------------------- harmless text


class _Signs(dict[int, str]):
    """What stands for each character, worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        sign = self[code] = self._sign(chr(code))
        return sign

    def _sign(self, character: str) -> str:
        kind = unicodedata.category(character)
        hidden = kind in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in _HIDDEN_LETTERS
        if not hidden or character in _KEPT or character in _SHOWN_FORMATS:
            return character
        return f"⟨U+{ord(character):04X}⟩"


class _MarkupSigns(_Signs):
    """The same as HTML."""

    def _sign(self, character: str) -> str:
        sign = super()._sign(character)
        if sign == character:
            return markup.escape(character)
        name = unicodedata.name(character, "control character").lower()
        return f'<span class="wb-odd" title="U+{ord(character):04X} {name}">{sign}</span>'


_PLAIN: Final = _Signs()
_MARKUP: Final = _MarkupSigns()


def visible(text: str) -> str:
    r"""The text with every character that hides, moves or colours text replaced by a visible sign.

    >>> visible("a\x1b[31mb\u202ec")
    'a⟨U+001B⟩[31mb⟨U+202E⟩c'
    """
    return _translated(text, _PLAIN)


def escape(text: str) -> str:
    """The text as HTML that shows it and does nothing else; hidden characters as in `visible`, with their names.

    >>> escape('<b onclick="x">')
    '&lt;b onclick=&quot;x&quot;&gt;'
    """
    return _translated(text, _MARKUP)


def _translated(text: str, signs: _Signs) -> str:
    """Every character as its sign, but for joiners that letters and emoji need."""
    if "\u200c" not in text and "\u200d" not in text:
        return text.translate(signs)
    kept = [m.start() for m in _JOINER.finditer(text)]
    ends = zip([0, *(i + 1 for i in kept)], [*kept, len(text)], strict=True)
    pieces = [text[a:b].translate(signs) for a, b in ends]
    return "".join(f"{p}{text[i]}" for p, i in zip(pieces, kept, strict=False)) + pieces[-1]


# ------------------------------------------------------------------------------------- what is marked


class _Answer(NamedTuple):
    """One answer and what to mark in it: ``only`` the words the other has not, ``found`` the target."""

    text: str
    tag: str
    only: list[Span]
    found: list[Span]


def word_difference(old: str, new: str) -> tuple[list[Span], list[Span]]:
    """Where each of two texts has words the other has not, as (start, end) of runs of words.

    By the longest common subsequence of words and punctuation marks. Both are empty where the texts are equal, too long to
    compare, or so different that everything would be marked.
    """
    if old == new or max(len(old), len(new)) > _DIFF_LIMIT:
        return [], []
    words = [list(_WORD.finditer(t)) for t in (old, new)]
    tokens = [[w.group() for w in side] for side in words]
    steps = LCSseq.opcodes(*tokens)
    n = max(len(tokens[0]), len(tokens[1]))
    common = sum(s.src_end - s.src_start for s in steps if s.tag == "equal")
    if n > 8 and common < _COMMON * n:
        return [], []
    spans: tuple[list[Span], list[Span]] = ([], [])
    for step in steps:
        if step.tag == "equal":
            continue
        sides = (step.src_start, step.src_end), (step.dest_start, step.dest_end)
        for side, (first, last) in enumerate(sides):
            if last > first:
                spans[side].append((words[side][first].start(), words[side][last - 1].end()))
    return spans


def occurrences(target: str | None, text: str) -> list[Span]:
    """Where a target occurs in a text as whole words, as (start, end); a JSON list or object stands for its values.

    Case does not matter but for single letters; a number is not found inside another, and may have thousands separators.
    In scripts without spaces between words a target is found anywhere.
    """
    pattern = "|".join(_pattern(t) for t in _values(target))
    if not pattern:
        return []
    found = (m.span() for m in re.finditer(pattern, text))
    return [span for _, span in zip(range(_MATCHES), found, strict=False)]


def _values(target: str | None) -> list[str]:
    """The texts to look for, longest first."""
    if target is None or pd.isna(target):
        return []
    values: Iterable[Any] = [target]
    if target[:1] in ("[", "{"):
        with contextlib.suppress(ValueError):
            read = json.loads(target)
            values = read.values() if isinstance(read, dict) else read
    plain = {str(v).strip() for v in values if isinstance(v, str | int | float)}
    return sorted((v for v in plain if 0 < len(v) <= 200), key=lambda v: (-len(v), v))


def _pattern(value: str) -> str:
    body = whole_word(value)
    if re.fullmatch(r"[-+]?\d+(?:\.\d+)?", value, re.ASCII):
        body = f"{_BEFORE_NUMBER}{_digits(value)}{_AFTER_NUMBER}"
    return f"(?i:{body})" if len(value) > 1 else body


def _digits(value: str) -> str:
    """The pattern of a number, with or without separators between thousands."""
    sign, whole, rest = re.fullmatch(r"([-+]?)(\d+)(.*)", value).groups()  # type: ignore[union-attr]
    places = ",?".join(re.findall(r"\d{1,3}(?=(?:\d{3})*$)", whole))
    before = r"[-\u2212]" if sign == "-" else re.escape(sign)
    return before + places + re.escape(rest)


def _render(answer: _Answer, start: int, end: int) -> str:
    """Part of an answer as HTML, marks included."""
    parts = []
    for a, b, is_target in _cut(answer.found, start, end):
        inner = "".join(
            f"<{answer.tag}>{escape(answer.text[c:d])}</{answer.tag}>"
            if marked
            else escape(answer.text[c:d])
            for c, d, marked in _cut(answer.only, a, b)
        )
        parts.append(f"<mark>{inner}</mark>" if is_target else inner)
    return "".join(parts)


def _cut(spans: list[Span], start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The range start..end in pieces: (from, to, whether it is in a span)."""
    at = start
    for a, b in spans:
        first, last = max(a, at), min(b, end)
        if first >= last:
            continue
        if first > at:
            yield at, first, False
        yield first, last, True
        at = last
    if at < end:
        yield at, end, False


# ------------------------------------------------------------------------------------------------ HTML


def html(
    changes: pd.DataFrame,
    *,
    labels: Labels = ("baseline", "cell"),
    limit: int | None = 50,
    target: bool = True,
    clip: int = CLIP,
) -> str:
    """A table of answers side by side, as HTML without scripts or outside resources.

    Args:
        changes: As from `workbench.comparing.changes`, or some of its rows.
        labels: Names of the two cells; ``(None, name)`` shows the answers of the cell alone.
        limit: Most rows shown; None for all.
        target: Mark where the target occurs, and show it.
        clip: Characters of an answer (and of a question) shown at once; the rest opens with a click or a key.
    """
    rows = changes if limit is None else changes.head(limit)
    if rows.empty:
        return f'{STYLE}<div class="wb-answers"><p>No prompts to show.</p></div>'
    both = labels[0] is not None
    names = [escape(name) for name in labels if name is not None]
    columns = '<colgroup><col class="wb-about">' + "<col>" * len(names) + "</colgroup>"
    head = "".join(f'<th scope="col">{name}</th>' for name in ("prompt", *names))
    body = "".join(_row(r, both=both, target=target, clip=clip) for r in rows.to_dict("records"))
    rest = len(changes) - len(rows)
    notes = [f"{len(rows):,} of {len(changes):,} prompts shown."] if rest else []
    if "<del>" in body or "<ins>" in body:
        notes.append("Underlined: only this one of the two answers has it.")
    notes += ["Boxed: the target."] if "<mark>" in body else []
    return (
        f'{STYLE}<div class="wb-answers"><table>{columns}<thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table><p class="wb-small">{" ".join(notes)}</p></div>'
    )


def _row(row: dict[Any, Any], *, both: bool, target: bool, clip: int) -> str:
    old, new = str(row["baseline_text"]), str(row["text"])
    wanted = row["target"] if target else None
    only = word_difference(old, new) if both else ([], [])
    answers = [_Answer(new, "ins", only[1], occurrences(wanted, new))]
    facts = [_facts(row, "")]
    if both:
        answers.insert(0, _Answer(old, "del", only[0], occurrences(wanted, old)))
        facts.insert(0, _facts(row, "baseline_"))
    cells = "".join(
        f'<td><div class="wb-text" dir="auto">{_clipped(answer, clip) or _nothing()}</div>{fact}</td>'
        for answer, fact in zip(answers, facts, strict=True)
    )
    return f"<tr><td>{_about(row, both=both, target=target, clip=clip)}</td>{cells}</tr>"


def _about(row: dict[Any, Any], *, both: bool, target: bool, clip: int) -> str:
    """The first column: which prompt, what was asked, what happened."""
    kind = row["change"]
    score = f"score {_score(row['score'])}"
    if both:
        score = f"{SIGNS[kind]} {kind}: {_score(row['baseline_score'])} → {_score(row['score'])}"
    asked = _asked(row, both=both, clip=min(clip, 300))
    name = f'<span class="wb-id">{escape(str(row["prompt_id"]))}</span>'
    lines = [
        f'<div class="wb-{kind if both else "same"}">{name}<br><span class="wb-small">{score}</span></div>',
        asked,
    ]
    if target and pd.notna(row["target"]):
        lines.append(
            f'<div class="wb-small wb-text" dir="auto">target: {escape(str(row["target"])[:clip])}</div>'
        )
    return "".join(lines)


def _asked(row: dict[Any, Any], *, both: bool, clip: int) -> str:
    """The question; where the two cells word it in two ways, both."""
    asked = {"": str(row["question"])}
    if both and pd.notna(row.get("baseline_question")):
        asked = {
            "asked of the baseline:": str(row["baseline_question"]),
            "asked of the cell:": asked[""],
        }
    return "".join(
        (f'<div class="wb-small">{head}</div>' if head else "")
        + f'<div class="wb-text" dir="auto">{_clipped(_Answer(said, "", [], []), clip)}</div>'
        for head, said in asked.items()
    )


def _clipped(answer: _Answer, clip: int) -> str:
    n = len(answer.text)
    if n <= 1.2 * clip:
        return _render(answer, 0, n)
    inside = ", the target among them" if any(b > clip for _, b in answer.found) else ""
    return (
        f"{_render(answer, 0, clip)}…<details><summary>{n - clip:,} more characters{inside}</summary>"
        f"{_render(answer, clip, n)}</details>"
    )


def _nothing() -> str:
    return '<span class="wb-small">(empty)</span>'


def _facts(row: dict[Any, Any], side: str) -> str:
    """Under an answer: its length, and what else is worth knowing."""
    tokens, shown = row[f"{side}tokens"], row.get(f"{side}shown_score")
    facts = []
    if pd.notna(tokens):
        facts.append(f"{tokens:g} tokens" if tokens % 1 == 0 else f"{tokens:.1f} tokens on average")
    if pd.notna(shown) and abs(shown - row[f"{side}score"]) > 1e-9:
        facts.append(f"this answer scores {_score(shown)}")
    if row[f"{side}finish"] == "length":
        facts.append("cut off at max_tokens")
    return f'<div class="wb-small">{" · ".join(facts)}</div>'


def _score(value: float) -> str:
    return "no score" if pd.isna(value) else f"{value:.2f}".rstrip("0").rstrip(".")


# --------------------------------------------------------------------------------- Markdown and terminals


def text(
    changes: pd.DataFrame,
    *,
    labels: Labels = ("baseline", "cell"),
    limit: int | None = 50,
    target: bool = True,
    clip: int = CLIP,
) -> str:
    """The same as Markdown that reads well in a terminal too: lines of the baseline begin with -, of the cell with +.

    Args:
        changes: As for `html`.
        labels: As for `html`.
        limit: As for `html`.
        target: Show the target.
        clip: Characters of an answer shown.
    """
    rows = changes if limit is None else changes.head(limit)
    if rows.empty:
        return "No prompts to show.\n"
    both = labels[0] is not None
    legend = [f"`-` {_code(labels[0])}, `+` {_code(labels[1])}"] if labels[0] is not None else []
    blocks = [*legend]
    for row in rows.to_dict("records"):
        score = f"score {_score(row['score'])}"
        if both:
            score = f"{row['change']}: {_score(row['baseline_score'])} → {_score(row['score'])}"
        wanted = (
            f", target {_code(str(row['target']))}" if target and pd.notna(row["target"]) else ""
        )
        shown = [("  ", row["question"]), ("- ", row["baseline_text"]), ("+ ", row["text"])]
        if not both:
            del shown[1]
        elif pd.notna(row.get("baseline_question")):
            asked = f"asked of the baseline:\n{row['baseline_question']}"
            shown[0] = ("  ", f"asked of the cell:\n{row['question']}")
            shown.insert(0, ("  ", asked))
        body = "\n".join(_marked(sign, str(value), clip) for sign, value in shown)
        fence = _fence(body, 3)
        name = _code(str(row["prompt_id"]))
        blocks.append(f"**{name}** {score}{wanted}\n\n{fence}diff\n{body}\n{fence}")
    if len(changes) > len(rows):
        blocks.append(f"{len(rows):,} of {len(changes):,} prompts shown.")
    return "\n\n".join(blocks) + "\n"


def _marked(sign: str, value: str, clip: int) -> str:
    """A text with a sign before each line."""
    shown = visible(value[:clip]) or "(empty)"
    if len(value) > clip:
        shown += f"… ({len(value) - clip:,} more characters)"
    return "\n".join(f"{sign}{line}" for line in shown.split("\n"))


def _code(value: str) -> str:
    """A text as inline code, on one line."""
    line = visible(value).replace("\n", "␊").replace("\t", " ")
    fence = _fence(line, 1)
    gap = " " if line[:1] == "`" or line[-1:] == "`" or not line else ""
    return f"{fence}{gap}{line}{gap}{fence}"


def _fence(value: str, least: int) -> str:
    """More backticks in a row than the text has."""
    return "`" * max(least, 1 + max((len(run) for run in re.findall("`+", value)), default=0))
