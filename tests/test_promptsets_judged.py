"""How the shipped sets judge what models really answer: right answers in other words, and answers that only look right."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import yaml

from workbench import registry
from workbench.prompts import PromptSet
from workbench.scorers import get_scorer

ROOT = Path(__file__).parents[1]


def judge_of(name):
    """The primary scorer of a set, and its prompts."""
    entry = registry.entry(name)
    return get_scorer(entry.scorers[0]), PromptSet.from_file(ROOT / "datasets" / entry.file)


def told(prompt):
    """All turns of a prompt in one text."""
    return "\n".join(m["content"] for m in prompt.messages)


ARITHMETIC = [
    ("7 + 4 = 11", 1),
    ("7 + 4 = 11\n\nThe answer is correct, but you can say 7 + 7", 1),
    ("7 + 4 = 11\nSimplified Connovative Calculators:\n7 + 4 =", 1),
    ("7 + 4 equals 11, but 9 + 7 equals 16.", 1),
    ("7 + 4 = 10 + 1 = 11", 1),
    ("7 + 4 = **11**", 1),
    ("$7 + 4 = \\boxed{11}$ and so on to 12", 1),
    ("The sum of 7 and 4 is 11.", 1),
    ("Seven and four equals eleven. The original numbers are seven and four.", 1),
    ("It can become 4 + 7 and 5 + 11", 0),
    ("7 can become **1*11** with no operation", 0),
    ("7 + 4 = 12 (rounds to 11)", 0),
    ("7 + + + 11 = ", 0),
    ("7 + 4 = 7 + 11", 0),
    ("7 + 11 = C", 0),
]
"""Answers to "What is 7 + 4?", many of them as the demo model gave them to it or to other sums."""


@pytest.mark.parametrize(("answer", "score"), ARITHMETIC)
def test_arithmetic_counts_the_result_of_the_first_equation(answer, score):
    """A right sum counts whatever is said behind it; a number that is only added up does not."""
    judge, prompts = judge_of("arithmetic")
    (prompt,) = [p for p in prompts if p.messages[-1]["content"] == "What is 7 + 4?"]
    assert judge.score(answer, prompt).value == score


def test_the_quickstart_judges_as_the_registry_says():
    """The study of the demo names the registered scorer of its set."""
    study = yaml.safe_load((ROOT / "datasets/quickstart.yaml").read_text("utf-8"))
    assert tuple(study["scorers"]) == registry.entry("arithmetic").scorers


CAPITALS = [
    ("Mongolia", "Ulan-Bator", 1),
    ("Mongolia", "It is Ulaan Baatar.", 1),
    ("Haiti", "Port\u2011au\u2011Prince", 1),
    ("Papua New Guinea", "Port-Moresby", 1),
    ("Vietnam", "Hà Nội", 1),
    ("Malta", "Valetta", 1),
    ("Eritrea", "Asmera", 1),
    ("Chad", "N\u2019Djamena.", 1),
    ("Poland", "Warsaw, Poland, and not Krakow", 1),
    ("Australia", "Canberra, not Sydney", 1),
    ("Poland", "It is not Warsaw but Krakow.", 0),
    ("Australia", "Sydney, not Canberra", 0),
    ("Australia", "Sydney, Melbourne, Brisbane and Canberra.", 0),
    ("Australia", "Sydney or Canberra", 0),
    ("Australia", "1. Canberra\n2. Sydney\n3. Perth", 0),
    ("Australia", "Sydney is. Canberra is not the capital of Australia.", 0),
]


@pytest.mark.parametrize(("country", "answer", "score"), CAPITALS)
def test_capitals_in_other_spellings_and_lists_of_cities(country, answer, score):
    """Usual spellings are accepted; a capital that is denied or one city of a list is not."""
    judge, prompts = judge_of("capitals")
    question = f"What is the capital of {country}?"
    (prompt,) = [p for p in prompts if p.messages[-1]["content"] == question]
    assert judge.score(answer, prompt).value == score


FRENCH = [
    ("jours y a-t-il dans une semaine", "Il y a sept jours.", 1),
    ("jours y a-t-il dans une semaine", "Il y a dix-sept jours.", 0),
    ("minutes y a-t-il dans une heure", "Soixante minutes.", 1),
    ("minutes y a-t-il dans une heure", "Il y a soixante-dix minutes.", 0),
    ("Combien coûte le pull vert", "Vingt euros.", 1),
    ("Combien coûte le pull vert", "Il coûte vingt\u2010cinq euros.", 0),
    ("pattes a une araignée", "Elle a dix-huit pattes.", 0),
    ("À quelle heure le train part-il", "Il part à 12 heures.", 1),
    ("À quelle heure le train part-il", "À 12h00.", 1),
    ("À quelle heure le train part-il", "À douze heures.", 1),
    ("À quelle heure le train part-il", "Le train part de Lille à midi.", 1),
    ("À quelle heure le train part-il", "Il part dans l\u2019après-midi.", 0),
    ("« yesterday »", "On dit « hier ».", 1),
    ("« yesterday »", "On dit avant-hier.", 0),
    ("la mère de ma mère", "C\u2019est la grand\u2011mère.", 1),
    ("la mère de ma mère", "La mamie.", 1),
    ("la mère de ma mère", "L'arrière-grand-mère.", 0),
    ("« water »", "On dit « l\u2019eau ».", 1),
]


@pytest.mark.parametrize(("part", "answer", "score"), FRENCH)
def test_french_words_are_whole_words(part, answer, score):
    """A word inside a hyphenated one is another word; other ways to say the same are right."""
    judge, prompts = judge_of("french")
    (prompt,) = [p for p in prompts if part in told(p)]
    assert judge.score(answer, prompt).value == score


def test_french_texts_cannot_be_recited():
    """Neither the prompt nor its text alone is an answer, but the one short sentence that says it is."""
    judge, prompts = judge_of("french")
    seen = 0
    for prompt in prompts:
        if prompt.metadata["kind"] == "reading":
            said = told(prompt)
            text = re.match(r"((?:.+?\. .+?\.|[^.]+\.)) .+\?", said)[1]
            assert judge.score(said, prompt).value == 0, prompt.id
            assert judge.score(f"Réponse : {text}", prompt).value == 0, prompt.id
            seen += 1
    assert seen == 24
    (prompt,) = [p for p in prompts if "le métier de Claire" in told(p)]
    assert judge.score("Claire est médecin à Nantes.", prompt).value == 1


CHATS = [
    ("Who has the horse", "Ben", 1),
    ("Who has the horse", "Ben has the horse.", 1),
    ("Who has the horse", "Anna", 0),
    ("Who won the race", "Dora won the race; Felix came second.", 1),
    ("How many chairs are in the hall", "fifteen chairs", 1),
    ("From which platform", "platform nineteen", 1),
    ("How much did my ticket cost", "fifty-four euros", 1),
    ("At what time does my meeting start", "11.15", 1),
    ("What should I put on my knee", "Put an ice pack on it to reduce heat.", 1),
    ("What is my favourite fruit", "Pears.", 1),
    ("What is my favourite fruit", "The mango.", 0),
    ("Who is the parcel for", "Robert.", 1),
    ("Who is the parcel for", "B.", 0),
    ("Where did you tell me to go", "To the mountains.", 1),
]


@pytest.mark.parametrize(("part", "answer", "score"), CHATS)
def test_chats_know_number_words_and_no_letters(part, answer, score):
    """Answers in words, in the plural or with another sign are right; a letter that nobody showed is none."""
    judge, prompts = judge_of("chats")
    found = [p for p in prompts if part in told(p) and p.metadata["kind"] != "told"]
    prompt = [p for p in found if part in p.messages[-1]["content"]][-1]
    assert judge.score(answer, prompt).value == score


@pytest.mark.parametrize(
    ("answer", "score"), [("sport", 1), ("Topic: Sport.", 1), ("transport", 0)]
)
def test_topics_know_sport(answer, score):
    """The topic may be said in the singular."""
    judge, prompts = judge_of("topics")
    prompt = next(p for p in prompts if p.target == "sports")
    assert judge.score(answer, prompt).value == score


@pytest.mark.parametrize("event", ["swimming lesson", "BAND PRACTICE"])
def test_extraction_does_not_ask_for_capitals(event):
    """The examples lower nothing and the text begins with the word, so that either case is right."""
    judge, prompts = judge_of("extraction")
    (prompt,) = [p for p in prompts if str(p.target.get("event")).lower() == event.lower()]
    assert judge.score(json.dumps(prompt.target | {"event": event}), prompt).value == 1
    assert judge.score(json.dumps(prompt.target | {"event": "x"}), prompt).value < 1


def call(prompt, **changes):
    """The call that is wanted, with other arguments."""
    arguments = prompt.target["arguments"] | changes
    return json.dumps({"name": prompt.target["name"], "arguments": arguments})


def test_tools_say_which_texts_are_right():
    """Currencies and the plural are told with the functions, so that other words are wrong; case and points are free."""
    judge, prompts = judge_of("tools")
    one = [p for p in prompts if p.metadata["kind"] == "one call"]
    for prompt in one:
        system, name = prompt.messages[0]["content"], prompt.target["name"]
        if name == "convert_money":
            assert all(f"{prompt.target['arguments'][k]}" in system for k in ("source", "goal"))
            assert judge.score(call(prompt, source="EUR"), prompt).value == 0.75
        if name == "add_item":
            assert "named in the plural" in system
            assert prompt.target["arguments"]["item"].endswith("s")
        if name == "send_message":
            text = prompt.target["arguments"]["text"]
            assert judge.score(call(prompt, text=f"{text.capitalize()}."), prompt).value == 1
            assert judge.score(call(prompt, text="hello"), prompt).value < 1


def test_tools_without_a_call_judge_its_absence_alone():
    """Any words are right where no function fits, an empty answer and a call are not; the page says so."""
    judge, prompts = judge_of("tools")
    free = [p for p in prompts if p.metadata["kind"] == "no call"]
    assert len(free) == 18
    for prompt in free:
        assert judge.score("asdf qwer", prompt).value == 1
        assert judge.score(" ", prompt).value == 0
        name = prompt.tools[0]["function"]["name"]
        assert judge.score(f'{{"name": "{name}", "arguments": {{}}}}', prompt).value == 0
    page = (ROOT / "datasets/README.md").read_text("utf-8")
    assert "only the absence of a call is judged" in " ".join(page.split())


NEAR = [
    ("take to the beach", "* towel\n* hat\n* water", "exact_bullets"),
    ("take to the beach", "\u2022 towel\n\u2022 hat\n\u2022 water", "exact_bullets"),
    ("in **bold**", "In **hot summer days** we like the **cold deep lake**.", "bold_words"),
    ("it was cold outside", "Night after night was very, very cold.", "word_count"),
    (
        "greeting card",
        "Hello to you all, my dear friends.\nP.S. It rains.\nYours, Kim",
        "postscript",
    ),
    ("double angle", "It falls softly on the roofs.\n<<Snow>>", "wrapped_title"),
    ("a city in France", "MADRID MADRID", "word_count"),
    ("with CSV", "fruit,price\napple,2\npear,3\nplum,1\nfig,4", "csv"),
    (
        "Dear Sam",
        "dear sam, thank you for the flowers, they look lovely on my desk. Yours, Kim",
        "starts_with",
    ),
    ("cats and dogs", "## Cats\nCats sleep.\n## Dogs\nDogs play.", "exact_sections"),
    ("name for a café", "Morning star", "title_case"),
]
"""A part of the prompt, an answer, and the check it breaks."""


@pytest.mark.parametrize(("part", "answer", "broken"), NEAR)
def test_instructions_are_not_looser_than_their_words(part, answer, broken):
    """An answer that breaks one rule of its prompt in small things is told which, and no other."""
    judge, prompts = judge_of("instructions")
    (prompt,) = [p for p in prompts if part in told(p)]
    found = judge.score(answer, prompt)
    total = len(prompt.target["instructions"])
    assert found.explanation.startswith(f"{total - 1} of {total} followed; not: {broken} (")


STRICT = [
    ("in **bold**", "At the lake in summer **we swim**."),
    ("with CSV", "```csv\nfruit,price\napple,2\npear,3\nplum,1\n```"),
    ("an announcement about a train", "ATTENTION, THE TRAIN IS LATE"),
]


@pytest.mark.parametrize(("part", "answer"), STRICT)
def test_instructions_are_not_stricter_than_their_words(part, answer):
    """Two bold words in one mark, a fence around what is asked for, and capitals where they are asked for are right."""
    judge, prompts = judge_of("instructions")
    (prompt,) = [p for p in prompts if part in told(p)]
    assert judge.score(answer, prompt).value == 1


def without(words, text):
    """The text with other words in place of each of some, one text for each."""
    return [re.sub(rf"(?i)\b{re.escape(w)}\b", "thing", text) for w in words]


MORE = {
    "words": " more",
    "sentences": " One more.",
    "lines": "\nmore",
    "paragraphs": "\n\nMore.",
    "bullets": "\n- more",
    "sections": "\n# More\nText.",
    "placeholders": " [more]",
}
"""What makes an answer one too long."""
SPOILED = {
    "include": lambda good, check: without(check["words"], good),
    "forbid": lambda good, check: [f"{good} {word}" for word in check["words"]],
    "word_count": lambda good, check: [f"{good} {check['word']}", *without([check["word"]], good)],
    "letter_count": lambda good, check: [good + check["letter"]],
    "capital_words": lambda good, _: [good.lower(), f"{good} MORE"],
    "bold_words": lambda good, _: [good.replace("**", ""), f"{good} **More**", f"{good} *a* **b**"],
    "upper_case": lambda good, _: [good.lower(), good[:-2] + good[-2:].lower()],
    "lower_case": lambda good, _: [good.upper(), good.title()],
    "title_case": lambda good, _: [good.lower(), re.sub(r" (\w)", lambda m: m[0].lower(), good)],
    "starts_with": lambda good, check: [f"Well, {good}", *cased(check, good.swapcase())],
    "ends_with": lambda good, check: [f"{good} ok", *cased(check, good.swapcase())],
    "one_of": lambda good, _: [f"I say {good}", "perhaps"],
    "json": lambda good, check: [
        good[:-1],
        *(good.replace(f'"{k}"', '"x"') for k in check["keys"]),
    ],
    "csv": lambda good, _: [
        good.rpartition("\n")[0],
        good.replace("price", "cost"),
        f"{good}\na,1",
    ],
    "numbered_list": lambda good, _: [good.replace("1.", "2."), f"{good}\n9. More"],
    "no_commas": lambda good, _: [f"{good},"],
    "no_digits": lambda good, _: [f"{good} 7"],
    "quoted": lambda good, _: [good.strip('"'), f"{good}."],
    "wrapped_title": lambda good, _: [good.replace("<<", "<"), f"Here:\n{good}"],
    "postscript": lambda good, _: [good.replace("P.S.", ""), f"{good}\nYours, Kim"],
    "repeat_prompt": lambda good, _: [good.partition(" ")[2]],
}
"""Answers that break a check, made from one that meets it."""


def cased(check, other):
    """The answer in the other case, where the case counts."""
    return [other] if check.get("match_case") else []


def spoiled(good, check):
    """Answers that break a check of a prompt, made from the one that meets them all."""
    if check["check"] in SPOILED:
        return SPOILED[check["check"]](good, check)
    limit, _, what = check["check"].partition("_")
    if limit == "max":
        return [f"{good}\n{good}\n{good}\n{good}"]
    if limit == "min":
        cut = good[: check["n"] - 1] if what == "characters" else good.split(maxsplit=1)[0]
        return [cut]
    bad = [good + MORE[what]]
    if what in ("bullets", "sections"):
        bad.append(good.replace(f"{check['marker']} ", "+ " if what == "bullets" else "## ", 1))
    return bad


def tasks():
    """Each check of the set, with the answer that meets all of its prompt."""
    made = runpy.run_path(str(ROOT / "scripts/make_datasets.py"))["instructions"].tasks()
    return [(row, good, check) for row, good in made for check in row["target"]["instructions"]]


@pytest.mark.parametrize(
    ("row", "good", "check"),
    [pytest.param(*t, id=f"{n}-{t[2]['check']}") for n, t in enumerate(tasks())],
)
def test_every_check_refuses_a_bad_answer(row, good, check):
    """An answer that breaks a check, and little else, is told so for every check of every prompt."""
    judge = get_scorer("instruction")
    (prompt,) = PromptSet.from_records([{"id": "p", **row}])
    assert judge.score(good, prompt).value == 1
    answers = spoiled(good, check)
    assert answers
    for bad in answers:
        assert bad != good
        found = judge.score(bad, prompt)
        assert found.value < 1
        assert f"{check['check']} (" in found.explanation, (bad, found)
