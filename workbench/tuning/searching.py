"""Searching ranges: settings are proposed while answers come in, and the good ones are asked more.

A round asks new settings for the first block of prompts, and the best of the older ones for their next block; all go to the
engine together. A cell that surely loses is dropped (`workbench.tuning.pool`), and the next settings are proposed from what
every cell is worth by then (`workbench.tuning.proposing`). When `EXPLORE` of the budget is spent, or all trials are made, the
best cells go on alone, block by block, and then answer the prompts held out.

With several objectives no cell is dropped, the cells that no other beats in all of them are asked more, and are the finalists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.deciding.objective import Limit
from workbench.errors import StudyError
from workbench.params import SamplingParams
from workbench.plan import Cell, Plan, label
from workbench.searchspace import dimensions
from workbench.tuning.asking import FINALISTS, ROUNDS, TIMED, Asking, rows_of
from workbench.tuning.budget import Budget
from workbench.tuning.pool import Pool
from workbench.tuning.proposing import Trial, Trials, propose
from workbench.tuning.race import blocks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from workbench import api
    from workbench.deciding.objective import Objective
    from workbench.plan import Key
    from workbench.prompts import Prompt
    from workbench.records import Request
    from workbench.runs import Run
    from workbench.store import RunStore
    from workbench.tuning.asking import Say

TRIALS: Final = 40
"""Settings tried where neither a budget nor a number is given."""
MOST_TRIALS: Final = 200
"""Settings tried at most where only a budget is given."""
BATCH: Final = 8
"""New settings in a round."""
MORE: Final = 4
"""Older ones that are asked their next block in a round."""
BLOCK: Final = 20
"""Prompts in a block."""
EXPLORE: Final = 0.7
"""Share of the budget for the rounds; the rest is for the finalists."""
RECORD: Final = "search.json"
"""In the run directory: what the search knew at its end."""
_SAME: Final = 3
"""Rounds without a new cell after which the space counts as used up."""


class Growing(Plan):
    """A plan whose cells are added as a search goes on; its content hash is that of the study as declared.

    Args:
        plan: The plan of the study; its one cell is the baseline.
        varied: The settings that labels show.
        most: Rows that it may come to.
    """

    varied: tuple[str, ...]
    n_most: int

    def __init__(self, plan: Plan, varied: Sequence[str], most: int) -> None:
        object.__setattr__(self, "varied", tuple(varied))
        object.__setattr__(self, "n_most", most)
        base = self.named(plan.baseline)
        super().__init__(plan.study, plan.prompt_set, (base,), (), base, plan.wordings)
        assert self.content_hash  # kept from here on

    def named(self, cell: Cell) -> Cell:
        """A cell with its label."""
        params = cell.params.canonical()
        text = label(params, self.varied, cell.adapter, None, cell.template)
        return dataclasses.replace(cell, params=params, label=text)

    def add(self, cell: Cell) -> None:
        """Let a cell join."""
        object.__setattr__(self, "cells", (*self.cells, cell))
        self.__dict__.pop("_cells", None)

    @property
    def n_rows(self) -> int:
        """Rows that it may come to."""
        return self.n_most

    @property
    def saved_rows(self) -> int:
        """None can be told before the cells are known."""
        return 0


class Searching(Asking):
    """The blocks of a search as a run asks for them."""

    def __init__(
        self,
        ready: api.Ready,
        objectives: Sequence[Objective],
        limits: Sequence[Limit],
        *,
        budget: Budget,
        trials: int | None,
        alpha: float,
        say: Say,
    ) -> None:
        study, plan = ready.study, ready.plan
        free = trials is None and budget == Budget()
        self.n_trials = trials or (TRIALS if free else MOST_TRIALS)
        self.space = dimensions(study.search, list(study.adapters), list(study.templates))
        most = (self.n_trials + 1) * len(plan.prompt_set) * study.repeats
        growing = Growing(plan, [d.name for d in self.space], min(most, budget.rows or most))
        read = [o.metric for o in objectives if not o.timed]
        timed = any(o.timed for o in objectives)
        ready = dataclasses.replace(ready, plan=growing)
        super().__init__(ready, read, limits, budget, say, timed=timed)
        self.growing, self.objectives = growing, tuple(objectives)
        whole = [p for block in blocks(plan) for p in block]
        if not whole:
            raise StudyError(study.name, "no prompt to choose with: there is nothing to tune")
        rounds = blocks(plan, first=min(BLOCK, math.ceil(len(whole) / 2)), growth=1)
        self.order = [p for block in rounds for p in block]
        self.ends = np.cumsum([len(block) for block in rounds]).tolist()
        self.pool = Pool(
            [p.id for p in self.order],
            [p.cluster for p in self.order],
            plan.baseline.cell_id,
            alpha if len(objectives) == 1 else None,
        )
        self.known: list[tuple[Trial, str]] = []
        self._timed: dict[str, int] = {}
        self._times: pd.DataFrame | None = None
        self._worth: dict[str, float] = {}
        cells = min(BATCH, self.n_trials) + 1
        self.check_budget(cells, cells * self.ends[0] * study.repeats, self.ends[0])

    @property
    def race(self) -> Pool:
        """What is known of the cells."""
        return self.pool

    @property
    def n_rows_whole(self) -> int:
        """Rows if every cell had answered every prompt."""
        return rows_of([(c.cell_id, len(self.plan.prompt_set)) for c in self.plan.cells], self)

    def __call__(self, store: RunStore, done: Collection[Key]) -> Iterator[Iterable[Request]]:
        """The missing requests of each round, of the finalists, and of the prompts held out."""
        self.ledger.begin(store.manifest)
        directions = ["minimize" if o.minimise else "maximize" for o in self.objectives]
        names = [f"{o.metric} over the baseline" for o in self.objectives]
        trials = Trials(store.dir, self.plan.study.name, self.space, directions, names)
        with contextlib.closing(trials):
            yield from self._explore(store, done, trials)
            yield from self._finish(store, done)
            self._end(trials)
        measured = self.affordable(self.finalists())
        self._final = measured or self._final
        yield self.missing(self.held_out, measured, done)
        self._note(store, measured=bool(measured))
        record = {
            "stopped": self.stopped,
            "finalists": self._final,
            "cells": [[t.number, cell] for t, cell in self.known],
            "pool": self.pool.to_dict(),
        }
        (store.dir / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")

    def read(self, run: Run) -> None:
        """Take over the search of a run that was finished before."""
        if self.known:
            return
        self.ledger.begin(run.manifest)
        self.ledger.resume_at_end()
        record = json.loads((run.path / RECORD).read_text(encoding="utf-8"))
        self.stopped, self._final = record["stopped"], record["finalists"]
        self.pool = Pool.from_dict(record["pool"])
        for cell in run.recorded_cells:
            if cell.cell_id != self.pool.baseline:
                self.growing.add(cell)

    def asked(self, cell: str) -> Sequence[Prompt]:
        """The prompts that a cell was asked so far."""
        return self.order[: self.pool.asked(cell)]

    def finalists(self) -> list[str]:
        """The baseline, and the best of the others."""
        if self._final is None:
            others = [c for c in self._ranked() if c != self.pool.baseline]
            return [self.pool.baseline, *others[:FINALISTS]]
        return [c for c in self._final if c in self.pool.alive]

    # The rounds

    def _explore(
        self, store: RunStore, done: Collection[Key], trials: Trials
    ) -> Iterator[Iterable[Request]]:
        """New settings and the best of the older ones, round by round."""
        same = 0
        while len(self.known) < self.n_trials:
            n = min(BATCH, self.n_trials - len(self.known))
            older = {c: self._next(c) for c in self._ranked() if self._next(c) is not None}
            wanted: dict[str, int] = {c: end for c, end in list(older.items())[:MORE] if end}
            if self.known and not self._fits(wanted, n):
                self.stopped = f"budget: {self.ledger.spent.describe()}"
                return
            fresh = self._join(n, trials)
            same = 0 if fresh else same + 1
            if same == _SAME:
                self.stopped = "no other settings to propose"
                return
            store.add_plan(self.plan)
            yield from self._ask(store, done, wanted | dict.fromkeys(fresh, self.ends[0]), trials)
        self.stopped = f"all {self.n_trials} trials made"

    def _join(self, n: int, trials: Trials) -> list[str]:
        """Take the next trials: those in the file, as after a kill, or new ones; gives the cells that were not there."""
        first = len(self.known)
        batch = trials.trials[first : first + n]
        if len(batch) < n:
            directions = ["minimize" if o.minimise else "maximize" for o in self.objectives]
            known = [(t, self._told(cell)) for t, cell in self.known]
            seed = self.plan.study.seed
            made = propose(self.space, known, n, seed=seed, directions=directions)[len(batch) :]
            trials.add(made, [self._cell(t).label for t in made])
            batch = [*batch, *made]
        there = {c.cell_id for c in self.plan.cells}
        fresh = []
        for trial in batch:
            cell = self._cell(trial)
            self.known.append((trial, cell.cell_id))
            if cell.cell_id not in there:
                there.add(cell.cell_id)
                fresh.append(cell.cell_id)
                self.growing.add(cell)
                self.pool.add(cell.cell_id)
        return fresh

    def _cell(self, trial: Trial) -> Cell:
        """The cell that a trial is."""
        given = dict(trial.settings)
        base = self.plan.baseline
        adapter, template = given.pop("adapter", base.adapter), given.pop("template", base.template)
        defaults = self.ready.engine.info.checkpoint_defaults
        start = self.plan.study.start(defaults)
        return self.growing.named(
            Cell(SamplingParams.from_dict(start | given), adapter, None, template)
        )

    def _next(self, cell: str) -> int | None:
        """Where the next block of a cell ends; None if it answered all."""
        asked = self.pool.asked(cell)
        return next((end for end in self.ends if end > asked), None)

    def _ask(
        self,
        store: RunStore,
        done: Collection[Key],
        wanted: Mapping[str, int],
        trials: Trials | None = None,
    ) -> Iterator[Iterable[Request]]:
        """Ask cells up to some prompt, the baseline at least as far as they; learn from what comes back."""
        base = self.pool.baseline
        ends = dict(wanted)
        ends[base] = max([*ends.values(), self.pool.asked(base)])
        starts = {c: self.pool.asked(c) for c in ends}
        requests: list[Request] = []
        for i, prompt in enumerate(self.order):
            cells = {c for c, end in ends.items() if starts[c] <= i < end}
            requests += self.missing([prompt], cells, done) if cells else []
        may_lead = self.may_lead
        yield requests
        self.recall(store)
        asked = [c for c, end in ends.items() if end > starts[c]]
        gone = self.pool.update(
            {c: [self.mean(c, p.id) for p in self.order[starts[c] : ends[c]]] for c in asked},
            may_lead,
        )
        self._worth = self.pool.worth()
        self.tell(gone, self.pool.n_prompts, len(self.pool.alive), self.pool.leader())
        self._look(store, asked)
        self.probe(store, base)
        if trials is not None:
            self._report(trials, asked)
        self._note(store)

    def _look(self, store: RunStore, cells: Sequence[str]) -> None:
        """See who keeps to the limits, after timing some requests if times count; drop who surely breaks one."""
        if self.timing:
            for n in sorted(
                {self._timed.get(c, 0) for c in cells if self._timed.get(c, 0) < ROUNDS}
            ):
                mine = [c for c in cells if self._timed.get(c, 0) == n]
                self.time(store, mine, TIMED * (n + 1))
            self._timed |= {c: self._timed.get(c, 0) + 1 for c in cells}
            self._times = self.times(store)
        found = {cell: self.look(cell, self._times) for cell in self.pool.alive if self.limits}
        gone = [
            self.pool.drop(cell, why)
            for cell, why in found.items()
            if why is not None and cell != self.pool.baseline
        ]
        self.tell(gone, self.pool.n_prompts, len(self.pool.alive), self.pool.leader())

    def _fits(self, wanted: Mapping[str, int], n: int) -> bool:
        """Whether a round with ``n`` new cells fits: into its share, or beside all that the finalists can still be asked."""
        base = self.pool.baseline
        far = max([*wanted.values(), self.ends[0], self.pool.asked(base)])
        now = [(c, end - self.pool.asked(c)) for c, end in {**wanted, base: far}.items()]
        rows = rows_of(now, self) + n * self.ends[0] * self.plan.study.repeats
        timed = (len(now) + n) * TIMED if self.timing else 0
        last = self.finalists()
        least, most = (
            rows_of([(c, to - self.pool.asked(c)) for c in last], self)
            for to in (far + len(self.held_out), len(self.plan.prompt_set))
        )
        ledger, after = self.ledger, timed + self.final_timed(last)
        early = ledger.spent.share(EXPLORE).fits(ledger.cost(rows, timed))
        return (early and ledger.fits(rows + least, after)) or ledger.fits(rows + most, after)

    # The finalists

    def _finish(self, store: RunStore, done: Collection[Key]) -> Iterator[Iterable[Request]]:
        """The finalists answer as many prompts as any cell did, then on while the budget lasts."""
        self._final = self.finalists()
        while end := min((self._next(c) or 0 for c in self.finalists()), default=0):
            level = self.pool.asked(self.pool.baseline)
            cells = [c for c in self.finalists() if self._next(c) == end]
            if end > level:
                if self._decided():
                    break
                rest = [(c, end - level + len(self.held_out)) for c in self.finalists()]
                timed = self.final_timed(self.finalists())
                if not self.ledger.fits(rows_of(rest, self), timed):
                    self.stopped = f"budget: {self.ledger.spent.describe()}"
                    break
            yield from self._ask(store, done, dict.fromkeys(cells, end))

    def _decided(self) -> bool:
        """True if the finalists are the baseline and one that surely beats it, or the baseline alone."""
        left = self.finalists()
        return len(left) < 2 or (len(left) == 2 and self.pool.lost(self.pool.baseline))

    def _end(self, trials: Trials) -> None:
        """Tell Optuna how all trials ended."""
        for trial, cell in self.known:
            trials.end(trial, self._values(cell), pruned=cell in self.pool.dropped)
        trials.abandon(len(self.known))

    # What a cell is worth

    def _ranked(self) -> list[str]:
        """Cells alive, the best first; with several objectives those that nothing beats, the least asked first."""
        cells = sorted(
            self.pool.alive, key=lambda c: (c in self.infeasible, -self._worth.get(c, -2.0))
        )
        if len(self.objectives) == 1:
            return cells
        cells = [c for c in cells if c in self._worth and self.pool.asked(c)]
        cells = [c for c in cells if c not in self.infeasible] or cells
        first = front({c: self._losses(c) for c in cells})
        if self._final is None:
            first.sort(key=self.pool.asked)
        return first

    def _losses(self, cell: str) -> list[float]:
        """What a cell is worth, each objective so that less is better."""
        pairs = zip(self.objectives, self._values(cell), strict=True)
        return [value if o.minimise else -value for o, value in pairs]

    def _values(self, cell: str) -> list[float]:
        """What a cell is worth beside the baseline, one number for each objective."""
        values = [self._worth.get(cell, -1.0)]
        for objective in self.objectives[1:]:
            found = self._cost(cell, objective)
            values.append(found if math.isfinite(found) else 0.0)
        return values

    def _told(self, cell: str) -> list[float]:
        """The same for the sampler: a cell that breaks a limit as far as is known is no good, however good its answers are."""
        values = self._values(cell)
        return [-1.0, *values[1:]] if cell in self.infeasible else values

    def _cost(self, cell: str, objective: Objective) -> float:
        """Difference to the baseline on the prompts of both; NaN if nothing is known."""
        base = self.pool.baseline
        if not objective.timed:
            pairs = [
                [self.mean(c, p.id, objective.metric) for c in (cell, base)]
                for p in self.order[: self.pool.asked(cell)]
            ]
            gaps = np.array([a - b for a, b in pairs])
            return float(np.nanmean(gaps)) if (~np.isnan(gaps)).any() else math.nan
        if self._times is None:
            return math.nan
        limit = Limit(objective.metric, "<=", 0.0)
        mine, theirs = (self._times[self._times["cell_id"].eq(c)] for c in (cell, base))
        theirs = theirs[theirs["prompt_id"].isin(mine["prompt_id"])]
        return limit.estimate(mine[limit.column]) - limit.estimate(theirs[limit.column])

    def _report(self, trials: Trials, cells: Collection[str]) -> None:
        """Tell Optuna what trials are worth now."""
        for trial, cell in self.known:
            if cell in cells and cell in self._worth:
                trials.report(trial, self._worth[cell], self.pool.asked(cell))

    def _note(self, store: RunStore, *, measured: bool = False) -> None:
        asked = {cell: self.pool.asked(cell) for cell in self.pool.cells}
        stopped = {cell: drop.why for cell, drop in self.pool.dropped.items()}
        if self._final is not None:
            for cell in self.pool.alive:
                if cell not in self._final:
                    stopped[cell] = f"not among the best after {asked[cell]} prompts"
        more: dict[str, Any] = {"finalists": self.finalists(), "n_trials": len(self.known)}
        self.note(store, stopped, asked, measured=measured, **more)


def front(losses: Mapping[str, Sequence[float]]) -> list[str]:
    """The cells that no other beats: at least as good in everything and better in something.

    Args:
        losses: Cell to numbers of which less is better.

    >>> front({"a": [1, 2], "b": [2, 1], "c": [2, 2]})
    ['a', 'b']
    """

    def beaten(cell: str) -> bool:
        mine = tuple(losses[cell])
        return any(
            all(x <= y for x, y in zip(other, mine, strict=True)) and tuple(other) != mine
            for other in losses.values()
        )

    return [cell for cell in losses if not beaten(cell)]
