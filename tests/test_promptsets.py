"""The texts behind the prompt sets: every target right, reachable, and not given away."""

from __future__ import annotations

import json
import re
import runpy
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path

import jsonschema
import pytest

from workbench import registry
from workbench.prompts import PromptSet, templates
from workbench.scorers import get_scorer

ROOT = Path(__file__).parents[1]
SMALL_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
KNOWN_PASTS = {
    "go": "went",
    "see": "saw",
    "buy": "bought",
    "swim": "swam",
    "teach": "taught",
    "drink": "drank",
    "lose": "lost",
    "wear": "wore",
    "forget": "forgot",
    "fly": "flew",
    "hide": "hid",
    "keep": "kept",
}
"""Written down for this test alone."""
DOUBLED = {"stop", "plan", "drop", "hug", "shop", "clap"}
"""Regular verbs that double their last letter."""


@pytest.fixture(scope="module")
def made():
    """The names that the script defines, its modules among them."""
    return runpy.run_path(str(ROOT / "scripts/make_datasets.py"))


def prompts_of(name):
    """A committed set."""
    return PromptSet.from_file(ROOT / f"datasets/{name}.jsonl")


def asked(prompt):
    """The last message."""
    return prompt.messages[-1]["content"]


def groups_of(prompts):
    """The prompts of each group."""
    found = defaultdict(list)
    for prompt in prompts:
        found[prompt.group].append(prompt)
    return found


def forms(value):
    """All spellings of an answer."""
    return value if isinstance(value, list) else [value]


