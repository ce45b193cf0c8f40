"""Answers shown: nothing a model writes acts, hides or escapes, and the marks are where they should be."""

from __future__ import annotations

import re
import unicodedata
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
from browser import chromium, errors, show
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import answers

NASTY = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(
            "<>&\"'`~-+ \n\t\r\x1b\x00\x7f\x85\u202e\u2066\u200b\u200d\ufeff\u2028\u00ad"
        ),
    ),
    max_size=60,
)
STORED = NASTY.map(lambda text: text.encode(errors="replace").decode())
"""As the run record keeps it: no half pairs."""
WORDS = st.lists(st.sampled_from(["one", "two", "six", ".", "5"]), max_size=14).map(" ".join)
ALLOWED = {
    "style", "div", "table", "colgroup", "col", "thead", "tbody", "tr", "th", "td", "span", "br", "p",
    "mark", "del", "ins", "details", "summary",
}  # fmt: skip


class Page(HTMLParser):
    """Reads HTML: its elements with their attributes, and the text of each ``wb-text``."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self._inside: list[bool] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the element."""
        about = dict(attrs)
        self.seen.append((tag, about))
        if tag in ("col", "br"):
            return
        if "wb-text" in (about.get("class") or "").split():
            self.texts.append("")
            self._inside.append(True)
        else:
            self._inside.append(bool(self._inside and self._inside[-1]) and tag != "summary")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Elements are closed in turn."""
        assert self._open.pop() == tag
        self._inside.pop()

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        if self._inside and self._inside[-1]:
            self.texts[-1] += data


def rows(*pairs: tuple[str, str], **columns: Any) -> pd.DataFrame:
    """Changes with these pairs of answers."""
    n = len(pairs)
    plain = {
        "prompt_id": [f"p{i}" for i in range(n)],
        "baseline_score": 0.0,
        "score": 1.0,
        "diff": 1.0,
        "change": "better",
        "baseline_text": [a for a, _ in pairs],
        "text": [b for _, b in pairs],
        "question": "What is 2 + 3?",
        "target": None,
        "baseline_tokens": 7.0,
        "tokens": 8.5,
        "baseline_finish": "stop",
        "finish": "length",
        "baseline_shown_score": 0.0,
        "shown_score": 1.0,
    }
    return pd.DataFrame(plain | columns)


def marked(page: str, tag: str) -> list[str]:
    """The texts inside elements of a kind."""
    return [re.sub("<[^>]*>", "", m) for m in re.findall(f"<{tag}>(.*?)</{tag}>", page)]


# Harmless


@given(NASTY)
def test_visible_text_has_nothing_hidden(text):
    """What is left is printable: no control or format characters but line ends, tabs, marks with a shape and single joiners."""
    shown = answers.visible(text)
    kinds = {unicodedata.category(c) for c in shown} - {"Cn", "Co"}
    assert kinds.isdisjoint({"Cs", "Zl", "Zp"})
    assert not re.search(r"[\s!-~\u200c\u200d][\u200c\u200d]|[\u200c\u200d]([\s!-~]|$)", shown)
    odd = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf")} - {"\u200c", "\u200d"}
    assert all(
        c in "\n\t" or unicodedata.name(c).startswith(("ARABIC", "SYRIAC", "KAITHI")) for c in odd
    )
    assert answers.visible(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 漢字, 🎈\n\ttab", "plain, é, 漢字, 🎈\n\ttab"),
        ("\x1b[2J", "⟨U+001B⟩[2J"),
        ("a\r\nb", "a⟨U+000D⟩\nb"),
        ("\u202eevil\u202c \u2066x\u2069", "⟨U+202E⟩evil⟨U+202C⟩ ⟨U+2066⟩x⟨U+2069⟩"),
        ("zero\u200bwidth\ufeff\u2060", "zero⟨U+200B⟩width⟨U+FEFF⟩⟨U+2060⟩"),
        ("soft\u00adhyphen \U000e0041 \u3164", "soft⟨U+00AD⟩hyphen ⟨U+E0041⟩ ⟨U+3164⟩"),
        ("half \ud83d pair", "half ⟨U+D83D⟩ pair"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # noqa: RUF001
        ("क्\u200dष", "क्\u200dष"),
        ("👩🏽\u200d💻 🏳\ufe0f\u200d🌈", "👩🏽\u200d💻 🏳\ufe0f\u200d🌈"),
        ("a\u200db c\u200c", "a⟨U+200D⟩b c⟨U+200C⟩"),
        ("می\u200c\u200cخ \u200d👩", "می⟨U+200C⟩⟨U+200C⟩خ ⟨U+200D⟩👩"),
    ],
)
def test_hidden_characters_are_named(text, shown):
    """Ordinary text stays; what hides, moves or colours shows its code point."""
    assert answers.visible(text) == shown


@settings(max_examples=100, deadline=None)
@given(STORED, STORED, STORED, st.integers(1, 30))
def test_html_shows_every_character_and_does_nothing(old, new, other, clip):
    """Only known elements come out, closed in order, none with a handler or an address; the texts are all there."""
    table = rows((old, new), question=other, target=other, prompt_id=other)
    page = Page(answers.html(table, labels=(other, new), clip=clip))
    assert {tag for tag, _ in page.seen} <= ALLOWED
    assert {name for _, about in page.seen for name in about} <= {"class", "dir", "scope", "title"}
    whole = [
        text.replace("…", "", 1) if "…" not in source else text
        for text, source in zip(
            page.texts, (other, f"target: {other[:clip]}", old, new), strict=True
        )
    ]
    expected = [
        answers.visible(t)
        for t in (other, f"target: {other[:clip]}", old or "(empty)", new or "(empty)")
    ]
    if not any("…" in t for t in (old, new, other)):
        assert whole == expected


@settings(max_examples=100, deadline=None)
@given(STORED, STORED, STORED)
def test_markdown_keeps_answers_in_their_block(old, new, other):
    """As many lines begin like a fence as fences were opened and closed: one block a row, whatever is in it."""
    table = rows((old, new), question=other, target=other, prompt_id=other)
    text = answers.text(table, labels=(other, new))
    body = text.split("```", 1)[1] if "```" in text else ""
    assert "\x1b" not in text
    (fence,) = re.findall(r"^(`{3,})diff$", text, re.MULTILINE)
    ends = re.findall(rf"^ {{0,3}}{fence}`*\s*$", text, re.MULTILINE)
    assert len(ends) == 1
    inside = text.split(f"{fence}diff\n", 1)[1].split(f"\n{fence}\n", 1)[0]
    assert all(line[:2] in ("  ", "- ", "+ ") for line in inside.split("\n"))
    assert body


def test_nothing_runs_in_a_browser():
    """Scripts, handlers, styles and closing tags in answers, questions, ids and names are shown, not run."""
    attack = (
        "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
        "</div></td></table><style>body{display:none}</style>\" onclick=\"document.title='ran'"
    )
    table = rows((attack, attack + " more"), question=attack, target=attack, prompt_id=attack)
    page = f"<!doctype html><meta charset=utf-8><title>quiet</title>{answers.html(table, labels=(attack, attack))}<p id=end>end"
    with chromium() as driver:
        show(driver, page)
        assert driver.title == "quiet"
        assert driver.find_element("id", "end").is_displayed()
        assert attack in driver.find_element("class name", "wb-answers").text.replace("\n", "")
        assert driver.find_elements("css selector", "img, script, .wb-answers style") == []
        assert errors(driver) == []


# Marks


@given(WORDS, WORDS)
def test_what_is_not_marked_is_common(old, new):
    """Without the marked words both answers are the same words, and marks are of whole words, in order, apart."""
    spans = answers.word_difference(old, new)
    rest = []
    for text, marks in zip((old, new), spans, strict=True):
        assert all(end < start for (_, end), (start, _) in pairwise(marks))
        kept = [
            w
            for w in re.finditer(r"\w+|[^\w\s]", text)
            if not any(a <= w.start() < b for a, b in marks)
        ]
        assert all(text[a:b].strip() == text[a:b] != "" for a, b in marks)
        rest.append([w.group() for w in kept])
    if spans != ([], []):
        assert rest[0] == rest[1]
    elif old != new:
        words = [re.findall(r"\w+|[^\w\s]", t) for t in (old, new)]
        assert words[0] == words[1] or max(map(len, words)) > 8


@pytest.mark.parametrize(
    ("old", "new", "marks"),
    [
        ("中国的首都是北京。", "中国的首都是上海。", (["北京"], ["上海"])),
        ("答えは東京です", "答えは大阪です", (["東京"], ["大阪"])),
        ("می\u200cخواهم بروم", "می\u200cخواهد بروم", (["می\u200cخواهم"], ["می\u200cخواهد"])),  # noqa: RUF001
        ("I am a 👩\u200d💻 here", "I am a 👨\u200d💻 here", (["👩\u200d💻"], ["👨\u200d💻"])),
        ("cafe\u0301 noir", "cafe noir", (["cafe\u0301"], ["cafe"])),
    ],
    ids=["Chinese", "Japanese", "Persian", "emoji", "accent"],
)
def test_differences_in_other_scripts(old, new, marks):
    """Single characters where words have no spaces between; joiners, accents and emoji are never cut apart."""
    spans = answers.word_difference(old, new)
    found = tuple([t[a:b] for a, b in s] for t, s in zip((old, new), spans, strict=True))
    assert found == marks


def test_both_wordings_of_a_question():
    """Where the baseline was asked in other words, both are there; alone, the cell's."""
    table = rows(("a", "b"), baseline_question="Sum of 2 and 3, <b>please</b>?")
    page = answers.html(table)
    assert "asked of the baseline:" in page
    assert "Sum of 2 and 3, &lt;b&gt;please&lt;/b&gt;?" in page
    assert page.index("please") < page.index("asked of the cell:") < page.index("What is 2 + 3?")
    text = answers.text(table)
    assert (
        "  asked of the baseline:\n  Sum of 2 and 3, <b>please</b>?\n  asked of the cell:\n  What"
        in text
    )
    alone = answers.html(table, labels=(None, "b")) + answers.text(table, labels=(None, "b"))
    assert "asked of" not in alone
    assert "What is 2 + 3?" in alone


