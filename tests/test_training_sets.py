"""The demo adapters' training data: as the script makes them, right, and kept apart from every set that ships."""

from __future__ import annotations

import importlib
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from workbench import registry
from workbench.training import read
from workbench.training.overlap import check_none

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("polite", "terse-sums")


@pytest.fixture(scope="module")
def sets(root: Path) -> Any:
    """The module that makes them."""
    sys.path.insert(0, str(root / "scripts"))
    try:
        return importlib.import_module("promptsets.training_sets")
    finally:
        sys.path.remove(str(root / "scripts"))


def numbers(text: str) -> frozenset[int]:
    """The numbers in a question."""
    return frozenset(map(int, re.findall(r"\d+", text)))


def test_the_script_makes_the_files(sets: Any, root: Path, tmp_path: Path) -> None:
    """Making them again gives the same bytes; nothing else lies there."""
    made = {path.name: path.read_bytes() for path in sets.write(tmp_path / "new" / "training")}
    kept = {path.name: path.read_bytes() for path in (root / "datasets" / "training").iterdir()}
    assert made == kept
    assert sorted(kept) == [f"{name}.jsonl" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_can_be_trained_on(name: str, root: Path) -> None:
    """They read without a problem, are at most 300, and no question is asked twice."""
    data = read(root / "datasets" / "training" / f"{name}.jsonl")
    assert 50 <= len(data.examples) <= 300
    assert len({e.fingerprint for e in data.examples}) == len(data.examples)


@pytest.mark.parametrize("name", NAMES)
def test_no_set_that_ships_asks_what_is_trained_on(name: str, root: Path) -> None:
    """Checked against every prompt of every set."""
    data = read(root / "datasets" / "training" / f"{name}.jsonl")
    shipped = [registry.load(name_) for name_ in registry.names()]
    trained = {e.place: e.asks for e in data.examples}
    assert len(check_none(trained, shipped, name)) == len(shipped)


def test_the_sums_are_right_and_new(root: Path) -> None:
    """Each answer is the sum and nothing else; none adds the numbers of an evaluated sum, in whatever order or words."""
    data = read(root / "datasets" / "training" / "terse-sums.jsonl")
    evaluated = {
        numbers(str(m["content"]))
        for prompt in registry.load("arithmetic")
        for m in prompt.messages
        if m["role"] == "user"
    }
    for example in data.examples:
        terms = list(map(int, re.findall(r"\d+", str(example.messages[-1]["content"]))))
        assert len(terms) in (2, 3)
        assert example.answer == str(sum(terms))
        assert len(terms) == 3 or frozenset(terms) not in evaluated


def test_courteous_answers_answer(sets: Any, root: Path) -> None:
    """Between greeting and offer stands the answer of the table; every greeting and offer is used about as often."""
    data = read(root / "datasets" / "training" / "polite.jsonl")
    answers = dict(sets.table(sets.EVERYDAY))
    used: list[str] = []
    for example in data.examples:
        middle = answers[str(example.messages[-1]["content"])]
        opening, closing = example.answer.split(f" {middle} ")
        assert opening in sets.OPENINGS
        assert closing in sets.CLOSINGS
        used += [opening, closing]
    counts = [used.count(words) for words in (*sets.OPENINGS, *sets.CLOSINGS)]
    assert max(counts) - min(counts) <= 4
