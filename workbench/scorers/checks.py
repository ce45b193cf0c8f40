"""Checks of the instruction scorer: rules about an answer that a program can decide.

A check is ``{"check": name, ...arguments}``. The names are those of ``CHECKS``; besides, ``min_``, ``max_`` and ``exact_``
before words, sentences, lines, paragraphs, characters, bullets, numbered, sections, highlights and placeholders take ``n``;
bullets and sections also ``marker``: every one must have it.
The idea of instructions that need no judge is that of IFEval (Zhou et al. 2023, "Instruction-Following Evaluation for Large
Language Models"); the rules here are our own where that paper's are loose.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from workbench.errors import unknown
from workbench.prompts.checkrows import strict_json
from workbench.scorers.base import is_whole
from workbench.scorers.counts import COUNTS, lines, words
from workbench.scorers.languages import MAIN, likeliest
from workbench.scorers.texts import normal, whole_word

Args = Mapping[str, Any]
Verdict = tuple[bool, str]
Rule = Callable[[str, Args], Verdict]
"""Takes an answer and a check's arguments, gives whether it is met and what was seen."""


class Check(NamedTuple):
    """A rule and its arguments.

    Attributes:
        rule: Decides it.
        needs: Arguments that must be given, by name, with what they may be.
        takes: Arguments that may be given.
    """

    rule: Rule
    needs: Mapping[str, str] = {}
    takes: Mapping[str, str] = {}


_KINDS: Final[dict[str, Callable[[Any], bool]]] = {
    "a whole number at least 0": lambda v: is_whole(v) and v >= 0,
    "a text": lambda v: isinstance(v, str) and bool(v.strip()),
    "one letter": lambda v: isinstance(v, str) and len(v) == 1 and v.isalpha(),
    "a list of texts": lambda v: (
        isinstance(v, list | tuple)
        and len(v) > 0
        and all(isinstance(w, str) and w.strip() for w in v)
    ),
    f"one of {', '.join(MAIN)}": lambda v: v in MAIN,
    "true or false": lambda v: isinstance(v, bool),
}
_WHOLE: Final = "a whole number at least 0"
_TEXT: Final = "a text"
_TEXTS: Final = "a list of texts"
_FLAG: Final = "true or false"
_LIMITS: Final = {"n": _WHOLE, "min": _WHOLE, "max": _WHOLE}

_BULLET: Final = re.compile(r"^[^\S\n]*(?![-*_ \t]+$)([-*+\u2022])[^\S\n]+\S", re.MULTILINE)
_NUMBERED: Final = re.compile(r"^[^\S\n]*\d{1,4}[.)][^\S\n]+\S", re.MULTILINE)
_SECTION: Final = re.compile(r"^[^\S\n]{0,3}(#{1,6})[^\S\n]+\S", re.MULTILINE)
_HIGHLIGHT: Final = re.compile(
    r"\*\*[^\s*][^*\n]*\*\*|(?<![\w*])\*[^\s*](?:[^*\n]*[^\s*])?\*(?![\w*])"
)
_BOLD: Final = re.compile(r"(\*\*|__)(?=\S)([^\n]+?)(?<=\S)\1")
_TITLE: Final = re.compile(r"[\s#*_]*<<[^<>\n]*\w[^<>\n]*>>[^\S\n*_]*[*_]*[^\S\n]*(?:\n|\Z)")
_PLACEHOLDER: Final = re.compile(r"\[[^\[\]\n]+\](?!\()")
_FENCED: Final = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
_SMALL: Final = frozenset(
    (
        *("a", "an", "the", "and", "or", "but", "nor", "of", "in", "on", "at", "to", "by"),
        *("for", "from", "with", "as", "is", "vs"),
    )
)
_QUOTES: Final = {'"': '"', "\u201c": "\u201d", "\u00ab": "\u00bb", "\u201e": "\u201c"}

COUNTED: Final[dict[str, Callable[[str], int]]] = {
    **COUNTS,
    "bullets": lambda text: len(_BULLET.findall(text)),
    "numbered": lambda text: len(_NUMBERED.findall(text)),
    "sections": lambda text: len(_SECTION.findall(text)),
    "highlights": lambda text: len(_HIGHLIGHT.findall(text)),
    "placeholders": lambda text: len(_PLACEHOLDER.findall(text)),
}
_MARKED: Final = {"bullets": _BULLET, "sections": _SECTION}
"""What is counted with a marker that may be asked for."""


def _counted(kind: str, limit: str) -> Rule:
    def rule(text: str, args: Args) -> Verdict:
        n = COUNTED[kind](text)
        if "marker" in args:
            other = set(_MARKED[kind].findall(text)) - {args["marker"]}
            if other:
                return False, f"{kind} marked {' and '.join(sorted(other))}"
        return _within(n, {"n" if limit == "exact" else limit: args["n"]}), f"{n} {kind}"

    return rule


def _within(n: int, args: Args) -> bool:
    if "n" in args and n != args["n"]:
        return False
    return bool(args.get("min", 0) <= n <= args.get("max", n))


def _times(text: str, word: str) -> int:
    return len(re.findall(whole_word(normal(word)), normal(text)))


