"""Small study files and troublesome engines for the tests of the Python API and the commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from workbench.engines.scripted import ScriptedEngine
from workbench.records import CANARY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from workbench.records import Generation, Request, TokenEvent

SMALL: dict[str, Any] = {
    "name": "small",
    "prompts": "sums.jsonl",
    "grid": {"temperature": [0, 0.7, 1.3], "top_k": [10, 50]},
    "fixed": {"max_tokens": 6},
    "repeats": 2,
    "seed": 7,
    "scorers": ["numeric"],
    "latency": {"prompts": 2, "warmup": 1, "rounds": 1},
    "engine": {"kind": "scripted"},
}
"""Five cells after merging; with six prompts 54 rows and 10 timed requests."""
N_PROMPTS, N_CELLS, N_ROWS, N_TIMED = 6, 5, 54, 10


def sums(n: int) -> list[dict[str, Any]]:
    """Prompts with targets."""
    return [{"id": f"p{i}", "prompt": f"What is {i} + 1?", "target": i + 1} for i in range(n)]


def study_file(folder: Path, n_prompts: int = N_PROMPTS, **changes: Any) -> Path:
    """Write a study and its prompts; a change to None leaves the field out."""
    rows = "".join(json.dumps(row) + "\n" for row in sums(n_prompts))
    (folder / "sums.jsonl").write_text(rows, encoding="utf-8")
    study = {key: value for key, value in (SMALL | changes).items() if value is not None}
    path = folder / f"{study['name']}.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


class Stopping:
    """An engine that gives up after some answers, or in the latency pass after some streams."""

    def __init__(
        self, inner: Any, error: BaseException, answers: int = 10**9, streams: int = 10**9
    ) -> None:
        self.inner, self.error = inner, error
        self.answers, self.streams = answers, streams
        self.asked: list[tuple[str, str, int]] = []
        self.closed = 0
        self.info = inner.info

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer, then raise. The check of settings before a run does not count; below 0 it raises too."""
        n = 0
        for generation in self.inner.generate(self._noted(requests)):
            counts = not generation.prompt_id.startswith(CANARY)
            if self.answers < 0 or (counts and n == self.answers):
                raise self.error
            n += counts
            yield generation

    def _noted(self, requests: Iterable[Request]) -> Iterator[Request]:
        for request in requests:
            if not request.prompt_id.startswith(CANARY):
                self.asked.append(request.key)
            yield request

    def stream(self, request: Request) -> Iterator[TokenEvent]:
        """Answer, or raise."""
        if self.streams == 0:
            raise self.error
        self.streams -= 1
        yield from self.inner.stream(request)

    def close(self) -> None:
        """Count it."""
        self.closed += 1
        self.inner.close()


def never(inner: Any = None) -> Stopping:
    """An engine that fails the test if it is asked for an answer or a time."""
    return Stopping(inner or ScriptedEngine(), AssertionError("asked again"), answers=-1, streams=0)
