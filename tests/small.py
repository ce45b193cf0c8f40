"""Small plans and fixed scorers for the tests of running and recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.prompts import PromptSet
from workbench.records import Score
from workbench.study import Study

if TYPE_CHECKING:
    from workbench.plan import Plan
    from workbench.prompts import Prompt


def make_plan(
    n_prompts: int = 6,
    *,
    temperatures: tuple[float, ...] = (0.0, 0.7, 1.3),
    repeats: int = 3,
    max_tokens: int = 8,
    seed: int = 7,
) -> Plan:
    """A plan over made-up sums: groups of two prompts, one cell per temperature."""
    rows = [
        {"id": f"p{i}", "prompt": f"What is {i} + 1?", "target": str(i + 1), "group": f"g{i // 2}"}
        for i in range(n_prompts)
    ]
    study = Study(
        name="small",
        model="scripted",
        prompts=PromptSet.from_records(rows, "sums"),
        grid={"temperature": list(temperatures)},
        fixed={"max_tokens": max_tokens, "stop": ["never"]},
        repeats=repeats,
        seed=seed,
        split={"confirm": 0.4},
        scorers=[Length()],
        baseline={"temperature": temperatures[0]},
    )
    return study.plan()


@dataclass(frozen=True)
class Length:
    """Scores how short an answer is; the first scorer of these tests."""

    name: str = "length"
    version: str = "1"
    options: dict[str, Any] = field(default_factory=dict)

    def score(self, text: str, prompt: Prompt) -> Score:
        """1 for an empty answer, less for longer ones."""
        return Score(1 / (1 + len(text)), answer=text[:3], explanation=f"asked {prompt.id}")


@dataclass(frozen=True)
class Broken:
    """A scorer that raises."""

    name: str = "broken"
    version: str = "2"
    options: dict[str, Any] = field(default_factory=dict)

    def score(self, text: str, prompt: Prompt) -> Score:
        """Fail."""
        raise ZeroDivisionError(f"no score for {prompt.id} {len(text)}")