def _include(text: str, args: Args) -> Verdict:
    missing = [word for word in args["words"] if _times(text, word) < args.get("n", 1)]
    return not missing, f"lacks {', '.join(missing[:3])}"


def _forbid(text: str, args: Args) -> Verdict:
    found = [word for word in args["words"] if _times(text, word)]
    return not found, f"has {', '.join(found[:3])}"


def _word_count(text: str, args: Args) -> Verdict:
    n = _times(text, args["word"])
    return _within(n, _limits(args)), f"{args['word']!r} {n} times"


def _letter_count(text: str, args: Args) -> Verdict:
    n = text.casefold().count(args["letter"].casefold())
    return _within(n, _limits(args)), f"{args['letter']!r} {n} times"


def _capital_words(text: str, args: Args) -> Verdict:
    n = sum(1 for word in words(text) if word.isupper() and len(word) > 1)  # not "I" and "A"
    return _within(n, _limits(args)), f"{n} words in capitals"


def _bold_words(text: str, args: Args) -> Verdict:
    n = sum(len(words(match[2])) for match in _BOLD.finditer(text))
    return _within(n, _limits(args)), f"{n} words in bold"


def _limits(args: Args) -> Args:
    given = {key: args[key] for key in _LIMITS if key in args}
    return given or {"min": 1}


def _upper(text: str, args: Args) -> Verdict:  # noqa: ARG001 - every rule takes both
    return text.isupper(), "small letters" if text != text.upper() else "no letters"


def _lower(text: str, args: Args) -> Verdict:  # noqa: ARG001 - as above
    return text.islower(), "capital letters" if text != text.lower() else "no letters"


def _title(text: str, args: Args) -> Verdict:
    found = [word for word in words(text) if word[0].isalpha()]
    low = [
        word
        for n, word in enumerate(found)
        if word[0].islower() and (n == 0 or args.get("every") or word.lower() not in _SMALL)
    ]
    return bool(found) and not low, f"small: {', '.join(low[:3])}" if low else "no words"


def _starts(text: str, args: Args) -> Verdict:
    wanted, answer = _compared(text, args)
    after = r"(?!\w)" if wanted[-1].isalnum() and wanted[-1] < "\u2e80" else ""
    ok = re.match(re.escape(wanted) + after, answer) is not None
    return ok, f"starts {text.strip()[:30]!r}"


def _ends(text: str, args: Args) -> Verdict:
    wanted, answer = _compared(text, args)
    before = answer[: -len(wanted)][-1:]
    inside = before.isalnum() and wanted[0].isalnum() and wanted[0] < "\u2e80"
    return answer.endswith(wanted) and not inside, f"ends {text.strip()[-30:]!r}"


def _compared(text: str, args: Args) -> tuple[str, str]:
    """The text that is wanted and the answer, in one form."""
    ignore_case = not args.get("match_case", False)
    return normal(args["text"], ignore_case=ignore_case), normal(text, ignore_case=ignore_case)


def _one_of(text: str, args: Args) -> Verdict:
    options = [normal(option) for option in args["options"]]
    answer = normal(text)
    ok = answer in options or answer.rstrip(".!") in options
    return ok, f"says {text.strip()[:30]!r}"


def unfenced(text: str) -> str:
    """What stands in the code fence if the text is nothing but one, else the text, trimmed."""
    match = _FENCED.fullmatch(text.strip())
    return (match[1] if match else text).strip()


def _json(text: str, args: Args) -> Verdict:
    try:
        value = strict_json(unfenced(text))
    except ValueError as error:
        return False, str(error)
    missing = [
        key for key in args.get("keys", ()) if not isinstance(value, dict) or key not in value
    ]
    return not missing, f"lacks {', '.join(missing[:3])}"


def _csv(text: str, args: Args) -> Verdict:
    try:
        rows = [row for row in csv.reader(unfenced(text).splitlines(), strict=True) if row]
    except csv.Error as error:
        return False, f"not CSV: {error}"
    widths = {len(row) for row in rows}
    if len(rows) < 2 or len(widths) != 1 or widths == {1}:
        return (
            False,
            f"{len(rows)} rows of {' or '.join(map(str, sorted(widths)[:3])) or 0} columns",
        )
    header = args.get("columns")
    ok = header is None or [normal(cell) for cell in rows[0]] == [normal(cell) for cell in header]
    seen = f"columns {', '.join(rows[0][:5])}"
    if ok and "rows" in args:
        return len(rows) - 1 == args["rows"], f"{len(rows) - 1} rows below the header"
    return ok, seen


def _numbered(text: str, args: Args) -> Verdict:
    numbers = [int(re.match(r"\s*(\d+)", m[0])[1]) for m in _NUMBERED.finditer(text)]  # type: ignore[index]
    counts = numbers == list(range(1, len(numbers) + 1))
    ok = (
        bool(numbers)
        and counts
        and _within(len(numbers), {k: args[k] for k in _LIMITS if k in args})
    )
    return ok, f"items numbered {', '.join(map(str, numbers[:6]))}" if numbers else "no items"