def test_words_of_one_answer_are_marked():
    """Words only the baseline has are deleted ones, words only the cell has inserted ones."""
    page = answers.html(rows(("The sum is 6.", "The sum, then, is 5.")))
    assert marked(page, "del") == ["6"]
    assert marked(page, "ins") == [", then,", "5"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("same", "same"), ("a b c d e f g h i", "j k l m n o p q r"), ("x " * 30_000, "y")],
    ids=["equal", "nothing common", "too long"],
)
def test_nothing_is_marked_where_marks_would_not_help(old, new):
    """Equal answers, answers without common words, and very long ones have no marks."""
    assert answers.word_difference(old, new) == ([], [])


@pytest.mark.parametrize(
    ("target", "text", "found"),
    [
        ("Paris", "PARIS, paris; Parisian", ["PARIS", "paris"]),
        ("12", "12, 112, 12.5 and 12", ["12", "12"]),
        ("5", "0.5, 5.5, -5, 1,5, 5,000; 5. (5) 3-5 答えは5です", ["5", "5", "5", "5"]),
        ("500", "1,500 or 500", ["500"]),
        ("-5", "-5, 5, \u22125", ["-5", "\u22125"]),
        ("3.5", "13.5, 3.55, 3.5.", ["3.5"]),
        ("北京", "中国的首都是北京。", ["北京"]),
        ("東京", "答えは東京です", ["東京"]),
        ("1234567", "1,234,567 or 1234567", ["1,234,567", "1234567"]),
        ("a", "a b A", ["a"]),
        ('["one", 2]', "two 2 One", ["2", "One"]),
        ('{"name": "Ann", "age": 30}', "Ann is 30.", ["Ann", "30"]),
        ("[not json", "this is [not json at all", ["[not json"]),
        ("C++ (x)", "c++ (x)", ["c++ (x)"]),
        (None, "nothing", []),
        (float("nan"), "nan", []),
        ("", "nothing", []),
    ],
)
def test_where_the_target_occurs(target, text, found):
    """Whole words, any case but for single letters, thousands separators allowed, values of lists and objects."""
    assert [text[a:b] for a, b in answers.occurrences(target, text)] == found


