"""The judging of committed answers by scorers that need several of them, or a model (`workbench.scorers.together`).

Such a scorer judges all answers to every prompt that has an answer without its current score. So a run that was killed
in between, or whose failed rows were tried again, is completed by running it again. Failed rows get no score from it.

Prompts are read from the record one by one and judged in chunks, with all their cells and repeats; the scores of a chunk
are written in one transaction.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from workbench import tables
from workbench.progress import TICK_S, room_for_bars
from workbench.provenance import scorer_entry
from workbench.records import Generation
from workbench.rundir import explained
from workbench.scorers.base import TogetherScorer, score_together
from workbench.scorers.together import Asked, Means
from workbench.store import ScoreRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from workbench.engines.base import Engine
    from workbench.plan import Cell, Plan
    from workbench.prompts import Prompt
    from workbench.records import Score
    from workbench.store import RunStore

    Say = Callable[[str], None]

CHUNK_ROWS: Final = 500
"""A chunk ends with the prompt that brings it to so many answers."""
_QUIET_S: Final = 1.0
"""A progress bar appears after so long."""

_PROMPTS: Final = 'SELECT prompt_id FROM prompts ORDER BY "order"'
_UNJUDGED: Final = """
SELECT prompt_id FROM prompts WHERE prompt_id IN (
    SELECT g.prompt_id FROM generations AS g LEFT JOIN scores AS s
    ON s.cell_id = g.cell_id AND s.prompt_id = g.prompt_id AND s.repeat = g.repeat
    AND s.scorer = ? AND s.scorer_version = ?
    WHERE s.scorer IS NULL AND g.finish_reason <> 'error')
ORDER BY "order"
"""
# CROSS JOIN makes SQLite look every cell's rows up by their key, which begins with the cell.
_ANSWERS: Final = """
SELECT g.cell_id, g.prompt_id, g.repeat, g.text, g.token_ids, g.n_prompt_tokens, g.finish_reason, g.seed, r.prompt,
    g.error, g.batch_rows, g.min_margin
