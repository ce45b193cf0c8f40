"""What counts as the same question: words and arithmetic, not the way they are written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.training.questions import fingerprint

WORD = st.from_regex(r"[a-zäß]{1,6}|[0-9]{1,3}", fullmatch=True)
WORDS = st.lists(WORD.filter(lambda w: w != "x"), min_size=1, max_size=8)  # "2 x 3" is a product
SENTENCE = ".,;:!?\"'…«»“”¿"


def asks(text: str) -> str | None:
    """Fingerprint of one question."""
    return fingerprint([{"role": "user", "content": text}])


@given(WORDS, st.data())
def test_case_spaces_and_sentence_signs_do_not_count(words: list[str], data: st.DataObject) -> None:
    """However a question's words are written and set apart, it is the same question."""
    gap = st.text(alphabet=" \t\n" + SENTENCE, max_size=3).map(lambda s: f" {s} ")
    text = "".join(data.draw(st.sampled_from((w, w.upper()))) + data.draw(gap) for w in words)
    assert asks(text) == asks(" ".join(words))


@given(WORDS, WORDS)
def test_other_words_are_another_question(one: list[str], other: list[str]) -> None:
    """Two questions are the same only if their words are, in their order."""
    same = [w.casefold() for w in one] == [w.casefold() for w in other]
    assert (asks(" ".join(one)) == asks(" ".join(other))) == same


SUM = st.lists(st.integers(-99, 9999), min_size=2, max_size=4).flatmap(
    lambda terms: st.tuples(
        st.just(terms), st.lists(st.sampled_from("+-*/%"), min_size=3, max_size=3)
    )
)
FORMS = {"-": "-\u2212\u2013", "*": "*\u00d7\u22c5x", "/": "/\u00f7\u2215", "+": "+", "%": "%"}


def plain_sum(terms: list[int], signs: list[str]) -> str:
    """A sum in one form."""
    return str(terms[0]) + "".join(f" {s} {t}" for s, t in zip(signs, terms[1:], strict=False))


@given(SUM, SUM, st.data())
def test_sums_are_the_same_in_every_form(
    one: tuple[list[int], list[str]], other: tuple[list[int], list[str]], data: st.DataObject
) -> None:
    """However signs, spaces and thousands are written and the question is laid out; another sum is another question."""
    written = data.draw(st.sampled_from(("", "- ", "* ", "**", "`", "_", "\u200b")))
    for i, term in enumerate(one[0]):
        if i:
            forms = FORMS[one[1][i - 1]].replace("x", "x" if term >= 0 else "")  # 3 x -4 has an x
            sign = data.draw(st.sampled_from(forms))
            written += data.draw(st.sampled_from(("", " "))) + f"{sign} "
        written += data.draw(st.sampled_from((str(term), f"{term:,}", f"\u200b{term}")))
    assert asks(f"{written}**") == asks(plain_sum(*one))
    if plain_sum(*one) != plain_sum(*other):
        assert asks(plain_sum(*one)) != asks(plain_sum(*other))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is 3 + 4?", "what is 3+4", True),
        ("What is 3 \u2212 4?", "What is 3-4?", True),
        ("What is 3 + 4?", "What is 3 - 4?", False),
        ("What is 3 * 4?", "What is 3 / 4?", False),
        ("What is 3 % 4?", "What is 3 4?", False),
        ("What is 3 + 4?", "What is 4 + 3?", False),
        ("3.5 + 1", "35 + 1", False),
        ("**What is 3 + 4?**", "What is 3 + 4?", True),
        ("- What is 3+4?", "What is 3+4?", True),
        ("`What` is _3 + 4_", "What is 3 + 4?", True),
        ("What is 1,000 + 2?", "What is 1000 + 2?", True),
        ("1,000,000", "1\u202f000\u202f000", True),
        ("1, 200", "1200", False),
        ("1,20", "120", False),
        ("What is 3 \u2013 4?", "What is 3 - 4?", True),
        ("What is 3 \u00d7 4?", "What is 3*4?", True),
        ("What is 3 x 4?", "What is 3 * 4?", True),
        ("What is 3 \u00f7 4?", "What is 3/4?", True),
        ("a \u2212 b", "a-b", True),
        ("a - b", "a * b", False),
        ("Name a well-known city.", "Name a well known city", True),
        ("What's 3 + 4 \u2014 now?", "what's 3+4 - now", True),
        ("What\u200b is\ufeff 3 + 4?", "What is 3 + 4?", True),
        ("What is -4 + 3?", "What is 4 + 3?", False),
        ("(3) - 4", "(3) -4", True),
        ("3 - -4", "3 - 4", False),
        ("2 ** 3", "2 * 3", False),
        ("2 ^ 3", "2 3", False),
        ("3 < 4", "3 > 4", False),
        ("1 2", "12", False),
        ("\uff37hat?", "what", True),  # full width
        ("???", "!!!", False),
        ("???", "???", True),
        ("中国的首都是哪里\uff1f", "中国的首都是哪里", True),
    ],
)
def test_what_is_the_same_question(one: str, other: str, same: bool) -> None:
    """Signs of arithmetic count, other punctuation does not; a text of nothing else stands for itself."""
    assert (asks(one) == asks(other)) == same