def _no_commas(text: str, args: Args) -> Verdict:  # noqa: ARG001 - as above
    n = sum(text.count(comma) for comma in ",\uff0c\u060c\u3001")
    return n == 0, f"{n} commas"


def _no_digits(text: str, args: Args) -> Verdict:  # noqa: ARG001 - as above
    n = sum(1 for character in text if character.isdigit())
    return n == 0, f"{n} digits"


def _quoted(text: str, args: Args) -> Verdict:  # noqa: ARG001 - as above
    text = text.strip()
    ok = len(text) > 2 and _QUOTES.get(text[0]) == text[-1]
    return ok, f"from {text[:1]!r} to {text[-1:]!r}"


def _wrapped_title(text: str, args: Args) -> Verdict:
    if args.get("first"):
        return _TITLE.match(text) is not None, f"starts {text.strip()[:30]!r}"
    return re.search(r"<<[^<>\n]*\w[^<>\n]*>>", text) is not None, "no <<title>>"


def _postscript(text: str, args: Args) -> Verdict:
    marker = args.get("marker", "P.S.")
    letters = r"\s?".join(re.escape(c) + r"\.?" for c in marker if c.isalnum())
    if args.get("last"):
        text = ["", *lines(text)][-1]
    found = re.search(rf"^[\s*_]*{letters}[:*_]*\s*\S", text, re.MULTILINE | re.IGNORECASE)
    where = " in the last line" if args.get("last") else ""
    return found is not None, f"no {marker}{where}"


def _language(text: str, args: Args) -> Verdict:
    code = likeliest(text)
    return code == args["code"], f"language {code}"


def _repeat(text: str, args: Args) -> Verdict:
    return normal(text).startswith(normal(args["text"])), f"starts {text.strip()[:30]!r}"


CHECKS: Final[dict[str, Check]] = {
    **{
        f"{limit}_{kind}": Check(
            _counted(kind, limit), {"n": _WHOLE}, {"marker": _TEXT} if kind in _MARKED else {}
        )
        for kind in COUNTED
        for limit in ("min", "max", "exact")
    },
    "include": Check(_include, {"words": _TEXTS}, {"n": _WHOLE}),
    "forbid": Check(_forbid, {"words": _TEXTS}),
    "word_count": Check(_word_count, {"word": _TEXT}, _LIMITS),
    "letter_count": Check(_letter_count, {"letter": "one letter"}, _LIMITS),
    "capital_words": Check(_capital_words, {}, _LIMITS),
    "bold_words": Check(_bold_words, {}, _LIMITS),
    "upper_case": Check(_upper),
    "lower_case": Check(_lower),
    "title_case": Check(_title, {}, {"every": _FLAG}),
    "starts_with": Check(_starts, {"text": _TEXT}, {"match_case": _FLAG}),
    "ends_with": Check(_ends, {"text": _TEXT}, {"match_case": _FLAG}),
    "one_of": Check(_one_of, {"options": _TEXTS}),
    "json": Check(_json, {}, {"keys": _TEXTS}),
    "csv": Check(_csv, {}, {"columns": _TEXTS, "rows": _WHOLE}),
    "numbered_list": Check(_numbered, {}, _LIMITS),
    "no_commas": Check(_no_commas),
    "no_digits": Check(_no_digits),
    "quoted": Check(_quoted),
    "wrapped_title": Check(_wrapped_title, {}, {"first": _FLAG}),
    "postscript": Check(_postscript, {}, {"marker": _TEXT, "last": _FLAG}),
    "language": Check(_language, {"code": f"one of {', '.join(MAIN)}"}),
    "repeat_prompt": Check(_repeat, {}, {"text": _TEXT}),
}
"""All checks by name; ``repeat_prompt`` without a text means the user's last message."""


def problem(instruction: Any) -> str | None:
    """What is wrong with an instruction as a target gives it, or None.

    >>> problem({"check": "max_word", "n": 3})
    "unknown check 'max_word', did you mean 'max_words'?"
    """
    if not isinstance(instruction, Mapping) or not isinstance(instruction.get("check"), str):
        return f"an instruction is {{check: name, ...}}, got {instruction!r}"[:200]
    name = instruction["check"]
    if name not in CHECKS:
        return unknown("check", name, CHECKS)
    check = CHECKS[name]
    known = {**check.needs, **check.takes}
    missing = [arg for arg in check.needs if arg not in instruction]
    if missing:
        return f"check {name}: needs {', '.join(missing)}"
    for arg, value in instruction.items():
        if arg == "check":
            continue
        if arg not in known:
            return f"check {name}: " + (
                unknown("argument", arg, known) if known else "it takes no arguments"
            )
        if not _KINDS[known[arg]](value):
            return f"check {name}: {arg} must be {known[arg]}, got {value!r}"[:200]
    return None


def run(instruction: Args, text: str, question: str | None) -> Verdict:
    """Whether an answer meets an instruction, and what was seen."""
    args = {key: value for key, value in instruction.items() if key != "check"}
    if instruction["check"] == "repeat_prompt":
        args.setdefault("text", question or "")
    return CHECKS[instruction["check"]].rule(text, args)
