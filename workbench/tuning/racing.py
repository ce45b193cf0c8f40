"""Tuning a grid by racing: its cells answer the same blocks of prompts, losers leave, the winner is looked at again.

The select prompts are asked block by block (`workbench.tuning.race`); a cell that surely loses, or surely breaks a limit,
runs no further. What is left, with the baseline, then answers the prompts held out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from workbench.errors import StudyError
from workbench.tuning.asking import FINALISTS, Asking, rows_of
from workbench.tuning.race import Race, blocks, largest_group

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from workbench import api
    from workbench.deciding.objective import Limit
    from workbench.plan import Key
    from workbench.prompts import Prompt
    from workbench.records import Request
    from workbench.runs import Run
    from workbench.store import RunStore
    from workbench.tuning.asking import Say
    from workbench.tuning.budget import Budget

RECORD: Final = "race.json"
"""In the run directory: every block with its scores, from which the race can be run again."""


class Racing(Asking):
    """The blocks of a race as a run asks for them."""

    def __init__(
        self,
        ready: api.Ready,
        objective: str,
        limits: Sequence[Limit],
        *,
        budget: Budget,
        alpha: float,
        say: Say,
    ) -> None:
        super().__init__(ready, [objective], limits, budget, say)
        plan = ready.plan
        self.rounds = blocks(plan)
        if len(plan.cells) < 2 or not self.rounds:
            what = "one cell" if len(plan.cells) < 2 else "no prompt to choose with"
            raise StudyError(plan.study.name, f"{what}: there is nothing to tune")
        self.race = Race(
            [c.cell_id for c in plan.cells],
            plan.baseline.cell_id,
            alpha=alpha,
            largest_group=largest_group(self.rounds),
        )

    def __call__(self, store: RunStore, done: Collection[Key]) -> Iterator[Iterable[Request]]:
        """The missing requests of each block, then those of the prompts held out."""
        self.recall(store)
        may_lead: list[str] | None = None
        for n, block in enumerate(self.rounds):
            if self.race.decided:
                self.stopped = "the others surely lose"
                break
            if n and not self._fits(block):
                self.stopped = f"budget: {self.spent().describe()}"
                break
            yield self.missing(block, self.race.alive, done)
            self.recall(store)
            self._judge(block, may_lead)
            may_lead = self._time(store, n)
            self._note(store)
        yield self.missing(self.held_out, self.finalists(), done)
        self._note(store)
        text = json.dumps(self.race.to_dict() | {"stopped": self.stopped}) + "\n"
        (store.dir / RECORD).write_text(text, encoding="utf-8")

    def finalists(self) -> list[str]:
        """The baseline, and the best of the others that are left."""
        best = [s.cell for s in self.race.standing() if s.alive and s.cell != self.race.baseline]
        return [self.race.baseline, *best[:FINALISTS]]

    def read(self, run: Run) -> None:
        """Take over the race of a run that was finished before."""
        if self.race.n_prompts:
            return
        record = json.loads((run.path / RECORD).read_text(encoding="utf-8"))
        self.stopped = record.pop("stopped")
        self.race = Race.from_dict(record)

    @property
    def n_rows_whole(self) -> int:
        """Rows of the whole grid."""
        return self.plan.n_rows

    def _note(self, store: RunStore) -> None:
        asked = {s.cell: s.n_prompts for s in self.race.standing()}
        more = {"finalists": self.finalists(), "n_rows_grid": self.plan.n_rows}
        stopped = {cell: drop.why for cell, drop in self.race.dropped.items()}
        self.note(store, stopped, asked, **more)

    def _judge(self, block: Sequence[Prompt], may_lead: Collection[str] | None) -> None:
        """Tell the race how the cells did, and say who leaves."""
        scores = [[self.mean(cell, p.id) for p in block] for cell in self.race.alive]
        gone = self.race.update(
            [p.id for p in block], [p.cluster for p in block], scores, may_lead=may_lead
        )
        self.tell(gone, self.race.n_prompts, len(self.race.alive), self.race.leader())

    def _time(self, store: RunStore, n: int) -> list[str] | None:
        """Time some requests if latency is limited; drop who surely breaks a limit; who may lead from here on."""
        if not self.limits:
            return None
        self.time(store, self.race.alive, n)
        table, keeping = self.times(store), []
        for cell in self.race.alive:
            mine = table[table["cell_id"].eq(cell)]
            broken = self.broken(mine)
            if broken is not None and cell not in self.race.keep:
                gone = self.race.drop(cell, broken)
                self.tell([gone], self.race.n_prompts, len(self.race.alive), self.race.leader())
            elif self.keeps(mine):
                keeping.append(cell)
        return keeping

    def _fits(self, block: Sequence[Prompt]) -> bool:
        """Whether a block still fits, with the prompts held out after it."""
        rows = rows_of([(cell, len(block)) for cell in self.race.alive], self)
        rows += rows_of([(cell, len(self.held_out)) for cell in self.finalists()], self)
        return self.spent().fits(self.cost(rows))