def test_only_the_last_user_message_counts() -> None:
    """A system message, a worked example or the way a conversation began makes no other question."""
    plain = asks("What is 3 + 4?")
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "What is 3 + 4?"},
    ]
    assert fingerprint(talk) == plain
    assert fingerprint([*talk, {"role": "assistant", "content": "7"}]) == plain
    assert re.fullmatch("[0-9a-f]{32}", str(plain))


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "system", "content": "Hi"}],
        [{"role": "user", "content": "  "}],
        [{"role": "user", "content": None}],
    ],
)
def test_nothing_asked_has_no_fingerprint(messages: list[dict[str, object]]) -> None:
    """Where no user says anything, there is nothing to compare."""
    assert fingerprint(messages) is None


@given(SUM, st.data())
def test_a_sum_in_a_sentence_is_the_sum(
    one: tuple[list[int], list[str]], data: st.DataObject
) -> None:
    """Quotes, brackets around all of it, asides, bold type and the sentence's end make no other question."""
    text = plain_sum(*one)
    quote = data.draw(st.sampled_from(('"{}"', "({})", "[{}]", "**{}**", "“{}”", "**({})**")))
    end = data.draw(st.sampled_from(("", ".", "?", " !", " ?!", "...", " …", ":", ";")))
    ask = data.draw(st.sampled_from(("What is {}", "what is: {}", "(What is {}", "¿WHAT is, {}")))
    aside = data.draw(
        st.sampled_from((" please", ", please", " (please)", " - please", " [please]"))
    )
    assert asks(ask.format(quote.format(text)) + aside + end) == asks(f"What is {text} please")


@given(SUM, st.data())
def test_brackets_around_a_part_make_another_sum(
    one: tuple[list[int], list[str]], data: st.DataObject
) -> None:
    """A sum with a part of it in brackets is not the sum without, nor that with another part; their kind does not count."""
    terms, signs = [*map(abs, one[0]), 7], one[1]
    start = data.draw(st.integers(0, len(terms) - 2))
    ends = range(start + 1, len(terms) - (start == 0))
    end = data.draw(st.sampled_from(ends)) if ends else start
    pieces = [str(term) for term in terms]

    def bracketed(first: int, last: int, pair: str) -> str:
        parts = list(pieces)
        parts[first] = pair[0] + parts[first]
        parts[last] += pair[1]
        return parts[0] + "".join(
            f" {s} {t}" for s, t in zip([*signs, "+"], parts[1:], strict=False)
        )

    plain = bracketed(0, 0, "  ")
    text = bracketed(start, end, "()")
    assert asks(f"What is {text}?") != asks(f"What is {plain}?")
    assert asks(f"What is {text}?") == asks(f"what is {bracketed(start, end, '[]')}")
    if (start, end) != (0, 1):
        assert asks(text) != asks(bracketed(0, 1, "()"))


NUMBER = st.integers(0, 99)


@given(NUMBER, NUMBER)
def test_what_changes_a_number_makes_another_question(one: int, other: int) -> None:
    """Points, percent signs, factorials, powers, ratios and comparisons count: no two of these are the same."""
    texts = [
        f"{one} {other}",
        f"{one}.{other}",
        f"{one}% {other}",
        f"{one}! {other}",
        f"{one}^{other}",
        f"{one}:{other}",
        f"{one} != {other}",
        f"{one} = {other}",
        f"{one} <= {other}",
        f"{one} < {other}",
        f"{one} .{other}",
        f"{one} & {other}",
        f"{one} / {other}",
        f"{one} km * {other}",
        f"{one} km / {other}",
        f"{one}({other})",
        f"-({one} + {other})",
        f"-{one} + {other}",
        f"({one} + {other})!",
        f"{one} + {other}!",
        f"{one} + {other}",
    ]
    assert len({asks(f"What is {text} now?") for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is (3 + 4) * 2?", "What is 3 + 4 * 2?", False),
        ("What is (3 + 4) * 2?", "What is ( 3+4 )\u00d72", True),
        ("((3 + 4)) * 2", "(3 + 4) * 2", True),
        ("5 - (3 + 4)", "5 - 3 + 4", False),
        ("sqrt(16) + 9", "sqrt(16 + 9)", False),
        ("(3 apples + 4 pears) * 2", "3 apples + 4 pears * 2", False),
        ("2^{3+4}", "2^3+4", False),
        ("What is 3 (three) + 4?", "What is 3 three + 4", True),
        ("What is 3 + 4 (answer in 3 words)?", "What is 3 + 4? Answer in 3 words.", True),
        (".5 + 1", "5 + 1", False),
        (".5 + 1", "0.5 + 1", True),
        ("Wait... 5 + 1", "Wait: 5 + 1", True),
        ("3.5 + 1", "3 5 + 1", False),
        ("3 != 4", "3 = 4", False),
        ("3 != 4", "3 \u2260 4", True),
        ("5!", "5", False),
        ("5 !", "5?", True),
        ("Say hello!", "Say hello.", True),
        ("10% of 50", "10 of 50", False),
        ("10 % of 50", "10% of 50", True),
        ("3\u00b2", "32", False),
        ("3\u00b2", "3^2", True),
        ("2\u00bd", "21/2", False),
        ("What is 3 * \u221a16?", "What is 3 / \u221a16?", False),
        ("$5 - $3", "$5 / $3", False),
        ("-x + 3", "x + 3", False),
        ("5! - 3", "5! * 3", False),
        ("What is **3** * **4**?", "What is 3 * 4?", True),
        ("1) What is 3 + 4?", "1. What is 3 + 4?", True),
        ("and/or", "and / or", True),
    ],
)
def test_what_changes_a_sum(one: str, other: str, same: bool) -> None:
    """Brackets, points and signs that change the meaning of arithmetic count, as punctuation they do not."""
    assert (asks(one) == asks(other)) == same
