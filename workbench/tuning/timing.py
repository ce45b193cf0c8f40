"""The latency pass of the finalists: as many requests as the limits need, and no more than the budget has left."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

from workbench import api
from workbench.analysis import measured
from workbench.latency import MIN_N, schedule
from workbench.plan import duration
from workbench.resample import MIN_FOR_MEDIAN
from workbench.runs import Run
from workbench.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from workbench.deciding.objective import Limit
    from workbench.tuning.asking import Asking

__all__ = ["needed", "per_cell", "settings", "time_finalists"]

PASS: Final = {"prompts": 8, "warmup": 2, "rounds": 3}
"""Of a study that says nothing of latency, where times count."""
MORE: Final = 3
"""Times more is timed where requests were disturbed and do not count."""


def needed(limit: Limit) -> int:
    """Timed requests of a cell from which a limit on times can be judged; 0 for another limit.

    >>> from workbench.deciding.objective import parse_limits
    >>> [needed(x) for x in parse_limits(["e2el_ms_p50<=9", "e2el_ms_p90<=9", "loop_rate<=0.1"])]
    [20, 64, 0]
    """
    if limit.quantile is None:
        return 0
    least = next(n for most, n in MIN_N if 100 * limit.quantile <= most)
    return max(MIN_FOR_MEDIAN, least)


def settings(
    declared: Mapping[str, int] | None,
    limits: Sequence[Limit],
    n_prompts: int,
    *,
    timed: bool = False,
) -> dict[str, int] | None:
    """The latency pass that a study declares, raised to what the limits need: first prompts, then rounds.

    Args:
        declared: ``prompts``, ``warmup`` and ``rounds``; None: no pass, unless times count.
        limits: What a cell must keep to.
        n_prompts: Prompts there are.
        timed: Whether an objective is a time.
    """
    least = max([needed(limit) for limit in limits], default=0)
    if not declared and not least and not timed:
        return None
    out = dict(declared or PASS)
    out["prompts"] = min(n_prompts, max(out["prompts"], math.ceil(least / out["rounds"])))
    out["rounds"] = max(out["rounds"], math.ceil(least / out["prompts"]))
    return out


def per_cell(found: Mapping[str, int]) -> int:
    """Requests of a cell in a latency pass, warm-up aside."""
    return found["prompts"] * found["rounds"]


def time_finalists(
    asking: Asking, path: Path, *, progress: bool, say: Callable[[str], None] | None
) -> None:
    """Time the finalists while the budget lasts, and say what is not known if it does not.

    Raises:
        KeyboardInterrupt: Ctrl-C; the run is then interrupted.
    """
    race = Run(path).manifest["race"]
    if asking.pass_settings is not None and race["measured"] and "timed" not in race:
        _Pass(asking, path, progress=progress, say=say).run()


class _Pass:
    """The latency pass of the finalists of a run."""

    def __init__(
        self,
        asking: Asking,
        path: Path,
        *,
        progress: bool,
        say: Callable[[str], None] | None,
    ) -> None:
        assert asking.pass_settings is not None
        self.asking, self.path, self.cells = asking, path, asking.finalists()
        self.wanted = dict(asking.pass_settings)
        self.options: dict[str, Any] = {"progress": progress, "say": say, "cells": self.cells}
        self.started_s = time.monotonic()
        now = asking.ledger.now
        self.sent = max(int(Run(path).latency["warm"].eq(1).sum()) - now.timed, 0)
        # What a call that was interrupted here took is told by what it left.
        self.before_s = now.wall_s + self.sent * now.request_s

    def run(self) -> None:
        """Time what is missing, and note that it is over."""
        request_s = self.asking.ledger.now.request_s
        if not request_s:
            self._time(prompts=1, rounds=1)
            spent_s = time.monotonic() - self.started_s
            request_s = spent_s / (max(self.sent, 1) + self.wanted["warmup"])
        if n := self._left():
            self.asking.say(
                f"timing the {len(self.cells)} finalists, {n:,} requests one at a time: about {duration(n * request_s)}"
            )
        self._time()
        least = max([needed(limit) for limit in self.asking.limits], default=0)
        for _ in range(MORE):  # requests that others disturbed do not count
            short = least - self._counted()
            if short <= 0 or self._over():
                break
            self.wanted["rounds"] += math.ceil(short / self.wanted["prompts"])
            self._time()
        unfinished = self._left() > 0
        if self._over() or not unfinished:
            self._conclude("budget spent" if unfinished else "done")

    def _over(self) -> bool:
        """Whether the budget is spent by now."""
        ledger, now = self.asking.ledger, self.asking.ledger.now
        wall_s = self.before_s + time.monotonic() - self.started_s
        tokens = now.tokens + ledger.cost(0, self.sent).tokens
        return ledger.budget.spent(wall_s, tokens, now.rows + now.timed + self.sent).exhausted

    def _enough(self) -> bool:
        """The same, before each request; counts it."""
        over = self._over()
        self.sent += not over
        return over

    def _time(self, **changes: int) -> None:
        if self._over() or not self._left():
            return
        options = {**self.wanted, **changes, **self.options}
        api.time_run(self.path, self.asking.ready, enough=self._enough, **options)
        if Run(self.path).manifest["status"] == "interrupted":
            raise KeyboardInterrupt

    def _conclude(self, why: str) -> None:
        """Note that timing is over, and say what is not known."""
        counted = self._counted()
        short = [x for x in self.asking.limits if counted < needed(x)]
        if short:
            unknown = ", ".join(f"{x} ({counted} of {needed(x)} requests a cell)" for x in short)
            self.asking.say(f"timing: {why}; not known for all finalists: {unknown}")
        elif why != "done":
            self.asking.say(f"timing: {why}, {counted} requests a cell")
        with RunStore.open(self.path, write=True) as store:
            store.update_manifest(race=store.manifest["race"] | {"timed": why})

    def _left(self) -> int:
        """Requests of the pass that are not timed yet."""
        n, rounds = self.wanted["prompts"], self.wanted["rounds"]
        slots = schedule(self.asking.plan, n, rounds, self.cells, 0)
        with RunStore.open(self.path) as store:
            done = store.latency_keys()
        return sum((*slot.request.key, slot.round) not in done for slot in slots)

    def _counted(self) -> int:
        """Fewest requests of a cell that count."""
        table = Run(self.path).latency
        timed = measured(table)["cell_id"].tolist() if len(table) else []
        return min(timed.count(cell) for cell in self.cells)