def test_the_target_is_boxed_in_both_answers():
    """Where difference and target meet, both marks are there."""
    page = answers.html(rows(("It is 6, not 5.", "It is 5.")), labels=("a", "b"))
    assert marked(page, "mark") == []
    page = answers.html(rows(("It is 6, not 5.", "It is 5."), target="5"))
    assert marked(page, "mark") == ["5", "5"]
    assert "target: 5" in page
    assert "target: 5" not in answers.html(rows(("It is 5.", "It is 5."), target="5"), target=False)


# What is shown


def test_long_answers_open():
    """The rest of a long answer is in the page, closed, and says if the target is in it."""
    page = answers.html(rows(("a " * 50, "b " * 50 + "5"), target="5"), clip=20)
    assert "<summary>80 more characters</summary>" in page
    assert "<summary>81 more characters, the target among them</summary>" in page
    assert page.count("b ") >= 50


def test_the_facts_of_an_answer():
    """Scores with their change, tokens, cut-off, and the score of the answer shown where it is not the mean."""
    table = rows(
        ("x", ""), score=0.5, baseline_score=float("nan"), change="unscored", shown_score=1.0
    )
    page = answers.html(table)
    assert "? unscored: no score → 0.5" in page
    assert "7 tokens</div>" in page
    assert "8.5 tokens on average · this answer scores 1 · cut off at max_tokens" in page
    assert "(empty)" in page


def test_rows_left_out_are_counted():
    """A limit shows that many rows and says of how many; without rows that is said too."""
    table = rows(*[("a", "b")] * 5)
    assert "2 of 5 prompts shown." in answers.html(table, limit=2)
    assert answers.text(table, limit=2).endswith("2 of 5 prompts shown.\n")
    assert answers.html(table, limit=None).count("<tr>") == 6
    assert "No prompts to show." in answers.html(table.head(0))
    assert answers.text(table.head(0)) == "No prompts to show.\n"


def test_a_cell_alone():
    """Without a name for the baseline only the cell's answers are there."""
    table = rows(("old", "new"))
    page = answers.html(table, labels=(None, "b"))
    assert "old" not in page
    assert "score 1" in page
    assert "old" not in answers.text(table, labels=(None, "b"))


def test_as_markdown():
    """The text form, whole."""
    table = rows(("It is 6.", "It is `5`.\n```\nyes"), target="5")
    assert answers.text(table, labels=("a`b", "c")) == (
        "`-` ``a`b``, `+` `c`\n\n"
        "**`p0`** better: 0 → 1, target `5`\n\n"
        "````diff\n  What is 2 + 3?\n- It is 6.\n+ It is `5`.\n+ ```\n+ yes\n````\n"
    )
