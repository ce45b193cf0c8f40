"""What racing and searching share: reading what came back, asking for what is missing, timing, and the budget."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench import latency
from workbench.deciding.objective import TOKENS, surely_broken
from workbench.tuning.budget import Budget, Cost

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import pandas as pd

    from workbench import api
    from workbench.deciding.objective import Limit
    from workbench.plan import Key
    from workbench.prompts import Prompt
    from workbench.records import Request
    from workbench.store import RunStore
    from workbench.tuning.race import Drop

    Say = Callable[[str], None]

FINALISTS: Final = 5
"""Cells beside the baseline that answer the prompts held out."""
TIMED: Final = 4
"""Prompts that are timed in every cell after a block, where latency counts."""
ROUNDS: Final = 4
"""Blocks of a cell after which that is done."""
_NAMED: Final = 4
"""Cells named in a line."""


class Asking:
    """A run that is asked for block by block.

    Args:
        ready: The study and its engine.
        metrics: What is read of the answers: names of scorers, or "n_output_tokens"; the first one decides.
        limits: What a cell must keep to; those on times are looked at after each block.
        budget: What may be spent.
        say: Told who leaves.
    """

    def __init__(
        self,
        ready: api.Ready,
        metrics: Sequence[str],
        limits: Sequence[Limit],
        budget: Budget,
        say: Say,
    ) -> None:
        plan = ready.plan
        self.ready, self.plan, self.metrics = ready, plan, tuple(metrics)
        self.held_out = [p for p in plan.prompt_set if plan.splits[p.id] == "confirm"]
        self.stopped = "all prompts asked"
        self.limits = [limit for limit in limits if limit.quantile is not None]
        self.budget, self.say = budget, say
        self._means: dict[str, dict[Any, float]] = {}
        self._rows = self._tokens = 0
        self._before_s = 0.0
        self._started_s = time.monotonic()

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
        counts = store.counts()
        self._rows, self._tokens = counts.n_rows, counts.n_output_tokens
        self._before_s = sum(call["wall_s"] for call in store.manifest.get("calls", []))

    def mean(self, cell: str, prompt: str, metric: str | None = None) -> float:
        """Mean over repeats of a metric, by default the first; NaN if nothing is known."""
        return self._means[metric or self.metrics[0]].get((cell, prompt), np.nan)

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

    def time(self, store: RunStore, cells: Sequence[str], n: int) -> None:
        """Time some requests of cells that answered ``n`` blocks before this one."""
        if n < ROUNDS and cells:
            latency.run(
                self.plan,
                self.ready.engine,
                store,
                min(TIMED * (n + 1), len(self.plan.prompt_set)),
                warmup=1,
                rounds=1,
                cells=cells,
                seed=self.plan.study.seed,
                progress=False,
            )

    def times(self, store: RunStore) -> pd.DataFrame:
        """The timed requests, in the order in which they were sent."""
        table = store.latency()
        table = table[table["warm"].eq(1) & table["round"].eq(0)]
        return table.sort_values(["t_start_utc", "order"])

    def broken(self, mine: pd.DataFrame) -> str | None:
        """The limit that a cell surely breaks by its timed requests, in words."""
        for limit in self.limits:
            values = mine[limit.column].to_numpy(float)
            if surely_broken(values, limit, mine["prompt_id"].tolist()):
                return (
                    f"surely breaks {limit}: {limit.estimate(values):.0f} in {len(values)} requests"
                )
        return None

    def keeps(self, mine: pd.DataFrame) -> bool:
        """Whether a cell keeps the limits as far as is known."""
        return all(limit.holds(mine[limit.column]) is not False for limit in self.limits)

    def spent(self) -> Budget:
        """The budget with what is used up."""
        wall_s = self._before_s + time.monotonic() - self._started_s
        return self.budget.spent(wall_s, self._tokens, self._rows)

    def cost(self, rows: int) -> Cost:
        """What so many rows will take, going by those so far."""
        each = max(self._rows, 1)
        return Cost(self.spent().used.wall_s / each * rows, round(self._tokens / each * rows), rows)

    def note(
        self,
        store: RunStore,
        dropped: Mapping[str, str],
        asked: Mapping[str, int],
        **more: Any,
    ) -> None:
        """Keep in the manifest how far it is, for tables and pictures to mark cells that stopped early: why, and when."""
        store.update_manifest(
            n_cells=len(self.plan.cells),
            race={
                "stopped": self.stopped,
                "dropped": dict(dropped),
                "n_prompts": dict(asked),
                **more,
            },
        )


def rows_of(blocks: Iterable[tuple[str, int]], asking: Asking) -> int:
    """Rows that cells take for so many prompts each."""
    return sum(max(n, 0) * asking.repeats(cell) for cell, n in blocks)
