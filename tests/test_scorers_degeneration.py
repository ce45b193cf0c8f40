"""Signs of degeneration: loops, repeated passages, language switches, agreement over repeats, and the scorer."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.prompts import Prompt
from workbench.records import Generation
from workbench.scorers import degeneration, get_scorer, languages, score_generation
from workbench.scorers.degeneration import agreement, has_loop, signs

CASES = json.loads(
    (Path(__file__).parent / "data" / "scorer_cases_languages.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", CASES, ids=[f"{n}: {c['why']}" for n, c in enumerate(CASES)])
def test_language_switches(case):
    """A switched answer is seen, an answer with names, code or quotations is not taken for one."""
    found = languages.language_switch(case["text"], case["question"])
    assert found is case["expected"]
    assert signs(case["text"], prompt_text=case["question"]).language_switch is found


def test_every_small_word_is_one_word():
    """The table of small words can be met by the words a text is split into."""
    for code, words in languages.SMALL_WORDS.items():
        assert code in languages.MAIN
        assert all(languages._WORD.fullmatch(word) for word in words.split())


def test_no_model_is_loaded_for_plain_answers(monkeypatch):
    """Answers in the language of the question are judged without the model of py3langid."""
    monkeypatch.setattr(languages, "_model", None)
    text = "The capital of France is Paris, and it lies on the river that is called Seine."
    assert languages.language_switch(text, "What is the capital of France?") is False


def test_identify_says_nothing_when_unsure():
    """Numbers have no language; a sentence has."""
    assert languages.identify("12 + 3 = 15") is None
    assert languages.identify("Le chat est sur la table et il dort.") == "fr"


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("", False),
        ("The answer is 7.", False),
        ("I am sure. I am sure. I am sure.", True),
        ("I am sure. I am sure.", False),
        ("So: 1 2 3 1 2 3 1 2 3", False),
        ("So:" + " 1 2 3" * 10, True),
        ("So:" + " 1 2 3" * 9, False),
        ("Well, I am sure. I am sure. I am sure. I am su", True),
        ("I am sure. I am sure. I am sure. But then I stopped.", False),
        ("no no no no no no no no no", True),
        ("no no no no no no", False),
        ("ha" * 50, False),
        ("7" * 80, False),
        ("!" * 30, True),
        ("!" * 29, False),
        ("<div><div><div>x</div></div></div>", False),
        ("x" + "</div>" * 8, True),
        ("x" + "</div>" * 7, False),
        ("x" + "</div>" * 7 + "</di", False),
        ("<li>yes</li><li>yes</li><li>yes</li>", True),
        ("| a | b |\n| - | - |\n| 1 | 2 |\n|  |  |\n|  |  |\n|  |  |", False),
        ("Kind regards\n----------", False),
        ("Sum:\n" + "=" * 100, False),
        ("Sum:\n" + "=" * 130, True),
        ("Let me see..........", False),
        ("Great! " + "\U0001f600" * 9, False),
        ("0 0 0\n0 0 0\n0 0 0", False),
        ("a = " + "{" * 9 + "}" * 9, False),
        ("我不知道我不知道我不知道", True),
        ("go aaaa on go aaaa on go aaaa", False),
        ("go aaaa on go aaaa on go aaaa on", True),
        ("go on aaaa go on aaaa go on aaaa", True),
        ("one two three\none two three\none two three\n\n", True),
    ],
)
def test_loops_by_example(text, loops):
    """The definition in the module docstring, case by case."""
    assert has_loop(text) is loops


def slow_has_loop(text: str) -> bool:
    """The definition, tried on every passage: its units, and three rounds with a space trimmed from the last."""
    text = text.rstrip()
    for p in range(1, len(text)):
        passage = text[-p:]
        whole = text + passage[: p - len(passage.lstrip())]
        length = next((n for n in range(p, len(whole)) if whole[-n - 1] != whole[-n - 1 + p]), None)
        length = len(whole) if length is None else length
        unit = degeneration._UNIT
        units = len(unit.findall(passage * 5)) - len(unit.findall(passage * 4))
        needed = 3 if any(c.isalpha() for c in passage) else max(4, 30 / max(units, 1))
        if units >= 3 and length >= math.ceil(needed) * p:
            return True
    return False


@given(st.text("ab !\n", max_size=40), st.text("ab !", min_size=1, max_size=9), st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_loops_equal_the_definition(start, passage, times):
    """The fast search finds what trying every passage finds."""
    text = start + passage * times
    assert has_loop(text) is slow_has_loop(text)


@pytest.mark.parametrize("part", ["a", "ab", "a b ", "the cat. ", "x y z. ", "((", "北", "- "])
def test_huge_answers_return(part):
    """Answers of half a million characters, made of one thing or ending in it, are looked at without hanging."""
    assert not signs(part * (500_000 // len(part))).empty
    varied = " ".join(map(str, range(80_000))) + " " + part
    assert signs(varied).repeated_ngrams < 0.01


@given(st.lists(st.sampled_from(["a", "b", "c", "Don't"]), max_size=30))
def test_shares_by_counting(words):
    """The share of repeated four-word passages and of different pairs, counted one by one."""
    found = signs(" ".join(words))
    low = [word.lower() for word in words]
    fours = [tuple(low[n : n + 4]) for n in range(len(low) - 3)]
    seen = sum(four in fours[:n] for n, four in enumerate(fours))
    pairs = [tuple(low[n : n + 2]) for n in range(len(low) - 1)]
    assert found.repeated_ngrams == pytest.approx(seen / len(fours) if fours else 0)
    if pairs:
        assert found.distinct_2 == pytest.approx(len(set(pairs)) / len(pairs))
    else:
        assert found.distinct_2 is None
    assert found.empty is (not words)


def test_truncation_needs_a_finish_reason():
    """Without a finish reason nothing is said; "length" is a cut."""
    assert signs("x").truncated is None
    assert signs("x", finish_reason="stop").truncated is False
    assert signs("x", finish_reason="length").truncated is True


@given(st.lists(st.sampled_from(["a", "A ", "b", "c c", "c  c"]), max_size=8), st.booleans())
def test_agreement_is_the_mean_over_pairs(texts, similar):
    """Agreement equals the mean over all pairs, whatever the order."""
    form = "similar" if similar else "exact"
    found = agreement(texts, form)
    pairs = list(combinations(texts, 2))
    if not pairs:
        assert found is None
        return
    assert 0 <= found <= 1
    assert found == pytest.approx(agreement(texts[::-1], form))
    assert found == pytest.approx(sum(agreement(pair, form) for pair in pairs) / len(pairs))


def test_agreement_by_hand():
    """Two of three pairs differ; similar texts agree in part; capitals count when asked for."""
    assert agreement(["Paris", " paris", "Rome"]) == pytest.approx(1 / 3)
    assert agreement(["ab", "ac"], "similar") == pytest.approx(0.5)
    assert agreement(["Paris", "paris"], ignore_case=False) == 0
    with pytest.raises(ValueError, match=r"^form must be exact or similar, got 'fuzzy'$"):
        agreement(["a", "b"], "fuzzy")


def test_the_scorer_lists_what_it_saw():
    """Every sign asked for is told; a healthy answer says so; a truncated one only where the row says why it ended."""
    every = get_scorer({"degeneration": {"signs": list(degeneration.SIGNS)}})
    prompt = Prompt("p", ({"role": "user", "content": "What is the capital of France?"},))
    text = "La capitale de la France est Paris et Paris est la ville. " * 5
    row = Generation("c", "p", 0, text, (1,), 1, "length")
    found = score_generation(every, row, prompt)
    assert found.value == 0
    assert found.explanation == (
        "ends in a loop; 79% of four-word passages repeated; only 20% of word pairs different; "
        "cut at max_tokens; changes language"
    )
    assert "cut" not in every.score(text, prompt).explanation
    assert every.score("Paris.", prompt).explanation == "healthy"
    assert every.score(" ", prompt).explanation == "empty"
    assert every.target_problem(prompt) is None


FRENCH = (
    "La capitale de la France est Paris, et elle est sur la Seine avec ses ponts qui sont beaux."
)
SYSTEM = "You are a helpful assistant and you know the answers of all."


@pytest.mark.parametrize(
    ("turns", "text", "healthy"),
    [
        (["user: What is the capital of France?"], FRENCH, 0),
        (["system: Always answer in French.", "user: What is the capital of France?"], FRENCH, 1),
        (["user: Let us speak French.", "user: What is the capital of France?"], FRENCH, 1),
        ([f"system: {SYSTEM}", "user: What is the capital of France?"], FRENCH, 0),
        ([f"system: {SYSTEM}", "user: Quelle est la capitale de la France ?"], FRENCH, 1),
        (
            [f"system: {SYSTEM}", "user: 法国的首都是哪里"],
            "法国的首都是巴黎。它位于塞纳河畔。",
            1,
        ),
        ([f"system: {SYSTEM}", "user: 法国的首都是哪里"], f"{SYSTEM} {SYSTEM}", 0),
        ([f"system: {SYSTEM}", "user: Paris?"], FRENCH, 0),
    ],
)
def test_the_whole_conversation_says_which_language_is_right(turns, text, healthy):
    """The last turn settles the language; an earlier one or the system message may name another."""
    pairs = [turn.split(": ", 1) for turn in turns]
    prompt = Prompt("p", tuple({"role": role, "content": content} for role, content in pairs))
    assert get_scorer("degeneration").score(text, prompt).value == healthy
