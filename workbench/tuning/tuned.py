"""Tuning a study: a race of its grid or a search of its ranges, and the decision in the end.

The run is a run like any other, with fewer rows; killed, it goes on and decides the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from workbench import api, runner
from workbench.analysis import plain
from workbench.deciding import decide
from workbench.deciding.choose import MIN_SIDE
from workbench.deciding.objective import TOKENS, Limit, parse_limits, parse_objectives
from workbench.errors import ParamError, StudyError
from workbench.plan import split_of
from workbench.prompts import load as load_prompts
from workbench.runs import Run
from workbench.scorers.several import get_scorers
from workbench.study import Study
from workbench.tuning.budget import Budget
from workbench.tuning.proposing import optuna
from workbench.tuning.racing import Racing
from workbench.tuning.searching import Searching, front
from workbench.tuning.timing import time_finalists

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from workbench.deciding import Decision
    from workbench.deciding.objective import Objective
    from workbench.prompts import Prompt
    from workbench.tuning.pool import Pool
    from workbench.tuning.race import Race

    Say = Callable[[str], None]

SHARES: Final = (0.3, 0.35, 0.4, 0.45, 0.5)
"""Shares of the prompts to hold out if the study says nothing: the smallest that holds out enough."""


@dataclass(frozen=True, slots=True, eq=False)
class Tuned:
    """What tuning found.

    Attributes:
        run: The run, with the rows that were asked.
        decision: What to use, from the cells that were not dropped.
        race: What is known of the cells: ``alive``, ``dropped``, ``standing()``.
        stopped: Why no more blocks were asked, in words.
        n_rows_grid: Rows that all cells on all prompts would have taken.
        front: With several objectives: the finalists that no other beats, a row each: ``cell_id``, ``settings`` and a column for
            each objective, on the prompts held out (times: on all that were timed). Else None.
    """

    run: Run
    decision: Decision
    race: Race | Pool = field(repr=False)
    stopped: str
    n_rows_grid: int
    front: pd.DataFrame | None = None

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
        out = {"run": run, "race": race, "decision": self.decision.to_dict(), "text": self.text}
        if self.front is not None:
            out["front"] = plain(self.front.to_dict("records"))
        return out

    @property
    def text(self) -> str:
        """The decision, the front if there are several objectives, and what was asked."""
        return "\n".join([self.decision.text, *self._front(), self.course])

    @property
    def course(self) -> str:
        """What was asked, in two sentences."""
        n, of = len(self.run.generations), len(self.race.cells)
        lost, told = len(self.race.dropped), self.run.manifest["race"]
        what, whole = "cells raced", "the whole grid"
        if self.run.study.search:
            what, whole = "settings were tried", "what all of them take on all prompts"
        last = len(told["finalists"])
        ends = f"{last:,} finalists, the baseline among them, answered the prompts held out"
        if not told["measured"]:
            ends = "no prompt held out was asked"
        other = of - lost - len(set(told["finalists"]) - set(self.race.dropped))
        rest = f"; {other:,} {'was' if other == 1 else 'were'} neither" if other else ""
        text = f"{of:,} {what} ({self.stopped}): {lost:,} {'was' if lost == 1 else 'were'} dropped on the way, {ends}{rest}."
        share = f"{100 * n / self.n_rows_grid:.0f} % of the {self.n_rows_grid:,} of {whole}"
        return f"{text} {n:,} rows were asked, {share}."

    def _front(self) -> list[str]:
        if self.front is None:
            return []
        names = [c for c in self.front.columns if c not in ("cell_id", "settings")]
        lines = [f"Of {len(names)} objectives ({', '.join(names)}) no other finalist beats:"]
        for row in self.front.to_dict("records"):
            shown = ", ".join(_figure(str(name), row[name]) for name in names)
            lines.append(f"  {row['settings']}: {shown}")
        return lines


def tune(
    study: Study | str | Path,
    engine: Any = None,
    out: str | Path = "results",
    *,
    objective: str | Sequence[str] | None = None,
    subject_to: str | Sequence[str] = (),
    budget: str | Sequence[str] = (),
    trials: int | None = None,
    alpha: float = 0.05,
    new: bool = False,
    limit: int | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> Tuned:
    """Find the best settings of a study with fewer rows than all of them take.

    Args:
        study: A study, or the path of a study file. With ``search`` its ranges are searched, else its grid races. Its ``split``
            says which prompts are held out for the decision.
        engine: Engine to use; it stays open. By default the one the study declares.
        out: Where run directories live.
        objective: Name of the study's scorer that counts, by default its first; in a search also several, such as
            "quality, -e2el_ms_p50".
        subject_to: Limits that the cell must keep to, as "e2el_ms_p90<=900"; see `workbench.deciding.objective`.
        budget: Limits of what is spent, as "20m", "200k tokens" or "5000 rows"; see `workbench.tuning.budget`.
        trials: Settings to propose at most, at least 1; by default 40, with a budget 200. Only of a search.
        alpha: Evidence of ``1 / alpha`` against its being the best drops a cell; above 0 and below 0.5.
        new: Start another run even if there is one of this study, tuned like this.
        limit: Only so many of the prompts, drawn by the study's seed.
        progress: Show progress bars.
        say: Told in one line what is going on; to standard error by default.

    Raises:
        StudyError: Fewer than two cells, no prompts to choose with, or a limit that cannot be read.
        ParamError: A budget that cannot be read or is too small, or an objective that is none.
        ScorerError: The study has no such scorer.
        WorkbenchError: A search without the package optuna.
        PromptSetError, ModelError, EngineError, StoreError: As in `workbench.api.run`.
    """
    limits = parse_limits([subject_to] if isinstance(subject_to, str) else subject_to)
    allowed = Budget.parse(budget) if budget else Budget()
    tell = say or runner.to_stderr
    declared = study if isinstance(study, Study) else Study.from_yaml(study)
    objectives = _check(declared, alpha, trials, objective)
    declared = _held_out(declared, limit, tell)
    with api.prepared(declared, engine, limit=limit, progress=progress, say=tell) as ready:
        asked: dict[str, Any] = {
            "method": "search" if declared.search else "race",
            "objective": ", ".join(map(str, objectives)),
            "subject_to": [str(x) for x in limits],
            "budget": str(allowed),
            "alpha": alpha,
        }
        blocks: Searching | Racing
        if declared.search:
            asked["trials"] = trials
            blocks = Searching(
                ready, objectives, limits, budget=allowed, trials=trials, alpha=alpha, say=tell
            )
        else:
            named = objectives[0].metric
            blocks = Racing(ready, named, limits, budget=allowed, alpha=alpha, say=tell)
        result = blocks.ready.run(
            out, progress=progress, new=new, say=say, notes={"tuning": asked}, blocks=blocks
        )
        if result.status == "interrupted":
            raise KeyboardInterrupt
        run = Run(result.dir)
        api.judge_alike(run, blocks.ready, new_rows=result.n_run > 0, say=tell)
        blocks.read(run)
        time_finalists(blocks, result.dir, progress=progress, say=say)
    done = Run(result.dir)
    done.write()
    decision = decide(done, subject_to=limits, objective=objectives[0].metric)
    decision.write()
    best = _front(done, objectives, blocks.finalists()) if len(objectives) > 1 else None
    return Tuned(done, decision, blocks.race, blocks.stopped, blocks.n_rows_whole, best)


def _check(
    study: Study, alpha: float, trials: int | None, objective: str | Sequence[str] | None
) -> tuple[Objective, ...]:
    """Everything that can be said before a model is loaded; the objectives."""
    if not 0 < alpha < 0.5:
        raise ParamError("alpha", "a number above 0 and below 0.5", alpha)
    if study.search:
        optuna()
    elif trials is not None:
        raise StudyError(study.name, "--trials goes with a search, and this study has none")
    if trials is not None and trials < 1:
        raise ParamError("--trials", "a whole number that is at least 1", trials)
    scorers = get_scorers(study.scorers, study.base_dir, study.repeats)
    objectives = parse_objectives(objective, [str(s.name) for s in scorers])
    if len(objectives) > 1 and not study.search:
        raise ParamError("--objective", "one, where a grid races", ", ".join(map(str, objectives)))
    return objectives


def _held_out(study: Study, limit: int | None, say: Say) -> Study:
    """The study, with some prompts held out; says how many if it chose them, and if either side is too small."""
    prompts = load_prompts(study.prompts, study.base_dir)
    if limit is not None:
        prompts = prompts.subset(limit, study.seed)
    groups = {p.cluster: p for p in prompts}.values()

    def held(share: float, of: Iterable[Prompt]) -> int:
        return sum(split_of(p, share) == "confirm" for p in of)

    share = study.split["confirm"]
    if not share:
        share = next((s for s in SHARES if held(s, groups) >= MIN_SIDE), SHARES[-1])
        study = study.replace(split={"confirm": share})
        say(
            f"split: the study holds no prompts out; tuning holds out {held(share, prompts)} of {len(prompts)} prompts"
        )
    last = held(share, groups)
    first = len(groups) - last
    if min(first, last) < MIN_SIDE:
        what = "prompts" if len(groups) == len(prompts) else "groups of prompts"
        say(
            f"split: {first} {what} to choose with, {last} held out: too few to show much ({MIN_SIDE} of each are needed)"
        )
    return study


def _front(run: Run, objectives: Sequence[Objective], finalists: Sequence[str]) -> pd.DataFrame:
    """The finalists that no other beats, the best in the first objective first."""
    answers = run.generations[run.generations["split"].eq("confirm")]
    asked = answers if len(answers) else run.generations
    scores = run.scores[run.scores["prompt_id"].isin(asked["prompt_id"])]
    timed = run.latency[run.latency["warm"].eq(1)]
    table = pd.DataFrame({"cell_id": list(finalists)})
    table["settings"] = table["cell_id"].map(run.cells.set_index("cell_id")["label"])
    for objective in objectives:
        if objective.timed:
            limit = Limit(objective.metric, "<=", 0.0)
            values = timed.groupby("cell_id")[limit.column].apply(limit.estimate)
        elif objective.metric == TOKENS:
            good = asked[asked["finish_reason"].ne("error")]
            values = good.groupby(["cell_id", "prompt_id"])[TOKENS].mean().groupby("cell_id").mean()
        else:
            mine = scores[scores["scorer"].eq(objective.metric)]
            means = mine.groupby(["cell_id", "prompt_id"])["value"].mean()
            values = means.groupby("cell_id").mean()
        table[str(objective)] = table["cell_id"].map(values).astype(float)
    table = table.dropna()
    signs = [1 if o.minimise else -1 for o in objectives]
    numbers = table[[str(o) for o in objectives]].to_numpy() * signs
    best = front(dict(zip(table["cell_id"], numbers.tolist(), strict=True)))
    kept = table[table["cell_id"].isin(best)]
    return kept.sort_values(str(objectives[0]), ascending=False).reset_index(drop=True)


def _figure(name: str, value: float) -> str:
    if "_ms_" in name:
        return f"{value:,.0f} ms"
    return f"{value:.1f} tokens" if TOKENS in name else f"{name} {100 * value:.1f} %"
