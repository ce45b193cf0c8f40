"""Tuning a study by racing: its cells answer the same blocks of prompts, losers leave, the winner is looked at again.

The select prompts are asked block by block (`workbench.tuning.race`); a cell that surely loses, or surely breaks a limit,
runs no further. What is left, with the baseline, then answers the prompts held out, and the decision is made from those
(`workbench.deciding`). The run is a run like any other, with fewer rows; killed, it goes on and decides the same.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench import api, latency, runner
from workbench.analysis import plain
from workbench.deciding import decide
from workbench.deciding.objective import QUALITY, parse_limits, parse_objective, surely_broken
from workbench.errors import ParamError, ScorerError, StudyError
from workbench.runs import Run
from workbench.study import Study
from workbench.tuning.budget import Budget, Cost
from workbench.tuning.race import Race, blocks, largest_group

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

    from workbench.deciding import Decision
    from workbench.deciding.objective import Limit
    from workbench.plan import Key
    from workbench.prompts import Prompt
    from workbench.records import Generation, Request
    from workbench.store import RunStore, ScoreRow
    from workbench.tuning.race import Drop

    Say = Callable[[str], None]

FINALISTS: Final = 5
"""Cells beside the baseline that answer the prompts held out."""
CONFIRM: Final = 0.3
"""Share of the prompts held out if the study says nothing."""
RECORD: Final = "race.json"
"""In the run directory: every block with its scores, from which the race can be run again."""
_NAMED: Final = 4
"""Cells named in a line."""
_TIMED: Final = 4
"""Prompts that are timed in every cell after a block, where latency is limited."""
_ROUNDS: Final = 4
"""Blocks after which that is done."""


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What tuning found.

    Attributes:
        run: The run, with the rows that were asked.
        decision: What to use, from the cells that were not dropped.
        race: The race: ``alive``, ``dropped``, ``standing()``.
        stopped: Why no more blocks were asked, in words.
        n_rows_grid: Rows the whole grid would have taken.
    """

    run: Run
    decision: Decision
    race: Race = field(repr=False)
    stopped: str
    n_rows_grid: int

    def to_dict(self) -> dict[str, Any]:
        """The decision and the race as plain values for JSON."""
        standing = [s._asdict() for s in self.race.standing()]
        race = {
            "stopped": self.stopped,
            "standing": plain(standing),
            "dropped": {name: drop.why for name, drop in self.race.dropped.items()},
            "n_rows": len(self.run.generations),
            "n_rows_grid": self.n_rows_grid,
        }
        run = {"run_id": self.run.manifest["run_id"], "dir": str(self.run.path)}
        return {"run": run, "race": race, "decision": self.decision.to_dict(), "text": self.text}

    @property
    def text(self) -> str:
        """The decision, and what the race did."""
        return f"{self.decision.text}\n{self.course}"

    @property
    def course(self) -> str:
        """What the race did, in two sentences."""
        n, left = len(self.run.generations), len(self.race.alive)
        share = f"{100 * n / self.n_rows_grid:.0f} % of the {self.n_rows_grid:,} of the whole grid"
        return (
            f"{len(self.race.cells):,} cells raced; {len(self.race.dropped):,} were dropped, {left:,} "
            f"{'is' if left == 1 else 'are'} left ({self.stopped}). {n:,} rows were asked, {share}."
        )


