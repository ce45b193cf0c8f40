"""What racing and searching share: what came back, what is missing, who keeps to the limits, and what still fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench import latency
from workbench.deciding.objective import RATES, TOKENS, surely_broken
from workbench.errors import ParamError
from workbench.scorers.degeneration import has_loop
from workbench.tuning import timing
from workbench.tuning.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import pandas as pd

    from workbench import api
    from workbench.deciding.objective import Limit
    from workbench.plan import Key
    from workbench.prompts import Prompt
    from workbench.records import Request
    from workbench.store import RunStore
    from workbench.tuning.budget import Budget
    from workbench.tuning.race import Drop

    Say = Callable[[str], None]

FINALISTS: Final = 5
"""Cells beside the baseline that answer the prompts held out."""
TIMED: Final = 4
"""Prompts that are timed in every cell after a block, where times count."""
ROUNDS: Final = 4
"""Blocks of a cell after which that is done."""
_NAMED: Final = 4
"""Cells named in a line."""


class Asking:
    """A run that is asked for block by block.

    Args:
        ready: The study and its engine.
        metrics: What is read of the answers: names of scorers, or "n_output_tokens"; the first one decides.
        limits: What a cell must keep to; looked at after each block.
        budget: What may be spent.
        say: Told who leaves.
        timed: Whether an objective is a time.

    Attributes:
        infeasible: Cells that break a limit as far as is known by now.
        pass_settings: Of the latency pass in the end, enough for the limits; None if there is none.
    """

    def __init__(
        self,
        ready: api.Ready,
        metrics: Sequence[str],
        limits: Sequence[Limit],
        budget: Budget,
        say: Say,
        *,
        timed: bool = False,
    ) -> None:
        plan = ready.plan
        self.ready, self.plan, self.metrics = ready, plan, tuple(metrics)
        self.held_out = [p for p in plan.prompt_set if plan.splits[p.id] == "confirm"]
        self.stopped = "all prompts asked"
        self.limits, self.say = tuple(limits), say
        self.timing = timed or any(limit.quantile is not None for limit in limits)
        self.pass_settings = timing.settings(
            plan.study.latency, limits, len(plan.prompt_set), timed=timed
        )
        self.ledger = Ledger(budget)
        self.infeasible: set[str] = set()
        self._final: list[str] | None = None
        self._means: dict[str, dict[Any, float]] = {}
        self._answers: dict[tuple[str, str], dict[int, dict[str, float]]] = {}

    # What came back

    def recall(self, store: RunStore) -> None:
        """Read what was answered so far, by this call or an earlier one."""
        scores = store.scores(["cell_id", "prompt_id", "scorer", "value"])
        for metric in self.metrics:
            if metric == TOKENS:
                found = store.generations(["cell_id", "prompt_id", TOKENS, "finish_reason"])
                found = found[found["finish_reason"].ne("error")].rename(columns={TOKENS: "value"})
            else:
                found = scores[scores["scorer"].eq(metric)]
            values = found["value"].astype(float).groupby([found["cell_id"], found["prompt_id"]])
            self._means[metric] = dict(values.mean().to_dict())
        self._recall_answers(store)

    def _recall_answers(self, store: RunStore) -> None:
        """What limits on answers need of them."""
        columns = {limit.column for limit in self.limits if limit.quantile is None}
        if not columns:
            return
        text = ["text"] if "loop_rate" in columns else []
        names = ["cell_id", "prompt_id", "repeat", "finish_reason", TOKENS, *text]
        rows: Any = store.generations(names)
        for row in rows[rows["finish_reason"].ne("error")].itertuples(index=False):
            mine = self._answers.setdefault((row.cell_id, row.prompt_id), {})
            if row.repeat not in mine:
                mine[row.repeat] = {
                    TOKENS: row.n_output_tokens,
                    "truncated_rate": row.finish_reason == "length",
                    "loop_rate": has_loop(row.text) if text else np.nan,
                }

    def mean(self, cell: str, prompt: str, metric: str | None = None) -> float:
        """Mean over repeats of a metric, by default the first; NaN if nothing is known."""
        return self._means[metric or self.metrics[0]].get((cell, prompt), np.nan)

    def asked(self, cell: str) -> Sequence[Prompt]:
        """The prompts that a cell was asked so far, those held out aside, in order."""
        raise NotImplementedError

    def finalists(self) -> list[str]:
        """The baseline, and the best of the others."""
        raise NotImplementedError

    # Limits

    def look(self, cell: str, times: pd.DataFrame | None) -> str | None:
        """See whether a cell keeps the limits as far as is known; the one that it surely breaks, in words."""
        self.infeasible.discard(cell)
        for limit in self.limits:
            values, groups, what = self._limited(cell, limit, times)
            if limit.holds(values) is False:
                self.infeasible.add(cell)
            most = next(c.params.max_tokens for c in self.plan.cells if c.cell_id == cell)
            if surely_broken(values, limit, groups, most=most):
                found = limit.estimate(values)
                said = f"{100 * found:.0f} %" if limit.metric in RATES else f"{found:.0f}"
                self.infeasible.add(cell)
                return f"surely breaks {limit}: {said} in {len(values)} {what}"
        return None

    def _limited(
        self, cell: str, limit: Limit, times: pd.DataFrame | None
    ) -> tuple[list[float], list[str], str]:
        """What a limit is on, in the order of the prompts, and the group of each."""
        if limit.quantile is not None:
            assert times is not None
            mine = times[times["cell_id"].eq(cell)]
            values = mine[limit.column].astype(float).tolist()
            return values, mine["prompt_id"].tolist(), "requests"
        pairs = [
            (float(values[limit.column]), p.cluster)
            for p in self.asked(cell)
            for _, values in sorted(self._answers.get((cell, p.id), {}).items())
        ]
        return [v for v, _ in pairs], [group for _, group in pairs], "answers"

    @property
    def may_lead(self) -> list[str] | None:
        """The cells that others may lose to; None = all."""
        if not self.limits:
            return None
        return [c.cell_id for c in self.plan.cells if c.cell_id not in self.infeasible]

    # What is asked

    def repeats(self, cell: str) -> int:
        """Rows that a cell takes for a prompt."""
        found = next(c for c in self.plan.cells if c.cell_id == cell)
        return found.rows(self.plan.study.repeats)

    def missing(
        self, prompts: Sequence[Prompt], cells: Collection[str], done: Collection[Key]
    ) -> list[Request]:
        """The requests of some cells for some prompts that are not answered."""
        chosen = [(c.cell_id, c.rows(self.plan.study.repeats)) for c in self.plan.cells]
        keys = (
            (cell, prompt.id, k)
            for prompt in prompts
            for cell, rows in chosen
            if cell in cells
            for k in range(rows)
        )
        return [self.plan.request(*key) for key in keys if key not in done]

    def label(self, cell: str) -> str:
        """A cell for people."""
        return next(c.label for c in self.plan.cells if c.cell_id == cell)

    def tell(self, gone: Sequence[Drop], n_prompts: int, left: int, leader: str) -> None:
        """Say who leaves."""
        if gone:
            names = ", ".join(self.label(d.cell) for d in gone[:_NAMED])
            more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
            self.say(
                f"{n_prompts} prompts: {names}{more} dropped, {left} left; {self.label(leader)} leads"
            )

    # Times

    def time(self, store: RunStore, cells: Sequence[str], prompts: int) -> None:
        """Time one round of some prompts.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        if not cells:
            return
        found = latency.run(
            self.plan,
            self.ready.engine,
            store,
            min(prompts, len(self.plan.prompt_set)),
            warmup=1,
            rounds=1,
            cells=cells,
            progress=False,
        )
        self.ledger.saw(found, 1)
        if found.status == "interrupted":
            raise KeyboardInterrupt

    def probe(self, store: RunStore, cell: str) -> None:
        """Time one request, where time is limited and nobody knows yet what the latency pass in the end takes."""
        if self.ledger.budget.wall_s and self.pass_settings and not self.ledger.request_s:
            self.time(store, [cell], 1)

    def times(self, store: RunStore) -> pd.DataFrame:
        """The requests timed up to the block under way, in the order in which they were sent."""
        table = store.latency()
        table = table[table["warm"].eq(1)].sort_values(["t_start_utc", "order"])
        ahead = self.ledger.ahead
        return table if ahead is None else table.head(ahead.timed)

    # What still fits

    def check_budget(self, cells: int, rows: int, prompts: int) -> None:
        """Refuse a budget that the first block and the least that must follow it surely exceed.

        Args:
            cells: Cells of the first block.
            rows: Its rows.
            prompts: Its prompts.

        Raises:
            ParamError: With what it takes.
        """
        budget = self.ledger.budget
        each = [c.rows(self.plan.study.repeats) for c in self.plan.cells]
        held = len(self.held_out) * (self.repeats(self.plan.baseline.cell_id) + min(each))
        timed = 0
        if self.timing:
            assert self.pass_settings is not None
            n = len(self.plan.prompt_set)
            timed = cells * min(TIMED, n) + 2 * (
                timing.per_cell(self.pass_settings) - min(TIMED, n)
            )
        needed = rows + held + timed
        for name, limit in (("rows", budget.rows), ("tokens", budget.tokens)):
            if limit is not None and limit < needed:
                parts = [
                    f"{rows:,} for {prompts} prompts of {cells} cells",
                    f"{held:,} for the {len(self.held_out)} prompts held out, baseline and one cell",
                    *([f"{timed:,} to time"] if timed else []),
                ]
                raise ParamError(
                    "--budget",
                    f"at least {needed:,} {name} for this study ({'; '.join(parts)})",
                    str(budget),
                )

    def final_rows(self, cells: Sequence[str]) -> int:
        """Rows of some cells for the prompts held out."""
        return rows_of([(cell, len(self.held_out)) for cell in cells], self)

    def final_timed(self, cells: Sequence[str]) -> int:
        """Requests of the latency pass in the end."""
        return len(cells) * timing.per_cell(self.pass_settings) if self.pass_settings else 0

    def affordable(self, finalists: Sequence[str]) -> list[str]:
        """As many of the finalists, baseline first, as can answer the prompts held out, and be timed if that is possible."""
        for timed in (True, False):
            for n in range(len(finalists), min(len(finalists), 2) - 1, -1):
                some = list(finalists[:n])
                if self.ledger.fits(self.final_rows(some), self.final_timed(some) if timed else 0):
                    if n < len(finalists):
                        self.say(
                            f"budget: {n - 1} of {len(finalists) - 1} finalists beside the baseline can be measured"
                        )
                    return some
        rows = self.final_rows(finalists[:2])
        self.say(
            f"budget: used up ({self.ledger.spent.describe()}); the prompts held out take {rows:,} rows more, so no "
            "gain is measured: give a larger one"
        )
        return []

    def note(
        self,
        store: RunStore,
        dropped: Mapping[str, str],
        asked: Mapping[str, int],
        **more: Any,
    ) -> None:
        """End a block: keep in the manifest how far it is, for tables and pictures to mark cells that stopped early."""
        self.ledger.close(store, timing=self.timing or self.ledger.request_s > 0)
        race = {
            "stopped": self.stopped,
            "dropped": dict(dropped),
            "n_prompts": dict(asked),
            **more,
            "blocks": self.ledger.to_list(),
        }
        store.update_manifest(n_cells=len(self.plan.cells), race=race)


def rows_of(blocks: Iterable[tuple[str, int]], asking: Asking) -> int:
    """Rows that cells take for so many prompts each."""
    return sum(max(n, 0) * asking.repeats(cell) for cell, n in blocks)