def whole(text, value):
    """Whether a value stands in a text as words of its own, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(str(value))}(?!\w)", text, re.IGNORECASE) is not None


def judged(name):
    """The primary scorer of a set as a function of answer and prompt."""
    scorer = get_scorer(registry.entry(name).scorers[0])
    return lambda text, prompt: scorer.score(text, prompt).value


def perfect(name, made):
    """An answer to each prompt of a set that deserves full marks, by prompt text."""
    if name == "instructions":
        return {row["prompt"]: answer for row, answer in made["instructions"].tasks()}
    form = {
        "multistep": lambda t: f"The answer is {t}.",
        "extraction": json.dumps,
        "tools": lambda t: "Sure." if t == "none" else json.dumps(t),
        "french": lambda t: f"C'est {t[0] if isinstance(t, list) else t}.",
    }.get(name, lambda t: f"It is {t[0] if isinstance(t, list) else t}.")
    return {json.dumps(p.messages): form(p.target) for p in prompts_of(name)}


ANSWERED = (
    *("arithmetic", "capitals", "sentiment", "multistep", "topics", "extraction"),
    *("instructions", "tools", "chats", "french", "templated"),
)


@pytest.mark.parametrize("name", ANSWERED)
def test_a_right_answer_scores_one(name, made):
    """Every prompt has an answer that its scorer gives full marks."""
    answers, judge = perfect(name, made), judged(name)
    for prompt in prompts_of(name):
        key = asked(prompt) if name == "instructions" else json.dumps(prompt.messages)
        assert judge(answers[key], prompt) == 1, prompt.id


@pytest.mark.parametrize("name", ANSWERED)
def test_repeating_the_question_is_no_answer(name):
    """The question itself never gets full marks, but where saying it calls no tool."""
    judge = judged(name)
    free = {"tools": "no call"}
    for prompt in prompts_of(name):
        if prompt.metadata.get("kind") != free.get(name, "-"):
            assert judge(asked(prompt), prompt) < 1, prompt.id


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.parametrize("answer", ["", "I do not know.", "Yes, certainly."])
def test_saying_nothing_is_no_answer(name, answer):
    """An empty answer and two that fit nothing never get full marks, but where no tool is wanted."""
    judge = judged(name)
    for prompt in prompts_of(name):
        if not (answer and prompt.target == "none"):
            assert judge(answer, prompt) < 1, prompt.id


def test_multistep_solutions_add_up():
    """Every step of every solution is a true equation over numbers of the text and the result before; the last is the target."""
    signs = {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: sum([a] * int(b), Fraction(0)),
    }
    lengths = {"two steps": 2, "three steps": 3, "extra number": 2}
    for prompt in prompts_of("multistep"):
        given = Counter(map(int, re.findall(r"\d+", asked(prompt))))
        before = None
        for step in prompt.metadata["steps"]:
            a, sign, b, _, result = step.split()
            assert signs[sign](Fraction(a), Fraction(b)) == Fraction(result)
            used = [int(b)] if before is not None else [int(a), int(b)]
            assert before in (None, int(a))
            given.subtract(used)
            before = int(result)
        assert before == prompt.target
        assert len(prompt.metadata["steps"]) == lengths[prompt.metadata["kind"]]
        assert min(given.values()) == 0
        assert sum(given.values()) == (prompt.metadata["kind"] == "extra number")
        assert not whole(asked(prompt), prompt.target)


def test_multistep_numbers_make_sense():
    """No discount above half the price, nobody eats a heap of fruit, and no more players leave than stay."""
    bounds = {
        r"costs (\d+) euros, (?:today|and students pay) (\d+) euros less": lambda a, b: 2 * b <= a,
        r"eats (\d+) of (?:them|the fruits)": lambda n: n <= 5,
        r"(\d+) teams with (\d+) players each arrive, and (\d+)": lambda a, b, c: 2 * c <= a * b,
        r"(\d+) chairs on one side and (\d+) on the other": lambda a, b: abs(a - b) <= 2,
        r"has (\d+) sheep. (\d+) are sold and (\d+) lambs": lambda a, b, c: 2 * b <= a and c <= 6,
        r"writes (\d+) cards to each of \d+ friends and (\d+)": lambda a, c: a <= 3 and c <= 6,
    }
    seen = Counter()
    for prompt in prompts_of("multistep"):
        for pattern, fits in bounds.items():
            for found in re.findall(pattern, asked(prompt)):
                numbers = [found] if isinstance(found, str) else found
                assert fits(*map(int, numbers)), asked(prompt)
                seen[pattern] += 1
    assert set(seen) == set(bounds)


def test_multistep_groups_are_stories():
    """Three problems make a group, and they differ in nothing but numbers and the name."""
    for group, prompts in groups_of(prompts_of("multistep")).items():
        assert group is not None
        assert len(prompts) == 3
        plain = {re.sub(r"\d+|\b(?:[A-Z][a-z]{2})\b", "?", asked(p)) for p in prompts}
        assert len(plain) == 1
        assert len({p.target for p in prompts}) > 1


def test_topics_are_balanced_and_not_named():
    """Twenty notes a topic, six of them mixed; no note says its topic or any other; examples are never asked."""
    prompts = prompts_of("topics")
    labels = [forms(x)[0] for x in registry.entry("topics").scorers[0]["choice"]["labels"]]
    assert Counter(p.target for p in prompts) == dict.fromkeys(labels, 20)
    mixed = Counter(p.target for p in prompts if p.metadata["kind"] == "mixed")
    assert mixed == dict.fromkeys(labels, 6)
    for prompt in prompts:
        note = asked(prompt).removeprefix("Note: ").removesuffix("\nTopic?")
        assert not [label for label in labels if label.rstrip("s") in note.lower()]
        shown = [m["content"] for m in prompt.messages[:-1] if m["role"] == "user"]
        assert asked(prompt) not in shown


def test_topics_examples_favour_no_label():
    """The examples are one of each topic, and among the notes of a topic every topic is the last example four times."""
    last = Counter()
    for prompt in prompts_of("topics"):
        given = [m["content"] for m in prompt.messages if m["role"] == "assistant"]
        assert sorted(given) == sorted({*given})
        last[prompt.target, given[-1]] += 1
    assert set(last.values()) == {4}
    assert len(last) == 25


def test_extraction_targets_stand_in_the_text():
    """Every value is copied from its text, keys stand in the order asked for, and only marked texts leave one out."""
    for prompt in prompts_of("extraction"):
        instruction, text = asked(prompt).split("\nText: ")
        keys = re.findall(r'"(\w+)"', instruction)
        assert list(prompt.target) == keys
        absent = [key for key, value in prompt.target.items() if value is None]
        assert len(absent) == (prompt.metadata["kind"] == "missing")
        for value in prompt.target.values():
            assert value is None or whole(text, value)
        assert len(set(map(str, prompt.target.values()))) == len(keys)
        number = {"person": "age", "offer": "price", "train": "train"}.get(
            prompt.metadata["family"]
        )
        assert isinstance(prompt.target.get(number), int | None)


def test_extraction_examples_are_right_and_not_asked():
    """The worked example of a family has the same keys, copies its values, and shares no text with a question."""
    for prompt in prompts_of("extraction"):
        example, answer = (m["content"] for m in prompt.messages[:2])
        values = json.loads(answer)
        assert list(values) == list(prompt.target)
        assert all(whole(example, value) for value in values.values())
        assert example != asked(prompt)


def test_extraction_missing_values_are_not_there():
    """A text that leaves out a number holds no number but those of other keys, and so for times and days."""
    looks = {
        "age": r"\d",
        "price": r"\d",
        "train": r"\b\d+\b(?!:)(?<!:\d\d)",
        "time": r"\d:\d",
        "departure": r"\d:\d",
        "day": "day",
    }
    for prompt in prompts_of("extraction"):
        for key, value in prompt.target.items():
            if value is None and key in looks:
                assert not re.search(looks[key], asked(prompt).split("\nText: ")[1]), prompt.id


def said(n):
    """A pattern for a number in digits or as a word."""
    return str(n) if n >= len(SMALL_NUMBERS) else f"(?:{n}|{SMALL_NUMBERS[n]}|without)"


def told_of(check):
    """Words of the prompt that say what an argument without a value of its own asks for."""
    words = {"first": {"first"}, "last": {"last", "line"}, "every": {"both"}}
    return set().union(*(told for key, told in words.items() if check.get(key)))


def test_instructions_are_all_told():
    """Each prompt has two to four checks, and states every number and every word that they look for."""
    for prompt in prompts_of("instructions"):
        checks, text = prompt.target["instructions"], asked(prompt)
        assert 2 <= len(checks) <= 4
        assert len({json.dumps(c) for c in checks}) == len(checks)
        for check in checks:
            told = [*check.get("words", ()), *check.get("options", ()), *check.get("keys", ())]
            told += [
                *check.get("columns", ()),
                *(check[k] for k in ("word", "letter") if k in check),
            ]
            assert all(whole(text, word) for word in told), (prompt.id, check)
            if check.get("text", "").strip(".!?"):
                assert check["text"] in text
            for n in (check[key] for key in ("n", "rows") if key in check):
                assert n == 1 or re.search(rf"\b{said(n)}\b", text), (prompt.id, check)
            if "marker" in check:
                assert f'"{check["marker"]} "' in text, (prompt.id, check)
            assert told_of(check) <= set(text.replace(",", " ").replace(".", " ").split()), check


def test_instruction_answers_by_other_means(made):
    """The stored answers meet the counts when they are counted with plain string methods."""
    count = {
        "words": lambda t: len(t.split()),
        "lines": lambda t: len([line for line in t.split("\n") if line]),
        "sentences": lambda t: len(re.findall(r"[.!?](?=\s|$)", t)) or 1,
        "characters": len,
        "paragraphs": lambda t: len(t.split("\n\n")),
        "bullets": lambda t: t.count("- "),
    }
    seen = 0
    for row, answer in made["instructions"].tasks():
        for check in row["target"]["instructions"]:
            limit, _, what = check["check"].partition("_")
            if limit in ("min", "max", "exact") and what in count:
                n, seen = count[what](answer), seen + 1
                assert {"min": n >= check["n"], "max": n <= check["n"], "exact": n == check["n"]}[
                    limit
                ], (row["prompt"], check, n)
    assert seen > 60


def test_tool_targets_are_valid_calls():
    """Targets call a function on offer with arguments that fit its schema and stand in the request."""
    kinds = Counter()
    for prompt in prompts_of("tools"):
        offered = {
            tool["function"]["name"]: tool["function"]["parameters"] for tool in prompt.tools
        }
        kinds[prompt.metadata["kind"]] += 1
        calls = [] if prompt.target == "none" else prompt.target
        for call in calls if isinstance(calls, list) else [calls]:
            jsonschema.validate(call["arguments"], offered[call["name"]])
            for key, value in call["arguments"].items():
                told = {60: "one hour"}.get(value, value)
                assert key == "on" or whole(asked(prompt), told), prompt.id
    assert kinds == {"one call": 48, "no call": 18, "two calls": 6}


def test_tool_examples_tell_nothing_about_the_answer():
    """Both functions on offer are shown once, valid, with other arguments; the right one comes last about half the time."""
    last = []
    for prompt in prompts_of("tools"):
        system, *turns = prompt.messages
        calls = [json.loads(m["content"]) for m in turns if m["content"].startswith("{")]
        offered = {
            tool["function"]["name"]: tool["function"]["parameters"] for tool in prompt.tools
        }
        assert [call["name"] for call in calls] == list(offered)
        assert all(f"\n{name}(" in system["content"] for name in offered)
        for call in calls:
            jsonschema.validate(call["arguments"], offered[call["name"]])
            assert call != prompt.target
        if prompt.metadata["kind"] == "one call":
            last.append(calls[-1]["name"] == prompt.target["name"])
    assert 0.4 <= sum(last) / len(last) <= 0.6


def test_chats_need_their_earlier_turns():
    """The last question names neither option; the answer was said before, the other only where it says so."""
    for prompt in prompts_of("chats"):
        said = " ".join(m["content"] for m in prompt.messages[:-1])
        choices = [forms(choice) for choice in prompt.metadata["choices"]]
        right, (other,) = forms(prompt.target), [c for c in choices if c != forms(prompt.target)]
        assert right in choices
        assert not [word for word in right + other if whole(asked(prompt), word)]
        assert whole(said, right[0])
        assert prompt.messages[-1]["role"] == "user"
        if prompt.metadata["kind"] in ("corrected", "paired"):
            assert whole(said, other[0])
        if prompt.metadata["kind"] == "told":
            assert not [word for word in other if whole(said, word)]
        if prompt.metadata["kind"] == "corrected":
            turns = [m["content"] for m in prompt.messages]
            assert whole(turns[0], other[0])
            assert whole(turns[2], right[0])


def test_chats_ask_for_the_form_of_the_answer():
    """Every last question asks for one word, a number or a time, and the answer as it was said is one."""
    looks = {"one word": r"[A-Za-z]+", "a number": r"\d+", "a time": r"\d+:\d\d"}
    for prompt in prompts_of("chats"):
        wanted = re.fullmatch(r".+[?] Answer with (.+)\.", asked(prompt))[1]
        for choice in prompt.metadata["choices"]:
            assert re.fullmatch(looks[wanted], forms(choice)[0])


def test_chats_groups_share_their_facts():
    """A fact told and the same fact corrected are one group, and so are both questions about a pair."""
    for group, prompts in groups_of(prompts_of("chats")).items():
        if group is not None:
            assert len(prompts) == 2
            assert len({p.messages[0]["content"] for p in prompts}) == 1
            assert len({forms(p.target)[0] for p in prompts}) == 2


def test_french_answers_are_not_in_the_question():
    """The text to read holds its answer, and no question holds one; every question asks for French."""
    for prompt in prompts_of("french"):
        text = asked(prompt)
        assert text.endswith(" Réponds en français par une phrase courte.")
        text = text.removesuffix(" Réponds en français par une phrase courte.")
        accepted = prompt.target if isinstance(prompt.target, list) else [prompt.target]
        if prompt.metadata["kind"] == "reading":
            before, question = re.fullmatch(r"(.+?\. .+?\.|[^.]+\.) (.+\?)", text).groups()
            assert any(whole(before, word) for word in accepted), prompt.id
            text = question
        assert not any(whole(text, word) for word in accepted), prompt.id
        assert text.endswith(" ?")


def test_french_groups_are_texts():
    """Two questions to one text are one group."""
    for group, prompts in groups_of(prompts_of("french")).items():
        if group is not None:
            assert len(prompts) == 2
            assert len({asked(p)[:30] for p in prompts}) == 1


def regular(verb):
    """The past tense of a regular verb by rule."""
    if verb in DOUBLED:
        return verb + verb[-1] + "ed"
    if verb.endswith("e"):
        return verb + "d"
    if re.search("[^aeiou]y$", verb):
        return verb[:-1] + "ied"
    return verb + "ed"


def test_templated_pasts_are_right():
    """Regular pasts follow the rule, irregular ones a second list; the prompt does not give them away."""
    prompts = prompts_of("templated")
    found = {p.vars["verb"]: p for p in prompts}
    assert len(found) == len(prompts)
    for verb, prompt in found.items():
        if prompt.metadata["kind"] == "regular":
            assert prompt.target == regular(verb)
        else:
            assert prompt.target != regular(verb)
        assert not whole(asked(prompt), prompt.target)
    assert {verb: found[verb].target for verb in KNOWN_PASTS} == KNOWN_PASTS


def test_templated_rows_fill_a_template():
    """The variables alone make the prompt of every row."""
    template = "Complete the second sentence. Today I {{ verb }} {{ rest }}. Yesterday I ..."
    for prompt in prompts_of("templated"):
        assert templates.render(template, prompt).messages == prompt.messages


def test_writing_asks_for_long_answers_of_every_kind():
    """Twelve tasks a kind, none with a target."""
    prompts = prompts_of("writing")
    assert set(Counter(p.metadata["kind"] for p in prompts).values()) == {12}
    assert all(re.match("Write|Tell|Describe|Explain", asked(p)) for p in prompts)
