"""A search in a process of its own, to be killed: ``python killedsearch.py OUT DELAY_MS``.

Prints one line for each request that the engine is asked, and "end" at the end; tests import its study and engine.
"""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import committer
from workbench.engines.scripted import PlantedQuality, ScriptedClock, ScriptedEngine
from workbench.study import Study
from workbench.tuning import tune

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from workbench.records import Generation, Request, TokenEvent

N = 120
ROWS = [{"id": f"p{i}", "prompt": f"What is {i} + 1?", "target": str(i + 1)} for i in range(N)]
EASE = {f"p{i}": float(x) for i, x in enumerate(np.random.default_rng(1).beta(0.6, 0.6, N))}
OPTIONS: dict[str, Any] = {"progress": False, "trials": 24, "budget": "1200 rows"}


def chance(request: Request) -> float:
    """A hill at temperature 0.9 and top_p 0.6; the baseline is off it."""
    params = request.params
    top_p = 1.0 if params.top_p is None else params.top_p
    away = ((params.temperature - 0.9) / 0.35) ** 2 + ((top_p - 0.6) / 0.2) ** 2
    return float(np.clip(EASE[request.prompt_id] - 0.15 + 0.4 * math.exp(-away / 2), 0, 1))


def planted(delay_ms: float = 0.0, **options: Any) -> ScriptedEngine:
    """An engine that is right with a known chance, and takes a known time: less for colder settings."""
    quality = PlantedQuality(chance, {row["id"]: row["target"] for row in ROWS})
    clock = ScriptedClock(lambda r: 10 + 40 * r.params.temperature, 1.0)
    return ScriptedEngine(quality=quality, clock=clock, delay_ms=delay_ms, max_rows=16, **options)


def study(**changes: Any) -> Study:
    """Two ranges on 120 prompts."""
    values: dict[str, Any] = {
        "name": "search",
        "model": "scripted",
        "prompts": ROWS,
        "search": {"temperature": [0, 1.5], "top_p": [0.3, 1]},
        "fixed": {"max_tokens": 12},
        "split": {"confirm": 0.3},
        "scorers": ["contains"],
        "latency": None,
        "seed": 3,
    }
    return Study(**values | changes)


class Killed(ScriptedEngine):
    """Stops after some answers."""

    def __init__(self, inner: ScriptedEngine, after: int) -> None:
        super().__init__()
        self.inner, self.after = inner, after
        self.clock_ns = inner.clock_ns

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer some."""
        for generation in self.inner.generate(requests):
            if self.after == 0:
                raise KeyboardInterrupt
            self.after -= 1
            yield generation

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Answer one."""
        return self.inner.stream(request)


class Telling(ScriptedEngine):
    """Prints each request that belongs to the run."""

    def __init__(self, inner: ScriptedEngine) -> None:
        super().__init__()
        self.inner = inner

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer, one line a request."""
        for generation in self.inner.generate(requests):
            sys.stdout.write(f"{json.dumps(generation.key)}\n")
            sys.stdout.flush()
            yield generation


def main() -> None:
    """Search, with many commits, so that a kill at any moment finds one near."""
    committer.COMMIT_SECONDS = 0.02
    committer.COMMIT_ROWS = 7
    tune(study(), Telling(planted(float(sys.argv[2]))), sys.argv[1], **OPTIONS)
    sys.stdout.write("end\n")


if __name__ == "__main__":
    main()
