"""Tuning a grid by racing: its cells answer the same blocks of prompts, losers leave, the winner is looked at again.

The select prompts are asked block by block (`workbench.tuning.race`); a cell that surely loses, or surely breaks a limit,
runs no further. What is left, with the baseline, then answers the prompts held out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from workbench.errors import StudyError
from workbench.tuning.asking import FINALISTS, ROUNDS, TIMED, Asking, rows_of
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
        cells = [c.cell_id for c in plan.cells]
        self.race = Race(
            cells, plan.baseline.cell_id, alpha=alpha, largest_group=largest_group(self.rounds)
        )
        first = len(self.rounds[0])
        self.check_budget(len(cells), rows_of([(cell, first) for cell in cells], self), first)

    def __call__(self, store: RunStore, done: Collection[Key]) -> Iterator[Iterable[Request]]:
        """The missing requests of each block, then those of the prompts held out."""
        self.ledger.begin(store.manifest)
        for n, block in enumerate(self.rounds):
            if self.race.decided:
                self.stopped = "the others surely lose"
                break
            if n and not self._fits(block):
                self.stopped = f"budget: {self.ledger.spent.describe()}"
                break
            may_lead = self.may_lead
            yield self.missing(block, self.race.alive, done)
            self.recall(store)
            self._judge(block, may_lead)
            self._look(store, n)
            self.probe(store, self.race.baseline)
            self._note(store)
        self._final = self.finalists()
        measured = self.affordable(self._final)
        self._final = measured or self._final
        yield self.missing(self.held_out, measured, done)
        self._note(store, measured=bool(measured))
        text = json.dumps(self.race.to_dict() | {"stopped": self.stopped}) + "\n"
        (store.dir / RECORD).write_text(text, encoding="utf-8")

    def asked(self, cell: str) -> Sequence[Prompt]:  # noqa: ARG002 - those still in were all asked the same
        """The prompts that a cell still in was asked so far."""
        return [p for block in self.rounds for p in block][: self.race.n_prompts]

    def finalists(self) -> list[str]:
        """The baseline, and the best of the others that are left, those first that keep to the limits."""
        if self._final is not None:
            return self._final
        best = [s.cell for s in self.race.standing() if s.alive and s.cell != self.race.baseline]
        best.sort(key=lambda cell: cell in self.infeasible)
        return [self.race.baseline, *best[:FINALISTS]]

    def read(self, run: Run) -> None:
        """Take over the race of a run that was finished before."""
        if self.race.n_prompts:
            return
        self.ledger.begin(run.manifest)
        self.ledger.resume_at_end()
        record = json.loads((run.path / RECORD).read_text(encoding="utf-8"))
        self.stopped = record.pop("stopped")
        self.race = Race.from_dict(record)
        self._final = list(run.manifest["race"]["finalists"])

    @property
    def n_rows_whole(self) -> int:
        """Rows of the whole grid."""
        return self.plan.n_rows

    def _note(self, store: RunStore, *, measured: bool = False) -> None:
        asked = {s.cell: s.n_prompts for s in self.race.standing()}
        more = {"finalists": self.finalists(), "n_rows_grid": self.plan.n_rows}
        stopped = {cell: drop.why for cell, drop in self.race.dropped.items()}
        self.note(store, stopped, asked, measured=measured, **more)

    def _judge(self, block: Sequence[Prompt], may_lead: Collection[str] | None) -> None:
        """Tell the race how the cells did, and say who leaves."""
        scores = [[self.mean(cell, p.id) for p in block] for cell in self.race.alive]
        gone = self.race.update(
            [p.id for p in block], [p.cluster for p in block], scores, may_lead=may_lead
        )
        self.tell(gone, self.race.n_prompts, len(self.race.alive), self._leader())

    def _look(self, store: RunStore, n: int) -> None:
        """See who keeps to the limits, after timing some requests if they are on times; drop who surely breaks one."""
        if not self.limits:
            return
        if self.timing and n < ROUNDS:
            self.time(store, self.race.alive, TIMED * (n + 1))
        times = self.times(store) if self.timing else None
        broken = {cell: self.look(cell, times) for cell in self.race.alive}
        gone = [
            self.race.drop(cell, why)
            for cell, why in broken.items()
            if why is not None and cell not in self.race.keep
        ]
        self.tell(gone, self.race.n_prompts, len(self.race.alive), self._leader())

    def _leader(self) -> str:
        """Who leads, of those that keep to the limits if there are any."""
        alive = [s.cell for s in self.race.standing() if s.alive]
        return next((cell for cell in alive if cell not in self.infeasible), alive[0])

    def _fits(self, block: Sequence[Prompt]) -> bool:
        """Whether a block still fits, with what the finalists are asked after it."""
        rows = rows_of([(cell, len(block)) for cell in self.race.alive], self)
        last = self.finalists()
        timed = len(self.race.alive) * TIMED if self.timing else 0
        return self.ledger.fits(rows + self.final_rows(last), timed + self.final_timed(last))
