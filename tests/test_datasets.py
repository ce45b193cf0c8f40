"""The prompt sets of ``datasets/``: made by their script, and right."""

from __future__ import annotations

import json
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from workbench.prompts import PromptSet

ROOT = Path(__file__).parents[1]
NAMES = ("arithmetic", "capitals", "sentiment")
KNOWN_CAPITALS = {
    "Australia": "Canberra",
    "Brazil": "Brasília",
    "Canada": "Ottawa",
    "Ethiopia": "Addis Ababa",
    "France": "Paris",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "New Zealand": "Wellington",
    "Nigeria": "Abuja",
    "Turkey": "Ankara",
    "Vietnam": "Hanoi",
}
"""Written down for this test alone, among them the ones that are often got wrong."""


def rows_of(name):
    """Rows of a committed file, as JSON objects."""
    return [
        json.loads(line)
        for line in (ROOT / f"datasets/{name}.jsonl").read_text("utf-8").splitlines()
    ]


def question(row):
    """What the model is asked in this row."""
    return row["messages"][-1]["content"] if "messages" in row else row["prompt"]


def spellings(row):
    """Accepted spellings of a capital."""
    return row["target"] if isinstance(row["target"], list) else [row["target"]]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A directory the script has just written, beside nothing else."""
    directory = tmp_path_factory.mktemp("datasets")
    script = runpy.run_path(str(ROOT / "scripts/make_datasets.py"))
    script["main"]([str(directory)])
    return directory


@pytest.mark.parametrize("name", NAMES)
def test_file_is_what_the_script_writes(name, written):
    """Every committed file equals the script's output byte for byte."""
    assert (ROOT / f"datasets/{name}.jsonl").read_bytes() == (
        written / f"{name}.jsonl"
    ).read_bytes()


def test_every_file_is_made_by_the_script(written):
    """No prompt file lies in the folder that the script does not make."""
    made = {path.name for path in written.iterdir()}
    assert made == {path.name for path in (ROOT / "datasets").glob("*.jsonl")}
    assert made == {f"{name}.jsonl" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_reads_as_a_prompt_set_of_fair_size(name):
    """The workbench reads every set: 60 to 120 prompts, ids and questions unique, each with a target."""
    prompts = PromptSet.from_file(ROOT / f"datasets/{name}.jsonl")
    assert 60 <= len(prompts) <= 120
    assert [p.id for p in prompts] == [f"{name}-{i:03d}" for i in range(1, len(prompts) + 1)]
    assert len({p.messages[-1]["content"] for p in prompts}) == len(prompts)
    assert all(p.target is not None for p in prompts)


def test_arithmetic_targets_are_the_sums():
    """Every target is the sum of the numbers read back from its question, and no sum is asked twice."""
    asked = set()
    for row in rows_of("arithmetic"):
        found = re.fullmatch(r"What is (\d+) \+ (\d+)\?", question(row))
        assert found is not None
        terms = sorted(map(int, found.groups()))
        assert row["target"] == terms[0] + terms[1]
        assert row["metadata"]["kind"] == ("digits" if terms[1] < 10 else "teens")
        asked.add(tuple(terms))
    assert len(asked) == len(rows_of("arithmetic"))


def test_arithmetic_example_is_right_and_not_asked():
    """The worked example is the same true equation in every row, and no row asks for it."""
    rows = rows_of("arithmetic")
    shown = {tuple(m["content"] for m in row["messages"][:-1]) for row in rows}
    assert shown == {("What is 3 + 4?", "3 + 4 = 7")}
    assert not {question(row) for row in rows} & {"What is 3 + 4?", "What is 4 + 3?"}


def test_capitals_agree_with_known_ones():
    """A second, independent list of capitals agrees with the file."""
    found = {
        question(row).removeprefix("What is the capital of ").removesuffix("?"): spellings(row)
        for row in rows_of("capitals")
    }
    assert {c: found[c][0] for c in KNOWN_CAPITALS} == KNOWN_CAPITALS


def test_capitals_cannot_be_scored_by_accident():
    """No accepted spelling is part of its question or very short, and no two countries share one."""
    rows = rows_of("capitals")
    for row in rows:
        for spelling in spellings(row):
            assert len(spelling) >= 5
            assert spelling.casefold() not in question(row).casefold()
    counts = Counter(s.casefold() for row in rows for s in spellings(row))
    assert [s for s, n in counts.items() if n > 1] == []


def test_sentiment_is_balanced_and_does_not_say_its_label():
    """As many positive as negative reviews, and the words of the answer stand only in the question around the review."""
    rows = rows_of("sentiment")
    counts = Counter(row["target"] for row in rows)
    assert set(counts) == {"positive", "negative"}
    assert counts["positive"] == counts["negative"]
    for row in rows:
        found = re.fullmatch(
            r'Is this review positive or negative\? "([^"]+)" Answer with one word\.', question(row)
        )
        assert found is not None
        assert not re.search("positive|negative", found[1], re.IGNORECASE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("arithmetic", lambda row: row["metadata"]["kind"]),
        ("capitals", lambda row: row["metadata"]["region"]),
        ("sentiment", lambda row: row["target"]),
    ],
)
@pytest.mark.parametrize("first", [12, 24])
def test_first_prompts_are_a_fair_sample(name, kind, first):
    """The first rows hold each kind of row in the shares of the whole set, give or take one row."""
    rows = rows_of(name)
    whole, head = Counter(map(kind, rows)), Counter(map(kind, rows[:first]))
    for value, count in whole.items():
        assert abs(head[value] - count * first / len(rows)) <= 1


def test_readme_states_the_sizes():
    """The table in the folder's README gives every set with its true number of prompts."""
    text = (ROOT / "datasets/README.md").read_text("utf-8")
    stated = dict(re.findall(r"^\| `(\w+)\.jsonl` \| (\d+) \|", text, re.MULTILINE))
    assert stated == {name: str(len(rows_of(name))) for name in NAMES}