def tune(
    study: Study | str | Path,
    engine: Any = None,
    out: str | Path = "results",
    *,
    objective: str | None = None,
    subject_to: str | Sequence[str] = (),
    budget: str | Sequence[str] = (),
    alpha: float = 0.05,
    new: bool = False,
    limit: int | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> Tuned:
    """Find the best cell of a study with fewer rows than the whole grid takes.

    Args:
        study: A study, or the path of a study file; its ``split`` says which prompts are held out for the decision.
        engine: Engine to use; it stays open. By default the one the study declares.
        out: Where run directories live.
        objective: Name of the study's scorer that counts; by default its first.
        subject_to: Limits that the cell must keep to, as "e2el_ms_p90<=900"; see `workbench.deciding.objective`.
        budget: Limits of what is spent, as "20m", "200k tokens" or "5000 rows"; see `workbench.tuning.budget`.
        alpha: Probability at most with which the best cell is dropped for its scores.
        new: Start another run even if there is one of this study, tuned like this.
        limit: Only so many of the prompts, drawn by the study's seed.
        progress: Show progress bars.
        say: Told in one line what is going on; to standard error by default.

    Raises:
        StudyError: Fewer than two cells, no prompts to choose with, or a budget or limit that cannot be read.
        ScorerError: The study has no such scorer.
        PromptSetError, ModelError, EngineError, StoreError: As in `workbench.api.run`.
    """
    limits = parse_limits([subject_to] if isinstance(subject_to, str) else subject_to)
    allowed = Budget.parse(budget) if budget else Budget()
    if not 0 < alpha < 0.5:
        raise ParamError("alpha", "a number above 0 and below 0.5", alpha)
    tell = say or runner.to_stderr
    declared = _held_out(study if isinstance(study, Study) else Study.from_yaml(study), tell)
    with api.prepared(declared, engine, limit=limit, progress=progress, say=tell) as ready:
        named = _objective(ready, objective)
        racing = _Racing(ready, named, limits, budget=allowed, alpha=alpha, say=tell)
        asked = {
            "method": "race",
            "objective": named,
            "subject_to": [str(x) for x in limits],
            "budget": str(allowed),
            "alpha": alpha,
        }
        result = ready.run(
            out,
            progress=progress,
            new=new,
            say=say,
            notes={"tuning": asked},
            blocks=racing,
            on_row=racing.on_row,
        )
        if result.status == "interrupted":
            raise KeyboardInterrupt
        api.judge_alike(Run(result.dir), ready, new_rows=result.n_run > 0, say=tell)
        racing.read(result.dir)
        settings = ready.study.latency
        if settings:
            cells = racing.finalists()
            api.time_run(result.dir, ready, progress=progress, say=say, cells=cells, **settings)
    done = Run(result.dir)
    done.write()
    decision = decide(done, subject_to=limits, objective=objective)
    decision.write()
    return Tuned(done, decision, racing.race, racing.stopped, racing.plan.n_rows)


def _held_out(study: Study, say: Say) -> Study:
    """The study, with some prompts held out."""
    if study.split["confirm"]:
        return study
    say(f"split: the study holds no prompts out; tuning holds out {100 * CONFIRM:.0f} % of them")
    return study.replace(split={"confirm": CONFIRM})


def _objective(ready: api.Ready, text: str | None) -> str:
    """Name of the scorer that counts."""
    names = [str(s.name) for s in ready.scorers]
    if not names:
        raise ScorerError("a study without scorers cannot be tuned: name one in `scorers`")
    found = parse_objective(text or QUALITY, names)
    if found.minimise:
        allowed = ", ".join([QUALITY, *names])
        raise ParamError("--objective", f"one of {allowed}: the higher the better", text)
    return found.metric


class _Racing:
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
        plan = ready.plan
        self.ready, self.plan, self.objective = ready, plan, objective
        self.rounds = blocks(plan)
        self.held_out = [p for p in plan.prompt_set if plan.splits[p.id] == "confirm"]
        if len(plan.cells) < 2 or not self.rounds:
            what = "one cell" if len(plan.cells) < 2 else "no prompt to choose with"
            raise StudyError(plan.study.name, f"{what}: there is nothing to tune")
        self.race = Race(
            [c.cell_id for c in plan.cells],
            plan.baseline.cell_id,
            alpha=alpha,
            largest_group=largest_group(self.rounds),
        )
        self.stopped = "all prompts asked"
        self._labels = {c.cell_id: c.label for c in plan.cells}
        self._limits = [limit for limit in limits if limit.quantile is not None]
        self._budget = budget
        self._say = say
        self._scores: dict[tuple[str, str], list[float]] = {}
        self._rows = self._tokens = 0
        self._before_s = 0.0
        self._started_s = time.monotonic()

    def __call__(self, store: RunStore, done: Collection[Key]) -> Iterator[Iterable[Request]]:
        """The missing requests of each block, then those of the prompts held out."""
        self._recall(store)
        may_lead: list[str] | None = None
        for n, block in enumerate(self.rounds):
            if self.race.decided:
                self.stopped = "the others surely lose"
                break
            if n and not self._fits(block):
                self.stopped = f"budget: {self._spent().describe()}"
                break
            yield self._missing(block, self.race.alive, done)
            self._judge(block, may_lead)
            may_lead = self._time(store, n)
        yield self._missing(self.held_out, self.finalists(), done)
        note = {
            "stopped": self.stopped,
            "dropped": {cell: drop.why for cell, drop in self.race.dropped.items()},
            "finalists": self.finalists(),
            "n_rows_grid": self.plan.n_rows,
        }
        store.update_manifest(race=note)
        text = json.dumps(self.race.to_dict() | {"stopped": self.stopped}) + "\n"
        (store.dir / RECORD).write_text(text, encoding="utf-8")

    def on_row(self, generation: Generation, scores: Sequence[ScoreRow]) -> None:
        """Take note of a row."""
        found = [row.score.value for row in scores if row.scorer == self.objective]
        self._note(generation.cell_id, generation.prompt_id, found[0] if found else None)
        self._rows += 1
        self._tokens += generation.n_output_tokens

    def finalists(self) -> list[str]:
        """The baseline, and the best of the others that are left."""
        best = [s.cell for s in self.race.standing() if s.alive and s.cell != self.race.baseline]
        return [self.race.baseline, *best[:FINALISTS]]

    def read(self, directory: Path) -> None:
        """Take over the race of a run that was finished before."""
        if self.race.n_prompts:
            return
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        self.stopped = record.pop("stopped")
        self.race = Race.from_dict(record)

    def _note(self, cell: str, prompt: str, value: float | None) -> None:
        number = np.nan if value is None else value
        self._scores.setdefault((cell, prompt), []).append(number)

    def _recall(self, store: RunStore) -> None:
        """The rows that were answered by an earlier call."""
        scores = store.scores()
        scores = scores[scores["scorer"].eq(self.objective)]
        for cell, prompt, value in scores[["cell_id", "prompt_id", "value"]].itertuples(
            index=False
        ):
            self._note(cell, prompt, None if value is None else float(value))
        counts = store.counts()
        self._rows, self._tokens = counts.n_rows, counts.n_output_tokens
        self._before_s = sum(call["wall_s"] for call in store.manifest.get("calls", []))

    def _missing(
        self, prompts: Sequence[Prompt], cells: Sequence[str], done: Collection[Key]
    ) -> list[Request]:
        wanted = set(cells)
        chosen = [c for c in self.plan.cells if c.cell_id in wanted]
        keys = (
            (cell.cell_id, prompt.id, k)
            for prompt in prompts
            for cell in chosen
            for k in range(cell.rows(self.plan.study.repeats))
        )
        return [self.plan.request(*key) for key in keys if key not in done]

    def _judge(self, block: Sequence[Prompt], may_lead: Collection[str] | None) -> None:
        """Tell the race how the cells did, and say who leaves."""
        scores = [[self._mean(cell, p.id) for p in block] for cell in self.race.alive]
        gone = self.race.update(
            [p.id for p in block], [p.cluster for p in block], scores, may_lead=may_lead
        )
        self._tell(gone)

    def _mean(self, cell: str, prompt: str) -> float:
        values = np.array(self._scores.get((cell, prompt), []), float)
        known = values[~np.isnan(values)]
        return float(known.mean()) if known.size else np.nan

    def _tell(self, gone: Sequence[Drop]) -> None:
        if gone:
            names = ", ".join(self._labels[d.cell] for d in gone[:_NAMED])
            more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
            self._say(
                f"{self.race.n_prompts} prompts: {names}{more} dropped, {len(self.race.alive)} left; "
                f"{self._labels[self.race.leader()]} leads"
            )

    def _time(self, store: RunStore, n: int) -> list[str] | None:
        """Time some requests if latency is limited; drop who surely breaks a limit; who may lead from here on."""
        if not self._limits:
            return None
        if n < _ROUNDS:
            prompts = min(_TIMED * (n + 1), len(self.plan.prompt_set))
            latency.run(
                self.plan,
                self.ready.engine,
                store,
                prompts,
                warmup=1,
                rounds=1,
                cells=self.race.alive,
                seed=self.plan.study.seed,
                progress=False,
            )
        table = store.latency()
        table = table[table["warm"].eq(1) & table["round"].eq(0)].sort_values(
            ["t_start_utc", "order"]
        )
        keeping = []
        for cell in self.race.alive:
            mine = table[table["cell_id"].eq(cell)]
            broken = self._broken(mine)
            if broken is not None and cell not in self.race.keep:
                self._tell([self.race.drop(cell, broken)])
            elif all(limit.holds(mine[limit.column]) is not False for limit in self._limits):
                keeping.append(cell)
        return keeping

    def _broken(self, mine: pd.DataFrame) -> str | None:
        """The limit that a cell surely breaks, in words."""
        for limit in self._limits:
            values = mine[limit.column].to_numpy(float)
            if surely_broken(values, limit, mine["prompt_id"].tolist()):
                return (
                    f"surely breaks {limit}: {limit.estimate(values):.0f} in {len(values)} requests"
                )
        return None

    def _spent(self) -> Budget:
        wall_s = self._before_s + time.monotonic() - self._started_s
        return self._budget.spent(wall_s, self._tokens, self._rows)

    def _fits(self, block: Sequence[Prompt]) -> bool:
        """Whether a block still fits, with the prompts held out after it."""
        repeats = {c.cell_id: c.rows(self.plan.study.repeats) for c in self.plan.cells}
        rows = len(block) * sum(repeats[c] for c in self.race.alive)
        rows += len(self.held_out) * sum(repeats[c] for c in self.finalists())
        spent = self._spent()
        each = max(self._rows, 1)
        cost = Cost(spent.used.wall_s / each * rows, round(self._tokens / each * rows), rows)
        return spent.fits(cost)
