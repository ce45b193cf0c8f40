"""The files of ``datasets/``: made by their script, registered, readable, judged by their scorers, and described."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from workbench import registry
from workbench.engines.scripted import ScriptedEngine
from workbench.prompts import PromptSet
from workbench.scorers import get_scorer

ROOT = Path(__file__).parents[1]
NAMES = (
    *("arithmetic", "capitals", "sentiment", "multistep", "topics", "extraction"),
    *("instructions", "tools", "chats", "writing", "french", "templated"),
)
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
    """Accepted answers of a row."""
    return row["target"] if isinstance(row["target"], list) else [row["target"]]


def kind(row):
    """What the rows of a set are spread by."""
    metadata = row.get("metadata", {})
    found = [metadata[key] for key in ("family", "function", "region", "kind") if key in metadata]
    if not found or "choices" not in metadata:
        found += [row["target"]] if not found or question(row).startswith("Note:") else []
    return " ".join(found)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A directory the script has just written, beside nothing else, as anybody would run it."""
    directory = tmp_path_factory.mktemp("datasets")
    command = [sys.executable, str(ROOT / "scripts/make_datasets.py"), str(directory)]
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=directory)
    return directory


@pytest.mark.parametrize("name", [*(f"{name}.jsonl" for name in NAMES), "registry.json"])
def test_file_is_what_the_script_writes(name, written):
    """Every committed file equals the script's output byte for byte."""
    assert (ROOT / "datasets" / name).read_bytes() == (written / name).read_bytes()


def test_every_file_is_made_by_the_script(written):
    """No prompt file lies in the folder that the script does not make, and the registry names them all."""
    made = {path.name for path in written.glob("*.jsonl")}
    assert made == {path.name for path in (ROOT / "datasets").glob("*.jsonl")}
    assert made == {f"{name}.jsonl" for name in NAMES}
    training = {path.name: path.read_bytes() for path in (written / "training").iterdir()}
    kept = (ROOT / "datasets" / "training").iterdir()
    assert training == {path.name: path.read_bytes() for path in kept}
    assert registry.names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_reads_as_a_prompt_set_of_fair_size(name):
    """The workbench reads every set: 60 to 300 prompts, ids in order, no conversation twice, with targets."""
    prompts = PromptSet.from_file(ROOT / f"datasets/{name}.jsonl")
    assert 60 <= len(prompts) <= 300
    assert [p.id for p in prompts] == [f"{name}-{i:03d}" for i in range(1, len(prompts) + 1)]
    assert len({json.dumps(p.messages) for p in prompts}) == len(prompts)
    assert all((p.target is not None) == (name != "writing") for p in prompts)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_asked_twice(name):
    """No two rows ask nearly the same: their words differ, or they belong to one group."""
    rows = rows_of(name)
    told = [json.dumps(row.get("messages", question(row))) for row in rows]
    words = [" ".join(re.findall(r"\w+", text.casefold())) for text in told]
    assert len(set(words)) == len(rows)
    asked = Counter(question(row).casefold() for row in rows)
    for text, n in asked.items():
        groups = {row.get("group") for row in rows if question(row).casefold() == text}
        assert n == 1 or (len(groups) == 1 and groups != {None})


@pytest.mark.parametrize("name", NAMES)
def test_registry_tells_the_truth(name):
    """A registered set has the size and hash of its file, and its scorers can judge every row."""
    entry = registry.entry(name)
    prompts = PromptSet.from_file(ROOT / "datasets" / entry.file)
    assert (entry.n, entry.sha256) == (len(prompts), prompts.sha256)
    for spec in entry.scorers:
        scorer = get_scorer(spec)
        reasons = {scorer.score("Good morning.", prompt).reason for prompt in prompts}
        assert reasons == {None}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [12, 24])
def test_first_prompts_are_a_fair_sample(name, first):
    """The first rows hold each kind of row in the shares of the whole set, give or take one row."""
    rows = rows_of(name)
    whole, head = Counter(map(kind, rows)), Counter(map(kind, rows[:first]))
    assert len(whole) > 1
    for value, count in whole.items():
        assert abs(head[value] - count * first / len(rows)) <= 1


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


def test_sentiment_groups_are_a_review_and_its_counterpart():
    """Every group is one positive and one negative review; reviews that are nearly alike are never in two groups."""
    rows = rows_of("sentiment")
    groups = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row["target"])
    assert len(groups) == 40
    assert all(sorted(labels) == ["negative", "positive"] for labels in groups.values())
    texts = [(re.search('"(.+)"', question(row))[1], row["group"]) for row in rows]
    for n, (text, group) in enumerate(texts):
        for other, its in texts[:n]:
            alike = SequenceMatcher(None, text, other).ratio()
            assert alike < 0.7 or group == its, (text, other)


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


def scores():
    """What the demo model scored: set to setting to numbers."""
    return json.loads((ROOT / "datasets/demo_scores.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def scoring():
    """The script that scores the demo model."""
    return runpy.run_path(str(ROOT / "scripts/score_datasets.py"))


def test_demo_model_is_scored_on_every_set(scoring):
    """Every set has a score on all its prompts under every setting, inside its interval."""
    found = scores()
    assert tuple(found) == NAMES
    for name, settings in found.items():
        assert set(scoring["SETTINGS"]) <= set(settings)
        for row in settings.values():
            assert row["n"] == registry.entry(name).n
            assert 0 <= row["lo"] <= row["score"] <= row["hi"] <= 1


def test_sets_leave_room_for_settings():
    """At least five sets, and three of those that came later, score between 20 and 80 % greedy."""
    between = [n for n, row in scores().items() if 0.2 <= row["temperature 0"]["score"] <= 0.8]
    assert len(between) >= 5
    assert len(set(between) - {"arithmetic", "capitals", "sentiment"}) >= 3


def test_readme_tells_sizes_scorers_and_scores(scoring):
    """The table of all sets has the registry's sizes, scorers and lengths, and every score on the page is the measured one."""
    text = (ROOT / "datasets/README.md").read_text("utf-8")
    assert scoring["with_tables"](text, scores()) == text
    stated = {}
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == scoring["COLUMNS"] and cells[0].startswith("`"):
            stated[cells[0].strip("`")] = cells
    assert tuple(stated) == NAMES
    for entry in registry.entries():
        size, shows, judged = (stated[entry.name][i] for i in (1, 2, 4))
        spec = entry.scorers[0]
        assert int(size) == entry.n
        assert len(shows) > 10
        assert judged.startswith(f"`{spec if isinstance(spec, str) else next(iter(spec))}`")
        assert judged.endswith(f", {entry.max_tokens}")


def test_scores_are_made_by_the_script(scoring, tmp_path, monkeypatch):
    """The script runs a set under all settings, and the set for templates under all wordings too."""
    engine = ScriptedEngine()
    monkeypatch.setitem(scoring["answered"].__globals__, "RUNS", tmp_path)
    found = scoring["score"]("chats", engine)
    assert set(found) == set(scoring["SETTINGS"])
    assert {row["n"] for row in found.values()} == {registry.entry("chats").n}
    worded = set(scoring["score"]("templated", engine))
    wordings = {f"{w}: temperature {t}" for w in scoring["WORDINGS"] for t in (0, 1)}
    assert worded == set(scoring["SETTINGS"]) | wordings