FROM cells AS c CROSS JOIN generations AS g ON g.cell_id = c.cell_id AND g.prompt_id = ?
LEFT JOIN renderings AS r ON r.digest = g.rendering
ORDER BY c."order", g.repeat
"""


class Worded(NamedTuple):
    """What the answers of a run answer.

    Attributes:
        cells: The cells.
        prompt: The prompt of a cell id and prompt id, as the cell words it.
    """

    cells: Iterable[Cell]
    prompt: Callable[[str, str], Prompt]


def answers(directory: Path, prompts: Iterable[str] | None = None) -> Iterator[list[Generation]]:
    """The answers of a run, failed ones included, one list for each prompt, by cell and repeat.

    Args:
        directory: The run directory.
        prompts: Ids of the prompts; by default all, in their order.

    Raises:
        StoreError: The record cannot be read.
    """
    with _record(directory) as db:
        if prompts is None:
            prompts = [prompt for (prompt,) in db.execute(_PROMPTS)]
        for prompt in prompts:
            yield [_generation(*row) for row in db.execute(_ANSWERS, (prompt,)).fetchall()]


@contextlib.contextmanager
def _record(directory: Path) -> Iterator[sqlite3.Connection]:
    """The record of a run, to read beside who writes it."""
    with (
        explained(directory),
        contextlib.closing(tables.open_database(directory, write=False)) as db,
    ):
        yield db


def _generation(
    cell: str, prompt: str, repeat: int, text: str, token_ids: str, *others: Any
) -> Generation:
    return Generation(cell, prompt, repeat, text, tuple(json.loads(token_ids)), *others)


def unjudged(directory: Path, scorer: str, version: str) -> list[str]:
    """Ids of the prompts of a run that have an answer without a score of this scorer and version, in order.

    Raises:
        StoreError: The record cannot be read.
    """
    with _record(directory) as db:
        return [prompt for (prompt,) in db.execute(_UNJUDGED, (scorer, version))]


def judged(
    directory: Path,
    scorer: TogetherScorer,
    means: Means,
    worded: Worded,
    prompts: Iterable[str] | None = None,
) -> Iterator[list[tuple[Asked, Score]]]:
    """All answers to some prompts with their scores, chunk by chunk; failed rows are there without a value.

    Args:
        directory: The run directory.
        scorer: The judge.
        means: What it may use.
        worded: Cells and prompts of the run.
        prompts: Ids of the prompts; by default all.
    """
    cells = {cell.cell_id: cell for cell in worded.cells}
    chunk: list[Asked] = []
    for found in answers(directory, prompts):
        chunk += [Asked(g, worded.prompt(g.cell_id, g.prompt_id), cells[g.cell_id]) for g in found]
        if len(chunk) >= CHUNK_ROWS:
            yield list(zip(chunk, score_together(scorer, chunk, means), strict=True))
            chunk = []
    if chunk:
        yield list(zip(chunk, score_together(scorer, chunk, means), strict=True))


def recorded(scorer: str, version: str, scores: Iterable[tuple[Asked, Score]]) -> list[ScoreRow]:
    """The scores of a chunk as they are recorded: those of answers that did not fail."""
    return [
        ScoreRow(asked.generation.key, scorer, version, score)
        for asked, score in scores
        if asked.generation.finish_reason != "error"
    ]


class Judging:
    """Judges what a run has answered so far; called after each block of rows.

    Attributes:
        names: The scorers that it stands for; the others judge row by row.
    """

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        scorers: Iterable[Any],
        *,
        progress: bool = True,
        say: Say | None = None,
        **_: Any,
    ) -> None:
        """Take what is needed.

        Args:
            plan: That of the run.
            engine: That of the run.
            scorers: Those of the study; only `TogetherScorer` among them count.
            progress: Show a bar where it takes long.
            say: Without a bar told every half minute how far it is.
            _: The other options of a run.
        """
        self._scorers = [
            (s, scorer_entry(s)["version"]) for s in scorers if isinstance(s, TogetherScorer)
        ]
        self.names: Collection[str] = frozenset(s.name for s, _ in self._scorers)
        self._means = Means(engine, plan.baseline.cell_id)
        self._worded = Worded(plan.cells, plan.prompt)
        self._progress = progress and room_for_bars()
        self._say = say

    def missing(self, store: RunStore) -> bool:
        """Whether an answer lacks the score of a scorer that the run's manifest names in this version."""
        made = {(entry["name"], entry["version"]) for entry in store.manifest.get("scorers", ())}
        return any(
            (s.name, version) in made and unjudged(store.dir, s.name, version)
            for s, version in self._scorers
        )

    def __call__(self, store: RunStore) -> None:
        """Judge all answers to the prompts that have one without its score.

        Raises:
            StoreError: The record cannot be read or written.
        """
        for scorer, version in self._scorers:
            prompts = unjudged(store.dir, scorer.name, version)
            if prompts:
                self._judge(store, scorer, version, prompts)

    def _judge(
        self, store: RunStore, scorer: TogetherScorer, version: str, prompts: list[str]
    ) -> None:
        from tqdm.auto import tqdm  # noqa: PLC0415 - not needed to import this

        told, done = time.monotonic(), 0
        with tqdm(
            total=len(prompts),
            desc=scorer.name,
            unit="prompt",
            leave=False,
            delay=_QUIET_S,
            disable=not self._progress,
        ) as bar:
            for chunk in judged(store.dir, scorer, self._means, self._worded, prompts):
                store.add_scores(recorded(scorer.name, version, chunk))
                n = len({asked.prompt.id for asked, _ in chunk})
                done += n
                bar.update(n)
                if self._say and not self._progress and time.monotonic() - told >= TICK_S:
                    self._say(f"{scorer.name}: {done:,} of {len(prompts):,} prompts judged")
                    told = time.monotonic()
