"""What all prompt sets share: the seed, shuffling, spreading strata, and writing rows."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SEED: Final = 20
"""Seed of every draw and shuffle; each set mixes its own name into it, so that sets do not change each other."""

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PromptFile:
    """One prompt set as the script writes it.

    Attributes:
        name: File name without ``.jsonl``.
        make: Gives the rows, the same every time.
        scorers: Scorers in the form a study takes them; the first is the primary one.
        max_tokens: Long enough for a good answer of any chat model.
        shows: What the set is good for, in one line.
    """

    name: str
    make: Callable[[], list[Row]]
    scorers: tuple[str | dict[str, Any], ...]
    max_tokens: int
    shows: str


def stream(name: str) -> random.Random:
    """A generator of its own for each name."""
    return random.Random(f"{SEED}:{name}")  # noqa: S311 - test data, nothing secret


def shuffled(rng: random.Random, items: Iterable[T]) -> list[T]:
    """Shuffle with ``rng.random`` alone, whose numbers are the same in every Python version."""
    keyed = [(rng.random(), item) for item in items]
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


def spread(name: str, strata: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Shuffle the rows of every stratum, then spread each stratum evenly over the set and number the rows.

    So the first rows hold the strata in nearly the shares of the whole set.
    """
    rng = stream(name)
    placed: list[tuple[float, Row]] = []
    for rows in strata.values():
        mixed = shuffled(rng, rows)
        placed += [((i + rng.random()) / len(rows), row) for i, row in enumerate(mixed)]
    placed.sort(key=lambda item: item[0])
    return [{"id": f"{name}-{i:03d}", **row} for i, (_, row) in enumerate(placed, start=1)]


def chat(*turns: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages of a conversation that the user begins, with a system message before it if there is one."""
    roles = ("user", "assistant")
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def render(rows: Sequence[Row]) -> str:
    """JSON Lines text of the rows: UTF-8 kept readable, one row a line, a newline at the end."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(text: str) -> list[list[str]]:
    """Cells of a text with a row a line and " | " between cells; empty lines are skipped."""
    return [
        [cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line.strip()
    ]
